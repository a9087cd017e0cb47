"""A part of a lazy array, a volume or a slide, itself lazy and where it was in the world."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomostain.images.geometry import Grid
from tomostain.images.image import LazyArray, Slide, Volume

Span = tuple[int, int]


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
            raise ValueError(f"{name} has {axis} from 0 to {length}; {start} to {stop} is not part of it")
        parts.append((start, stop))
    return Cropped(source, tuple(parts))


def part_of_volume(volume: Volume, planes: Span | None, window: tuple[Span | None, Span | None]) -> Volume:
    """Some planes of a volume, and of these a window of rows and columns; None for all.

    Raises
    ------
    ValueError
        The part is empty or reaches beyond the volume.
    """
    if planes is None and window == (None, None):
        return volume
    array = crop(volume.array, (planes, *window), name=volume.name, axes="zyx")
    grid, starts = volume.grid, [start for start, _ in array.box]
    origin = tuple(o + n * s for o, n, s in zip(grid.origin_um, starts, grid.spacing_um, strict=True))
    return dataclasses.replace(volume, array=array, grid=Grid(array.shape[:3], grid.spacing_um, origin))


def part_of_slide(slide: Slide, level: int, window: tuple[Span | None, Span | None]) -> Slide:
    """A level of a slide, and of it a window of rows and columns; None for all.

    Raises
    ------
    ValueError
        There is no such level, or the window is empty or reaches beyond it.
    """
    if not 0 <= level < len(slide.levels):
        raise ValueError(f"{slide.name} has levels 0 to {len(slide.levels) - 1}, not {level}")
    chosen = slide.levels[level]
    y_um, x_um = (edge * factor for edge, factor in zip(slide.pixel_um, chosen.downsample, strict=True))
    array = crop(chosen.array, window, name=slide.name, axes="yx")
    return Slide(array, Grid(array.shape[:2], (y_um, x_um)), slide.name, stain=slide.stain, about=slide.about)
