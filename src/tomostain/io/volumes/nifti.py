"""NIfTI-1 and -2 volumes, .nii and .nii.gz; axes i, j, k are x, y, z as stored, and nothing is flipped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel as _nibabel
import numpy as np

from tomostain.images.geometry import Grid, Vector
from tomostain.images.image import Calibrated, LazyArray, Volume
from tomostain.io.units import UM_PER_MM
from tomostain.io.volumes.arrays import Flat, Source, Windowed
from tomostain.io.volumes.headers import (
    Hints,
    VolumeError,
    check_size,
    dtype_of,
    reported,
    shape_of,
    spacing_of,
)
from tomostain.io.volumes.spool import Spooled, head_of, inflated

nibabel: Any = _nibabel

KIND = "NIfTI"
_HEADER_BYTES = 540
_UM = {0: UM_PER_MM, 1: 1e6, 2: UM_PER_MM, 3: 1.0}
"""Micrometres by the code of the unit in ``xyzt_units``; without one every program reads millimetres."""


def read_nifti(path: Path, hints: Hints) -> Volume:
    """Open a NIfTI file as a lazy Volume, in calibrated units where it has a slope.

    Raises
    ------
    VolumeError
        No single three-dimensional grey volume, no plausible voxel size, or truncated.
    """
    hints.nothing_inside(path.name)
    gzipped = path.name.lower().endswith(".gz")
    with reported(path.name, KIND):
        head = head_of(path, _HEADER_BYTES) if gzipped else _first_bytes(path)
        header = _header(path.name, head)
        sizes = [int(n) for n in header.get_data_shape()]
        if len(sizes) < 2 or any(n != 1 for n in sizes[3:]):
            raise VolumeError(f"{path.name} has a shape of {tuple(sizes)}; save the one volume x y z to be read")
        shape = shape_of(path.name, [*sizes[:3], 1][:3][::-1])
        dtype = dtype_of(path.name, header.get_data_dtype()).newbyteorder(header.endianness)
        begin = int(header["vox_offset"])
        if begin < len(bytes(header.binaryblock)):
            raise VolumeError(
                f"{path.name} says that its values begin at byte {begin}, within its header; it is damaged"
            )
        stored = path.stat().st_size
        source: Source
        if gzipped:
            check_size(path.name, shape, dtype, stored)
            source = Spooled(path, shape, dtype, lambda: inflated(path, skip=begin))
        else:
            missing = begin + math.prod(shape) * dtype.itemsize - stored
            if missing > 0:
                raise VolumeError(f"{path.name} ends {missing} bytes too early; copy or export it again")
            source = Flat(path, shape, dtype, begin)
        array: LazyArray = Windowed(source, path.name, KIND)
        slope, intercept = _calibration(header)
        if (slope, intercept) != (1.0, 0.0):
            array = Calibrated(array, slope, intercept)
        grid = Grid(shape, spacing_of(path.name, _stated(header), hints))
        about = {"format": "NIfTI", "orientation": _orientation(header)}
        return Volume(array, grid, name=path.name, about=about)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)


def _header(name: str, head: bytes) -> Any:
    """The header at the start of a file; its first number gives version and byte order."""
    size = int.from_bytes(head[:4], "little")
    swapped = int.from_bytes(head[:4], "big")
    for kind, length in ((nibabel.Nifti1Header, 348), (nibabel.Nifti2Header, 540)):
        if length in (size, swapped) and len(head) >= length:
            header = kind(head[:length], endianness="<" if size == length else ">", check=False)
            if bytes(header["magic"])[:3] not in (b"n+1", b"n+2"):
                raise VolumeError(f"{name} is a header without its values (a .hdr); save it as one .nii file")
            return header
    raise VolumeError(f"{name} cannot be read as {KIND}: it does not begin as one")


def _calibration(header: Any) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        return 1.0, 0.0
    return slope, intercept if math.isfinite(intercept) else 0.0


def _stated(header: Any) -> Vector | None:
    # A single's shortest decimal is what was meant: 0.003, not 0.003000000026.
    x, y, z = (abs(float(str(n))) for n in np.asarray(header["pixdim"])[1:4])
    unit = _UM.get(int(header["xyzt_units"]) & 7)
    return None if unit is None or not min(x, y, z) > 0 else (z * unit, y * unit, x * unit)


def _orientation(header: Any) -> str:
    """Where the axes point by the header's affine, reported and not applied."""
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        return "not stated"
    try:
        affine = header.get_best_affine()
        x, y, z = nibabel.aff2axcodes(affine)
    except (ValueError, np.linalg.LinAlgError, nibabel.spatialimages.HeaderDataError):
        return "not stated"
    if not np.isfinite(affine).all():
        return "not stated"
    return f"z to {z or '?'}, y to {y or '?'}, x to {x or '?'} (R right, A anterior, S superior)"
