"""A window of a lazy array, itself a lazy array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tomostain.images.image import LazyArray


@dataclass(frozen=True, eq=False)
class Cropped:
    """The part of ``source`` within ``box`` (start, stop) along its first axes; indexed by slices."""

    source: LazyArray
    box: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        whole = tuple(int(n) for n in self.source.shape)
        return (*(stop - start for start, stop in self.box), *whole[len(self.box) :])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.source.dtype)

    def __getitem__(self, window: Any, /) -> Any:
        where = window if isinstance(window, tuple) else (window,)
        if not all(isinstance(part, slice) and part.step in (None, 1) for part in where[: len(self.box)]):
            raise TypeError("a cropped array is read by slices")
        parts = [*where, *(slice(None),) * (len(self.box) - len(where))]
        moved = []
        for part, (start, _), length in zip(parts, self.box, self.shape, strict=False):
            first, last, _ = part.indices(length)
            moved.append(slice(start + first, start + max(first, last)))
        return self.source[(*moved, *parts[len(self.box) :])]


def crop(source: LazyArray, box: tuple[tuple[int, int] | None, ...], *, name: str, axes: str) -> Cropped:
    """``source`` within ``box``, None for a whole axis; ``axes`` are the words for them in messages.

    Raises
    ------
    ValueError
        The box is empty or reaches beyond the array.
    """
    parts = []
    for part, length, axis in zip(box, source.shape, axes, strict=False):
        start, stop = part or (0, int(length))
        if not 0 <= start < stop <= length:
            raise ValueError(f"{name} has {axis} from 0 to {length}; {start} to {stop} is no part of it")
        parts.append((start, stop))
    return Cropped(source, tuple(parts))
