"""Bounds of the numbers that are read from placements and pairs: text in, numbers that can be true out."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = tuple[float, float, float]
FARTHEST_UM, THICKEST_UM = 1e7, 5e3
"""Bounds of what is read: no point lies further than 10 m from the origin, no section is thicker than 5 mm."""
SPACINGS_UM = (1e-4, 1e5)
"""Bounds of a distance between pixels, um."""
PIXELS_UM = (1e-3, 1e3)
"""Bounds of a slide pixel, um in the volume."""
MOST_SIDE_PX = 2**22
"""Pixels along one side of a slide or plane."""
MOST_LATTICE_BYTES = 2**28
"""A displacement is smooth: a field of more nodes is refused."""
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def vector(values: Any) -> Vector:
    """Three numbers that were read."""
    z, y, x = (float(v) for v in values)
    return z, y, x


def number(value: Any, name: str, low: float, high: float) -> float:
    """A number that was read, if it is finite and within bounds."""
    number = float(value)
    if not low <= number <= high:
        raise ValueError(f"{name} must lie between {low:g} and {high:g}, not at {number:g}")
    return number


def check_point(point: Vector) -> None:
    """Refuse a point of the volume further than ``FARTHEST_UM`` from the origin, or not finite."""
    for value in point:
        number(value, "corner_um", -FARTHEST_UM, FARTHEST_UM)


def sizes(values: Any, name: str) -> tuple[int, int]:
    """Two numbers of pixels that were read."""
    rows, columns = (number(v, name, 1, MOST_SIDE_PX) for v in values)
    if rows != int(rows) or columns != int(columns):
        raise ValueError(f"{name} must be whole numbers of pixels, not {rows:g} x {columns:g}")
    return int(rows), int(columns)


def edge(values: Any) -> tuple[int, int]:
    """First pixel and the one past the last, as read."""
    start, stop = (int(number(v, "window_px", 0, MOST_SIDE_PX)) for v in values)
    return start, stop


def read_raster(path: Path, name: str, axes: int) -> npt.NDArray[np.float32]:
    """A field that lies beside a placement, checked before it is unfolded: (rows, columns[, 2]) float32."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            if np.lib.format.read_magic(member) != (1, 0):
                raise ValueError("an unknown version")
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        if len(shape) != axes or (axes == 3 and shape[2] != 2) or min(shape) < 1 or dtype != np.float32:
            raise ValueError(f"it holds {dtype} {shape}")
        if math.prod(shape) * dtype.itemsize > MOST_LATTICE_BYTES:
            raise ValueError(f"its lattice of {shape} is too fine to be one")
        with np.load(path, allow_pickle=False) as stored:
            values: npt.NDArray[np.float32] = np.asarray(stored[name])
    except (*_ZIP_FAULTS, KeyError, ValueError, OSError) as error:
        text = str(error)[:100].encode("ascii", "backslashreplace").decode()  # zipfile quotes a damaged header whole
        raise ValueError(f"its {name} in {path.name} cannot be read: {text}") from None
    if not np.isfinite(values).all():
        raise ValueError(f"its {name} in {path.name} has values that are not finite")
    return values
