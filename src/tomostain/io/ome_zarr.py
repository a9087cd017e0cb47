"""OME-Zarr 0.5 (NGFF, Zarr v3) out: sharded, multiscale, colours as c z y x with their metadata.

Values are written once per shard by the caller; the coarser levels are built shard by shard, and the
``ome`` metadata that makes the store an image is written last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from yaozarrs import v05
from yaozarrs.v05 import ScaleTransformation, TranslationTransformation
from zarr.codecs import ZstdCodec

from tomostain.images.geometry import Grid
from tomostain.images.pyramid import Reduce, halved, level_shapes, pieces
from tomostain.images.tiling import Window

CHUNK_PX = 64
SHARD_PX = (64, 512, 512)

_RGB = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))


@dataclass(frozen=True, eq=False)
class VolumeWriter:
    """Takes blocks of a volume that is being written: ``writer[z0:z1, y0:y1, x0:x1] = block``.

    Blocks are (z, y, x), or (z, y, x, 3) for colours. Each ``shard`` should be written by one assignment: what does not
    fill a shard is read back and written again. A shard is one file, written beside its place and renamed there.
    """

    path: Path
    levels: tuple[zarr.Array[Any], ...]
    """From the finest, which takes the blocks, to the coarsest."""
    colours: int | None
    shard_px: tuple[int, int, int]
    """Most that is one file on disk, (z, y, x)."""
    reduce: Reduce = "mean"

    @property
    def shard(self) -> tuple[int, int, int]:
        """Extent (z, y, x) of the finest level that is one file on disk."""
        return shard_of(self.shape(0), self.shard_px)

    def shape(self, level: int) -> tuple[int, int, int]:
        """Voxels (z, y, x) of a level."""
        z, y, x = self.levels[level].shape[-3:]
        return z, y, x

    def __setitem__(self, window: Window, block: npt.NDArray[Any]) -> None:
        if self.colours:
            self.levels[0][(slice(None), *window)] = np.ascontiguousarray(np.moveaxis(block, -1, 0))
        else:
            self.levels[0][window] = np.ascontiguousarray(block)

    def shards(self, level: int) -> tuple[int, int, int]:
        """How many files a level is along (z, y, x)."""
        shape = self.shape(level)
        z, y, x = (-(-n // s) for n, s in zip(shape, shard_of(shape, self.shard_px), strict=True))
        return z, y, x

    def window(self, level: int, corner: tuple[int, ...]) -> Window:
        """The voxels of one shard of a level, by its place (z, y, x) among the level's shards."""
        shape = self.shape(level)
        steps = shard_of(shape, self.shard_px)
        return tuple(slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(corner, steps, shape, strict=True))

    def file(self, level: int, corner: tuple[int, ...]) -> Path:
        """The file of one shard; there is none where all its voxels are zero."""
        lead = (0,) if self.colours else ()
        return self.path / str(level) / self.levels[level].metadata.encode_chunk_key((*lead, *corner))

    def build(self, level: int, corner: tuple[int, ...]) -> None:
        """Write one shard of a coarser level from the level above it, whose shards under it must be complete."""
        finer, coarser, window = self.levels[level - 1], self.levels[level], self.window(level, corner)
        lead = (slice(None),) if self.colours else ()
        size = tuple(part.stop - part.start for part in window)
        shard = np.empty((*coarser.shape[:-3], *size), dtype=coarser.dtype)
        for here, there in pieces(window, finer.shape[-3:]):
            block = np.asarray(finer[(*lead, *there)])
            inside = tuple(slice(h.start - w.start, h.stop - w.start) for h, w in zip(here, window, strict=True))
            shard[(*lead, *inside)] = halved(block, colours=bool(self.colours), reduce=self.reduce)
        coarser[(*lead, *window)] = shard

    def declare(
        self,
        grid: Grid,
        *,
        stain: str | None = None,
        name: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the metadata that makes the store an image; the last thing to be done."""
        title = name or self.path.name.removesuffix(".zarr").removesuffix(".ome")
        finest = self.levels[0]
        ome = _metadata(grid, len(self.levels), self.colours, title)
        every_chunk = finest.nchunks_initialized >= finest.nchunks
        about = {"stain": stain, "reduce": self.reduce, "every_chunk": every_chunk, **(attributes or {})}
        root = zarr.open_group(self.path, mode="r+")
        root.attrs.update({"ome": ome, "tomostain": json.loads(json.dumps(about))})


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
    """Create a volume on ``grid`` and yield its writer; on leaving, build the pyramid and declare it an image.

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
    writer = open_writer(path, grid.shape, dtype=dtype, colours=colours, reduce=reduce, shard=shard)
    yield writer
    for level in range(1, len(writer.levels)):
        for corner in np.ndindex(*writer.shards(level)):
            writer.build(level, corner)
    writer.declare(grid, stain=stain, name=name, attributes=attributes)


def open_writer(
    path: Path,
    shape: tuple[int, ...],
    *,
    dtype: npt.DTypeLike = np.uint8,
    colours: int | None = None,
    reduce: Reduce = "mean",
    shard: tuple[int, int, int] = SHARD_PX,
    keep: bool = False,
) -> VolumeWriter:
    """Create the empty levels of a volume, or (``keep``) go on writing those that lie at ``path``.

    The caller fills the levels and then calls ``build`` and ``declare``; ``create_volume`` does both.
    """
    path = Path(path)
    shapes = level_shapes(shape)
    if keep:
        root = zarr.open_group(path, mode="r+")
        levels: list[Any] = [root[str(i)] for i in range(len(shapes))]
    else:
        root = zarr.open_group(path, mode="w", zarr_format=3)
        levels = [_create_level(root, str(i), size, dtype, colours, shard) for i, size in enumerate(shapes)]
    return VolumeWriter(path, tuple(levels), colours, shard, reduce)


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
    )


def _metadata(grid: Grid, levels: int, colours: int | None, title: str) -> dict[str, Any]:
    lead = [1.0] if colours else []
    datasets = []
    for i in range(levels):
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
