"""What a block costs beside its network: reading it, writing it, its share of the pyramid. Feeds docs/scaling.md.

python benchmarks/staining_parts.py [--folder WHERE]     (on the disk that is to be judged; needs about 700 MB)

Printed per voxel of output, in seconds of the clock and of processor time, for one thread of each stage.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from _results import Figure, save
from tomostain.io.ome_zarr import open_writer
from tomostain.io.volumes import read_volume
from tomostain.staining.blocks import choose_cut, plan_blocks
from tomostain.staining.work import Work

SHAPE = (128, 1024, 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        home = Path(folder)
        (home / "ct").mkdir()
        for z in range(SHAPE[0]):
            plane = 30_000 + 250_000 * ndimage.gaussian_filter(rng.standard_normal(SHAPE[1:]), 4)
            tifffile.imwrite(home / "ct" / f"{z:04d}.tif", np.clip(plane, 0, 65_535).astype(np.uint16))
        ct = read_volume(home / "ct", spacing_um=(5, 5, 5))
        plan = plan_blocks(choose_cut(SHAPE), planes=1, halo_px=88, align_px=4)
        work = Work(ct, plan, open_writer(home / "v.ome.zarr", SHAPE, colours=3))
        blocks = plan.blocks()
        smooth = ndimage.gaussian_filter(rng.standard_normal((3, 64, 512, 512)).astype(np.float32), (0, 3, 3, 3))
        colours = np.clip(128 + 900 * smooth + rng.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)
        voxels = colours[0].size
        figures = [
            measure("read (TIFF, uint16, with halo)", voxels * len(blocks), lambda: [work.read(b) for b in blocks]),
            measure("write (8 shards)", voxels * len(blocks), lambda: [work.write(b, colours) for b in blocks]),
            measure("pyramid (1 shard above them)", voxels * len(blocks), lambda: work.build((1, (0, 0, 0)))),
        ]
        size = sum(path.stat().st_size for path in (home / "v.ome.zarr" / "0").rglob("*") if path.is_file())
        save("staining_parts", figures, note="one thread")
        print(f"compressed to {size / (3 * voxels * len(blocks)):.2f} of its bytes")
    return 0


def measure(what: str, voxels: int, do: Callable[[], object]) -> Figure:
    wall, cpu = time.perf_counter(), time.process_time()
    do()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what:32} {voxels / wall / 1e6:8.1f} Mvoxel/s, {voxels / cpu / 1e6:8.1f} per second of processor time")
    return Figure(what, f"{voxels / cpu / 1e6:.0f} Mvoxel per second of processor time")


if __name__ == "__main__":
    sys.exit(main())
