"""Kill a staining run with SIGKILL at random moments, resume it each time, and compare with an undisturbed run.

python benchmarks/staining_kill.py [--kills 50] [--seed 0]

A volume of 24 blocks is stained by a small network. The moments are drawn evenly over the length of the run; a run that
is killed before it has finished anything begins anew. Compared are all files of the two outputs, byte for byte, and the
blocks that were painted more than once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from tomostain.images.geometry import Grid
from tomostain.images.ome_zarr import create_volume
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer
from tomostain.staining.run import journal_path

SHAPE = (384, 560, 600)
"""Six layers of 64 planes, 2 x 2 shards each: 24 blocks, and three levels above them."""
BLOCKS = 24


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        prepare(home)
        begun = time.monotonic()
        subprocess.run(command(home, home / "whole.ome.zarr"), check=True, capture_output=True)
        length = time.monotonic() - begun
        print(f"undisturbed: {length:.1f} s for {BLOCKS} blocks")
        killed, rounds, differ, most_repeated, refused = 0, 0, 0, 0, 0
        while killed < asked.kills:
            out = home / f"round{rounds}.ome.zarr"
            finished, rounds = False, rounds + 1
            while not finished:
                due = killed < asked.kills
                process = subprocess.Popen(
                    command(home, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                )
                before = noted(out)
                try:
                    _, told = process.communicate(timeout=chance.uniform(0, length) if due else None)
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    process.communicate()
                    killed += 1
                    lost = in_flight(out, before)
                    most_repeated = max(most_repeated, lost)
                else:
                    finished = True
                    if process.returncode:
                        refused += 1
                        print(told)
            same = files(out) == files(home / "whole.ome.zarr")
            differ += not same
            print(f"run {rounds}: {killed} kills so far, {'the same files' if same else 'FILES DIFFER'}", flush=True)
            shutil.rmtree(out)
        print(
            f"{killed} kills in {rounds} runs: {differ} outputs differ from the undisturbed one, {refused} runs "
            f"refused to resume; painted but not yet noted at a kill: at most {most_repeated} block(s)"
        )
    return int(differ + refused > 0)


def prepare(home: Path) -> None:
    torch.manual_seed(0)
    spec = NetSpec("resnet", {"width": 4, "depth": 1})
    net = build_generator(spec, 1, 3).eval()
    Stainer(net, spec, CTRange(0.0, 255.0), "toluidine blue", 5.0).save(home / "stainer")
    values = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    with create_volume(home / "ct.ome.zarr", Grid(SHAPE, (5, 5, 5))) as writer:
        for z in range(0, SHAPE[0], 64):
            writer[z : z + 64, 0 : SHAPE[1], 0 : SHAPE[2]] = values[z : z + 64]


def command(home: Path, out: Path) -> list[str]:
    words = ["stain", str(home / "stainer"), str(home / "ct.ome.zarr"), str(out), "--resume", "--tile-px", "512", "512"]
    return [sys.executable, "-m", "tomostain", *words, "--backend", "torch"]


def noted(out: Path) -> int:
    """Whole lines of the journal that tell of a block."""
    try:
        lines = journal_path(out).read_text().splitlines()[1:]
    except FileNotFoundError:
        return 0
    count = 0
    for line in lines:
        try:
            count += json.loads(line)["level"] == 0
        except ValueError:
            break
    return count


def in_flight(out: Path, before: int) -> int:
    """Shards on disk of blocks that the journal does not have: work that is done again."""
    written = len([p for p in (out / "0" / "c").rglob("*") if p.is_file() and p.suffix != ".partial"])
    return max(0, written - noted(out))


def files(out: Path) -> dict[str, bytes]:
    found = (path for path in out.rglob("*") if path.is_file() and path.name != "run.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


if __name__ == "__main__":
    sys.exit(main())
