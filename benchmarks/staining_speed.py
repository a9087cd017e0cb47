"""How fast a whole volume is stained, beside the loops that others use, on the same planes and the same machine.

python benchmarks/staining_speed.py [--size 2048] [--planes 2] [--threads 2] [--backends torch openvino]
python benchmarks/staining_speed.py --stainer DEMO/stainer --like DEMO/cohort/S05/ct.ome.zarr
python benchmarks/staining_speed.py --only sliding stain          (needs MONAI: pip install --no-deps monai==1.6.1)

Measured, on one stack of PLANES TIFF slices of SIZE x SIZE px:

- reference: the CycleGAN reference's own test loop: ResNet-9, 64 filters, InstanceNorm and transposed convolutions,
  fp32, slice by slice, in tiles of 512 px (its fastest: whole slices of 2048 px are slower), each written as a TIFF; no
  pyramid. It is run on 1024 x 1024 px before and after each of the others, for the speed of a shared machine drifts;
  what is printed is against the mean of both.
- sliding: the tile-exact network through MONAI's SlidingWindowInferer, windows of 256 px, 0.25 overlap, gaussian, fp32,
  on 1024 x 1024 px; and how far it is from the plane stained whole.
- stain: `tomostain stain`, TIFF stack in, OME-Zarr with pyramid out, with each backend named; from the first block read
  to the last file on disk. Starting Python, self-test and compiling are reported apart (set-up).
- kept: the time of the same tiles through the same predictor with nothing beside it, as a share of the run's.

The network is --stainer (benchmarks/staining_net.py trains one; differences mean little on random weights), or random.
Planes are mirrored out of --like, or noise. With --differences, each backend's volume is compared with `torch`'s.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from scipy import ndimage

from _results import Figure, processor, save
from tomostain.images.image import Volume
from tomostain.inference.backends import BACKENDS
from tomostain.io.volumes import read_volume
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange, RGBRange
from tomostain.learning.stainer import Stainer

REFERENCE = NetSpec("resnet", {"norm": "instance", "up": "transposed", "skips": False})
EXACT = NetSpec("resnet", {"norm": "batch", "skips": False})
REFERENCE_PX, TRIED_PX = 512, 1024


@dataclass(frozen=True)
class Speed:
    """Millions of voxels per second of the clock, and per second of processor time (other programs slow it less)."""

    wall: float
    cpu: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--planes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--backends", nargs="*", default=["torch", "openvino"])
    parser.add_argument("--memory-gib", type=float, default=2.0)
    parser.add_argument("--only", nargs="*", default=["reference", "sliding", "stain"])
    parser.add_argument("--stainer", type=Path, default=None)
    parser.add_argument("--like", default=None)
    parser.add_argument("--differences", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(f"{processor()}, {asked.threads} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        ct = make_slices(home / "ct", asked.planes, asked.size, asked.like)
        stainer = make_stainer(home / "stainer", asked.stainer, asked.like)
        reference = Reference(ct[0]) if "reference" in asked.only else None
        if "sliding" in asked.only:
            sliding_windows(Stainer.load(stainer), ct[0], reference)
        for name in asked.backends if "stain" in asked.only else ():
            stained(home, name, stainer, ct, reference, asked)
    save("staining_speed", FIGURES, note="ratios of processor time")
    return 0


def make_slices(folder: Path, planes: int, size: int, like: str | None) -> np.ndarray:
    if like is None:
        rng = np.random.default_rng(0)
        noise = ndimage.gaussian_filter(rng.standard_normal((planes, size, size)), (1, 4, 4))
        ct = np.clip(30_000 + 250_000 * noise, 0, 65_535).astype(np.uint16)
    else:
        volume = read_volume(Path(like))
        first = max(0, (volume.shape[0] - planes) // 2)
        low, step = counts_of(volume)
        slab = np.asarray(volume[first : first + planes])
        ct = np.pad(slab, [(0, 0), *((0, max(0, size - n)) for n in slab.shape[1:])], mode="symmetric")
        ct = np.round((ct[:, :size, :size] - low) / step).astype(np.uint16)
    folder.mkdir()
    for z, plane in enumerate(ct):
        tifffile.imwrite(folder / f"slice_{z:04d}.tif", plane)
    return ct


def counts_of(volume: Volume) -> tuple[float, float]:
    """Value of count 0 and step of a count where a volume is written as uint16, as scanners do."""
    values = np.asarray(volume[:])
    return float(values.min()), float(np.ptp(values)) / 65_535


def make_stainer(folder: Path, known: Path | None, like: str | None) -> Path:
    """A network of random weights; or the known one, its range in the counts that ``make_slices`` writes."""
    if known is not None:
        model = Stainer.load(known)
        if like is not None:
            low, step = counts_of(read_volume(Path(like)))
            counts = CTRange((model.ct_range.low - low) / step, (model.ct_range.high - low) / step)
            model = replace(model, ct_range=counts)
        return model.save(folder)
    torch.manual_seed(0)
    net = build_generator(EXACT, 1, 3)
    Stainer(net, EXACT, CTRange(0.0, 65_535.0), "toluidine blue", 5.0).save(folder)
    return folder


def measured(one: Callable[[Any], int], parts: Sequence[Any]) -> Speed:
    """How fast a function that returns its voxels goes through parts of a plane."""
    wall, cpu = time.perf_counter(), time.process_time()
    voxels = sum(map(one, parts)) / 1e6
    return Speed(voxels / (time.perf_counter() - wall), voxels / (time.process_time() - cpu))


class Reference:
    """The reference's loop, measured again whenever it is asked."""

    def __init__(self, plane: np.ndarray) -> None:
        torch.manual_seed(0)
        self.net = build_generator(REFERENCE, 1, 3).eval()
        self.low, self.high = float(plane.min()), float(plane.max())
        part = plane[:TRIED_PX, :TRIED_PX]
        steps = [(y, x) for y in range(0, len(part), REFERENCE_PX) for x in range(0, part.shape[1], REFERENCE_PX)]
        self.tiles = [part[y : y + REFERENCE_PX, x : x + REFERENCE_PX] for y, x in steps]
        self._one(self.tiles[0])

    def speed(self) -> Speed:
        return measured(self._one, self.tiles)

    def _one(self, tile: np.ndarray) -> int:
        with tempfile.TemporaryDirectory() as folder:
            tifffile.imwrite(Path(folder) / "in.tif", tile)
            values = tifffile.imread(Path(folder) / "in.tif").astype(np.float32)
            unit = 2.0 * (values - self.low) / (self.high - self.low) - 1.0
            with torch.no_grad():
                stained = self.net(torch.from_numpy(unit)[None, None])[0].permute(1, 2, 0).numpy()
            tifffile.imwrite(Path(folder) / "out.tif", RGBRange.from_unit(stained))
        return tile.size


