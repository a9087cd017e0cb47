"""Peak memory of staining a small and a large volume with the same network, beside what was predicted.

python benchmarks/staining_memory.py [--shapes 512,512,512 512,2048,2048] [--backend openvino] [--memory-gib 2]

The network is the tile-exact ResNet-9 with 64 filters. The volumes are air but for a noisy patch in one plane of each
64, in a block drawn at random, so that the network works at its full tile size in each layer of blocks, beside
reading and writing, and the run is short; each block is read, kept, written and halved as any other is.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
import torch

from _results import Figure, save
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="*", default=["512,512,512", "512,2048,2048"])
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--memory-gib", type=float, default=2.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        torch.manual_seed(0)
        spec = NetSpec("resnet", {"norm": "batch", "skips": False})
        Stainer(build_generator(spec, 1, 3).eval(), spec, CTRange(0.0, 65_535.0), "toluidine blue", 5.0).save(
            home / "stainer"
        )
        figures = []
        for text in asked.shapes:
            depth, rows, columns = map(int, text.split(","))
            slices = home / f"ct_{text}"
            slices.mkdir()
            rng = np.random.default_rng(0)
            for z in range(depth):
                plane = np.full((rows, columns), 1000, np.uint16)
                if z % 64 == 5:
                    row, column = (int(rng.integers(n // 512)) * 512 + 300 for n in (rows, columns))
                    plane[row : row + 40, column : column + 40] = rng.integers(0, 65_536, (40, 40))
                tifffile.imwrite(slices / f"{z:04d}.tif", plane, compression="zlib", rowsperstrip=64)
            out = home / f"{text}.ome.zarr"
            words = ["stain", str(home / "stainer"), str(slices), str(out), "--spacing-um", "5", "5", "5"]
            command = [sys.executable, "-m", "tomostain", *words, "--backend", asked.backend]
            command += ["--memory-gib", str(asked.memory_gib)]
            process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
            printed = process.stderr.read() if process.stderr else ""
            _, status, usage = os.wait4(process.pid, 0)
            predicted = re.search(r"predicted peak memory: (.*)", printed)
            tiles = re.search(r"tiles of (.*?),", printed)
            print(
                f"{text}: {'finished' if status == 0 else printed.strip().splitlines()[-1]}, peak "
                f"{usage.ru_maxrss / 2**20:.2f} GiB, predicted {predicted[1] if predicted else 'nothing'}, tiles "
                f"{tiles[1] if tiles else 'none'}",
                flush=True,
            )
            value = f"{usage.ru_maxrss / 2**20:.2f} GiB (predicted {predicted[1] if predicted else 'nothing'})"
            figures.append(Figure(text, value, target=f"{asked.memory_gib:g} GiB"))
        save("staining_memory", figures, note=f"backend {asked.backend}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
