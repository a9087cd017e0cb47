"""What is checked of every header before anything is allocated, and what a user says about a volume beside its path."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomostain.images.geometry import Vector
from tomostain.io.inside import OutsideError
from tomostain.io.units import PLAUSIBLE_VOXEL_UM, UM_PER_MM, is_length
from tomostain.io.volumes.options import VolumeOptions

_MUCH_FINER_UM = 100.0
"""Where another edge is this small, an edge of exactly 1 mm is a program's default, not a measurement."""
MOST_ORIGIN_UM = 1e9
"""No scanner places a volume farther than a kilometre away."""

MOST_COMPRESSION = 2000
"""No file of real grey values shrinks by more than this; deflate cannot reach it at all (1032)."""
ALWAYS_ACCEPTED_BYTES = 2**28
"""Bytes that a header may always claim, however small its file is."""

DTYPES = "8, 16, 32 or 64 bit integers, or 16, 32 or 64 bit floats"


class VolumeError(ValueError):
    """A volume that cannot be read: one sentence that names the file, the fault and the next step."""


@dataclass(frozen=True)
class Hints(VolumeOptions):
    """What a user says about a volume that its file may not."""

    inside: str = ""
    """What stands after ``::`` in the path: a dataset, a group or a level inside the file."""

    def nothing_inside(self, name: str) -> None:
        """Refuse a choice inside a file that has nothing to choose from."""
        if self.inside:
            raise VolumeError(f"{name} holds one volume only; leave out '::{self.inside}'")


@contextmanager
def reported(name: str, kind: str) -> Iterator[None]:
    """Turn whatever a format's library throws at a broken file into one sentence."""
    try:
        yield
    except VolumeError:
        raise
    except OutsideError as error:
        raise VolumeError(str(error)) from None
    except MemoryError:
        raise VolumeError(f"{name} needs more memory than there is; its header may be wrong") from None
    except Exception as error:
        raise VolumeError(f"{name} cannot be read as {kind}: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    """The first 200 characters of what an exception says."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text[:200])


def spacing_of(name: str, stated: Sequence[float] | None, hints: Hints, *, found: str = "") -> Vector:
    """The voxel size (z, y, x) in um: the user's, else that of the file where it is plausible.

    ``found`` is reported where the file states something that is not enough.

    Raises
    ------
    VolumeError
        There is no voxel size, or none that can be.
    """
    spacing = hints.spacing_um or stated
    if spacing is None:
        raise VolumeError(f"{name} has no voxel size{found and f' ({found[:200]})'}; pass --spacing-um z y x")
    if len(spacing) != 3:
        raise VolumeError(f"{name} needs three voxel edges, z y x, not {len(spacing)}; pass --spacing-um z y x")
    z, y, x = (float(edge) for edge in spacing)
    if not all(is_length(edge) for edge in (z, y, x)):
        raise VolumeError(f"{name}: voxel size must be positive, got {z:g} x {y:g} x {x:g} um; pass --spacing-um z y x")
    if hints.spacing_um is None and UM_PER_MM in (z, y, x) and (z == y == x or min(z, y, x) <= _MUCH_FINER_UM):
        raise VolumeError(
            f"{name} states voxels of {z / 1e3:g} x {y / 1e3:g} x {x / 1e3:g} mm, which programs write when they know "
            "none; pass --spacing-um z y x"
        )
    if hints.spacing_um is None and not all(is_length(edge, within=PLAUSIBLE_VOXEL_UM) for edge in (z, y, x)):
        raise VolumeError(
            f"{name} states a voxel size of {z:g} x {y:g} x {x:g} um, outside {PLAUSIBLE_VOXEL_UM[0]:g} to "
            f"{PLAUSIBLE_VOXEL_UM[1]:g} um; pass --spacing-um z y x"
        )
    return _rounded(z), _rounded(y), _rounded(x)


def origin_of(stated: Sequence[float]) -> Vector:
    """The centre of the first voxel (z, y, x) in um, zero where what a file states cannot be a place."""
    z, y, x = (float(edge) for edge in stated)
    return (z, y, x) if all(abs(edge) <= MOST_ORIGIN_UM for edge in (z, y, x)) else (0.0, 0.0, 0.0)


def _rounded(edge: float) -> float:
    """Twelve digits: what unit conversions leave behind them is not part of a voxel size."""
    return float(f"{edge:.12g}")


def shape_of(name: str, sizes: Sequence[Any]) -> tuple[int, int, int]:
    """Three positive sizes (z, y, x).

    Raises
    ------
    VolumeError
        Not three, or one of them is not positive.
    """
    if len(sizes) != 3 or any(int(n) < 1 for n in sizes):
        raise VolumeError(f"{name} states a shape of {tuple(sizes)}; a volume needs three positive sizes z y x")
    z, y, x = (int(n) for n in sizes)
    return z, y, x


def dtype_of(name: str, dtype: Any) -> np.dtype[Any]:
    """A dtype that holds grey values.

    Raises
    ------
    VolumeError
        It does not: booleans, complex numbers, texts, records.
    """
    kind: np.dtype[Any] = np.dtype(dtype)
    if kind.kind not in "uif" or kind.itemsize > 8 or kind.fields is not None or kind.subdtype is not None:
        raise VolumeError(f"{name} holds {kind}; grey values are {DTYPES}")
    return kind


def check_size(
    name: str, shape: Sequence[int], dtype: np.dtype[Any], stored_bytes: int, *, most_shrunk: int = MOST_COMPRESSION
) -> None:
    """Refuse a header that claims far more values than its file can hold, however well they are compressed.

    Raises
    ------
    VolumeError
        The header is wrong, or the file was made to fill the memory.
    """
    claimed = math.prod(int(n) for n in shape) * dtype.itemsize
    if claimed > max(ALWAYS_ACCEPTED_BYTES, most_shrunk * stored_bytes):
        sizes = " x ".join(str(n) for n in shape)
        raise VolumeError(
            f"{name} claims {sizes} {dtype} values ({claimed / 2**30:.3g} GiB) but stores {stored_bytes} bytes; "
            "its header is wrong or the file damaged: copy it again, or export it uncompressed"
        )
