"""Readers of volumes, one file a family: a path in, a lazy Volume out; nothing is read before the volume is indexed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from tomostain._imports import pick
from tomostain.images.image import Volume, filled, scaled
from tomostain.io.volumes.dicom import read_dicom
from tomostain.io.volumes.flat import read_npy, read_raw
from tomostain.io.volumes.hdf5 import read_hdf5
from tomostain.io.volumes.headers import Hints, VolumeError
from tomostain.io.volumes.metaimage import read_metaimage
from tomostain.io.volumes.nifti import read_nifti
from tomostain.io.volumes.nrrd_file import read_nrrd
from tomostain.io.volumes.scanco import read_aim, read_isq
from tomostain.io.volumes.slices import read_folder
from tomostain.io.volumes.tiff import read_tiff
from tomostain.io.volumes.zarr_groups import METADATA
from tomostain.io.volumes.zarr_store import read_zarr
from tomostain.runs import split_inside

__all__ = ["READERS", "VolumeError", "read_volume"]

Reader = Callable[[Path, Hints], Volume]

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
        ".dcm": read_dicom,
        ".dicom": read_dicom,
        ".dic": read_dicom,
        ".ima": read_dicom,
        ".npy": read_npy,
        ".raw": read_raw,
    }
)
"""How a volume in a file is opened, by how its name ends, in small letters; the longest ending that fits is taken."""


def read_volume(
    path: Path | str,
    *,
    spacing_um: tuple[float, ...] | None = None,
    shape: tuple[int, int, int] | None = None,
    dtype: str | None = None,
    offset: int = 0,
    fill: float | None = None,
    grey_range: tuple[float, float] | None = None,
    reader: str | None = None,
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
        file of unknown ending is read as raw values where shape and dtype are passed.
    fill
        Value that takes the place of NaN and infinite values.
    grey_range
        Grey values that 0 and the largest integer stand for, of unsigned integers; the volume is then float32.
    reader
        An ending in ``READERS``, or ``package.module:function`` of your own, in place of what the file's name says.

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
    hints = Hints(spacing_um=spacing_um, shape=shape, dtype=dtype, offset=offset, fill=fill, inside=inside)
    read = _reader_of(file) if reader is None else pick(reader, READERS)
    if read is None and file.is_file() and shape is not None and dtype is not None:
        read = read_raw
    if read is None:
        raise VolumeError(
            f"{file.name}: volumes are read from {', '.join(READERS)} and folders of slices; convert it to one of "
            "these, or pass --shape and --dtype if it holds raw values, or --reader with a reader of your own"
        )
    if read is not read_raw and reader is None and (shape is not None or dtype is not None or offset):
        raise VolumeError(
            f"{file.name} states its own shape and type; --shape, --dtype and --offset are for raw values"
        )
    volume = read(file, hints)
    if not isinstance(volume, Volume):
        raise VolumeError(f"{file.name}: reader {reader} returned a {type(volume).__name__}, not a tomostain Volume")
    return scaled(filled(volume, hints.fill), grey_range)


def _reader_of(path: Path) -> Reader | None:
    if path.is_dir():
        zarr_like = path.name.lower().endswith(".zarr") or any((path / file).is_file() for file in METADATA)
        return read_zarr if zarr_like else read_folder
    name = re.sub(r";\d+$", "", path.name.lower())
    endings = [ending for ending in READERS if name.endswith(ending) and ending != ".zarr"]
    return READERS[max(endings, key=len)] if endings else None
