"""Orientation tags (TIFF 274, EXIF): stored pixels in, upright pixels out; for slides, pictures and volumes alike."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Window = tuple[int, int, int, int]
"""First row, last row + 1, first column, last column + 1."""
ORIENTATION_TAG = 274
STORED = 1
"""The tag of an image whose first row is its upper edge and whose first column is its left one."""
_FLIPS = {1: (False, False), 2: (False, True), 3: (True, True), 4: (True, False)}
"""Whether rows and columns are reversed, after rows and columns were swapped for tags 5 to 8."""
_WORDS = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored along its diagonal",
    6: "turned clockwise by 90 degrees",
    7: "mirrored along its other diagonal",
    8: "turned counter-clockwise by 90 degrees",
}


def stated_orientation(tag: Any) -> tuple[int, list[str]]:
    """A tag's value as one of 1 to 8, and a note: how the image is turned, or that the tag is wrong."""
    try:
        orientation = int(tag)
    except (TypeError, ValueError):
        orientation = 0
    if orientation in _WORDS:
        return orientation, [f"{_WORDS[orientation]}, by its orientation tag {orientation}"]
    return STORED, [] if orientation in (0, STORED) else [f"its orientation tag {orientation} is none of 1 to 8"]


def is_transposed(orientation: int) -> bool:
    """Whether rows of the file are columns of the upright image."""
    return orientation > 4


def flips_of(orientation: int) -> tuple[bool, bool]:
    """Whether rows and columns (y, x) of the upright image run against those of the file."""
    return _FLIPS[(orientation - 1) % 4 + 1]


def turned(values: npt.NDArray[Any], orientation: int, *, axis: int = 0) -> npt.NDArray[Any]:
    """Stored pixels, rows along ``axis`` and columns along the next one, as they are to be seen; a view."""
    if is_transposed(orientation):
        values = values.swapaxes(axis, axis + 1)
    steps = (slice(None, None, -1 if flip else 1) for flip in flips_of(orientation))
    return values[(*(slice(None),) * axis, *steps)]


def stored_window(window: Window, shape: tuple[int, int], orientation: int) -> Window:
    """Where a window of the upright image of ``shape`` (rows, columns) lies in the file."""
    top, bottom, left, right = window
    vertical, horizontal = flips_of(orientation)
    if vertical:
        top, bottom = shape[0] - bottom, shape[0] - top
    if horizontal:
        left, right = shape[1] - right, shape[1] - left
    return (left, right, top, bottom) if is_transposed(orientation) else (top, bottom, left, right)
