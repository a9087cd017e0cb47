"""How good a virtual stain can be: the perfect section, and the same as far beside its place as slides are expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain import runs
from tomostain.pairs.pair import Pair
from tomostain.scoring.colours import fit_dye, mean_difference
from tomostain.scoring.judging import Metric, values_of

SHIFTED = "perfect section, shifted"
"""The perfect section moved by the expected registration error of its slide: what a stainer that is right everywhere
would score, if slides were misplaced by that much and it were not."""


def shifted_perfect(pairs: Sequence[Pair], metrics: Mapping[str, Metric]) -> dict[str, dict[str, float]]:
    """Scores by metric and specimen of perfect sections moved along both axes, either way, by the expected error.

    Of pairs that know neither their perfect section nor an expected error there is no score.
    """
    found: dict[str, dict[str, list[float]]] = {}
    known = [pair for pair in pairs if pair.truth is not None and pair.notes.get("expected_tre_um")]
    for pair in runs.progress(known, desc="ceiling", unit="pair"):
        far = float(pair.notes["expected_tre_um"]) / pair.grid.spacing_um[0]
        for move in ((far, 0.0), (-far, 0.0), (0.0, far), (0.0, -far)):
            for name, value in _scored(pair, _moved(pair, move), metrics).items():
                found.setdefault(name, {}).setdefault(pair.specimen, []).append(value)
    return {name: {who: float(np.mean(values)) for who, values in of.items()} for name, of in found.items()}


def _moved(pair: Pair, move_px: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """The pair's perfect section moved by y, x px: (y, x, 3)."""
    truth = pair.truth
    assert truth is not None
    moved = ndimage.shift(truth.astype(np.float32), (*move_px, 0.0), order=3, mode="nearest")
    return np.asarray(np.floor(np.clip(moved, 0.0, 255.0) + 0.5), dtype=np.uint8)


def _scored(pair: Pair, picture: npt.NDArray[np.uint8], metrics: Mapping[str, Metric]) -> dict[str, Any]:
    fitted = values_of(pair, fit_dye(picture, pair.stain, pair.weight), pair.weight, metrics)
    return {
        **values_of(pair, picture, pair.weight, metrics),
        **{f"{name}_after_dye_fit": value for name, value in fitted.items()},
        "delta_e": mean_difference(picture, pair.stain, pair.weight),
    }
