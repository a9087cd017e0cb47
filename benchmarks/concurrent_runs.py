"""Two runs start within moments of each other on one output: one is refused, and what lies there is one run's alone.

For every pairing of writing steps that can have the same output, with random delays; then runs that are killed while
they write and rename, and are repeated: the files must be those of a run that was left alone.

    python benchmarks/concurrent_runs.py [--timings 20] [--kills 20] [--steps stain train]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from tomostain.cli import COMMANDS, main

TINY = [
    "--width",
    "4",
    "--depth",
    "1",
    "--discriminator-width",
    "4",
    "--discriminator-depth",
    "1",
    "--patch-px",
    "16",
    "--steps",
    "2",
    "--threads",
    "1",
    "--min-weight",
    "0",
]
PHANTOM = ["--specimens", "2", "--slides", "1", "--size", "24", "48", "48"]
DEMO = ["--specimens", "2", "--held-out", "1", "--slides", "1", "--size", "24", "64", "64", "--steps", "2"]
GOES_ON = ("pair table", "pair cohort", "demo")
"""Steps that go on with a finished output, so that both runs may succeed, one after the other."""


def preload() -> None:
    """Import all steps, so that the processes that are forked from this one need not."""
    for target in COMMANDS.values():
        importlib.import_module(target.partition(":")[0])


def study(desk: Path) -> dict[str, dict[str, list[list[str]]]]:
    """Make the inputs; by output name, the words of each step with two choices of inputs."""
    for seed in (0, 1):
        cohort, pairs, stainer = desk / f"cohort{seed}", desk / f"pairs{seed}", desk / f"stainer{seed}"
        quiet("phantom", cohort, *PHANTOM, "--seed", seed)
        quiet("pair", cohort, pairs)
        quiet("train", pairs, stainer, *TINY, "--hold-out", "S01", "--seed", seed)
        quiet("evaluate", stainer, pairs, desk / f"evaluation{seed}", "--metrics", "ssim")
        specimen = cohort / "S00"
        (desk / f"table{seed}.csv").write_text(
            f"volume,slide,placement,specimen,name\n{specimen}/ct.ome.zarr,{specimen}/slides/00.tif,"
            f"{specimen}/slides/00.placement.json,S{seed},line\n"
        )
    both = (0, 1)
    slides = {seed: sorted((desk / f"cohort{seed}" / "S00" / "slides").glob("*.tif"))[0] for seed in both}
    for seed in both:
        stem = slides[seed].name.removesuffix(".tif")
        table = desk / f"table{seed}.csv"
        table.write_text(
            table.read_text().replace("00.tif", f"{stem}.tif").replace("00.placement", f"{stem}.placement")
        )
    volume = {seed: str(desk / f"cohort{seed}" / "S00" / "ct.ome.zarr") for seed in both}
    placement = {seed: str(slides[seed]).removesuffix(".tif") + ".placement.json" for seed in both}
    return {
        "out": {
            "phantom": [["phantom", "OUT", *PHANTOM, "--seed", str(s)] for s in both],
            "convert": [["convert", volume[s], "OUT"] for s in both],
            "pair table": [["pair", f"{desk}/table{s}.csv", "OUT"] for s in both],
            "pair cohort": [["pair", f"{desk}/cohort{s}", "OUT"] for s in both],
            "train": [["train", f"{desk}/pairs{s}", "OUT", *TINY, "--hold-out", "S01"] for s in both],
            "train resume": [
                ["train", f"{desk}/pairs{s}", "OUT", *TINY, "--hold-out", "S01", "--resume"] for s in both
            ],
            "evaluate": [
                ["evaluate", f"{desk}/stainer{s}", f"{desk}/pairs{s}", "OUT", "--metrics", "ssim"] for s in both
            ],
            "stain": [["stain", f"{desk}/stainer{s}", volume[s], "OUT", "--backend", "torch"] for s in both],
            "stain resume": [
                ["stain", f"{desk}/stainer{s}", volume[s], "OUT", "--backend", "torch", "--resume"] for s in both
            ],
            "demo": [["demo", "OUT", *DEMO, "--seed", str(s)] for s in both],
        },
        "out.pair.zarr": {
            "pair": [
                ["pair", volume[s], str(slides[s]), "OUT", "--placement", placement[s], "--specimen", f"S{s}"]
                for s in both
            ]
        },
        "out.html": {
            "report": [
                [
                    *["report", "OUT", "--stainer", f"{desk}/stainer{s}"],
                    *["--evaluation", f"{desk}/evaluation{s}", "--pairs", f"{desk}/pairs{s}"],
                ]
                for s in both
            ]
        },
        "out.tif": {"convert slide": [["convert", str(slides[s]), "OUT"] for s in both]},
        "out.placement.json": {
            "register": [
                ["register", volume[s], str(slides[s]), "OUT", "--prior", placement[s], "--slide-um", "1"] for s in both
            ]
        },
    }


def quiet(*words: object) -> None:
    """Run one command here and wait for it."""
    code = wait(start([str(word) for word in words], Path(os.devnull)))
    if code:
        raise SystemExit(f"{words[0]} ended with {code}; the benchmark cannot begin")


def start(words: list[str], log: Path, delay: float = 0.0) -> int:
    """Run one command in a process of its own, after ``delay`` seconds; nothing is imported anew."""
    process = os.fork()
    if process == 0:
        time.sleep(delay)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        try:
            torch.set_num_threads(1)
            code = main(words)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr)
            code = 99
        sys.stderr.flush()
        os._exit(code)
    return process


def wait(process: int) -> int:
    """The exit status of a process; that of a killed one is negative."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def content(out: Path) -> dict[str, str]:
    """The hash of every file of an output but its record."""
    files = [out] if out.is_file() else [file for file in out.rglob("*") if file.is_file()]
    kept = [file for file in files if file.name not in ("run.json", "summary.json", "curves.csv")]
    return {
        "" if file == out else file.relative_to(out).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in kept
        if not file.name.endswith((".run.json", ".html")) or file == out
    }


