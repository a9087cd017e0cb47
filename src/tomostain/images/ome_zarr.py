"""OME-Zarr 0.5 (NGFF, Zarr v3) out: sharded, multiscale, colours as c z y x with their metadata.

Values are written once per shard by whoever fills the writer; the pyramid is built, and the ``ome`` metadata that makes
the store an image written, only when the writer is left without an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from yaozarrs import v05
from yaozarrs.v05 import ScaleTransformation, TranslationTransformation
from zarr.codecs import ZstdCodec

from tomostain.images.geometry import Grid
from tomostain.images.resample import to_linear, to_srgb

Reduce = Literal["mean", "nearest"]
CHUNK_PX = 64
SHARD_PX = (64, 512, 512)
SMALLEST_LEVEL_PX = 64

_RGB = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))


@dataclass(frozen=True, eq=False)
class VolumeWriter:
    """Takes blocks of a volume that is being written: ``writer[z0:z1, y0:y1, x0:x1] = block``.

    Blocks are (z, y, x), or (z, y, x, 3) for colours. Each ``shard`` should be written by one assignment: what does not
    fill a shard is read back and written again.
    """

    array: zarr.Array[Any]
    colours: int | None
    shard: tuple[int, int, int]
    """Extent (z, y, x) that is one file on disk."""

    def __setitem__(self, window: tuple[slice, ...], block: npt.NDArray[Any]) -> None:
        if self.colours:
            self.array[(slice(None), *window)] = np.ascontiguousarray(np.moveaxis(block, -1, 0))
        else:
            self.array[window] = np.ascontiguousarray(block)


def shard_of(shape: tuple[int, ...], shard: tuple[int, int, int] = SHARD_PX) -> tuple[int, int, int]:
    """The extent (z, y, x) of one file for a volume of this shape: whole chunks, no larger than needed."""
    z, y, x = (min(-(-n // CHUNK_PX) * CHUNK_PX, most) for n, most in zip(shape, shard, strict=True))
    return z, y, x


@contextmanager
def create_volume(
    path: Path,
    grid: Grid,
    *,
    dtype: npt.DTypeLike = np.uint8,
    colours: int | None = None,
    stain: str | None = None,
    name: str | None = None,
    reduce: Reduce = "mean",
    shard: tuple[int, int, int] = SHARD_PX,
    attributes: Mapping[str, Any] | None = None,
) -> Iterator[VolumeWriter]:
    """Create a volume on ``grid`` and hand out its writer; on leaving, build the pyramid and declare it an image.

    Parameters
    ----------
    path
        The folder to write, by custom ``NAME.ome.zarr``.
    colours
        3 for uint8 sRGB colours, None for grey values.
    reduce
        How a coarser level is made: ``mean`` (colours in linear light), or ``nearest`` for labels.
    attributes
        Further JSON that is kept under the ``tomostain`` key; ``slope``, ``intercept`` and ``units`` calibrate grey
        values.
    """
    root = zarr.open_group(path, mode="w", zarr_format=3)
    shapes = _level_shapes(grid.shape)
    levels = [_create_level(root, str(i), shape, dtype, colours, shard) for i, shape in enumerate(shapes)]
    yield VolumeWriter(levels[0], colours, shard_of(grid.shape, shard))
    for finer, coarser in pairwise(levels):
        _halve(finer, coarser, colours, reduce, shard)
    title = name or Path(path).name.removesuffix(".zarr").removesuffix(".ome")
    ome = _metadata(grid, shapes, colours, title, np.dtype(dtype))
    every_chunk = levels[0].nchunks_initialized >= levels[0].nchunks
    about = {"stain": stain, "reduce": reduce, "every_chunk": every_chunk, **(attributes or {})}
    root.attrs.update({"ome": ome, "tomostain": json.loads(json.dumps(about))})


def _level_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    shapes = [tuple(shape)]
    while max(shapes[-1]) > SMALLEST_LEVEL_PX and len(shapes) < 10:
        shapes.append(tuple(max(1, -(-n // 2)) for n in shapes[-1]))
    return shapes


def _create_level(
    root: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    colours: int | None,
    shard: tuple[int, int, int],
) -> zarr.Array[Any]:
    first = (colours,) if colours else ()
    return root.create_array(
        name,
        shape=(*first, *shape),
        dtype=np.dtype(dtype),
        chunks=(*first, CHUNK_PX, CHUNK_PX, CHUNK_PX),
        shards=(*first, *shard_of(shape, shard)),
        compressors=ZstdCodec(level=1),
        dimension_names=["c", "z", "y", "x"] if colours else ["z", "y", "x"],
        config={"write_empty_chunks": True},
    )


def _halve(
    finer: zarr.Array[Any],
    coarser: zarr.Array[Any],
    colours: int | None,
    reduce: Reduce,
    shard: tuple[int, int, int],
) -> None:
    """Fill a level from the one above it, one shard at a time."""
    shape = coarser.shape[-3:]
    steps = shard_of(shape, shard)
    lead = (slice(None),) if colours else ()
    for corner in np.ndindex(*(-(-n // s) for n, s in zip(shape, steps, strict=True))):
        here = tuple(slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(corner, steps, shape, strict=True))
        there = tuple(slice(2 * part.start, 2 * part.stop) for part in here)
        block = np.asarray(finer[(*lead, *there)])
        if reduce == "nearest":
            coarser[(*lead, *here)] = block[..., ::2, ::2, ::2]
            continue
        odd = [(0, n % 2) for n in block.shape[-3:]]
        block = np.pad(block, ([(0, 0)] if colours else []) + odd, mode="edge")
        coarser[(*lead, *here)] = _means(block, bool(colours))


def _means(block: npt.NDArray[Any], colours: bool) -> npt.NDArray[Any]:
    """Means over 2 x 2 x 2 voxels of an even-sized block; colours in linear light, integers rounded half up."""
    light = to_linear(block) if colours else block.astype(np.float32)
    *lead, z, y, x = light.shape
    mean = light.reshape(*lead, z // 2, 2, y // 2, 2, x // 2, 2).mean(axis=(-5, -3, -1))
    if colours:
        return to_srgb(mean)
    whole = np.issubdtype(block.dtype, np.integer)
    return np.asarray(np.floor(mean + 0.5).astype(block.dtype) if whole else mean)


def _metadata(
    grid: Grid, shapes: list[tuple[int, ...]], colours: int | None, title: str, dtype: np.dtype[Any]
) -> dict[str, Any]:
    lead = [1.0] if colours else []
    datasets = []
    for i in range(len(shapes)):
        scale = [s * 2**i for s in grid.spacing_um]
        shift = [o + (2**i - 1) / 2 * s for o, s in zip(grid.origin_um, grid.spacing_um, strict=True)]
        placed: list[ScaleTransformation | TranslationTransformation] = [
            ScaleTransformation(scale=[*lead, *scale]),
            TranslationTransformation(translation=[*([0.0] if colours else []), *shift]),
        ]
        datasets.append(v05.Dataset(path=str(i), coordinateTransformations=placed))
    space = [v05.SpaceAxis(name=name, type="space", unit="micrometer") for name in "zyx"]
    axes: list[Any] = [v05.ChannelAxis(name="c", type="channel"), *space] if colours else [*space]
    omero: dict[str, Any] | None = None
    if colours:
        window = {"min": 0, "max": 255, "start": 0, "end": 255}
        channels = [{"label": label, "color": code, "active": True, "window": window} for label, code in _RGB]
        omero = {"channels": channels, "rdefs": {"model": "color"}}
    image = v05.Image(
        version="0.5",
        multiscales=[v05.Multiscale(name=title, axes=axes, datasets=datasets)],
        omero=omero,  # type: ignore[arg-type]
    )
    text: dict[str, Any] = image.model_dump(mode="json", exclude_none=True, exclude_unset=False)
    return text
