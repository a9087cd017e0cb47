"""What registration costs a stainer: python benchmarks/registration_cost.py train | table.

    registration.py run COHORT R.jsonl --ways none --placements OUT/placements     (places every slide, with no prior)
    registration_cost.py train COHORT OUT [--kinds ...] [--seeds 0 1]              (pairs, trainings, scores; goes on)
    registration_cost.py table OUT

COHORT is a phantom cohort (`tomostain phantom COHORT --specimens 16 --slides 4 --size 200 400 400`); slides that were
not placed take no part in any kind. The same training is run on pairs at the true placements, at those that were found,
and at true placements moved as a whole by 1, 2, 4 and 8 voxels in a random direction of space, another for each slide.
All are scored on the true pairs of the last four specimens, one of each material, none of which was trained on.
`unmarked` is registered, and nobody has marked the damage either: the confidence of the registration has to tell.
`own` scores the registered stainer on registered pairs, as a laboratory would that has no truth.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from _results import Figure, save
from tomostain import runs
from tomostain.images.geometry import Placement
from tomostain.io.volumes import read_volume
from tomostain.learning.recipe import SMALL
from tomostain.scoring.scores import STAINER
from tomostain.steps.evaluate import evaluate
from tomostain.steps.pair import pair
from tomostain.steps.train import train

SHIFTS = (1, 2, 4, 8)
KINDS = ("true", "registered", "unmarked", *(f"moved_{n}" for n in SHIFTS))
METRICS = ("ssim", "psnr", "lpips")
HELD_OUT = 4


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = words.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("cohort", type=Path)
    training.add_argument("out", type=Path)
    training.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    training.add_argument("--seeds", nargs="+", type=int, default=[0])
    training.add_argument("--steps", type=int, default=800)
    commands.add_parser("table").add_argument("out", type=Path)
    asked = words.parse_args()
    if asked.command == "train":
        for kind in asked.kinds:
            learn(asked.cohort, asked.out, kind, asked.seeds, asked.steps)
    else:
        table(asked.out)


def learn(cohort: Path, out: Path, kind: str, seeds: list[int], steps: int) -> None:
    """Pairs, stainers and scores of one kind."""
    pairs = _pairs(cohort, out, kind, held_out=False)
    judged = {kind: _pairs(cohort, out, "true", held_out=True)}
    if kind == "registered":
        judged["own"] = _pairs(cohort, out, kind, held_out=True)
    for seed in seeds:
        stainer = out / "stainers" / f"{kind}_{seed}"
        begun = time.monotonic()
        if not runs.is_complete(stainer):
            stainer.parent.mkdir(exist_ok=True)
            train(pairs, stainer, recipe=replace(SMALL, steps=steps, seed=seed, validate_every=0, resume=True))
        (out / "scores").mkdir(exist_ok=True)
        for name, on in judged.items():
            scores = out / "scores" / f"{name}_{seed}"
            if not runs.is_complete(scores):
                evaluate(stainer, on, scores)
        print(f"{kind}, seed {seed}: {time.monotonic() - begun:.0f} s", flush=True)


def _pairs(cohort: Path, out: Path, kind: str, *, held_out: bool) -> Path:
    """The folder of pairs of one kind, to learn from or held out; made where it is not there."""
    folder = out / "pairs" / (f"{kind}_held_out" if held_out else kind)
    if runs.is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    slides = list(_slides(cohort, out))
    last = sorted({specimen["name"] for specimen, _ in slides})[-HELD_OUT:]
    lines = []
    for specimen, slide in slides:
        if (specimen["name"] in last) != held_out:
            continue
        line = {"volume": cohort / specimen["ct"], "slide": cohort / slide["slide"], "specimen": specimen["name"]}
        line |= {"name": f"{specimen['name']}_{slide['name']}"}
        line |= {"placement": _placement(cohort, out, specimen, slide, kind)}
        line |= {"exclude": "" if kind == "unmarked" else cohort / slide["damage"]}
        lines.append({key: value.resolve() if isinstance(value, Path) else value for key, value in line.items()})
    listing = folder.with_suffix(".csv")
    with listing.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    return pair(listing, folder)


def _placement(cohort: Path, out: Path, specimen: dict[str, Any], slide: dict[str, Any], kind: str) -> Path:
    """The placement of a slide that one kind of pair is made at."""
    name = f"{specimen['name']}_{slide['name']}"
    if kind == "true":
        return cohort / slide["placement"]
    if kind in ("registered", "unmarked"):
        return out / "placements" / f"{name}.placement.json"
    um = int(kind.removeprefix("moved_")) * read_volume(cohort / specimen["ct"]).grid.spacing_um[1]
    truth = Placement.load(cohort / slide["placement"])
    direction = np.random.default_rng([sum(map(ord, name)), 7]).standard_normal(3)
    moved = np.asarray(truth.corner_um) + um * direction / np.linalg.norm(direction)
    to = out / kind / f"{name}.placement.json"
    to.parent.mkdir(exist_ok=True)
    replace(truth, corner_um=(float(moved[0]), float(moved[1]), float(moved[2]))).save(to)
    return to


def _slides(cohort: Path, out: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The slides that were placed."""
    for specimen in json.loads((cohort / "cohort.json").read_text())["specimens"]:
        for slide in specimen["slides"]:
            if (out / "placements" / f"{specimen['name']}_{slide['name']}.placement.json").exists():
                yield specimen, slide


def table(out: Path) -> None:
    """Means over specimens, and over seeds; in brackets the spread (half the range) over seeds."""
    print(f"{os.cpu_count()} cores; {len(list((out / 'placements').glob('*.placement.json')))} slides placed")
    print("| trained on pairs at | SSIM | PSNR | LPIPS | seeds |")
    print("|---|---|---|---|---|")
    figures = []
    for kind in (*KINDS, "own"):
        found = [json.loads(file.read_text()) for file in sorted((out / "scores").glob(f"{kind}_*/summary.json"))]
        if not found:
            continue
        if kind == "true":
            for method in found[0]["methods"]:
                if method != STAINER:
                    print(_row(f"{method} (of true pairs)", found[:1], method))
        print(_row(kind, found, STAINER))
        means = [np.mean([summary["methods"][STAINER][metric]["mean"] for summary in found]) for metric in METRICS]
        value = " / ".join(f"{mean:.3f}" for mean in means)
        figures.append(Figure(f"stainer of pairs at {kind} placements, {' / '.join(METRICS)}", value))
    save("registration_cost", figures)


def _row(name: str, summaries: list[dict[str, Any]], method: str) -> str:
    cells = []
    for metric in METRICS:
        values = np.asarray([s["methods"][method][metric]["mean"] for s in summaries])
        cells.append(f"{values.mean():.4f} ({np.ptp(values) / 2:.4f})")
    return f"| {name} | {' | '.join(cells)} | {len(summaries)} |"


if __name__ == "__main__":
    main()
