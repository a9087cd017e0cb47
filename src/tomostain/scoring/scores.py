"""From the scores of single pairs to what may be claimed: means over specimens, intervals, and a plain sentence.

Specimens, not images, are what a study has many of. Every mean is the mean over specimens of each specimen's mean, and
every interval resamples specimens first and then the pairs within each (a two-stage bootstrap; Davison and Hinkley,
"Bootstrap Methods and their Application", 1997, section 3.8). With one specimen it can only resample its pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tomostain.scoring.baselines import COLOUR_TABLE
from tomostain.scoring.metrics import HIGHER_IS_BETTER

STAINER = "stainer"
"""The method that is judged; every other method is a baseline."""


@dataclass(frozen=True)
class Score:
    """What one method reached on one pair: ``values`` by the metric's name, over ``pixels`` unmasked pixels."""

    specimen: str
    pair: str
    method: str
    values: Mapping[str, float]
    pixels: int


def specimen_means(scores: Sequence[Score]) -> list[Score]:
    """One score for each specimen and method: the plain mean over its pairs, ``pixels`` summed, ``pair`` empty."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.specimen, score.method), []).append(score)
    return [
        Score(
            specimen,
            "",
            method,
            {metric: float(np.mean([s.values[metric] for s in group])) for metric in group[0].values},
            sum(s.pixels for s in group),
        )
        for (specimen, method), group in groups.items()
    ]


def interval(groups: Sequence[Sequence[float]], *, resamples: int, seed: int, level: float = 0.95) -> dict[str, Any]:
    """Mean over groups of their means, and its bootstrap interval: ``{"mean", "low", "high"}``.

    ``groups`` are the values of each specimen's pairs. ``low`` and ``high`` are None where there is one value only, or
    where a value is infinite.
    """
    means = [float(np.mean(group)) for group in groups]
    mean = float(np.mean(means))
    if sum(len(group) for group in groups) < 2 or not math.isfinite(mean):
        return {"mean": mean, "low": None, "high": None}
    rng = np.random.default_rng(seed)
    sizes = np.asarray([len(group) for group in groups])
    table = np.zeros((len(groups), sizes.max()))
    for row, group in zip(table, groups, strict=True):
        row[: len(group)] = group
    chosen = rng.integers(0, len(groups), size=(resamples, len(groups)))
    within = rng.random((resamples, len(groups), sizes.max()))
    drawn = table[chosen[..., None], np.floor(within * sizes[chosen][..., None]).astype(np.int64)]
    counted = np.arange(sizes.max()) < sizes[chosen][..., None]
    resampled: npt.NDArray[np.float64] = ((drawn * counted).sum(axis=-1) / sizes[chosen]).mean(axis=-1)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return {"mean": mean, "low": float(low), "high": float(high)}


def summarise(scores: Sequence[Score], *, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Everything that may be said of the scores.

    ``methods`` holds mean and interval of each method and metric. ``gains`` holds, for each baseline and metric, how
    much better the stainer is on the same pairs (positive is better, whichever way the metric points), its interval,
    and on how many pairs. ``beats_colour_table`` holds True for each metric whose mean gain is positive.

    Raises
    ------
    ValueError
        There is no score of the stainer, or a method was not scored on all pairs.
    """
    table = {(s.pair, s.method): s for s in scores}
    judged = [s for s in scores if s.method == STAINER]
    if not judged:
        raise ValueError("there is no score of the stainer to summarise")
    methods = list(dict.fromkeys(s.method for s in scores))
    metrics = list(judged[0].values)
    by_specimen: dict[str, list[str]] = {}
    for score in judged:
        by_specimen.setdefault(score.specimen, []).append(score.pair)
    if len(table) != len(judged) * len(methods):
        raise ValueError("every method must be scored once on every pair")

    def values(method: str, metric: str) -> list[list[float]]:
        return [[table[pair, method].values[metric] for pair in pairs] for pairs in by_specimen.values()]

    spread = {
        method: {m: interval(values(method, m), resamples=resamples, seed=seed) for m in metrics} for method in methods
    }
    gains: dict[str, dict[str, Any]] = {}
    for method in methods[1:] if methods[0] == STAINER else [m for m in methods if m != STAINER]:
        gains[method] = {}
        for metric in metrics:
            sign = 1.0 if HIGHER_IS_BETTER.get(metric, True) else -1.0
            ours, theirs = values(STAINER, metric), values(method, metric)
            gained = [
                [sign * _minus(a, b) for a, b in zip(p, q, strict=True)] for p, q in zip(ours, theirs, strict=True)
            ]
            won = sum(gain > 0 for group in gained for gain in group)
            gains[method][metric] = {**interval(gained, resamples=resamples, seed=seed), "pairs_won": won}
    beaten = {metric: gain["mean"] > 0 for metric, gain in gains.get(COLOUR_TABLE, {}).items()}
    return {
        "metrics": metrics,
        "specimens": len(by_specimen),
        "pairs": len(judged),
        "methods": spread,
        "gains": gains,
        "beats_colour_table": beaten,
        "verdict": verdict(beaten),
    }


def verdict(beaten: Mapping[str, bool]) -> str:
    """One plain sentence: whether the stainer beats the colour table."""
    if not beaten:
        return (
            "The stainer was not compared with the colour look-up table, so nothing can be said of what it has learnt."
        )
    won = [metric.upper() for metric, beats in beaten.items() if beats]
    lost = [metric.upper() for metric, beats in beaten.items() if not beats]
    if not lost:
        return f"The stainer beats the best colour look-up table in {_listed(won)}."
    if not won:
        return (
            f"The stainer does not beat the best colour look-up table in {_listed(lost, 'or')}: it has learnt nothing "
            "that the CT's grey value alone does not tell."
        )
    return f"The stainer beats the best colour look-up table in {_listed(won)}, but not in {_listed(lost, 'or')}."


def _minus(a: float, b: float) -> float:
    return 0.0 if a == b else a - b  # two perfect scores are infinite and equal


def _listed(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
