"""Arrays in the world: volumes, slides, and where they are. Nothing here knows of networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tomostain.images.image import Slide, Volume
from tomostain.images.ome_zarr import read_ome_zarr
from tomostain.images.slides import read_slide
from tomostain.images.tiff import read_tiff

__all__ = ["READERS", "Slide", "Volume", "check_ct", "read_slide", "read_volume"]

READERS = {".zarr": read_ome_zarr, ".tif": read_tiff, ".tiff": read_tiff, "folder": read_tiff}
"""How a volume is opened, by suffix; ``folder`` is a folder of slices."""

_CHECKED_WHOLE_BYTES = 2**30
_CHECKED_PLANES = 64
_SLAB_BYTES = 2**28


def read_volume(path: Path, *, spacing_um: tuple[float, ...] | None = None) -> Volume:
    """Open a volume lazily, whatever its format.

    Parameters
    ----------
    path
        OME-Zarr, a folder of TIFF slices, or a multi-page TIFF.
    spacing_um
        Voxel size (z, y, x) in um where the file states none; overrides the file.

    Raises
    ------
    FileNotFoundError
        There is nothing at ``path``.
    ValueError
        Unknown format, no voxel size, or whatever the format's reader finds wrong.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no volume {path}")
    kind = path.suffix.lower()
    if kind not in READERS:
        if not path.is_dir():
            raise ValueError(f"{path.name}: volumes are read from {', '.join(READERS)}; convert it to one of these")
        kind = "folder"
    return READERS[kind](path, spacing_um=spacing_um)


def check_ct(volume: Volume) -> Volume:
    """Refuse what cannot be a CT volume, before any work is done, and return the volume.

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
        slabs = [slice(int(z), int(z) + 1) for z in np.linspace(0, depth - 1, _CHECKED_PLANES)]
    low, high = np.inf, -np.inf
    floating = np.issubdtype(volume.dtype, np.floating)
    for part in slabs:
        slab = volume[part]
        if floating and not np.isfinite(slab).all():
            z = part.start + int(np.argwhere(~np.isfinite(slab).all(axis=(1, 2)))[0, 0])
            raise ValueError(
                f"{volume.name} has NaN or infinite values, first in plane {z}; replace them with air's value"
            )
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        if low < high and not floating:
            return volume
    if low == high:
        raise ValueError(f"{volume.name} is constant ({low:g}); is it the right file?")
    return volume