FIGURES: list[Figure] = []


def beside(reference: Reference | None, measure: Callable[[], Speed | None], name: str) -> None:
    """Measure the reference, the thing, and the reference again; print the thing's speed against the mean."""
    before = reference.speed() if reference else None
    speed = measure()
    if speed is None:
        return
    text = f"{name:24} {speed.wall:.4f} Mvoxel/s, {speed.cpu:.4f} per second of processor time"
    if reference and before:
        after = reference.speed()
        wall, cpu = 0.5 * (before.wall + after.wall), 0.5 * (before.cpu + after.cpu)
        text += (
            f"; {speed.wall / wall:.2f} x the reference ({before.wall:.4f} before, {after.wall:.4f} after), "
            f"{speed.cpu / cpu:.2f} x by processor time"
        )
        FIGURES.append(Figure(name, f"{speed.wall:.4f} Mvoxel/s", ratio=speed.cpu / cpu, peer="the reference's loop"))
    print(text, flush=True)


def sliding_windows(model: Stainer, plane: np.ndarray, reference: Reference | None) -> None:
    try:
        from monai.inferers import SlidingWindowInferer
    except ImportError as error:
        print(f"MONAI sliding windows: NOT MEASURED ({error}); pip install --no-deps monai==1.6.1")
        return
    infer = SlidingWindowInferer((256, 256), sw_batch_size=1, overlap=0.25, mode="gaussian")
    part = plane[:TRIED_PX, :TRIED_PX]
    stained = np.empty((*part.shape, 3), np.uint8)

    def one(values: np.ndarray) -> int:
        unit = torch.from_numpy(model.prepared(values[None].astype(np.float32)))[None]
        with torch.inference_mode():
            found = infer(unit.to(memory_format=torch.channels_last), model.net)[0].permute(1, 2, 0).numpy()
        stained[:] = RGBRange.from_unit(found)
        return values.size

    beside(reference, lambda: measured(one, [part]), "MONAI sliding windows")
    off = np.abs(stained.astype(np.int16) - model(part.astype(np.float32), tile_px=512))
    print(f"    against the plane stained whole: {off.mean():.3f} mean, {off.max()} most, of 255")


