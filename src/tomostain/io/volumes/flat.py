"""Volumes without a format: raw values, whose shape and type the user says, and NumPy's .npy."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.io.volumes.arrays import AxesReversed, Flat, Source, Windowed
from tomostain.io.volumes.headers import DTYPES, Hints, VolumeError, dtype_of, reported, shape_of, spacing_of

_DTYPE = re.compile(r"([<>=]?)([a-z]+\d*)(be|le)?")


def read_raw(path: Path, hints: Hints) -> Volume:
    """Open raw values (z slowest, x fastest) as a lazy Volume; shape, type and offset are the user's.

    Raises
    ------
    VolumeError
        Shape or type are not passed, or the file is not exactly as large as they say.
    """
    hints.nothing_inside(path.name)
    if hints.shape is None or hints.dtype is None:
        raise VolumeError(
            f"{path.name} is raw values without a header; pass --shape z y x and --dtype NAME (or convert it)"
        )
    shape, dtype = shape_of(path.name, hints.shape), parse_dtype(hints.dtype)
    size, wanted = path.stat().st_size, hints.offset + math.prod(shape) * dtype.itemsize
    if hints.offset < 0 or size != wanted:
        sizes = " x ".join(str(n) for n in shape)
        raise VolumeError(
            f"{path.name} has {size} bytes; {sizes} {dtype} after an offset of {hints.offset} would be {wanted}: "
            "check --shape, --dtype and --offset"
        )
    grid = Grid(shape, spacing_of(path.name, None, hints))
    source = Flat(path, shape, dtype, hints.offset)
    return Volume(Windowed(source, path.name, "raw values"), grid, name=path.name, about={"format": "raw"})


def parse_dtype(text: str) -> np.dtype[Any]:
    """A dtype from its name: ``uint16``, ``float32``, and with byte order ``>u2``, ``>uint16`` or ``uint16be``.

    Raises
    ------
    VolumeError
        It is not a name of a type that grey values have.
    """
    match = _DTYPE.fullmatch(text.strip().lower())
    try:
        if match is None:
            raise TypeError
        order, name, ending = match.groups()
        dtype = dtype_of(f"--dtype {text}", np.dtype(name))
    except TypeError:
        raise VolumeError(
            f"{text!r} is not a type of values; give {DTYPES}: uint16, float32, or big-endian uint16be"
        ) from None
    return np.dtype({"be": ">", "le": "<", None: order or "="}[ending] + dtype.str[1:])


def read_npy(path: Path, hints: Hints) -> Volume:
    """Open a .npy array (z, y, x), in C or Fortran order, as a lazy Volume.

    Raises
    ------
    VolumeError
        It is not a three-dimensional array of grey values, is truncated, or no voxel size is passed.
    """
    hints.nothing_inside(path.name)
    with reported(path.name, ".npy"):
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            if version not in ((1, 0), (2, 0), (3, 0)):
                raise VolumeError(f"{path.name} is .npy of version {version}, which is not known; save it again")
            sizes, fortran, kind = header(file)
            begin = file.tell()
        shape, dtype = shape_of(path.name, sizes), dtype_of(path.name, kind)
        missing = begin + math.prod(shape) * dtype.itemsize - path.stat().st_size
        if missing > 0:
            raise VolumeError(f"{path.name} ends {missing} bytes too early; copy or save it again")
        flat: Source = Flat(path, shape[::-1] if fortran else shape, dtype, begin)
        source = AxesReversed(flat) if fortran else flat
        grid = Grid(shape, spacing_of(path.name, None, hints))
        return Volume(Windowed(source, path.name, ".npy"), grid, name=path.name, about={"format": "NumPy"})
