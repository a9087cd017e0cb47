"""What the grey values of a volume look like: a histogram of a bounded sample, and the peaks that stand out of it.

The names of the peaks are a belief: materials in the order of their attenuation, told apart by how far they lie above
the lowest.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from tomostain.images.image import Volume

SAMPLE_VOXELS = 2**23
SAMPLE_PLANES = 24
BINS = 1024
TAIL = 1e-4
"""Share of the sample at either end that the histogram leaves out: hot pixels and the deepest of the streaks."""
PROMINENCE = 0.2
"""How far, in decades of counts, a peak must stand above the saddle to a higher one."""
LEAST_SHARE = 2e-3
"""Share of the sample that must lie above a peak's higher saddle; below it the peak is noise or partial volume."""
APART = 2.0
METAL_APART = 7.0
"""See ``_believed``."""
AROUND, SOFT, BONE, METAL = "air, or the resin around the specimen", "resin or soft tissue", "bone", "metal"
UNTOLD = "bone, soft tissue or resin, not told apart"


@dataclass(frozen=True)
class Peak:
    """A grey value around which many voxels lie."""

    value: float
    share: float
    """Share of the sample between the saddles on either side."""
    believed: str
    """One of the names above: a belief, from the order and the distances of the peaks alone."""


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
    """Histogram and peaks of a grey volume, from at most ``SAMPLE_VOXELS`` voxels of evenly spaced planes.

    Counts are taken as logarithms (a little metal counts beside much air), smoothed by a Gaussian of a 256th of the
    range, and their peaks found by prominence. Planes too large for the sample are read as a band of rows across
    the middle, so that the air on both sides is in it.
    """
    return describe(_sample(volume))


def describe(values: npt.NDArray[Any]) -> Intensities:
    """Histogram and peaks of some grey values, in any shape."""
    sample = np.asarray(values).reshape(-1)
    finite = sample[np.isfinite(sample)] if sample.dtype.kind == "f" else sample
    unusable = 1 - finite.size / sample.size if sample.size else 0.0
    if not finite.size:
        return Intensities(np.zeros(2), np.zeros(1, np.int64), np.nan, np.nan, unusable, (), 0)
    low, high = float(finite.min()), float(finite.max())
    edges = _edges(finite, low, high)
    counts, _ = np.histogram(finite, bins=edges)
    return Intensities(edges, counts, low, high, unusable, _peaks(counts, edges), int(sample.size))


def sparkline(counts: npt.NDArray[Any], *, width: int = 64) -> str:
    """Counts as one line of text, a step for half a decade: blank below 1/10000 of the most."""
    step = -(-len(counts) // width)
    padded = np.pad(counts, (0, -len(counts) % step)).reshape(-1, step).sum(axis=1)
    decades = 4 + np.log10(np.maximum(padded, 1e-9) / max(padded.max(), 1))
    marks = np.ceil(decades.clip(0, 4) * 2).astype(int)
    return "".join(" ▁▂▃▄▅▆▇█"[mark] for mark in marks)


def _sample(volume: Volume) -> npt.NDArray[Any]:
    depth, rows, columns = volume.shape[:3]
    planes = np.unique(((np.arange(SAMPLE_PLANES) + 0.5) * depth / SAMPLE_PLANES).astype(int).clip(0, depth - 1))
    band = max(1, min(rows, SAMPLE_VOXELS // (len(planes) * columns)))
    top = (rows - band) // 2
    return np.concatenate(
        [volume[int(z) : int(z) + 1, top : top + band, 0:columns].reshape(-1) for z in planes], axis=0
    )


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


def _peaks(counts: npt.NDArray[Any], edges: npt.NDArray[np.float64]) -> tuple[Peak, ...]:
    sigma = max(0.7, len(counts) / 256)
    # the zeros on either side let a peak stand at the very end of the range
    margin = round(5 * sigma) + 1
    smooth = ndimage.gaussian_filter1d(np.pad(counts.astype(np.float64), margin), sigma)
    found, _ = signal.find_peaks(np.log10(1 + smooth), prominence=PROMINENCE)
    kept = [int(at) for at in found]
    while True:
        saddles = [0, *(a + int(np.argmin(smooth[a:b])) for a, b in pairwise(kept)), len(smooth) - 1]
        hills = [smooth[a : b + 1] - max(smooth[a], smooth[b]) for a, b in pairwise(saddles)]
        above = [float(hill.clip(0).sum() / smooth.sum()) for hill in hills]
        if not above or min(above) >= LEAST_SHARE:
            break
        del kept[int(np.argmin(above))]
    shares = [float(smooth[a:b].sum() / smooth.sum()) for a, b in pairwise(saddles)]
    centres = (edges[:-1] + edges[1:]) / 2
    values = [float(centres[min(max(at - margin, 0), len(counts) - 1)]) for at in kept]
    return tuple(Peak(*about) for about in zip(values, shares, _believed(values, shares), strict=True))


def _believed(values: list[float], shares: list[float]) -> list[str]:
    """Names for peaks in rising order.

    The lowest is what surrounds the specimen. The others fall into groups wherever one lies ``APART`` times as far
    above the lowest as the one before: bone over soft tissue, metal over bone. Of two groups, the upper is metal where
    its tallest peak lies ``METAL_APART`` times as far as that of the lower; bone lies at 3 to 6 times resin or water.
    """
    if len(values) < 2:
        return ["not told apart"] * len(values)
    above = [value - values[0] for value in values[1:]]
    groups = [[0]]
    for i in range(1, len(above)):
        if above[i] >= APART * above[i - 1]:
            groups.append([])
        groups[-1].append(i)
    names = [UNTOLD]
    if len(groups) == 2:
        lower, upper = (above[max(group, key=lambda i: shares[i + 1])] for group in groups)
        names = [BONE, METAL] if upper >= METAL_APART * lower else [SOFT, BONE]
    elif len(groups) > 2:
        names = [*[SOFT] * (len(groups) - 2), BONE, METAL]
    return [AROUND, *(name for name, group in zip(names, groups, strict=True) for _ in group)]
