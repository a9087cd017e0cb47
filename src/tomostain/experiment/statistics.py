"""What a comparison shows: paired differences over specimens, their intervals and tests, and what they show in words.

The unit is the specimen: its value is the mean over its sections and over the seeds, so that neither many sections nor
many seeds make an animal count more than once. Two methods are compared on the same specimens.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations, groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from tomostain.scoring.metrics import HIGHER_IS_BETTER, plain_name

LEVEL = 0.95
_RESAMPLES = 9999
_SEED = 20260101
FEW_SPECIMENS = 6
"""With fewer, Wilcoxon's test cannot reach p < 0.05 whatever the differences are."""

Table = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By method, metric and specimen: one value."""


def mean_interval(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Mean of (n,) values and its bootstrap interval at 95 % (Efron's BCa): ``{"mean", "low", "high"}``.

    ``low`` and ``high`` are None for fewer than two values; where all are the same they are that value.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    if np.ptp(values) == 0:
        return {"mean": mean, "low": mean, "high": mean}
    with warnings.catch_warnings(action="ignore"):
        found = stats.bootstrap(
            (values,), np.mean, confidence_level=LEVEL, n_resamples=_RESAMPLES, rng=np.random.default_rng(_SEED)
        ).confidence_interval
    if not np.isfinite([found.low, found.high]).all():  # BCa is undefined where a resample hardly ever differs
        found = stats.bootstrap(
            (values,),
            np.mean,
            confidence_level=LEVEL,
            n_resamples=_RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(_SEED),
        ).confidence_interval
    return {"mean": mean, "low": float(found.low), "high": float(found.high)}


def higher_is_better(metric: str) -> bool:
    """Which way a metric points; ``_after_dye_fit`` behind its name and a tissue before it change nothing."""
    plain = metric.removesuffix("_after_dye_fit").rpartition(": ")[2]
    return HIGHER_IS_BETTER.get(plain, True)


def compare(table: Table, metrics: Sequence[str], *, against: str | None = None) -> list[dict[str, Any]]:
    """Every two methods, or each against one, in each metric.

    A comparison has ``first``, ``second``, ``metric``; ``gain``, the mean of how much better the first is over
    specimens (whichever way the metric points), with ``low`` and ``high``; ``p`` of Wilcoxon's signed-rank test (two-
    sided) and ``p_corrected`` over all comparisons (Benjamini and Hochberg 1995); ``effect``, the rank-biserial
    correlation from -1 to 1; and ``won`` of ``specimens``.
    """
    methods = list(table)
    chosen = [(m, against) for m in methods if m != against] if against else list(combinations(methods, 2))
    found = []
    for first, second in chosen:
        for metric in metrics:
            of_first, of_second = table[first].get(metric, {}), table[second].get(metric, {})
            both = sorted(set(of_first) & set(of_second))
            sign = 1.0 if higher_is_better(metric) else -1.0
            gains = sign * np.array([of_first[name] - of_second[name] for name in both])
            gains = gains[np.isfinite(gains)]
            if len(gains):
                found.append({"first": first, "second": second, "metric": metric, **_tested(gains)})
    if found:
        corrected = stats.false_discovery_control([one["p"] for one in found])
        found = [{**one, "p_corrected": float(p)} for one, p in zip(found, corrected, strict=True)]
    return found


def is_shown(comparison: Mapping[str, Any]) -> bool:
    """Whether the first is shown to be better or worse: the interval excludes zero and the corrected p is below 5 %."""
    low, high = comparison["low"], comparison["high"]
    return low is not None and not low <= 0 <= high and comparison["p_corrected"] < 1 - LEVEL


def claims(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Comparisons in words, one line for every two methods, which claim no more than their intervals and tests."""
    lines = []
    for (first, second), of in groupby(comparisons, key=lambda one: (one["first"], one["second"])):
        found: dict[str, list[str]] = {}
        for one in of:
            verdict, text = _claim(one)
            found.setdefault(verdict, []).append(text)
        lines.append(f"{first} against {second}: " + "; ".join(f"{v} {', '.join(t)}" for v, t in found.items()) + ".")
    return lines


def _claim(one: Mapping[str, Any]) -> tuple[str, str]:
    """What is shown, and of which metric by how much."""
    gain, low, high, count = (one[key] for key in ("gain", "low", "high", "specimens"))
    if low is None:
        return "one specimen shows nothing in", plain_name(one["metric"])
    won = f"ahead in {one['won']} of {count} specimens"
    if not is_shown(one):
        few = "; so few can show nothing" if count < FEW_SPECIMENS else ""
        span = f"{gain:+.3g}, 95 % interval {low:.3g} to {high:.3g}; {won}{few}"
        return "it is not shown that they differ in", f"{plain_name(one['metric'])} ({span})"
    sure, unsure = sorted((abs(low), abs(high)))
    size = f"by {abs(gain):.3g} (95 % interval {sure:.3g} to {unsure:.3g}; {won})"
    return "better in" if gain > 0 else "worse in", f"{plain_name(one['metric'])} {size}"


def _tested(gains: npt.NDArray[np.float64]) -> dict[str, Any]:
    spread = mean_interval(gains)
    moved = gains[gains != 0]
    ranks = stats.rankdata(np.abs(moved))
    effect = float((ranks * np.sign(moved)).sum() / ranks.sum()) if len(moved) else 0.0
    p = float(stats.wilcoxon(gains).pvalue) if len(moved) else 1.0
    return {
        "gain": spread["mean"],
        "low": spread["low"],
        "high": spread["high"],
        "p": p,
        "effect": effect,
        "won": int((gains > 0).sum()),
        "specimens": len(gains),
    }
