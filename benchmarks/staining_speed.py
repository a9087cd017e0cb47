"""How fast a whole volume is stained, beside the loops that others use, on the same network size and planes.

python benchmarks/staining_speed.py [--size 512] [--planes 6] [--threads 2]

Measured, on one stack of TIFF slices of SIZE x SIZE px, PLANES of them:

- reference: the CycleGAN reference's own test loop: ResNet-9, 64 filters, InstanceNorm and transposed convolutions,
  fp32, a whole plane at a time, each written as a TIFF; no pyramid.
- sliding: the tile-exact network through MONAI's SlidingWindowInferer, windows of 256 px, 0.25 overlap, gaussian
  (left out where MONAI is not installed).
- stain: `tomostain stain`, TIFF stack in, OME-Zarr with pyramid out, the tile-exact ResNet-9 with 64 filters, for each
  backend named; the record's self-test, halo cost and peak memory are told with it.
- bare: the same tiles through the same backend with nothing around it; the share of it that `stain` keeps.

Weights are random but the same everywhere; speed does not depend on them. Differences of int8 from fp32 do: see them
on a trained stainer (the self-test does, on the volume itself).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from scipy import ndimage

from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange, RGBRange
from tomostain.learning.stainer import Stainer
from tomostain.staining.backends import BACKENDS

REFERENCE = NetSpec("resnet", {"norm": "instance", "up": "transposed", "skips": False})
EXACT = NetSpec("resnet", {"skips": False})


@dataclass(frozen=True)
class Speed:
    """Millions of voxels per second of the clock, and per second of processor time (other programs slow it less)."""

    wall: float
    cpu: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--planes", type=int, default=6)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--backends", nargs="*", default=["torch", "winograd", "openvino", "openvino-int8"])
    parser.add_argument("--memory-gib", type=float, default=2.0)
    parser.add_argument("--only", nargs="*", default=["reference", "sliding", "stain"])
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(f"{platform.processor() or platform.machine()}, {asked.threads} threads, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        ct = make_slices(home / "ct", asked.planes, asked.size)
        base = None
        if "reference" in asked.only:
            base = reference_loop(home)
            tell("reference loop", base, base)
        exact = make_stainer(home / "stainer")
        if "sliding" in asked.only:
            speed = sliding_windows(exact, ct)
            if speed:
                tell("MONAI sliding windows", speed, base)
        for name in asked.backends if "stain" in asked.only else ():
            stained(home, name, exact, ct, base, asked)
    return 0


def make_slices(folder: Path, planes: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.standard_normal((planes, size, size)), (1, 4, 4))
    ct = np.clip(30_000 + 250_000 * noise, 0, 65_535).astype(np.uint16)
    folder.mkdir()
    for z, plane in enumerate(ct):
        tifffile.imwrite(folder / f"slice_{z:04d}.tif", plane)
    return ct


def make_stainer(folder: Path) -> Stainer:
    torch.manual_seed(0)
    net = build_generator(EXACT, 1, 3)
    Stainer(net, EXACT, CTRange(0.0, 65_535.0), "toluidine blue", 5.0).save(folder)
    return Stainer.load(folder)


def measured(one: Callable[[Any], int], planes: Sequence[Any]) -> Speed:
    """How fast a function that returns its voxels goes through planes."""
    wall, cpu = time.perf_counter(), time.process_time()
    voxels = sum(map(one, planes)) / 1e6
    return Speed(voxels / (time.perf_counter() - wall), voxels / (time.process_time() - cpu))


def reference_loop(home: Path) -> Speed:
    """The reference's loop."""
    torch.manual_seed(0)
    net = build_generator(REFERENCE, 1, 3).eval()
    (home / "reference").mkdir()
    files = sorted((home / "ct").glob("*.tif"))

    def one(file: Path) -> int:
        plane = tifffile.imread(file)
        image = torch.from_numpy(plane.astype(np.float32) / 32_767.5 - 1.0)[None, None]
        with torch.no_grad():
            painted = net(image)[0].permute(1, 2, 0).numpy()
        tifffile.imwrite(home / "reference" / file.name, RGBRange.from_unit(painted))
        return plane.size

    one(files[0])
    return measured(one, files)


