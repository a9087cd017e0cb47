"""The coarser levels of a volume: each shard made, alone and in any order, from the finer level's shards under it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tomostain.images.srgb import to_linear, to_srgb
from tomostain.images.tiling import Window, tiles

Reduce = Literal["mean", "nearest"]
SMALLEST_LEVEL_PX = 64
MOST_LEVELS = 10
_PIECE_PX = (64, 256, 256)
"""What of the finer level is in memory at once: whole chunks, so that each is decoded once."""


def level_shapes(shape: tuple[int, ...], *, smallest: int = SMALLEST_LEVEL_PX) -> list[tuple[int, ...]]:
    """Shapes from the finest level to the first that fits ``smallest``, each half of the one before, rounded up."""
    shapes = [tuple(shape)]
    while max(shapes[-1]) > smallest and len(shapes) < MOST_LEVELS:
        shapes.append(tuple(max(1, -(-n // 2)) for n in shapes[-1]))
    return shapes


def made_even(block: npt.NDArray[Any], axes: Sequence[int]) -> npt.NDArray[Any]:
    """The block with its last plane, row or column repeated along each of these axes that has an odd size."""
    odd = [(0, n % 2 if i in axes else 0) for i, n in enumerate(block.shape)]
    return np.pad(block, odd, mode="edge") if any(after for _, after in odd) else block


def pieces(window: Window, finer_shape: tuple[int, ...]) -> Iterator[tuple[Window, Window]]:
    """Cut a window of a coarser level into pieces; with each, what it is made from in the finer level."""
    size = tuple(n // 2 for n in _PIECE_PX)
    bounds = tuple(part.stop for part in window)
    for tile in tiles(bounds, size, within=window):
        yield (
            tile.core,
            tuple(slice(2 * part.start, min(2 * part.stop, n)) for part, n in zip(tile.core, finer_shape, strict=True)),
        )


def halved(block: npt.NDArray[Any], *, colours: bool, reduce: Reduce) -> npt.NDArray[Any]:
    """A block (z, y, x) or (c, z, y, x) at half the size, rounded up.

    ``mean`` averages 2 x 2 x 2 voxels (colours in linear light, integers rounded half up), the last repeated where
    there is none; ``nearest`` keeps the first, for labels.
    """
    if reduce == "nearest":
        return block[..., ::2, ::2, ::2]
    block = made_even(block, range(block.ndim - 3, block.ndim))
    if colours:
        return np.stack([to_srgb(_mean_of_eight(to_linear(channel))) for channel in block])
    mean = _mean_of_eight(block.astype(np.float32))
    whole = np.issubdtype(block.dtype, np.integer)
    return np.asarray(np.floor(mean + 0.5).astype(block.dtype) if whole else mean)


def _mean_of_eight(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    for axis in range(-3, 0):
        first, second = ([slice(None)] * 3 for _ in range(2))
        first[axis], second[axis] = slice(0, None, 2), slice(1, None, 2)
        values = values[tuple(first)] + values[tuple(second)]
    mean: npt.NDArray[np.float32] = values / np.float32(8.0)
    return mean
