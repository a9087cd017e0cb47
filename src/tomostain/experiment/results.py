"""From the outcomes of all runs to ``results.json``: tables, comparisons, ceilings, and how long it took."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tomostain.experiment.ceilings import SHIFTED
from tomostain.experiment.leakage import Likeness
from tomostain.experiment.outcomes import load_outcome, real_features
from tomostain.experiment.plan import Plan, Run
from tomostain.experiment.statistics import claims, compare, higher_is_better, mean_interval
from tomostain.experiment.variants import Variant
from tomostain.learning.nets import build_generator
from tomostain.learning.recipe import TrainRecipe
from tomostain.pairs.pair import Pair
from tomostain.pairs.splits import specimens_of
from tomostain.scoring.baselines import COLOUR_TABLE
from tomostain.scoring.kid import FEATURES, kernel_distance
from tomostain.scoring.lpips import Lpips
from tomostain.scoring.scores import PERFECT, STAINER
from tomostain.scoring.tissue_colours import GROUPS

FILE, FORMAT = "results.json", "tomostain-experiment"
TIMES = ("seconds", "processor_seconds")
TIMING = "timing"
"""The only part of the results that differs when an experiment is done again."""
_TISSUES = ("new bone", "degradation layer")
"""Tissues in which methods are compared, and not only listed."""

Table = dict[str, dict[str, dict[str, float]]]


def collect(
    plan: Plan,
    out: Path,
    pairs: Sequence[Pair],
    *,
    metrics: Sequence[str],
    against: str | None,
    alike: Sequence[Likeness],
    ceiling: Mapping[str, Mapping[str, float]],
    lpips: Lpips | None,
) -> dict[str, Any]:
    """The results of all runs that are finished, as plain values.

    ``ceiling`` holds the shifted perfect section's scores. Seeds are averaged within a specimen, specimens are the unit
    of every interval.
    """
    found = {run: loaded for run in plan.runs if (loaded := load_outcome(run.folder(out))) is not None}
    real = real_features(pairs, lpips) if lpips is not None else None
    tables, by_specimen, timing = {}, {}, {}
    for budget in plan.steps:
        here = {run: loaded for run, loaded in found.items() if run.budget == budget}
        table = _table(plan, here, ceiling)
        by_specimen[budget] = table
        distances = {v.name: _kid(here, v, real) for v in plan.variants} if real is not None and len(real) > 1 else {}
        tables[budget] = _summary(table, plan, metrics, against) | {"kid": distances}
        timing[budget] = {v.name: _seconds(here, v) for v in plan.variants}
    return {
        "format": FORMAT,
        "version": 1,
        "set_up": _set_up(plan, pairs, metrics, alike, found) | {"against": against},
        "runs": {"done": len(found), "of": len(plan.runs)},
        "tables": tables,
        "specimens": by_specimen,
        TIMING: timing,
    }


def _table(plan: Plan, found: Mapping[Run, Any], ceiling: Mapping[str, Mapping[str, float]]) -> Table:
    """By method, metric and specimen, the seeds averaged; baselines from the runs of the first method.

    An infinite value (the PSNR of equal pictures) is left out.
    """
    values: dict[str, dict[str, dict[str, list[float]]]] = {}

    def add(name: str, of: Mapping[str, Mapping[str, float]]) -> None:
        for metric, specimens in of.items():
            for specimen, value in ((who, v) for who, v in specimens.items() if np.isfinite(v)):
                values.setdefault(name, {}).setdefault(metric, {}).setdefault(specimen, []).append(value)

    for variant in plan.variants:
        for run, (outcome, _) in found.items():
            if run.variant.name == variant.name:
                add(variant.name, outcome["methods"][STAINER])
    for baseline in (COLOUR_TABLE, PERFECT):
        for run, (outcome, _) in found.items():
            if run.variant.name == plan.variants[0].name and baseline in outcome["methods"]:
                add(baseline, outcome["methods"][baseline])
    if ceiling:
        add(SHIFTED, ceiling)
    return {
        name: {m: {who: round(float(np.mean(v)), 6) for who, v in sorted(of.items())} for m, of in by_metric.items()}
        for name, by_metric in values.items()
    }


def _summary(table: Table, plan: Plan, metrics: Sequence[str], against: str | None) -> dict[str, Any]:
    """Means with intervals, and the comparisons between the methods."""
    ours = {v.name: table[v.name] for v in plan.variants if v.name in table}
    every = list(dict.fromkeys(metric for of in table.values() for metric in of))
    spread = {
        name: {m: mean_interval(np.array(list(of[m].values()))) for m in every if m in of} for name, of in table.items()
    }
    tested = [*metrics, *(f"{tissue}: delta_e" for tissue in _TISSUES if f"{tissue}: delta_e" in every)]
    reference = against if against in ours else None
    comparisons = compare(ours, tested, against=reference)
    return {
        "scores": spread,
        "comparisons": comparisons,
        "claims": claims(comparisons),
        "after_dye_fit": compare(ours, [f"{m}_after_dye_fit" for m in metrics], against=reference),
    }


def _kid(found: Mapping[Run, Any], variant: Variant, real: Any) -> dict[str, Any]:
    """The kernel distance of each seed's virtual stains to the real ones, all folds together."""
    by_seed: dict[int, list[Any]] = {}
    for run, (_, made) in found.items():
        if run.variant.name == variant.name and made is not None and len(made):
            by_seed.setdefault(run.seed, []).append(made)
    made = [np.concatenate(parts) for _, parts in sorted(by_seed.items())]
    values = [kernel_distance(one, real) for one in made if len(one) > 1]
    return {"mean": float(np.mean(values)) if values else None, "by_seed": values}


