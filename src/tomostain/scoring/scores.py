"""From the scores of single pairs to the conclusion: means over specimens, intervals, and a plain verdict.

The statistical unit is the specimen, not the image: sections of one specimen are alike, so they count once. Every
mean is the mean over specimens of each specimen's mean. Every interval is Student's t interval of these means, and of
their paired differences where two methods are compared (Student, "The probable error of a mean", Biometrika, 1908). It
keeps its level from two specimens on, where it is wide; a bootstrap of so few is far too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from tomostain.scoring.baselines import COLOUR_TABLE
from tomostain.scoring.metrics import HIGHER_IS_BETTER

STAINER = "stainer"
"""The method that is judged; every other method but the perfect section is a baseline."""
PERFECT = "perfect section"
"""Scored where all pairs know it (``Pair.truth``): the ceiling, as slides differ in dye and damage."""
LEVEL = 0.95
"""Confidence level of every interval. Each metric is judged by itself."""
FEW_SPECIMENS = 3
"""With fewer, nothing shows whether their scores are normally distributed, on which the interval rests."""


@dataclass(frozen=True)
class Score:
    """What one method reached on one pair: ``values`` by the metric's name, over ``pixels`` unmasked pixels.

    ``fitted`` are the same after the pair's dye was fitted (``colours.fit_dye``), ``delta_e`` is the mean CIEDE2000
    before that; empty and None where they were not computed.
    """

    specimen: str
    pair: str
    method: str
    values: Mapping[str, float]
    pixels: int
    delta_e: float | None = None
    fitted: Mapping[str, float] = field(default_factory=dict)


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
            _mean([s.delta_e for s in group]),
            {metric: float(np.mean([s.fitted[metric] for s in group])) for metric in group[0].fitted},
        )
        for (specimen, method), group in groups.items()
    ]


def interval(values: Sequence[float], *, level: float = LEVEL) -> dict[str, Any]:
    """Mean of one value for each specimen, and Student's t interval: ``{"mean", "low", "high"}``.

    ``low`` and ``high`` are None where there is one specimen, or a value that is infinite.

    >>> {name: round(value, 2) for name, value in interval([1.0, 2.0, 3.0]).items()}
    {'mean': 2.0, 'low': -0.48, 'high': 4.48}
    """
    mean = float(np.mean(values))
    if len(values) < 2 or not math.isfinite(mean):
        return {"mean": mean, "low": None, "high": None}
    reach = float(stats.sem(values) * stats.t.ppf((1 + level) / 2, len(values) - 1))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def summarise(scores: Sequence[Score], *, without_contrast: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Means, intervals and verdict of the scores.

    ``methods`` holds mean and interval of each method and metric. ``gains`` holds, for each baseline and metric, how
    much better the stainer is on the same specimens (positive is better, whichever way the metric points), its
    interval, and on how many pairs and specimens it is better. ``beats_colour_table`` holds for each metric True where
    the whole interval lies above zero, False where it lies below, and None where chance may explain the difference.
    ``skill`` holds the skill in each metric, where the perfect section was scored; otherwise it is empty. ``delta_e``
    holds each method's mean CIEDE2000, ``after_dye_fit`` the ``methods`` and ``skill`` after each dye was fitted.
    ``without_contrast`` names the pairs whose pictures cannot be judged, and why; there is then no verdict.

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

    means = specimen_means(scores)
    spread = {method: {m: interval(_means(values(method, m))) for m in metrics} for method in methods}
    fitted = {
        method: {m: interval([s.fitted[m] for s in means if s.method == method]) for m in metrics}
        for method in methods
        if all(s.fitted for s in means if s.method == method)
    }
    delta_e = {method: [s.delta_e for s in means if s.method == method] for method in methods}
    gains: dict[str, dict[str, Any]] = {}
    for method in [m for m in methods if m not in (STAINER, PERFECT)]:
        gains[method] = {}
        for metric in metrics:
            sign = 1.0 if HIGHER_IS_BETTER.get(metric, True) else -1.0
            both = zip(values(STAINER, metric), values(method, metric), strict=True)
            gained = [[sign * _minus(a, b) for a, b in zip(ours, theirs, strict=True)] for ours, theirs in both]
            gains[method][metric] = {
                **interval(_means(gained)),
                "pairs_won": sum(gain > 0 for group in gained for gain in group),
                "specimens_won": sum(mean > 0 for mean in _means(gained)),
            }
    flaws = dict(without_contrast or {})
    beaten = {metric: None if flaws else _decided(gain) for metric, gain in gains.get(COLOUR_TABLE, {}).items()}
    return {
        "metrics": metrics,
        "specimens": len(by_specimen),
        "pairs": len(judged),
        "methods": spread,
        "gains": gains,
        "beats_colour_table": beaten,
        "skill": _skills(spread, metrics),
        "delta_e": {
            method: interval(known) for method, of in delta_e.items() if (known := [e for e in of if e is not None])
        },
        "after_dye_fit": {"methods": fitted, "skill": _skills(fitted, metrics)} if fitted else {},
        "without_contrast": flaws,
        "verdict": verdict(beaten, specimens=len(by_specimen), without_contrast=flaws),
    }


def skill(score: float, table: float, perfect: float) -> float | None:
    """The share of the way from the colour table to the perfect section that a score has gone, whichever way is better.

    None where the two are the same or infinite. Each is a mean over specimens.

    >>> skill(0.6, 0.5, 0.7), skill(0.25, 0.3, 0.2), skill(0.5, 0.5, 0.5)
    (0.5, 0.5, None)
    """
    if perfect == table or not all(map(math.isfinite, (score, table, perfect))):
        return None
    return round((score - table) / (perfect - table), 6)


def verdict(
    beaten: Mapping[str, bool | None], *, specimens: int, without_contrast: Mapping[str, str] | None = None
) -> str:
    """What the scores show of the stainer against the colour table, in plain sentences; no more than the intervals."""
    if without_contrast:
        name, flaw = next(iter(without_contrast.items()))
        more = f" (and {len(without_contrast) - 1} more)" if len(without_contrast) > 1 else ""
        return f"No verdict: in pair {name}{more} {flaw}. Check that all CT volumes have the same scale of grey values."
    if not beaten:
        return "No verdict: the stainer was not compared with the colour table."
    if specimens == 1:
        return (
            "No verdict: one specimen cannot show whether the stainer is better than the colour table. "
            "Hold out three specimens or more."
        )
    better, worse, open_ = (
        [metric.upper() for metric, known in beaten.items() if known is wanted] for wanted in (True, False, None)
    )
    sentences = []
    if better:
        sentences.append(f"The stainer is better than the colour table in {_listed(better)}.")
    if worse:
        sentences.append(f"{'It' if better else 'The stainer'} is worse than the colour table in {_listed(worse)}.")
    if open_ and not sentences:
        sentences.append(f"It is not shown that the stainer is better than the colour table in {_listed(open_, 'or')}.")
    elif open_:
        sentences.append(f"In {_listed(open_)} the difference may be chance.")
    if specimens < FEW_SPECIMENS:
        sentences.append(f"Only {specimens} specimens were held out, so this is a first sign and no proof.")
    return " ".join(sentences)


def _skills(spread: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, float | None]:
    """The skill in each metric; empty where the colour table or the perfect section was not scored."""
    if not {COLOUR_TABLE, PERFECT} <= set(spread):
        return {}
    return {m: skill(*(spread[by][m]["mean"] for by in (STAINER, COLOUR_TABLE, PERFECT))) for m in metrics}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _decided(gain: Mapping[str, Any]) -> bool | None:
    """True or False where the interval of a gain excludes zero, None where it does not or is unknown."""
    low, high = gain["low"], gain["high"]
    if low is None or low <= 0 <= high:
        return None
    return bool(low > 0)


def _means(groups: Sequence[Sequence[float]]) -> list[float]:
    return [float(np.mean(group)) for group in groups]


def _minus(a: float, b: float) -> float:
    return 0.0 if a == b else a - b  # two perfect scores are infinite and equal


def _listed(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
