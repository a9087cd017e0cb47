"""The plan of a staining run: which voxels, in which blocks of whole output shards, in which tiles of planes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tomostain.images.geometry import Grid
from tomostain.images.tiling import Tile, Window, tiles
from tomostain.io.ome_zarr import CHUNK_PX, SHARD_PX, shard_of

Axis = Literal["z", "y", "x"]
Corner = tuple[int, int, int]


@dataclass(frozen=True)
class Cut:
    """Which voxels of a CT volume are stained, and along which axis its planes are cut."""

    ct_shape: Corner
    roi: Window
    """Voxels (z, y, x) of the CT."""
    axis: int = 0
    """Axis that runs through the planes: 0 for z."""
    every: int = 1
    """Of the planes, every n-th is stained."""

    @property
    def steps(self) -> Corner:
        """Voxels of CT from one stained voxel to the next along (z, y, x)."""
        z, y, x = (self.every if axis == self.axis else 1 for axis in range(3))
        return z, y, x

    @property
    def shape(self) -> Corner:
        """Voxels (z, y, x) that are stained."""
        z, y, x = (-(-(part.stop - part.start) // step) for part, step in zip(self.roi, self.steps, strict=True))
        return z, y, x

    @property
    def plane_axes(self) -> tuple[int, int]:
        """The two axes, rows and columns, of a plane."""
        rows, columns = (axis for axis in range(3) if axis != self.axis)
        return rows, columns

    def grid(self, ct: Grid) -> Grid:
        """Where the stained voxels are in the world."""
        spacing = tuple(edge * step for edge, step in zip(ct.spacing_um, self.steps, strict=True))
        starts = [part.start for part in self.roi]
        origin = tuple(o + i * edge for o, i, edge in zip(ct.origin_um, starts, ct.spacing_um, strict=True))
        return Grid(self.shape, spacing, origin)


def choose_cut(shape: Corner, *, roi: str | None = None, axis: Axis = "z", every: int = 1) -> Cut:
    """The part of a volume that is stained: ``roi`` is ``z0:z1,y0:y1,x0:x1`` in voxels; an empty bound is the border.

    Raises
    ------
    ValueError
        The region is malformed, empty or outside the volume, or ``every`` is below 1.
    """
    if every < 1:
        raise ValueError(f"every must be 1 or more, it is {every}")
    whole = tuple(slice(0, n) for n in shape)
    return Cut(shape, _region(roi, shape) if roi else whole, "zyx".index(axis), every)


def _region(text: str, shape: Corner) -> Window:
    parts = [re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", part) for part in text.split(",")]
    if len(parts) != 3 or None in parts:
        raise ValueError(f"roi {text!r} is not z0:z1,y0:y1,x0:x1 in voxels; an empty bound is the volume's border")
    found = []
    for name, part, length in zip("zyx", parts, shape, strict=True):
        assert part is not None
        begin, end = int(part[1] or 0), int(part[2] or length)
        if not 0 <= begin < end <= length:
            raise ValueError(f"roi {name} {begin}:{end} is empty or outside the volume, which has 0:{length}")
        found.append(slice(begin, end))
    return tuple(found)


@dataclass(frozen=True)
class Block:
    """A piece of work: the output shards within ``core`` (voxels of the output), read, stained and written at once."""

    corner: Corner
    """Its place among the blocks, which names it in the journal."""
    core: Window


@dataclass(frozen=True)
class Plan:
    """How a cut of a volume is stained: its blocks, and the tiles of planes that are in the network at once."""

    cut: Cut
    planes: int
    """CT planes that the network sees for one stained plane."""
    halo_px: int
    align_px: int
    """Tiles begin at multiples of this, counted from the CT's border."""
    block_px: Corner
    """Extent (z, y, x) of a block in the output: whole shards."""
    tile_px: tuple[int, int]
    """Stained extent (rows, columns) of a tile."""
    shard_px: Corner
    """Most (z, y, x) that is one file of the output."""
    one_shape: bool = False
    """Whether all tiles have one shape and lie on one lattice over the whole CT plane, whatever region is stained."""

    @property
    def least_px(self) -> tuple[int, int]:
        """Smallest extent (rows, columns) that the network is shown: that of a tile with all its halo, or none."""
        if not self.one_shape:
            return 0, 0
        rows, columns = (-(-(n + 2 * self.halo_px) // self.align_px) * self.align_px for n in self.tile_px)
        return rows, columns

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Rows and columns of a whole CT plane."""
        rows, columns = (self.cut.ct_shape[axis] for axis in self.cut.plane_axes)
        return rows, columns

    def blocks(self) -> list[Block]:
        """All blocks, neighbours close together (Morton order), so that the pyramid's parents are soon complete."""
        counts = [-(-n // size) for n, size in zip(self.cut.shape, self.block_px, strict=True)]
        corners = sorted(np.ndindex(*counts), key=_morton)
        return [Block((c[0], c[1], c[2]), self.window(c)) for c in corners]

    def window(self, corner: tuple[int, ...]) -> Window:
        """Output voxels of the block at that place."""
        return tuple(
            slice(i * size, min((i + 1) * size, n))
            for i, size, n in zip(corner, self.block_px, self.cut.shape, strict=True)
        )

    def shards(self, block: Block) -> Iterator[Corner]:
        """Places of the finest level's shards that a block writes."""
        size = shard_of(self.cut.shape, self.shard_px)
        ranges = [range(part.start // s, -(-part.stop // s)) for part, s in zip(block.core, size, strict=True)]
        for z in ranges[0]:
            for y in ranges[1]:
                yield from ((z, y, x) for x in ranges[2])

    def tiles(self, block: Block) -> list[Tile]:
        """The tiles of a block's planes, in rows and columns of the whole CT plane."""
        first = [self.cut.roi[axis].start for axis in self.cut.plane_axes]
        cores = [block.core[axis] for axis in self.cut.plane_axes]
        within = tuple(slice(c.start + f, c.stop + f) for c, f in zip(cores, first, strict=True))
        halo, align = (self.halo_px,) * 2, (self.align_px,) * 2
        if not self.one_shape:
            return list(tiles(self.plane_shape, self.tile_px, halo=halo, align=align, within=within))
        cells = tuple(
            slice(part.start // size * size, min(-(-part.stop // size) * size, n))
            for part, size, n in zip(within, self.tile_px, self.plane_shape, strict=True)
        )
        whole = tiles(self.plane_shape, self.tile_px, halo=halo, align=align, within=cells, least=self.least_px)
        return [tile.clipped(within) for tile in whole]

    def seen(self, block: Block) -> Window:
        """Rows and columns of the CT plane that a block's tiles see together."""
        outers = [tile.outer for tile in self.tiles(block)]
        return tuple(slice(min(o[i].start for o in outers), max(o[i].stop for o in outers)) for i in range(2))

    def planes_of(self, block: Block) -> list[list[int]]:
        """For each stained plane of a block the CT planes it is stained from."""
        core = block.core[self.cut.axis]
        return [self.ct_planes(index) for index in range(core.start, core.stop)]

    def ct_planes(self, index: int) -> list[int]:
        """The CT planes that a plane of the output is stained from; mirrored at the volume's ends."""
        reach, depth = self.planes // 2, self.cut.ct_shape[self.cut.axis]
        middle = self.cut.roi[self.cut.axis].start + self.cut.every * index
        return [_mirrored(middle + step, depth) for step in range(-reach, reach + 1)]

    @property
    def stained_px(self) -> int:
        """Pixels that are stained."""
        return math.prod(self.cut.shape)

    def network_px(self) -> int:
        """Pixels that pass the network, halos included."""
        total = 0
        for block in self.blocks():
            areas = (math.prod(part.stop - part.start for part in tile.outer) for tile in self.tiles(block))
            core = block.core[self.cut.axis]
            total += (core.stop - core.start) * sum(areas)
        return total


def _shard_along(axis: int) -> Corner:
    """Most that one output file holds (z, y, x): a chunk deep along the planes' axis, wide across them."""
    deep, wide = SHARD_PX[0], SHARD_PX[1]
    z, y, x = (deep if i == axis else wide for i in range(3))
    return z, y, x


def plan_blocks(
    cut: Cut,
    *,
    planes: int,
    halo_px: int,
    align_px: int,
    tile_px: tuple[int, int] | None = None,
    shards: tuple[int, int] = (1, 1),
    one_shape: bool = False,
) -> Plan:
    """Plan blocks of ``shards`` (along rows and columns) output files each, stained in tiles of ``tile_px``.

    ``tile_px`` is by default the whole plane of a block.

    Raises
    ------
    ValueError
        A tile has no pixels.
    """
    shard = _shard_along(cut.axis)
    size = list(shard_of(cut.shape, shard))
    for axis, count in zip(cut.plane_axes, shards, strict=True):
        size[axis] = min(size[axis] * count, -(-cut.shape[axis] // CHUNK_PX) * CHUNK_PX)
    rows, columns = (size[axis] for axis in cut.plane_axes)
    if tile_px is not None:
        if min(tile_px) < 1:
            raise ValueError(f"a tile needs at least one pixel along each axis, not {tile_px}")
        rows, columns = tile_px if one_shape else (min(rows, tile_px[0]), min(columns, tile_px[1]))
    block = (size[0], size[1], size[2])
    return Plan(cut, planes, halo_px, align_px, block, (rows, columns), shard, one_shape)


def _mirrored(index: int, length: int) -> int:
    if length == 1:
        return 0
    index %= 2 * (length - 1)
    return index if index < length else 2 * (length - 1) - index


def _morton(corner: tuple[int, ...]) -> int:
    bits = max(corner).bit_length()
    return sum(((n >> bit) & 1) << (3 * bit + 2 - axis) for bit in range(bits) for axis, n in enumerate(corner))
