"""What the grey values of a volume look like: a histogram of a bounded sample, and the peaks that stand out of it.

Peaks are named only where two rules right for all phantoms allow it (``_materials``); most peaks have no name.
Grey values alone do not separate bone from a magnesium alloy, or soft tissue in resin from bone in soft tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from tomostain.images.image import Volume
from tomostain.images.sampling import sample_of

BINS = 1024
TAIL = 1e-4
"""Share of the sample at either end that the histogram leaves out: hot pixels and the deepest of the streaks."""
PROMINENCE = 0.2
"""How far, in decades of counts, a peak must stand above the saddle to a higher one."""
LEAST_SHARE = 2e-3
"""Share of the sample that must lie above a peak's higher saddle; below it the peak is noise or partial volume."""
MAJOR_SHARE = 0.03
"""Share of the sample from which on a peak may be named; smaller ones are mostly streaks and partial volume."""
STEP = (2.5, 15.0)
LADDER = 4
METAL_OVER_SOFT = 15.0
BONE_OVER_SOFT = (2.5, 10.0)
AIR_UNDER_SOFT = 0.05
"""See ``_materials``."""
AIR, SOFT, BONE, METAL = "air", "resin or soft tissue", "bone", "metal"
AROUND = "air, resin or soft tissue"
ATTENUATION_UNITS = ("1/cm", "cm-1", "cm^-1", "1/mm", "mm-1", "mm^-1", "1/m", "m-1", "m^-1")


@dataclass(frozen=True)
class Peak:
    """A grey value around which many voxels lie."""

    value: float
    share: float
    """Share of the sample between the saddles on either side."""
    material: str | None
    """One of the names above, where the peaks' values allow it; None where they do not."""


@dataclass(frozen=True)
class Intensities:
    """Counts of grey values and what stands out of them."""

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    low: float
    high: float
    """Smallest and largest finite value of the sample."""
    unusable: float
    """Share of the sample that is NaN or infinite."""
    peaks: tuple[Peak, ...]
    voxels: int
    """Voxels in the sample."""


def intensities(volume: Volume) -> Intensities:
    """Histogram and peaks of a grey volume, from a bounded sample of it (``sample_of``).

    Counts are taken as logarithms (a little metal counts beside much air), smoothed by a Gaussian of a 256th of the
    range, and their peaks found by prominence.
    """
    return describe(sample_of(volume), units=volume.about.get("units"))


def describe(values: npt.NDArray[Any], *, units: str | None = None) -> Intensities:
    """Histogram and peaks of some grey values, in any shape; in ``units`` of attenuation zero is known to be air."""
    sample = np.asarray(values).reshape(-1)
    finite = sample[np.isfinite(sample)] if sample.dtype.kind == "f" else sample
    unusable = 1 - finite.size / sample.size if sample.size else 0.0
    if not finite.size:
        return Intensities(np.zeros(2), np.zeros(1, np.int64), np.nan, np.nan, unusable, (), 0)
    low, high = float(finite.min()), float(finite.max())
    edges = _edges(finite, low, high)
    counts, _ = np.histogram(finite, bins=edges)
    return Intensities(edges, counts, low, high, unusable, _peaks(counts, edges, units), int(sample.size))