def stained(
    home: Path, backend: str, stainer: Path, ct: np.ndarray, reference: Reference | None, asked: argparse.Namespace
) -> None:
    """Run the command as a user does, with a clock around its run and around its network."""
    if not BACKENDS[backend].available(Stainer.load(stainer)):
        print(f"stain, {backend}: NOT MEASURED, it is not available here")
        return
    out = home / f"{backend}.ome.zarr"
    words = ["stain", str(stainer), str(home / "ct"), str(out), "--spacing-um", "5", "5", "5", "--any-scale"]
    words += ["--backend", backend, "--memory-gib", str(asked.memory_gib)]
    (home / "benchmark_probe.py").write_text(PROBE)
    environment = {**os.environ, "OMP_NUM_THREADS": str(asked.threads)}
    environment["PYTHONPATH"] = os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")])
    clock: dict[str, float] = {}

    def run() -> Speed | None:
        script = "import sys; from benchmark_probe import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode:
            print(f"stain, {backend}: {done.stderr.strip().splitlines()[-1]}")
            return None
        clock.update(json.loads(done.stdout.splitlines()[-1]))
        return Speed(ct.size / clock["run_s"] / 1e6, ct.size / clock["run_cpu_s"] / 1e6)

    beside(reference, run, f"stain, {backend}")
    if not clock:
        return
    results = json.loads((out / "run.json").read_text())["results"]
    print(
        f"    kept {clock['bare_s'] / clock['run_s']:.1%} of the bare network's speed (which was at work "
        f"{clock['network_s'] / clock['run_s']:.1%} of the time), halo "
        f"{results['network_px_per_voxel']:.2f} x, tiles {results['tile_px']}, set-up {clock['setup_s']:.1f} s, peak "
        f"{clock['peak_gib']:.2f} GiB; {results['self_test'][-1]}"
    )
    if asked.differences and backend != "torch" and (home / "torch.ome.zarr").exists():
        ours, fp32 = (read_volume(home / f"{name}.ome.zarr") for name in (backend, "torch"))
        off = np.abs(ours[:, :, :].astype(np.int16) - fp32[:, :, :])
        print(f"    of all {off.size} values: {off.mean():.4f} mean, {off.max()} most of 255 from fp32", flush=True)


PROBE = """
import json, resource, sys, time
from collections import Counter
import numpy as np
import tomostain.staining.volume as step
from tomostain.cli import main as command

clock = {}

def stain_here(work, run, predictors):
    clock["setup_s"] = time.perf_counter() - clock["begun"]
    shapes = Counter()
    for block in work.plan.blocks():
        z = block.core[work.plan.cut.axis]
        for tile in work.plan.tiles(block):
            shapes[tuple(part.stop - part.start for part in tile.outer)] += z.stop - z.start
    rng = np.random.default_rng(0)
    low, high = sorted(map(float, work.ct[0:1][0, :2, 0]))
    def bare():
        total = 0.0
        for shape, count in shapes.items():
            ct = rng.uniform(low, high + 1e-3, (1, work.plan.planes, *shape)).astype(np.float32)
            begun = time.perf_counter()
            predictors[0](ct)
            total += count * (time.perf_counter() - begun)
        return total
    def timed(predict):
        def call(ct):
            begun = time.perf_counter()
            found = predict(ct)
            clock["network_s"] += time.perf_counter() - begun
            return found
        return call
    clock["network_s"] = 0.0
    bare()  # a backend may compile for each shape
    before = bare()
    begun, cpu = time.perf_counter(), time.process_time()
    inner(work, run, [timed(predict) for predict in predictors])
    clock["run_s"], clock["run_cpu_s"] = time.perf_counter() - begun, time.process_time() - cpu
    clock["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    clock["bare_s"] = 0.5 * (before + bare())

inner, step.stain_here = step.stain_here, stain_here

def main():
    clock["begun"] = time.perf_counter()
    status = command(sys.argv[1:])
    print(json.dumps(clock))
    return status
"""


if __name__ == "__main__":
    sys.exit(main())