def _seconds(found: Mapping[Run, Any], variant: Variant) -> dict[str, Any]:
    ours = [outcome for run, (outcome, _) in found.items() if run.variant.name == variant.name]
    means = {name: float(np.mean([one[name] for one in ours])) if ours else None for name in TIMES}
    return {**means, "runs": len(ours)}


def _set_up(
    plan: Plan, pairs: Sequence[Pair], metrics: Sequence[str], alike: Sequence[Likeness], found: Mapping[Run, Any]
) -> dict[str, Any]:
    losses = {run.variant.name: outcome["losses"] for run, (outcome, _) in found.items()}
    errors = [float(pair.notes["expected_tre_um"]) for pair in pairs if pair.notes.get("expected_tre_um")]
    return {
        "pairs": len(pairs),
        "specimens": specimens_of(pairs),
        "simulated": sum(bool(pair.simulated) for pair in pairs),
        "stain": pairs[0].stain_name,
        "um_per_px": float(pairs[0].grid.spacing_um[0]),
        "expected_error_um": {"median": float(np.median(errors)), "pairs": len(errors)} if errors else None,
        "folds": [list(names) for names in plan.held_out],
        "seeds": plan.seeds,
        "metrics": list(metrics),
        "tissues": list(GROUPS) if all(pair.truth is not None for pair in pairs) else [],
        "lower_is_better": [m for m in (*metrics, "delta_e", "kid") if not higher_is_better(m)],
        "kid_features": FEATURES,
        "near_duplicates": [dataclasses.asdict(one) for one in alike],
        "methods": {v.name: _described(v, plan, losses.get(v.name)) for v in plan.variants},
        "threads": torch.get_num_threads(),
    }


def _described(variant: Variant, plan: Plan, losses: Mapping[str, float] | None) -> dict[str, Any]:
    """What an entry is; ``losses`` are those that it was trained with, where it was."""
    settled = variant.recipe.filled()
    planes = settled.planes or 1
    with torch.device("meta"):
        weights = sum(p.numel() for p in build_generator(settled.generator_spec(), planes, 3).parameters())
    usual = TrainRecipe()
    changed = {
        field.name: value
        for field in dataclasses.fields(TrainRecipe)
        if (value := getattr(variant.recipe, field.name)) != getattr(usual, field.name)
        and field.name not in ("validate_every", "sample_every", "precision", "threads", "device", "method")
    }
    return {
        "method": settled.method,
        "net": settled.net,
        "weights": weights,
        "planes": settled.planes,
        "losses": losses or {name: weight for name, (weight, _) in variant.recipe.chosen_method().losses().items()},
        "changed": {name: str(value) if isinstance(value, Path) else value for name, value in changed.items()},
        "batch": settled.batch,
        "patch_px": settled.patch_px,
        "steps": {budget: of[variant.name] for budget, of in plan.steps.items()},
    }
