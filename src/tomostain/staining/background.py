"""What need not pass the network: constant tiles, whose colours are known, and on request air and empty resin."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.filters import threshold_otsu

from tomostain.images.image import Volume
from tomostain.images.sampling import even_planes

_SAMPLED_PLANES = 16
_SAMPLED_PX = 2_000_000
_BINS = 512
_MEAN_PX = 4
RULE = (
    f"a tile is background where, halo included, every mean over {_MEAN_PX} x {_MEAN_PX} px of every plane it is "
    "stained from lies below the threshold; it is stained as if it had the background's median value everywhere"
)


@dataclass(frozen=True)
class Background:
    """CT values that stand for air or empty resin."""

    threshold: float
    """Tiles whose local means all lie below this are background."""
    value: float
    """The CT value they are stained as."""

    def holds(self, values: npt.NDArray[np.float32]) -> bool:
        """Whether a tile (planes, y, x) is background by ``RULE``; pixels beyond the last full mean count alone."""
        rows, columns = (n // _MEAN_PX * _MEAN_PX for n in values.shape[1:])
        if not rows or not columns:
            return bool(values.max() < self.threshold)
        full = values[:, :rows, :columns]
        means = full.reshape(len(values), rows // _MEAN_PX, _MEAN_PX, columns // _MEAN_PX, _MEAN_PX).mean(axis=(2, 4))
        edges = (values[:, rows:], values[:, :, columns:])
        return bool(means.max() < self.threshold) and all(not e.size or e.max() < self.threshold for e in edges)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and the rule in words."""
        return {**asdict(self), "rule": RULE}


def find_background(ct: Volume) -> Background:
    """Background by Otsu's threshold (1979) on evenly spaced planes.

    The background's value is the median of what lies below Otsu's threshold; tiles may reach half-way from there to it,
    which keeps marrow beside bone, and everything dense, out.
    """
    picked = even_planes(ct.shape[0], _SAMPLED_PLANES)
    step = max(1, int(np.sqrt(ct.shape[1] * ct.shape[2] * len(picked) / _SAMPLED_PX)))
    sample = np.concatenate([np.asarray(ct[z : z + 1][0, ::step, ::step], np.float32).ravel() for z in picked])
    low, high = np.percentile(sample, (0.1, 99.9))
    if not low < high:
        return Background(float(low), float(low))
    counts, edges = np.histogram(np.clip(sample, low, high), bins=_BINS, range=(float(low), float(high)))
    middles = 0.5 * (edges[1:] + edges[:-1])
    otsu = float(threshold_otsu(hist=(counts, middles)) + 0.5 * (edges[1] - edges[0]))
    value = float(np.median(sample[sample < otsu]))
    return Background(value + 0.5 * (otsu - value), value)


class Cache:
    """The last results of a costly function, by key: the network's colours of constant tiles, by value and shape."""

    def __init__(self, keep: int = 8) -> None:
        self._keep = keep
        self._kept: OrderedDict[Hashable, npt.NDArray[np.uint8]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        """The kept result, or a new one."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = self._kept[key] = make()
        if len(self._kept) > self._keep:
            self._kept.popitem(last=False)
        return made
