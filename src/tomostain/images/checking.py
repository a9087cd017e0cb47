"""What a volume must be before any work is done on it: one grey value a voxel, finite, not constant."""

from __future__ import annotations

import numpy as np

from tomostain.images.image import Volume
from tomostain.images.sampling import even_planes

_CHECKED_WHOLE_BYTES = 2**30
_CHECKED_PLANES = 64
_SLAB_BYTES = 2**28


def check_ct(volume: Volume) -> Volume:
    """Refuse a volume that is not a CT, before any work is done, and return the volume.

    Volumes above 1 GiB are judged by 64 evenly spaced planes.

    Raises
    ------
    ValueError
        Colours, NaN or infinite values, or one constant value.
    """
    if volume.is_colour:
        raise ValueError(f"{volume.name} holds colours; a CT volume has one grey value a voxel")
    depth = volume.shape[0]
    plane_bytes = int(np.prod(volume.shape[1:])) * volume.dtype.itemsize
    if depth * plane_bytes <= _CHECKED_WHOLE_BYTES:
        step = max(1, min(_CHECKED_PLANES, _SLAB_BYTES // plane_bytes))
        slabs = [slice(z, min(z + step, depth)) for z in range(0, depth, step)]
    else:
        slabs = [slice(z, z + 1) for z in even_planes(depth, _CHECKED_PLANES)]
    low, high = np.inf, -np.inf
    floating = np.issubdtype(volume.dtype, np.floating)
    for part in slabs:
        slab = volume[part]
        if floating and not np.isfinite(slab).all():
            z = part.start + int(np.argwhere(~np.isfinite(slab).all(axis=(1, 2)))[0, 0])
            raise ValueError(
                f"{volume.name} has NaN or infinite values, first in plane {z}; pass --fill VALUE (that of air)"
            )
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        if low < high and not floating:
            return volume
    if low == high:
        raise ValueError(f"{volume.name} is constant ({low:g}); is it the right file?")
    return volume
