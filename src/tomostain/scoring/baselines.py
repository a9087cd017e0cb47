"""What a network has to beat: the best colour look-up table from CT intensity, and one constant colour.

Both are fitted on the training pairs alone and are called like a Stainer. A network that does not beat the table has
learnt nothing about structure: it only maps grey values to colours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg import solveh_banded

from tomostain.runs import write_text_atomically

FILE = "baselines.json"
COLOUR_TABLE, MEAN_COLOUR = "colour table", "mean colour"

_FINE_BINS = 1 << 16
_QUANTILE_KNOTS, _EVEN_KNOTS = 257, 129


class Range(Protocol):
    """The CT values that a stainer was trained on (``tomostain.learning.ranges.CTRange`` is one)."""

    @property
    def low(self) -> float:
        """CT value that becomes -1."""

    @property
    def high(self) -> float:
        """CT value that becomes 1."""


class Sample(Protocol):
    """What a baseline needs of a ``tomostain.pairs.pair.Pair``."""

    @property
    def ct(self) -> npt.NDArray[np.float32]:
        """CT values (k, y, x)."""

    @property
    def stain(self) -> npt.NDArray[np.uint8]:
        """Real colours (y, x, 3), sRGB."""

    @property
    def weight(self) -> npt.NDArray[np.float32]:
        """How much each pixel counts (y, x), in [0, 1]."""


@dataclass(frozen=True, eq=False)
class ColourTable:
    """One colour for each CT intensity, linearly interpolated between knots; beyond the ends the end colours.

    ``intensities`` (n,) float64 rise, in the CT's own values; ``colours`` (n, 3) float64 are sRGB in [0, 255].
    """

    intensities: npt.NDArray[np.float64]
    colours: npt.NDArray[np.float64]

    def __call__(self, ct: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Colour the central plane: (k, y, x) CT values -> (y, x, 3) uint8; a NaN takes the lowest knot's."""
        plane = np.asarray(ct[len(ct) // 2], dtype=np.float64)
        plane = np.where(np.isnan(plane), self.intensities[0], plane)
        colours = np.stack([np.interp(plane, self.intensities, self.colours[:, i]) for i in range(3)], axis=-1)
        return _to_bytes(colours)


@dataclass(frozen=True)
class MeanColour:
    """The mean colour of the training stain, sRGB in [0, 255], everywhere."""

    colour: tuple[float, float, float]

    def __call__(self, ct: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """(k, y, x) CT values -> (y, x, 3) uint8 of one colour."""
        return np.broadcast_to(_to_bytes(np.asarray(self.colour)), (*ct.shape[1:], 3)).copy()


Baseline = ColourTable | MeanColour


def fit_baselines(pairs: Iterable[Sample], ct_range: Range) -> dict[str, Baseline]:
    """Fit both baselines on training pairs: ``{"colour table": ..., "mean colour": ...}``.

    The table is the piecewise linear function of the central plane's CT intensity with the least weighted squared error
    to the true sRGB colours; knots lie at the quantiles of the training intensities and evenly across ``ct_range``.
    Between knots that saw no pixel it runs straight. Pairs are read one at a time; memory does not grow with them.

    Raises
    ------
    ValueError
        No pair has a pixel of positive weight.
    """
    low, high = float(ct_range.low), float(ct_range.high)
    span = high - low
    edges = np.linspace(low - 0.25 * span, high + span, _FINE_BINS + 1)
    weights, colours, intensities = np.zeros(_FINE_BINS), np.zeros((_FINE_BINS, 3)), np.zeros(_FINE_BINS)
    for pair in pairs:
        ct = np.asarray(pair.ct[len(pair.ct) // 2], dtype=np.float64)
        there = (pair.weight > 0) & np.isfinite(ct)
        value, weight = ct[there], pair.weight[there].astype(np.float64)
        scaled = (value - edges[0]) * (_FINE_BINS / (edges[-1] - edges[0]))
        fine = np.clip(np.floor(scaled), 0, _FINE_BINS - 1).astype(np.int64)
        weights += np.bincount(fine, weight, _FINE_BINS)
        intensities += np.bincount(fine, weight * value, _FINE_BINS)
        for i in range(3):
            colours[:, i] += np.bincount(fine, weight * pair.stain[..., i][there], _FINE_BINS)
    seen = weights > 0
    if not seen.any():
        raise ValueError("no training pair has a pixel that counts; the baselines cannot be fitted")
    weights, colours, intensities = weights[seen], colours[seen], intensities[seen] / weights[seen]
    mean = colours.sum(axis=0) / weights.sum()
    knots = _knots(intensities, weights, low, high)
    table = ColourTable(knots, _least_squares(knots, intensities, weights, colours))
    return {COLOUR_TABLE: table, MEAN_COLOUR: MeanColour((float(mean[0]), float(mean[1]), float(mean[2])))}


def save_baselines(baselines: Mapping[str, Baseline], folder: Path) -> Path:
    """Write ``baselines.json`` into a stainer's folder."""
    table, mean = baselines[COLOUR_TABLE], baselines[MEAN_COLOUR]
    if not isinstance(table, ColourTable) or not isinstance(mean, MeanColour):
        raise TypeError(f"baselines are a ColourTable and a MeanColour, got {table!r} and {mean!r}")
    text = {
        "format": "tomostain-baselines",
        "version": 1,
        COLOUR_TABLE: {"intensities": table.intensities.tolist(), "colours": table.colours.tolist()},
        MEAN_COLOUR: {"colour": list(mean.colour)},
    }
    return write_text_atomically(Path(folder) / FILE, json.dumps(text) + "\n")


def load_baselines(folder: Path) -> dict[str, Baseline]:
    """Read what ``save_baselines`` wrote.

    Raises
    ------
    FileNotFoundError
        The folder has no baselines.
    ValueError
        The file is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {FILE}, so it is not a finished stainer; train it with `tomostain train`, or "
            "import it with the pairs that it was trained on (`tomostain import ... --pairs`)"
        )
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
        knots = np.asarray(text[COLOUR_TABLE]["intensities"], dtype=np.float64)
        colours = np.asarray(text[COLOUR_TABLE]["colours"], dtype=np.float64)
        red, green, blue = (float(c) for c in text[MEAN_COLOUR]["colour"])
        if knots.ndim != 1 or colours.shape != (len(knots), 3) or not (np.diff(knots) > 0).all():
            raise ValueError("intensities do not rise or colours do not match them")
        if not (np.isfinite(knots).all() and np.isfinite(colours).all() and np.isfinite([red, green, blue]).all()):
            raise ValueError("a value is NaN or infinite")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); train the stainer again") from None
    return {COLOUR_TABLE: ColourTable(knots, colours), MEAN_COLOUR: MeanColour((red, green, blue))}


def _knots(
    intensities: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], low: float, high: float
) -> npt.NDArray[np.float64]:
    """Quantiles of the seen intensities (rising) and even steps across the range, within what was seen."""
    share = np.cumsum(weights) / weights.sum()
    places = np.searchsorted(share, np.linspace(0.0, 1.0, _QUANTILE_KNOTS))
    at_quantiles = intensities[np.clip(places, 0, len(intensities) - 1)]
    even = np.clip(np.linspace(low, high, _EVEN_KNOTS), intensities[0], intensities[-1])
    knots = np.unique(np.concatenate([at_quantiles, even, intensities[[0, -1]]]))
    apart = 1e-6 * max(high - low, knots[-1] - knots[0])
    kept: npt.NDArray[np.float64] = knots[np.concatenate([[True], np.diff(knots) > apart])]
    return kept


def _least_squares(
    knots: npt.NDArray[np.float64],
    intensities: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    colours: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Colours (n, 3) at the knots: weighted least squares of a piecewise linear function.

    ``colours`` are weighted sums at ``intensities``. A tension of 1e-6 of the data's weight carries it across gaps.
    """
    n = len(knots)
    if n == 1:
        return np.asarray(np.clip(colours.sum(axis=0, keepdims=True) / weights.sum(), 0.0, 255.0))
    left = np.clip(np.searchsorted(knots, intensities, side="right") - 1, 0, n - 2)
    gaps = np.diff(knots)
    right_share = np.clip((intensities - knots[left]) / gaps[left], 0.0, 1.0)
    left_share = 1.0 - right_share
    tension = 1e-6 * weights.sum() / n * gaps.mean() / gaps
    bands = np.zeros((2, n))
    bands[1] = np.bincount(left, weights * left_share**2, n) + np.bincount(left + 1, weights * right_share**2, n)
    bands[0, 1:] = np.bincount(left, weights * left_share * right_share, n)[:-1] - tension
    bands[1, :-1] += tension
    bands[1, 1:] += tension
    wanted = np.stack(
        [
            np.bincount(left, left_share * colours[:, i], n) + np.bincount(left + 1, right_share * colours[:, i], n)
            for i in range(3)
        ],
        axis=1,
    )
    return np.asarray(np.clip(solveh_banded(bands, wanted), 0.0, 255.0))


def _to_bytes(colours: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.floor(np.clip(colours, 0.0, 255.0) + 0.5).astype(np.uint8)
