"""Grey values that a program saved as colours: red = green = blue, alpha opaque; anything else is refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from tomostain.images.image import LazyArray
from tomostain.io.volumes.arrays import Array
from tomostain.io.volumes.headers import VolumeError


def one_channel(values: Array, where: str) -> Array:
    """The grey values (y, x) of (y, x, samples): grey, grey and alpha, RGB, RGBA.

    Raises
    ------
    VolumeError
        The colours differ, or a pixel is transparent.
    """
    samples = values.shape[2]
    if samples in (2, 4) and not (values[..., -1] == _opaque(values.dtype)).all():
        raise VolumeError(f"{where} has transparent pixels, whose grey value is not known; save it without alpha")
    if samples >= 3 and not ((values[..., 0] == values[..., 1]) & (values[..., 0] == values[..., 2])).all():
        raise VolumeError(
            f"{where} holds colours; a CT volume has one grey value a voxel: give the grey slices, or save these as "
            "grey (Fiji: Image > Type > 8-bit)"
        )
    grey: Array = values[..., 0]
    return grey


def _opaque(dtype: np.dtype[Any]) -> float:
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def check_grey(array: LazyArray) -> None:
    """Check the first, the middle and the last plane of what may be colours; the others are checked when read.

    Raises
    ------
    VolumeError
        They hold colours.
    """
    depth = array.shape[0]
    for z in sorted({0, depth // 2, depth - 1}):
        array[z]