def command_of(out: Path) -> list[str]:
    """The words that the record of an output names."""
    record = out / "run.json" if out.is_dir() else out.with_name(out.name + ".run.json")
    return list(json.loads(record.read_text())["recipe"].items())


def alone(words: list[str], folder: Path, name: str) -> tuple[dict[str, str], list[str], float]:
    """What a run leaves that is left alone, and the seconds it takes."""
    folder.mkdir()
    out, begin = folder / name, time.perf_counter()
    quiet(*[str(out) if word == "OUT" else word for word in words])
    return content(out), command_of(out), time.perf_counter() - begin


def same(found: dict[str, str], expected: dict[str, str], step: str) -> bool:
    """Whether an output is that of a run alone; a page names times and paths, so only its presence is compared."""
    if step in ("report", "demo"):
        return found.keys() == expected.keys()
    return found == expected


def concurrent(desk: Path, steps: dict[str, dict[str, list[list[str]]]], timings: int) -> int:
    """All pairings, with random delays; returns the number of faults."""
    faults, rng = 0, random.Random(0)
    for name, group in steps.items():
        reference = {
            (step, s): alone(words, desk / f"alone-{step.replace(' ', '-')}-{s}", name)
            for step, choices in group.items()
            for s, words in enumerate(choices)
        }
        for first, second in itertools.combinations_with_replacement(group, 2):
            refused = succeeded = 0
            for trial in range(timings):
                folder = Path(tempfile.mkdtemp(dir=desk))
                out = folder / name
                runs = [(first, 0), (second, 1)]
                longest = max(reference[run][2] for run in runs)
                delay = rng.choice([0.0, 0.001, 0.01, rng.random() * longest])
                delays = (0.0, delay) if trial % 2 else (delay, 0.0)
                logs = [folder / "0.log", folder / "1.log"]
                processes = [
                    start([str(out) if word == "OUT" else word for word in group[step][s]], log, wait_s)
                    for (step, s), log, wait_s in zip(runs, logs, delays, strict=True)
                ]
                codes = [wait(process) for process in processes]
                refused += codes.count(1)
                succeeded += codes.count(0)
                winners = [run for run, code in zip(runs, codes, strict=True) if code == 0]
                said = [log.read_text() for log, code in zip(logs, codes, strict=True) if code]
                if len(winners) == 2:
                    fine = first in GOES_ON or second in GOES_ON or "resume" in first + second
                    if fine and not any(step.startswith("pair") or step == "demo" for step, _ in winners):
                        fine = any(same(content(out), reference[run][0], run[0]) for run in winners)
                else:
                    fine = len(winners) == 1 and same(content(out), reference[winners[0]][0], winners[0][0])
                    fine &= all(
                        "another run is writing" in text or "exists" in text or "holds a" in text for text in said
                    )
                fine &= not list(folder.glob("*.unfinished"))
                if not fine:
                    faults += 1
                    print(f"FAULT {first} / {second}, delays {delays}: exit {codes} {said} in {folder}", flush=True)
                else:
                    shutil.rmtree(folder)
            print(
                f"{first:13} beside {second:13}: {succeeded} finished, {refused} refused of {2 * timings}", flush=True
            )
    return faults


def killed(desk: Path, steps: dict[str, dict[str, list[list[str]]]], kills: int) -> int:
    """Every step, killed at random moments of its last tenth (where it writes and renames), then repeated."""
    faults, rng = 0, random.Random(1)
    for name, group in steps.items():
        for step, choices in group.items():
            expected, _, seconds = alone(choices[0], desk / f"kill-{step.replace(' ', '-')}", name)
            before = 0
            for _ in range(kills):
                folder = Path(tempfile.mkdtemp(dir=desk))
                words = [str(folder / name) if word == "OUT" else word for word in choices[0]]
                process = start(words, folder / "log")
                time.sleep(seconds * (0.85 + 0.2 * rng.random()))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                before += wait(process) != 0
                again = [*words, "--resume"] if step in ("train", "stain") else words
                codes = [wait(start(again, folder / "log"))]
                fine = codes[0] == 0 or "exists" in (folder / "log").read_text()
                found = content(folder / name)
                if not fine or not same(found, expected, step):
                    faults += 1
                    other = sorted(file for file in found | expected if found.get(file) != expected.get(file))
                    print(f"FAULT {step} killed: exit {codes}, {', '.join(other)} differ in {folder}", flush=True)
                else:
                    shutil.rmtree(folder)
            print(f"{step:13} killed {before} of {kills} times before its end", flush=True)
    return faults


def run(desk: Path, work: Callable[..., int], *args: object) -> int:
    """One part of the benchmark in its own folder."""
    desk.mkdir(exist_ok=True)
    return work(desk, *args)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timings", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", nargs="*", help="only these steps; default: all")
    given = parser.parse_args()
    preload()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        made = study(Path(temporary))
        if given.steps:
            made = {name: {s: v for s, v in group.items() if s in given.steps} for name, group in made.items()}
        count = run(Path(temporary) / "two", concurrent, made, given.timings)
        count += run(Path(temporary) / "kill", killed, made, given.kills)
    print(f"{count} faults")
    sys.exit(bool(count))
