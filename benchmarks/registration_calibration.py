"""Fit and judge the constants of registration/quality.py: python benchmarks/registration_calibration.py ROWS.jsonl ...

Rows are those of `registration.py run` (ways none, prior, other, nothing; tuning seeds) and of `registration_real.py
SHARED OUT ROWS.jsonl`. Everything that is fitted is judged by cross-validation: each specimen, and each real pair of
sections, is left out once and judged by constants that were fitted to the rest. Beside them stand the constants in use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from registration import lines_of, score_of
from tomostain.registration import quality

Floats = npt.NDArray[np.float64]
RIGHT_VOXELS, RIGHT_SHARE = 5.0, 0.01
"""A placement is right up to so many voxels, or so much of the slide's diagonal, whichever is more."""
IN_USE = (quality.ERROR_HALVES, quality.ERROR_SIZE)
_RIDGE = 1e-4


def is_right(row: dict[str, Any]) -> bool:
    return row.get("tre_um", np.inf) <= max(RIGHT_VOXELS * row["voxel_um"], RIGHT_SHARE * row["size_um"])


def weights_of(features: Floats, right: npt.NDArray[np.bool_]) -> Floats:
    """Logistic weights by ridge regression; right and wrong placements count alike in all."""
    signs = np.where(right, 1.0, -1.0)
    balance = np.where(right, 0.5 / max(right.sum(), 1), 0.5 / max((~right).sum(), 1))

    def cost(weights: Floats) -> float:
        return float(balance @ np.logaddexp(0, -signs * (features @ weights)) + _RIDGE * (weights[1:] ** 2).sum())

    return np.asarray(optimize.minimize(cost, np.zeros(features.shape[1])).x)


def expected_of(factors: Floats, rows: list[dict[str, Any]]) -> Floats:
    """Expected TRE, um, with these factors of the halves' disagreement and of the diagonal without detail."""
    unseen = 1 - np.clip([row["detail"] for row in rows], 0, 1)
    halves, size = (np.asarray([row[key] for row in rows]) for key in ("disagreement_um", "size_um"))
    return np.asarray(np.hypot(factors[0] * halves, factors[1] * unseen**2 * size))


def factors_of(rows: list[dict[str, Any]]) -> Floats:
    """The two factors, by least squares of logarithms; every cohort counts alike."""
    true = np.log([row["tre_um"] for row in rows])
    kinds = [row["cohort"] for row in rows]
    counts = np.asarray([1 / kinds.count(kind) for kind in kinds])

    def cost(logs: Floats) -> float:
        return float(counts @ (np.log(expected_of(np.exp(logs), rows)) - true) ** 2)

    return np.asarray(np.exp(optimize.minimize(cost, np.log(IN_USE), method="Nelder-Mead").x))


def left_out(rows: list[dict[str, Any]], fit_and_judge: Callable[[list[int], list[int]], Floats]) -> Floats:
    """A value for each row, by what was fitted to the rows of all other specimens."""
    groups = [f"{row['cohort']} {row['specimen']}" for row in rows]
    values = np.full(len(rows), np.nan)
    for group in set(groups):
        inside = [n for n, one in enumerate(groups) if one == group]
        values[inside] = fit_and_judge([n for n in range(len(rows)) if n not in inside], inside)
    return values


def main(files: list[Path]) -> None:
    rows = [row for row in lines_of(files) if "ratio" in row]
    right = np.asarray([is_right(row) for row in rows])
    features = np.stack([score_of(row).features for row in rows])
    print(f"{len(rows)} placements, {right.sum()} right")
    print("WEIGHTS =", tuple(round(float(w), 2) for w in weights_of(features, right)))
    fitted = left_out(rows, lambda rest, out: features[out] @ weights_of(features[rest], right[rest]))
    for name, sure in (("in use", features @ np.asarray(quality.WEIGHTS)), ("fitted, left out", fitted)):
        accepted = 1 / (1 + np.exp(-sure)) >= quality.ACCEPTED
        print(
            f"{name}: right ones refused {(right & ~accepted).sum()} of {right.sum()}, wrong ones accepted "
            f"{(~right & accepted).sum()} of {(~right).sum()}; least sure right {_chance(sure[right].min())}, "
            f"surest wrong {_chance(sure[~right].max()) if (~right).any() else '-'}"
        )
    good = [row for row, ok in zip(rows, right, strict=True) if ok]
    true = np.asarray([row["tre_um"] for row in good])
    print("ERROR_HALVES, ERROR_SIZE =", tuple(float(f"{f:.2g}") for f in factors_of(good)))
    apart = left_out(good, lambda rest, out: expected_of(factors_of([good[n] for n in rest]), [good[n] for n in out]))
    ways = {"in use": expected_of(np.asarray(IN_USE), good), "fitted, left out": apart}
    for name, expected in ways.items():
        for cohort in (None, *sorted({row["cohort"] for row in good})):
            chosen = np.asarray([cohort in (None, row["cohort"]) for row in good])
            ratio = expected[chosen] / true[chosen]
            alike = stats.spearmanr(expected[chosen], true[chosen]).statistic if chosen.sum() > 2 else np.nan
            print(
                f"{name}, {cohort or 'all'}: expected over true {np.median(ratio):.2f} in the median of {len(ratio)}, "
                f"{np.mean((ratio >= 0.5) & (ratio <= 2)):.0%} within 0.5 to 2, error of its logarithm "
                f"{np.sqrt(np.mean(np.log(ratio) ** 2)):.2f}; rank correlation {alike:.2f}"
            )


def _chance(sure: float) -> str:
    return f"{1 / (1 + np.exp(-sure)):.3f}"


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
