"""Dye that differs from slide to slide: each slide's dye strength and white balance against those of all slides.

Light is transmission (Beer-Lambert), so a stronger dye multiplies the optical density of every tissue, and a white
balance adds a constant to that of each colour. Both are estimated from pixels of equal CT value, whose mean colours
are compared with those of all training slides; what cannot be estimated well is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from tomostain.images.srgb import to_linear, to_srgb
from tomostain.pairs.pair import Pair

_BINS = 24
_BLACK = 1.6
"""Optical density beyond which a pixel shows no dye: metal, folds."""
_FEWEST = 0.005
"""Share of a slide's pixels below which a bin of CT values does not count."""
_STRENGTH, _BALANCE = (0.5, 2.0), 0.25
"""Estimates beyond these are taken for a failure: a factor, and a density."""
_LEAST_FIT = 0.8
"""Share of the variance of the bins' densities that the estimate must explain."""


@dataclass(frozen=True)
class Dye:
    """A slide's optical density is ``strength`` times that of the mean slide, plus ``balance`` for red, green, blue."""

    strength: float = 1.0
    balance: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def removed(self, stain: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The slide as the mean slide is dyed: (y, x, 3) uint8 sRGB -> the same."""
        if self == Dye():
            return stain
        density = (_density(stain) - np.array(self.balance, np.float32)) / np.float32(self.strength)
        return to_srgb(np.power(np.float32(10.0), -density))


def dyes_of(pairs: Sequence[Pair]) -> dict[str, Dye]:
    """The dye of each pair's slide, by the pair's name; no difference where it cannot be estimated, or of one pair."""
    edges = np.quantile(
        np.concatenate([pair.central_ct[pair.mask][::37] for pair in pairs]), np.linspace(0, 1, _BINS + 1)
    )
    means = {pair.name: _bin_means(pair, edges) for pair in pairs}
    counts = np.stack([count for _, count in means.values()])
    sums = np.stack([density * count[:, None] for density, count in means.values()])
    reference = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1e-9)[:, None]
    if len(pairs) == 1:
        return {pairs[0].name: Dye()}
    return {name: _estimate(density, count, reference) for name, (density, count) in means.items()}


def normalised(pairs: Sequence[Pair], dyes: Mapping[str, Dye]) -> list[Pair]:
    """The pairs with their slides as the mean slide is dyed; what the weight leaves out stays as it is."""
    return [replace(pair, stain=dyes[pair.name].removed(pair.stain)) for pair in pairs]


def to_json(dyes: Mapping[str, Dye]) -> dict[str, dict[str, object]]:
    """Plain numbers, for a stainer's history."""
    return {name: asdict(dye) for name, dye in dyes.items()}


def _bin_means(pair: Pair, edges: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean optical density (bins, 3) of pixels of similar CT value, and the share of the slide (bins,) in each."""
    density = _density(pair.stain)
    use = (pair.weight > 0) & (density.max(axis=-1) < _BLACK)
    place = np.clip(np.searchsorted(edges, pair.central_ct[use], side="right") - 1, 0, _BINS - 1)
    count = np.bincount(place, minlength=_BINS).astype(float)
    sums = np.stack([np.bincount(place, density[use][:, c], minlength=_BINS) for c in range(3)], axis=1)
    share = count / max(count.sum(), 1.0)
    return sums / np.maximum(count, 1.0)[:, None], np.where(share >= _FEWEST, share, 0.0)


def _estimate(
    density: npt.NDArray[np.float64], count: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]
) -> Dye:
    """Weighted least squares of a slide's bins on the mean slide's: one factor, three constants."""
    weight = np.sqrt(np.repeat(count, 3))
    design = np.column_stack([reference.ravel(), *(np.tile(np.eye(3)[c], _BINS) for c in range(3))])
    solution, *_ = np.linalg.lstsq(design * weight[:, None], density.ravel() * weight, rcond=None)
    left = (density.ravel() - design @ solution) * weight
    centred = (density - (density * count[:, None]).sum(0) / max(count.sum(), 1e-9)).ravel() * weight
    strength, *balance = (float(value) for value in solution)
    good = 1.0 - (left @ left) / max(centred @ centred, 1e-12) >= _LEAST_FIT
    if not good or not _STRENGTH[0] <= strength <= _STRENGTH[1] or max(map(abs, balance)) > _BALANCE:
        return Dye()
    return Dye(strength, (balance[0], balance[1], balance[2]))


def _density(stain: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Optical density of sRGB, of linear light no darker than 1/1000: (..., 3) float32."""
    return -np.log10(np.maximum(to_linear(stain), np.float32(1e-3)))
