"""Tiles with halos: the one place that knows which pixels a network needs to see to be exact in its core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Window = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """A piece of an image.

    ``core`` is written, ``outer`` is read (the core and its halo, as far as the image goes), ``pad`` is what the image
    lacks of the halo (before, after) along each axis, and ``inner`` is the core within the padded outer piece.
    """

    core: Window
    outer: Window
    pad: tuple[tuple[int, int], ...]
    inner: Window

    def padded(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The outer piece with the image mirrored at its border where the halo reaches beyond it."""
        if not any(before or after for before, after in self.pad):
            return block
        return np.pad(block, self.pad, mode="reflect") if min(block.shape) > 1 else np.pad(block, self.pad, mode="edge")


def tiles(
    shape: tuple[int, ...],
    size: tuple[int, ...],
    *,
    halo: tuple[int, ...] | None = None,
    align: tuple[int, ...] | None = None,
    within: Window | None = None,
) -> Iterator[Tile]:
    """Cut ``shape`` (or the window ``within`` it) into tiles of ``size``, each with its halo.

    Cores are disjoint and cover the window. Cores and outer pieces begin at multiples of ``align`` (a network's total
    stride), and padded outer pieces are multiples of it long, so that every tile sees the image on the same raster.

    Raises
    ------
    ValueError
        A tile size, halo or window start is not a multiple of ``align``.
    """
    n = len(shape)
    halo, align = halo or (0,) * n, align or (1,) * n
    window = within or tuple(slice(0, length) for length in shape)
    starts = [range(part.start, part.stop, step) for part, step in zip(window, size, strict=True)]
    for axis in range(n):
        for what, value in (("tile size", size[axis]), ("halo", halo[axis]), ("window start", window[axis].start)):
            if value % align[axis]:
                raise ValueError(f"{what} {value} is not a multiple of the network's stride {align[axis]}")
    for corner in np.ndindex(*(len(s) for s in starts)):
        core, outer, pad, inner = [], [], [], []
        for axis, i in enumerate(corner):
            begin = starts[axis][i]
            end = min(begin + size[axis], window[axis].stop)
            low, high = begin - halo[axis], end + halo[axis]
            high = low + -(-(high - low) // align[axis]) * align[axis]
            core.append(slice(begin, end))
            outer.append(slice(max(low, 0), min(high, shape[axis])))
            pad.append((max(-low, 0), max(high - shape[axis], 0)))
            inner.append(slice(halo[axis], halo[axis] + end - begin))
        yield Tile(tuple(core), tuple(outer), tuple(pad), tuple(inner))
