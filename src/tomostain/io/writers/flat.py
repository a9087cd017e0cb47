"""Formats that are a header and then the values as they are: MetaImage, NRRD, NIfTI, NumPy, raw."""

from __future__ import annotations

import gzip
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from tomostain.io.writers.target import Block, Target, Window

_METAIMAGE = {
    "u1": "MET_UCHAR", "i1": "MET_CHAR", "u2": "MET_USHORT", "i2": "MET_SHORT", "u4": "MET_UINT", "i4": "MET_INT",
    "u8": "MET_ULONG_LONG", "i8": "MET_LONG_LONG", "f4": "MET_FLOAT", "f8": "MET_DOUBLE",
}  # fmt: skip
NIFTI_MOST_PX = 32767
_GZIP_LEVEL = 1


class PlaneSink:
    """Appends planes to a file, little-endian, x fastest."""

    slab = (1, 0, 0)

    def __init__(self, file: IO[bytes] | gzip.GzipFile, dtype: np.dtype[Any]) -> None:
        self._file, self._dtype = file, dtype.newbyteorder("<")

    def __setitem__(self, window: Window, block: Block, /) -> None:
        self._file.write(np.ascontiguousarray(block, dtype=self._dtype).data)


@contextmanager
def raw(path: Path, target: Target) -> Iterator[PlaneSink]:
    """Only the values, little-endian."""
    with path.open("wb") as file:
        yield PlaneSink(file, target.dtype)


@contextmanager
def npy(path: Path, target: Target) -> Iterator[PlaneSink]:
    """NumPy's format, version 1.0."""
    with path.open("wb") as file:
        about = {"descr": target.dtype.newbyteorder("<").str, "fortran_order": False, "shape": target.shape}
        np.lib.format.write_array_header_1_0(file, about)
        yield PlaneSink(file, target.dtype)


@contextmanager
def metaimage(path: Path, target: Target) -> Iterator[PlaneSink]:
    """MetaImage (.mha); lengths in mm, as ITK takes them. Where the axes point is not claimed."""
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        f"Offset = {_mm(target.grid.origin_um)}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_mm(target.spacing_um)}",
        f"DimSize = {' '.join(str(n) for n in target.grid.shape[::-1])}",
        f"ElementType = {_METAIMAGE[target.dtype.str[1:]]}",
        "ElementDataFile = LOCAL",
    ]
    with path.open("wb") as file:
        file.write(("\n".join(lines) + "\n").encode("ascii"))
        yield PlaneSink(file, target.dtype)


@contextmanager
def nrrd(path: Path, target: Target) -> Iterator[PlaneSink]:
    """NRRD 5, raw encoding; lengths in mm. Where the axes point is not claimed: the space has no name."""
    z, y, x = (repr(edge / 1000) for edge in target.spacing_um)
    words = {"i": "int", "u": "uint", "f": "float"}
    kind = {"float32": "float", "float64": "double"}.get(
        target.dtype.name, f"{words[target.dtype.kind]}{8 * target.dtype.itemsize}"
    )
    lines = [
        "NRRD0005",
        f"type: {kind}",
        "dimension: 3",
        "space dimension: 3",
        f"sizes: {' '.join(str(n) for n in target.grid.shape[::-1])}",
        f"space directions: ({x},0,0) (0,{y},0) (0,0,{z})",
        "kinds: domain domain domain",
        'space units: "mm" "mm" "mm"',
        f"space origin: ({_mm(target.grid.origin_um, ',')})",
        "endian: little",
        "encoding: raw",
    ]
    with path.open("wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode("ascii"))
        yield PlaneSink(file, target.dtype)


@contextmanager
def nifti(path: Path, target: Target) -> Iterator[PlaneSink]:
    """NIfTI-1 (.nii), header by nibabel; lengths in mm. Neither orientation nor origin are claimed."""
    with path.open("wb") as file:
        file.write(_nifti_header(target))
        yield PlaneSink(file, target.dtype)


@contextmanager
def nifti_gz(path: Path, target: Target) -> Iterator[PlaneSink]:
    """NIfTI-1 as one gzip stream (.nii.gz), of the same bytes for the same values."""
    start = _nifti_header(target)
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=_GZIP_LEVEL, mtime=0) as packed,
    ):
        packed.write(start)
        yield PlaneSink(packed, target.dtype)


def _nifti_header(target: Target) -> bytes:
    if max(target.grid.shape) > NIFTI_MOST_PX:
        raise ValueError(f"NIfTI-1 ends at {NIFTI_MOST_PX} voxels an axis, {target.name} has {target.grid.shape}")
    header = importlib.import_module("nibabel").Nifti1Header(endianness="<")
    header.set_data_dtype(target.dtype.newbyteorder("<"))
    header.set_data_shape(target.grid.shape[::-1])
    header.set_zooms([edge / 1000 for edge in target.spacing_um[::-1]])
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["vox_offset"] = header.single_vox_offset
    return bytes(header.binaryblock).ljust(int(header.single_vox_offset), b"\0")


def _mm(values_um: tuple[float, ...], between: str = " ") -> str:
    """(z, y, x) in um as x, y, z in mm, every digit kept."""
    return between.join(repr(value / 1000) for value in values_um[::-1])
