"""Kill a staining run with SIGKILL at random moments, resume it each time, and compare with an undisturbed run.

python benchmarks/staining_kill.py [--kills 50] [--seed 0]

A volume of 10 blocks is stained by a small network. The moments are drawn evenly over the length of the run; a run that
is killed before it has finished anything begins anew. Compared are all files of the two outputs, byte for byte. Every
run notes in a file when a block leaves its network. Blocks in that file that are not in the journal were stained whole
and are stained again.
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
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from _results import Figure, save
from tomostain.images.geometry import Grid
from tomostain.io.ome_zarr import create_volume
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer
from tomostain.staining.run import journal_path

SHAPE = (640, 140, 150)
"""Ten layers of 64 planes: 10 blocks, and the levels above them."""
BLOCKS = 10


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
        subprocess.run(command(home, home / "whole" / "v.ome.zarr"), check=True, capture_output=True)
        length = time.monotonic() - begun
        print(f"undisturbed: {length:.1f} s for {BLOCKS} blocks")
        killed, rounds, differ, refused = 0, 0, 0, 0
        repeated: list[int] = []
        while killed < asked.kills:
            out = home / f"round{rounds}" / "v.ome.zarr"
            finished, rounds = False, rounds + 1
            while not finished:
                due = killed < asked.kills
                (home / "stained").write_text("")
                process = subprocess.Popen(
                    command(home, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=probed(home)
                )
                try:
                    _, printed = process.communicate(timeout=chance.uniform(0, length) if due else None)
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    process.communicate()
                    killed += 1
                    stained = set((home / "stained").read_text().splitlines())
                    whole = (out / "run.json").exists()  # killed at its very end: its journal is gone, nothing is lost
                    repeated.append(0 if whole else len(stained - noted(out)))
                else:
                    finished = True
                    if process.returncode:
                        refused += 1
                        print(printed)
            same = files(out) == files(home / "whole" / "v.ome.zarr")
            differ += not same
            print(f"run {rounds}: {killed} kills so far, {'the same files' if same else 'FILES DIFFER'}", flush=True)
            shutil.rmtree(out)
        print(
            f"{killed} kills in {rounds} runs: {differ} outputs differ from the undisturbed one, {refused} runs "
            f"refused to resume; blocks stained whole and not yet noted at a kill, and how often: "
            f"{sorted(Counter(repeated).items())}"
        )
    value = f"{differ} outputs differ, {refused} runs refused to resume"
    again = ", ".join(f"{count} after {times} kills" for count, times in sorted(Counter(repeated).items()))
    figures = [
        Figure(f"{killed} kills in {rounds} runs", value),
        Figure("blocks stained whole and stained again", again),
    ]
    save("staining_kill", figures)
    return int(differ + refused > 0)


def prepare(home: Path) -> None:
    (home / "probe.py").write_text(PROBE)
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
    return [sys.executable, str(home / "probe.py"), *words, "--backend", "torch"]


def probed(home: Path) -> dict[str, str]:
    """The environment of a run that notes in ``stained`` each block that leaves the network."""
    return {**os.environ, "STAINED": str(home / "stained")}


PROBE = """
import os, sys
from tomostain.cli import main
from tomostain.staining.work import Work

stain = Work.stain

def reported(self, block, values, predict):
    found = stain(self, block, values, predict)
    if "STAINED" in os.environ:
        with open(os.environ["STAINED"], "a") as file:
            file.write(f"{list(block.corner)}\\n")
    return found

Work.stain = reported
sys.exit(main())
"""


def noted(out: Path) -> set[str]:
    """Places of the blocks that the journal has."""
    try:
        lines = journal_path(out).read_text().splitlines()[1:]
    except FileNotFoundError:
        return set()
    found = set()
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if entry["level"] == 0:
            found.add(str(list(entry["at"])))
    return found


def files(out: Path) -> dict[str, bytes]:
    found = (path for path in out.rglob("*") if path.is_file() and path.name != "run.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


if __name__ == "__main__":
    sys.exit(main())
