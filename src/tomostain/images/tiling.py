"""Tiles with halos: the one place that knows which pixels a network needs to see to be exact in its core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Window = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """A piece of an image.

    ``core`` is written, ``outer`` is read: the core and its halo, as far as the image goes. ``inner`` is the core
    within the outer piece. At the image's own border there is no halo: a network meets the border in a tile just as it
    does in the whole image.
    """

    core: Window
    outer: Window
    inner: Window

    def clipped(self, window: Window) -> Tile:
        """The same tile, of which only what lies in a window is written."""
        core = tuple(slice(max(c.start, w.start), min(c.stop, w.stop)) for c, w in zip(self.core, window, strict=True))
        inner = tuple(slice(c.start - o.start, c.stop - o.start) for c, o in zip(core, self.outer, strict=True))
        return Tile(core, self.outer, inner)


def tiles(
    shape: tuple[int, ...],
    size: tuple[int, ...],
    *,
    halo: tuple[int, ...] | None = None,
    align: tuple[int, ...] | None = None,
    within: Window | None = None,
    least: tuple[int, ...] | None = None,
) -> Iterator[Tile]:
    """Cut ``shape`` (or the window ``within`` it) into tiles of ``size``, each with its halo.

    Cores are disjoint and cover the window. Outer pieces begin at multiples of ``align`` (a network's total stride) and
    end at one or at the image's end, so that every tile sees the image on the same raster. ``least`` is the smallest
    outer length (a multiple of ``align``), for networks that take one size only: pieces grow into the image to reach
    it; where the image ends before, the piece is the whole axis.

    Raises
    ------
    ValueError
        A size is not positive.
    """
    n = len(shape)
    halo, align, least = halo or (0,) * n, align or (1,) * n, least or (0,) * n
    window = within or tuple(slice(0, length) for length in shape)
    if min(size) < 1:
        raise ValueError(f"a tile needs at least one pixel along each axis, not {size}")
    starts = [range(part.start, part.stop, step) for part, step in zip(window, size, strict=True)]
    for corner in np.ndindex(*(len(s) for s in starts)):
        core = tuple(
            slice(starts[axis][i], min(starts[axis][i] + size[axis], window[axis].stop))
            for axis, i in enumerate(corner)
        )
        outer = tuple(_seen(core[axis], shape[axis], halo[axis], align[axis], least[axis]) for axis in range(n))
        inner = tuple(slice(c.start - o.start, c.stop - o.start) for c, o in zip(core, outer, strict=True))
        yield Tile(core, outer, inner)


def _seen(core: slice, length: int, halo: int, align: int, least: int) -> slice:
    """The core and its halo along one axis, widened to the raster and to the least length."""
    low = max(core.start - halo, 0) // align * align
    high = -(-(core.stop + halo) // align) * align
    high = max(high, low + least)
    if high >= length:
        high = length
        low = min(low, max(-(-length // align) * align - least, 0))
    return slice(low, high)
