"""What an experiment consists of: its runs, the steps of each method, and the pairs; kept in ``plan.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tomostain import runs
from tomostain._imports import nearest
from tomostain.experiment.variants import Variant
from tomostain.learning.planning import plan as planned
from tomostain.learning.recipe import TrainRecipe
from tomostain.pairs.pair import Pair
from tomostain.pairs.splits import folds

FILE = "plan.json"
BY_STEPS, BY_TIME = "steps", "time"


@dataclass(frozen=True)
class Run:
    """One training and its evaluation."""

    budget: str
    """``steps`` or ``time``: what all methods are given the same of."""
    variant: Variant
    fold: int
    seed: int
    held_out: tuple[str, ...]
    steps: int

    @property
    def name(self) -> str:
        """BUDGET/METHOD/FOLD/SEED, its folder below ``runs``."""
        return f"{self.budget}/{self.variant.folder}/{self.fold}/{self.seed}"

    def folder(self, out: Path) -> Path:
        """Where it is stored."""
        return Path(out) / "runs" / self.name

    @property
    def recipe(self) -> TrainRecipe:
        """How it is trained."""
        return replace(
            self.variant.recipe, hold_out=self.held_out, seed=self.seed, steps=self.steps, hours=None, resume=True
        )


@dataclass(frozen=True)
class Plan:
    """An experiment, with nothing left open."""

    variants: tuple[Variant, ...]
    held_out: tuple[tuple[str, ...], ...]
    """Specimens of each fold."""
    seeds: int
    steps: Mapping[str, Mapping[str, int]]
    """By budget and entry."""
    pairs_sha256: str

    @property
    def runs(self) -> list[Run]:
        """All runs, seed by seed and fold by fold, so that what is done first can be compared first."""
        return [
            Run(budget, variant, fold, seed, names, steps[variant.name])
            for seed in range(self.seeds)
            for budget, steps in self.steps.items()
            for fold, names in enumerate(self.held_out)
            for variant in self.variants
        ]

    def run_named(self, name: str) -> Run:
        """The run BUDGET/METHOD/FOLD/SEED; the budget may be left out where there is one.

        Raises
        ------
        ValueError
            There is no such run.
        """
        known = {run.name: run for run in self.runs}
        if len(self.steps) == 1:
            known |= {run.name.partition("/")[2]: run for run in self.runs}
        if name not in known:
            raise ValueError(f"there is no run {name!r} in this experiment; {nearest(name, known)}")
        return known[name]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values, and the names of its runs."""
        return {
            "format": "tomostain-experiment-plan",
            "variants": {v.name: json.loads(json.dumps(dataclasses.asdict(v.recipe))) for v in self.variants},
            "held_out": [list(names) for names in self.held_out],
            "seeds": self.seeds,
            "steps": {budget: dict(steps) for budget, steps in self.steps.items()},
            "pairs_sha256": self.pairs_sha256,
            "runs": [run.name for run in self.runs],
        }


def make_plan(
    pairs: Sequence[Pair],
    variants: Sequence[Variant],
    out: Path,
    *,
    count: int,
    seeds: int,
    hours: float | None,
    steps: int | None,
) -> Plan:
    """The plan of an experiment in ``out``, saved there; what an earlier run settled is kept.

    A method's steps in ``hours`` are found once, by timing a few of them on the first fold's pairs, and hold for all
    folds and seeds; an entry that sets ``steps`` itself has those.

    Raises
    ------
    ValueError
        There is no budget, or ``out`` holds an experiment on other pairs, folds or settings.
    """
    if hours is None and steps is None:
        raise ValueError("an experiment needs a budget for each training: pass --hours, --steps, or both")
    file = Path(out) / FILE
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if not before and Path(out).exists() and any(Path(out).iterdir()):
        raise ValueError(f"{out} exists and is no experiment; choose another name")
    held_out, digest = tuple(folds(pairs, count)), digest_of(pairs)
    old: dict[str, dict[str, int]] = before.get("steps", {})
    settled: dict[str, dict[str, int]] = {}
    if steps:
        settled[BY_STEPS] = {variant.name: steps for variant in variants}
    if hours:
        settled[BY_TIME] = {v.name: v.recipe.steps or old.get(BY_TIME, {}).get(v.name, 0) for v in variants}
    plan = Plan(tuple(variants), held_out, seeds, settled, digest)
    if before:
        _check_same(before, plan, out)
    training = [pair for pair in pairs if pair.specimen not in held_out[0]]
    for variant in variants:
        if hours and not settled[BY_TIME][variant.name]:
            chosen, _ = planned(replace(variant.recipe, hours=hours, steps=None), _seen(training, variant.recipe))
            settled[BY_TIME][variant.name] = chosen.steps
            runs.say(f"{variant.name}: {chosen.steps} steps fit into {hours * 60:.3g} minutes")
    text = plan.to_json()
    for key in ("variants", "steps"):  # what an earlier command compared may be asked for again
        text[key] = _merged(before.get(key, {}), text[key])
    if text != before:  # its date says to a workflow engine whether all runs are to be done again
        file.parent.mkdir(parents=True, exist_ok=True)
        runs.write_text_atomically(file, json.dumps(text, indent=1) + "\n")
    return plan


def digest_of(pairs: Sequence[Pair]) -> str:
    """SHA-256 over names, specimens and images of pairs."""
    digest = hashlib.sha256()
    for pair in sorted(pairs, key=lambda one: one.name):
        digest.update(f"{pair.name};{pair.specimen};{pair.ct.shape};".encode())
        for array in (pair.ct, pair.stain, pair.mask, pair.confidence):
            digest.update(array.tobytes())
    return digest.hexdigest()


def _merged(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: {**before.get(name, {}), **values} for name, values in now.items()}
    return {**before, **both}


def _seen(pairs: Sequence[Pair], recipe: TrainRecipe) -> list[Pair]:
    planes = recipe.filled().planes
    return [replace(pair, ct=pair.central_planes(planes)) if planes else pair for pair in pairs]


def _check_same(before: Mapping[str, Any], plan: Plan, out: Path) -> None:
    now = plan.to_json()
    for key, what in (("pairs_sha256", "other pairs"), ("held_out", "other folds")):
        if before[key] != now[key]:
            raise ValueError(f"{out} holds an experiment on {what}; choose another folder")
    for name, recipe in now["variants"].items():
        if before["variants"].get(name, recipe) != recipe:
            changed = [key for key in recipe if recipe[key] != before["variants"][name].get(key)]
            raise ValueError(f"{out} holds runs of {name!r} with other settings ({', '.join(changed)}); name it anew")
    old = before["steps"].get(BY_STEPS, {})
    for name, steps in now["steps"].get(BY_STEPS, {}).items():
        if old.get(name, steps) != steps:
            raise ValueError(f"{out} holds runs of {old[name]} steps, not {steps}; choose another folder")
