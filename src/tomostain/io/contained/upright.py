"""Orientation tags (TIFF 274, EXIF): an image as stored in, the image as it is to be seen out."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Window = tuple[int, int, int, int]
STORED = 1
"""The tag of an image whose first row is its upper edge and whose first column is its left one."""
_FLIPS = {1: (False, False), 2: (False, True), 3: (True, True), 4: (True, False)}
_WORDS = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored along its diagonal",
    6: "turned clockwise by 90 degrees",
    7: "mirrored along its other diagonal",
    8: "turned counter-clockwise by 90 degrees",
}
_MOST_SHIFT = 0.25
"""A coarser level may lie beside the finest one, once turned, by this share of its own pixel."""


def stated_orientation(tag: Any) -> tuple[int, list[str]]:
    """A tag's value as one of 1 to 8, and what is to be noted: how the image was turned, or that the tag is wrong."""
    try:
        orientation = int(tag)
    except (TypeError, ValueError):
        orientation = 0
    if orientation in _WORDS:
        return orientation, [f"{_WORDS[orientation]}, as its orientation tag {orientation} says"]
    return STORED, [] if orientation in (0, STORED) else [f"its orientation tag {orientation} is none of 1 to 8"]


def is_transposed(orientation: int) -> bool:
    """Whether rows of the file are columns of the upright image."""
    return orientation > 4


def turned(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Stored pixels (y, x, ...) as they are to be seen; a view."""
    if is_transposed(orientation):
        values = values.swapaxes(0, 1)
    vertical, horizontal = _FLIPS[(orientation - 1) % 4 + 1]
    return values[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def stored_window(window: Window, shape: tuple[int, int], orientation: int) -> Window:
    """Where a window of the upright image of ``shape`` (rows, columns) lies in the file."""
    top, bottom, left, right = window
    vertical, horizontal = _FLIPS[(orientation - 1) % 4 + 1]
    if vertical:
        top, bottom = shape[0] - bottom, shape[0] - top
    if horizontal:
        left, right = shape[1] - right, shape[1] - left
    return (left, right, top, bottom) if is_transposed(orientation) else (top, bottom, left, right)


def upright_levels(levels: list[list[float]], orientation: int) -> tuple[list[list[float]], list[int]]:
    """Levels [rows, columns, down, right] as seen upright, and the index of each in the file.

    A coarser level leaves out the last rows that fill no pixel of its own. Turned, these are the first ones, and the
    level lies beside the finest; where that is more than a quarter of its pixel, it is not used.
    """
    across = is_transposed(orientation)
    swapped = [[c, r, right, down] if across else [r, c, down, right] for r, c, down, right in levels]
    flips = _FLIPS[(orientation - 1) % 4 + 1]
    kept = [
        i
        for i, level in enumerate(swapped)
        if not any(
            flip and abs(level[axis] - swapped[0][axis] / level[2 + axis]) > _MOST_SHIFT
            for axis, flip in enumerate(flips)
        )
    ]
    return [swapped[i] for i in kept], kept
