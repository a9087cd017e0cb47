"""Which planes of a volume stand for all of it, and a bounded sample of its values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tomostain.images.image import Volume

SAMPLE_VOXELS = 2**23
SAMPLE_PLANES = 24


def even_planes(depth: int, count: int) -> list[int]:
    """At most ``count`` of ``depth`` planes, evenly spread: the middles of as many equal parts.

    >>> even_planes(100, 4), even_planes(3, 4)
    ([12, 37, 62, 87], [0, 1, 2])
    """
    middles = (np.arange(count) + 0.5) * depth / count
    return [int(z) for z in np.unique(middles.astype(int).clip(0, depth - 1))]


def sample_of(volume: Volume, *, voxels: int | None = None, planes: int = SAMPLE_PLANES) -> npt.NDArray[Any]:
    """At most ``voxels`` (default: ``SAMPLE_VOXELS``) values of evenly spread planes, (n,), in the volume's own type.

    Of planes too large for the sample a band of rows across the middle is read, so that the air on both sides is in it.
    """
    return np.concatenate([part.reshape(-1) for part in sampled_planes(volume, voxels=voxels, planes=planes)], axis=0)


def sampled_planes(volume: Volume, *, voxels: int | None = None, planes: int = SAMPLE_PLANES) -> list[npt.NDArray[Any]]:
    """The same as planes: at most ``planes`` arrays (y, x), each a band of rows across the middle."""
    depth, rows, columns = volume.shape[:3]
    chosen = even_planes(depth, planes)
    band = max(1, min(rows, (voxels or SAMPLE_VOXELS) // (len(chosen) * columns)))
    top = (rows - band) // 2
    return [volume[z : z + 1, top : top + band, 0:columns][0] for z in chosen]
