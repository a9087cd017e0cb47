"""Arrays in the world: volumes, slides, and where they are. Nothing here knows of networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from tomostain.images.image import Slide, Volume
from tomostain.images.readers.flat import read_npy, read_raw
from tomostain.images.readers.given import Given, VolumeError
from tomostain.images.readers.hdf5 import read_hdf5
from tomostain.images.readers.metaimage import read_metaimage
from tomostain.images.readers.nifti import read_nifti
from tomostain.images.readers.nrrd_file import read_nrrd
from tomostain.images.readers.scanco import read_aim, read_isq
from tomostain.images.readers.slices import read_folder
from tomostain.images.readers.tiff import read_tiff
from tomostain.images.readers.zarr_store import METADATA, read_zarr
from tomostain.images.slides import read_slide
from tomostain.runs import split_inside

__all__ = ["READERS", "Slide", "Volume", "VolumeError", "check_ct", "read_slide", "read_volume"]

Reader = Callable[[Path, Given], Volume]

READERS: Mapping[str, Reader] = MappingProxyType(
    {
        ".zarr": read_zarr,
        ".tif": read_tiff,
        ".tiff": read_tiff,
        ".btf": read_tiff,
        ".h5": read_hdf5,
        ".hdf5": read_hdf5,
        ".hdf": read_hdf5,
        ".nxs": read_hdf5,
        ".nx": read_hdf5,
        ".nrrd": read_nrrd,
        ".nhdr": read_nrrd,
        ".mha": read_metaimage,
        ".mhd": read_metaimage,
        ".nii": read_nifti,
        ".nii.gz": read_nifti,
        ".isq": read_isq,
        ".aim": read_aim,
        ".npy": read_npy,
        ".raw": read_raw,
    }
)
"""How a volume in a file is opened, by how its name ends, in small letters; the longest ending that fits is taken."""

_CHECKED_WHOLE_BYTES = 2**30
_CHECKED_PLANES = 64
_SLAB_BYTES = 2**28


def read_volume(
    path: Path | str,
    *,
    spacing_um: tuple[float, ...] | None = None,
    shape: tuple[int, ...] | None = None,
    dtype: str | None = None,
    offset: int = 0,
) -> Volume:
    """Open a volume lazily, whatever its format (docs/formats.md lists them).

    Parameters
    ----------
    path
        A file, a Zarr folder or a folder of slices. ``FILE::/entry/data`` chooses a data set inside an HDF5 file or a
        Zarr group, ``NAME.ome.zarr::2`` a level.
    spacing_um
        Voxel size (z, y, x) in um where the file states none; overrides the file.
    shape, dtype, offset
        Of raw values: voxels (z, y, x), type (``uint16``, big-endian ``uint16be``), bytes before the first value. A
        file of unknown ending is read as raw values where shape and dtype are given.

    Raises
    ------
    FileNotFoundError
        There is nothing at ``path``.
    VolumeError
        A ValueError: unknown format, no voxel size, or whatever the format's reader finds wrong.
    """
    file, inside = split_inside(path)
    if not file.exists():
        raise FileNotFoundError(f"there is no volume {file}")
    if not (file.is_file() or file.is_dir()):
        raise VolumeError(f"{file} is neither a file nor a folder; copy what it stands for to a file")
    given = Given(inside, spacing_um, shape, dtype, offset)
    reader = _reader_of(file)
    if reader is None and file.is_file() and shape is not None and dtype is not None:
        reader = read_raw
    if reader is None:
        raise VolumeError(
            f"{file.name}: volumes are read from {', '.join(READERS)} and folders of slices; convert it to one of "
            "these, or pass --shape and --dtype if it holds raw values"
        )
    if reader is not read_raw and (shape is not None or dtype is not None or offset):
        raise VolumeError(
            f"{file.name} states its own shape and type; --shape, --dtype and --offset are for raw values"
        )
    return reader(file, given)


def _reader_of(path: Path) -> Reader | None:
    if path.is_dir():
        zarr_like = path.name.lower().endswith(".zarr") or any((path / file).is_file() for file in METADATA)
        return read_zarr if zarr_like else read_folder
    name = re.sub(r";\d+$", "", path.name.lower())
    endings = [ending for ending in READERS if name.endswith(ending) and ending != ".zarr"]
    return READERS[max(endings, key=len)] if endings else None


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