def sparkline(counts: npt.NDArray[Any], *, width: int = 64) -> str:
    """Counts as one line of text, a step for half a decade: blank below 1/10000 of the most."""
    step = -(-len(counts) // width)
    padded = np.pad(counts, (0, -len(counts) % step)).reshape(-1, step).sum(axis=1)
    decades = 4 + np.log10(np.maximum(padded, 1e-9) / max(padded.max(), 1))
    marks = np.ceil(decades.clip(0, 4) * 2).astype(int)
    return "".join(" ▁▂▃▄▅▆▇█"[mark] for mark in marks)


def _edges(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float64]:
    """Edges of the bins: whole numbers for integers, and without the tails."""
    first, last = (float(v) for v in np.quantile(values, [TAIL, 1 - TAIL])) if low < high else (low, high)
    if values.dtype.kind in "iu":
        first, last = np.floor(first), np.ceil(last)
        step = max(1.0, np.ceil((last - first + 1) / BINS))
        return np.asarray(np.arange(first - 0.5, last + step, step))
    if not first < last:
        first, last = low, high if low < high else low + 1.0
    return np.linspace(first, last, BINS + 1)


@dataclass(frozen=True)
class Hill:
    """A peak of a histogram: its bin, its share of all counts between the saddles, its height after smoothing."""

    bin: int
    share: float
    height: float


def peaks_of(counts: npt.NDArray[Any], *, sigma: float, prominence: float) -> list[Hill]:
    """The peaks of counts (n,) that stand out after a Gaussian of ``sigma`` bins, from left to right.

    They stand ``prominence`` decades above the saddle to a higher one, and ``LEAST_SHARE`` of all counts lie above it.
    """
    # the zeros on either side let a peak stand at the very end of the range
    margin = round(5 * sigma) + 1
    smooth = ndimage.gaussian_filter1d(np.pad(counts.astype(np.float64), margin), sigma)
    found, _ = signal.find_peaks(np.log10(1 + smooth), prominence=prominence)
    kept = [int(at) for at in found]
    while True:
        saddles = [0, *(a + int(np.argmin(smooth[a:b])) for a, b in pairwise(kept)), len(smooth) - 1]
        hills = [smooth[a : b + 1] - max(smooth[a], smooth[b]) for a, b in pairwise(saddles)]
        above = [float(hill.clip(0).sum() / smooth.sum()) for hill in hills]
        if not above or min(above) >= LEAST_SHARE:
            break
        del kept[int(np.argmin(above))]
    shares = [float(smooth[a:b].sum() / smooth.sum()) for a, b in pairwise(saddles)]
    return [
        Hill(min(max(at - margin, 0), len(counts) - 1), share, float(smooth[at]))
        for at, share in zip(kept, shares, strict=True)
    ]


def _peaks(counts: npt.NDArray[Any], edges: npt.NDArray[np.float64], units: str | None) -> tuple[Peak, ...]:
    hills = peaks_of(counts, sigma=max(0.7, len(counts) / 256), prominence=PROMINENCE)
    centres = (edges[:-1] + edges[1:]) / 2
    values, shares = [float(centres[hill.bin]) for hill in hills], [hill.share for hill in hills]
    return tuple(Peak(*about) for about in zip(values, shares, _materials(values, shares, units), strict=True))


def _materials(values: list[float], shares: list[float], units: str | None) -> list[str | None]:
    """Names for peaks in rising order, None where it is not sure; only peaks of ``MAJOR_SHARE`` and more get one.

    Where the values are attenuation, zero is air. The lowest peak above it is the reference: resin or soft tissue. A
    peak of ``METAL_OVER_SOFT`` times the reference is metal: bone reaches 9 times from 20 keV on, titanium 17 times up
    to 60 keV. If there is metal, one peak between the two, within ``BONE_OVER_SOFT``, is bone. Without metal nothing is
    named, for magnesium alloys lie where bone does.

    Where zero is unknown, four peaks whose distances from the lowest grow by ``STEP`` each are air or resin, soft
    tissue, bone and metal. Fewer peaks fit more than one story.
    """
    names: list[str | None] = [None] * len(values)
    major = [i for i, share in enumerate(shares) if share >= MAJOR_SHARE]
    if units is not None and units.replace(" ", "").lower() in ATTENUATION_UNITS:
        return _by_attenuation(values, major, names)
    above = [values[i] - values[major[0]] for i in major[1:]]
    if len(major) == LADDER and all(STEP[0] <= b / a <= STEP[1] for a, b in pairwise(above)):
        for i, name in zip(major, (AROUND, SOFT, BONE, METAL), strict=True):
            names[i] = name
    return names


def _by_attenuation(values: list[float], major: list[int], names: list[str | None]) -> list[str | None]:
    positive = [i for i in major if values[i] > 0]
    if len(positive) > 1 and values[positive[0]] < AIR_UNDER_SOFT * values[positive[1]] and len(positive) > 2:
        reference = positive[1]
    else:
        reference = positive[0] if positive else -1
    if reference < 0 or values[major[-1]] < METAL_OVER_SOFT * values[reference]:
        return names
    names[reference], names[major[-1]] = SOFT, METAL
    between = [i for i in major if reference < i < major[-1]]
    low, high = BONE_OVER_SOFT
    if len(between) == 1 and low <= values[between[0]] / values[reference] <= high:
        names[between[0]] = BONE
    for i in major:
        names[i] = AIR if i < reference else names[i]
    return names
