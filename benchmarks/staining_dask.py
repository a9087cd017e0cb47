"""Stain one volume with one Dask worker and with two, each of one thread, and compare times and files.

python benchmarks/staining_dask.py [--planes 16] [--size 1024] [--width 64] [--backend openvino] [--pairs 2]

The network is the tile-exact ResNet-9; blocks are single files of 512 x 512 px. The time runs from the moment at which
all workers have their network ready (imports and compiling are reported apart) to the last file on disk. A file is
encoded whole, 64 planes, however few the volume has: with few planes that costs more than it does in a deep volume.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from _results import Figure, save
from tomostain.images.geometry import Grid
from tomostain.io.ome_zarr import create_volume
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--planes", type=int, default=16)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--memory-gib", type=float, nargs=2, default=[1.40, 2.36], help="of one worker, of two")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        torch.manual_seed(0)
        spec = NetSpec("resnet", {"width": asked.width, "norm": "batch", "skips": False})
        model = Stainer(build_generator(spec, 1, 3).eval(), spec, CTRange(0.0, 255.0), "toluidine blue", 5.0)
        model.save(home / "stainer")
        noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((asked.size, asked.size)), 3)
        plane = np.clip(128 + 600 * noise, 0, 255).astype(np.uint8)
        shape = (asked.planes, asked.size, asked.size)
        with create_volume(home / "ct.ome.zarr", Grid(shape, (5, 5, 5))) as writer:
            writer[tuple(slice(0, n) for n in shape)] = np.stack([np.roll(plane, 7 * z) for z in range(asked.planes)])
        (home / "probe.py").write_text(PROBE)
        times, files = [], []
        for workers in (1, 2) * asked.pairs:
            out = home / str(len(times)) / "v.ome.zarr"
            words = ["stain", str(home / "stainer"), str(home / "ct.ome.zarr"), str(out), "--cluster"]
            words += [f"local:{workers}", "--backend", asked.backend]
            words += ["--memory-gib", str(asked.memory_gib[workers - 1])]
            done = subprocess.run(
                [sys.executable, str(home / "probe.py"), *words],
                capture_output=True,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                check=False,
            )
            if done.returncode:
                print(done.stderr)
                return 1
            words = done.stdout.split()
            times.append(float(words[words.index("seconds") + 1]))
            found = (path for path in out.rglob("*") if path.is_file() and path.name != "run.json")
            files.append({path.relative_to(out).as_posix(): path.read_bytes() for path in found})
            tile = json.loads((out / "run.json").read_text())["results"]["tile_px"]
            set_up = float(words[words.index("seconds") + 2])
            print(f"{workers} worker(s): {times[-1]:.1f} s, tiles {tile}; set-up {set_up:.1f} s", flush=True)
            if tile != [512, 512]:
                print("one and two workers must have the same tiles, of 512 x 512 px: change --memory-gib")
                return 1
        one, two = sum(times[::2]), sum(times[1::2])
        same = all(found == files[0] for found in files)
        print(f"two workers: {one / two:.2f} x one; {'the same files' if same else 'FILES DIFFER'}")
        value = f"{two / asked.pairs:.1f} s against {one / asked.pairs:.1f} s, {'the same' if same else 'OTHER'} files"
        save("staining_dask", [Figure("two workers of one thread against one", value, ratio=one / two)])
    return int(not same)


PROBE = """
import pickle, sys, time
from contextlib import contextmanager
from tomostain.cli import main
from tomostain.staining import cluster, volume

connect, stain, jobs = cluster.connected, volume.stain_on_cluster, []

def noted(job, run, name):
    jobs.append(job)
    stain(job, run, name)

@contextmanager
def timed(name):
    job = jobs[-1]
    connecting = time.perf_counter()
    with connect(name) as client:
        client.wait_for_workers(cluster.workers_of(name))
        client.run(make_ready, pickle.dumps(job))
        begun = time.perf_counter()
        yield client
        print("seconds", time.perf_counter() - begun, begun - connecting, flush=True)

def make_ready(payload):
    cluster._ready(payload)

if __name__ == "__main__":
    cluster.connected, volume.stain_on_cluster = timed, noted
    sys.exit(main())
"""


if __name__ == "__main__":
    sys.exit(main())