def sliding_windows(model: Stainer, ct: np.ndarray) -> Speed | None:
    try:
        from monai.inferers import SlidingWindowInferer
    except ImportError as error:
        print(f"MONAI sliding windows: not measured ({error})")
        return None
    infer = SlidingWindowInferer((256, 256), sw_batch_size=1, overlap=0.25, mode="gaussian")

    def one(plane: np.ndarray) -> int:
        unit = torch.from_numpy(model.prepared(plane[None].astype(np.float32)))[None]
        with torch.inference_mode():
            RGBRange.from_unit(infer(unit.to(memory_format=torch.channels_last), model.net)[0].permute(1, 2, 0).numpy())
        return plane.size

    one(ct[0])
    return measured(one, ct)


def stained(
    home: Path, backend: str, model: Stainer, ct: np.ndarray, base: Speed | None, asked: argparse.Namespace
) -> None:
    """Run the command as a user does, with a clock around its run and around its network."""
    if not BACKENDS[backend].available(model):
        print(f"stain, {backend}: not available here")
        return
    out = home / f"{backend}.ome.zarr"
    words = ["stain", str(home / "stainer"), str(home / "ct"), str(out), "--spacing-um", "5", "5", "5"]
    words += ["--backend", backend, "--memory-gib", str(asked.memory_gib)]
    script = "import sys; from benchmark_probe import main; sys.exit(main())"
    probe = home / "benchmark_probe.py"
    probe.write_text(PROBE)
    environment = {**os.environ, "OMP_NUM_THREADS": str(asked.threads)}
    environment["PYTHONPATH"] = os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        print(f"stain, {backend}: {done.stderr.strip().splitlines()[-1]}")
        return
    clock = json.loads(done.stdout.splitlines()[-1])
    results = json.loads((out / "run.json").read_text())["results"]
    speed = Speed(ct.size / clock["run_s"] / 1e6, ct.size / clock["run_cpu_s"] / 1e6)
    tell(f"stain, {backend}", speed, base)
    kept = clock["network_s"] / clock["run_s"]
    print(
        f"    network at work {kept:.1%} of the run, halo {results['network_px_per_voxel']:.2f} x, tiles "
        f"{results['tile_px']}, set-up {clock['setup_s']:.1f} s, peak {clock['peak_gib']:.2f} GiB; "
        f"{results['self_test'][-1]}"
    )


PROBE = """
import json, resource, sys, time
import tomostain.steps.stain as step
from tomostain.cli import main as command
from tomostain.staining import local

clock = {"network_s": 0.0}

def timed(paint):
    def call(ct):
        begun = time.perf_counter()
        painted = paint(ct)
        clock["network_s"] += time.perf_counter() - begun
        return painted
    return call

def stain_here(work, run, painters):
    clock["setup_s"] = time.perf_counter() - clock["begun"]
    painters = [timed(paint) for paint in painters]
    begun, cpu = time.perf_counter(), time.process_time()
    inner(work, run, painters)
    clock["run_s"], clock["run_cpu_s"] = time.perf_counter() - begun, time.process_time() - cpu

inner, step.stain_here = step.stain_here, stain_here

def main():
    clock["begun"] = time.perf_counter()
    status = command(sys.argv[1:])
    clock["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(clock))
    return status
"""


def tell(name: str, speed: Speed, base: Speed | None) -> None:
    against = f"; {speed.wall / base.wall:.2f} x, {speed.cpu / base.cpu:.2f} x the reference" if base else ""
    print(f"{name:24} {speed.wall:.4f} Mvoxel/s, {speed.cpu:.4f} per second of processor time{against}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
