"""What a decoder reads, as it is to be seen: upright by its orientation tag, in sRGB by its colour profile."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tomostain.io.contained.colours import profile_of
from tomostain.io.orientation import Window, flips_of, is_transposed, stated_orientation, stored_window, turned

_MOST_SHIFT = 0.25
"""A coarser level may lie beside the finest one, once turned, by this share of its own pixel."""


class Stored(Protocol):
    """An open slide as its file stores it; ``orientation`` is the value of its tag, ``icc`` its colour profile."""

    about: dict[str, Any]
    orientation: Any
    icc: bytes | None

    def read(self, level: int, window: Window) -> npt.NDArray[np.uint8]: ...


class Seen:
    """A slide of which ``about`` and ``read`` know the upright image in sRGB only."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._orientation, turns = stated_orientation(stored.orientation)
        levels, self._levels = upright_levels(stored.about["levels"], self._orientation)
        self._shapes = [(int(level[0]), int(level[1])) for level in levels]
        self._to_srgb, colours, warnings = profile_of(None if stored.about.get("grey") else stored.icc)
        pixels = stored.about["pixels_um"]
        notes = [*turns, *([colours] if self._to_srgb else []), *stored.about["notes"]]
        if len(levels) < len(stored.about["levels"]):
            notes.append(f"{len(stored.about['levels']) - len(levels)} level(s) that do not fit it turned are left out")
        self.about = stored.about | {
            "levels": levels,
            "pixels_um": [(x, y, by) for y, x, by in pixels] if is_transposed(self._orientation) else pixels,
            "colours": colours,
            "notes": notes,
            "warnings": [*stored.about.get("warnings", ()), *warnings],
        }

    def read(self, level: int, window: Window) -> npt.NDArray[np.uint8]:
        """A window of one level of the upright image."""
        where = stored_window(window, self._shapes[level], self._orientation)
        values = turned(self._stored.read(self._levels[level], where), self._orientation)
        return self._to_srgb(values) if self._to_srgb else values


def upright_levels(levels: list[list[float]], orientation: int) -> tuple[list[list[float]], list[int]]:
    """Levels [rows, columns, down, right] as seen upright, and the index of each in the file.

    A coarser level may leave out the last rows, or reach beyond them. Turned, these are the first ones, and the level
    lies beside the finest; where that is more than a quarter of its pixel, it is not used.
    """
    across, flips = is_transposed(orientation), flips_of(orientation)
    swapped = [[c, r, right, down] if across else [r, c, down, right] for r, c, down, right in levels]
    kept = [
        i
        for i, level in enumerate(swapped)
        if not any(
            flip and abs(level[axis] - swapped[0][axis] / level[2 + axis]) > _MOST_SHIFT
            for axis, flip in enumerate(flips)
        )
    ]
    return [swapped[i] for i in kept], kept
