"""One block's work - read, stain, write - the same on this machine's threads and on a cluster's workers."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tomostain.images.image import Volume
from tomostain.images.tiling import Tile
from tomostain.inference.predictor import Predictor, Tiles
from tomostain.io.ome_zarr import CHUNK_PX, VolumeWriter
from tomostain.staining.background import Background, Cache
from tomostain.staining.blocks import Block, Plan
from tomostain.staining.journal import sync_file
from tomostain.staining.levels import Shard

RESUME = "what is finished is kept: repeat the command with --resume"


@dataclass(frozen=True, eq=False)
class Values:
    """The CT of a block as its network sees it: planes first, rows and columns of the plane's part that is seen."""

    array: npt.NDArray[Any]
    """(CT planes, rows, columns), in the volume's own type."""
    index: npt.NDArray[np.intp]
    """(stained planes, planes of the network): which of the array's planes each is stained from."""
    corner: tuple[int, int]
    """Row and column of the CT plane at which the array begins."""

    def tile(self, tile: Tile, plane: int, count: int) -> Tiles:
        """What ``count`` stained planes see in a tile: (count, planes, rows, columns) float32."""
        rows, columns = (
            slice(part.start - first, part.stop - first) for part, first in zip(tile.outer, self.corner, strict=True)
        )
        return self.array[self.index[plane : plane + count], rows, columns].astype(np.float32, copy=False)


@dataclass(eq=False)
class Facts:
    """What was found while staining a block."""

    ct_min: float = np.inf
    ct_max: float = -np.inf
    tiles: int = 0
    constant: int = 0
    """Tiles (of one plane) of one value, whose colours the network gives once."""
    skipped: int = 0
    """Tiles (of one plane) stained as background."""

    def add(self, other: Facts) -> None:
        """Add the facts of another block."""
        self.ct_min, self.ct_max = min(self.ct_min, other.ct_min), max(self.ct_max, other.ct_max)
        self.tiles += other.tiles
        self.constant += other.constant
        self.skipped += other.skipped


@dataclass(frozen=True, eq=False)
class Work:
    """Everything that a thread or a worker needs for any block of a run; can be pickled."""

    ct: Volume
    plan: Plan
    writer: VolumeWriter
    background: Background | None = None
    batch: int = 1
    """Planes that are in the network at once."""
    cache: Cache = field(default_factory=Cache, compare=False)

    def read(self, block: Block) -> Values:
        """Read the CT that a block is stained from.

        Raises
        ------
        ValueError
            It holds NaN or infinite values.
        OSError
            It cannot be read.
        """
        plan = self.plan
        wanted = plan.planes_of(block)
        planes = sorted({z for group in wanted for z in group})
        rows, columns = plan.seen(block)
        shape = (len(planes), rows.stop - rows.start, columns.stop - columns.start)
        array = np.empty(shape, dtype=self.ct.dtype.newbyteorder("="))
        try:
            for run, filled in _runs(planes):
                window = [slice(0, 0)] * 3
                window[plan.cut.axis] = run
                for axis, part in zip(plan.cut.plane_axes, (rows, columns), strict=True):
                    window[axis] = part
                array[filled] = np.moveaxis(self.ct[tuple(window)], plan.cut.axis, 0)
        except MemoryError:
            raise
        except Exception as error:
            name = "zyx"[plan.cut.axis]
            where = f"planes {planes[0]} to {planes[-1]} along {name}"
            kind = OSError if isinstance(error, OSError) else ValueError
            raise kind(
                f"{self.ct.name} cannot be read in {where}: {_plain(error)}; repair the file; {RESUME}"
            ) from error
        if np.issubdtype(array.dtype, np.floating):
            self._check_finite(array, planes, (rows.start, columns.start))
        place = {z: i for i, z in enumerate(planes)}
        index = np.array([[place[z] for z in group] for group in wanted], dtype=np.intp)
        return Values(array, index, (rows.start, columns.start))

    def stain(self, block: Block, values: Values, predict: Predictor) -> tuple[npt.NDArray[np.uint8], Facts]:
        """Stain a block: colours (3, z, y, x) in the output's own order, and the block's facts.

        Raises
        ------
        ValueError
            The network's output is not finite; plane and tile are named.
        """
        plan = self.plan
        size = tuple(part.stop - part.start for part in block.core)
        colours = np.empty((3, *size), dtype=np.uint8)
        view = np.moveaxis(colours, 1 + plan.cut.axis, 1)
        facts = Facts(float(values.array.min()), float(values.array.max()))
        first = [block.core[axis].start + plan.cut.roi[axis].start for axis in plan.cut.plane_axes]
        for tile in plan.tiles(block):
            rows, columns = (slice(c.start - f, c.stop - f) for c, f in zip(tile.core, first, strict=True))
            for plane in range(0, size[plan.cut.axis], self.batch):
                count = min(self.batch, size[plan.cut.axis] - plane)
                seen = values.tile(tile, plane, count)
                try:
                    stained = self._stain(seen, predict, facts)
                except ValueError as error:
                    raise ValueError(f"{_plain(error)} ({self._place(block, tile, plane, count)}); {RESUME}") from error
                inner = stained[(slice(None), *tile.inner)]
                view[:, plane : plane + count, rows, columns] = np.moveaxis(inner, -1, 0)
        return colours, facts

    def write(self, block: Block, colours: npt.NDArray[np.uint8]) -> None:
        """Write a block's shards, each once; on return they are on disk.

        Raises
        ------
        OSError
            They cannot be written.
        """
        try:
            for corner in self.plan.shards(block):
                window = self.writer.window(0, corner)
                part = tuple(
                    slice(w.start - c.start, w.stop - c.start) for w, c in zip(window, block.core, strict=True)
                )
                self.writer[window] = np.moveaxis(colours[(slice(None), *part)], 0, -1)
                sync_file(self.writer.file(0, corner))
        except OSError as error:
            raise _cannot_write(error, self.writer.path) from error

    def build(self, shard: Shard) -> None:
        """Build one shard of the pyramid; on return it is on disk.

        Raises
        ------
        OSError
            It cannot be written, or what lies under it cannot be read.
        """
        try:
            self.writer.build(*shard)
            sync_file(self.writer.file(*shard))
        except OSError as error:
            raise _cannot_write(error, self.writer.path) from error

    def _stain(self, seen: Tiles, predict: Predictor, facts: Facts) -> npt.NDArray[np.uint8]:
        """The network's colours for tiles: from the cache where a tile is constant."""
        facts.tiles += len(seen)
        known: dict[int, npt.NDArray[np.uint8]] = {}
        for i, tile in enumerate(seen):
            value = np.float32(tile.flat[0])
            if tile[-1, -1, -1] == value and (tile == value).all():
                facts.constant += 1
            elif self.background is not None and self.background.holds(tile):
                value = np.float32(self.background.value)
                facts.skipped += 1
            else:
                continue
            known[i] = self._constant(value, tile.shape, predict)
        if not known:
            return predict(seen)
        rest = [i for i in range(len(seen)) if i not in known]
        stained = np.empty((len(seen), *seen.shape[-2:], 3), dtype=np.uint8)
        for i, colours in known.items():
            stained[i] = colours
        if rest:
            stained[rest] = predict(seen[rest])
        return stained

    def _constant(self, value: np.float32, shape: tuple[int, ...], predict: Predictor) -> npt.NDArray[np.uint8]:
        """The network's colours where it sees one value only, (rows, columns, 3)."""
        return self.cache.get((float(value), shape), lambda: predict(np.full((1, *shape), value, np.float32))[0])

    def _place(self, block: Block, tile: Tile, plane: int, count: int) -> str:
        """Where a tile lies in the CT, in words."""
        cut = self.plan.cut
        first = cut.roi[cut.axis].start + cut.every * (block.core[cut.axis].start + plane)
        last = first + cut.every * (count - 1)
        planes = f"plane {first}" if count == 1 else f"planes {first} to {last}"
        spans = (
            f"{'zyx'[axis]} {part.start}:{part.stop}" for axis, part in zip(cut.plane_axes, tile.core, strict=True)
        )
        return f"{planes} along {'zyx'[cut.axis]}, tile {', '.join(spans)}"

    def _check_finite(self, array: npt.NDArray[Any], planes: list[int], corner: tuple[int, int]) -> None:
        for z, plane in zip(planes, array, strict=True):
            bad = ~np.isfinite(plane)
            if bad.any():
                row, column = (int(i) + first for i, first in zip(np.argwhere(bad)[0], corner, strict=True))
                voxel = [row, column]
                voxel.insert(self.plan.cut.axis, z)
                raise ValueError(
                    f"{self.ct.name} has NaN or infinite values near voxel {tuple(voxel)}; remove its output "
                    "and stain again with --fill VALUE (that of air)"
                )


def _runs(planes: list[int]) -> list[tuple[slice, slice]]:
    """Sorted plane numbers as evenly spaced slices no longer than a chunk, each with its place in the list."""
    runs: list[tuple[slice, slice]] = []
    i = 0
    while i < len(planes):
        step = planes[i + 1] - planes[i] if i + 1 < len(planes) else 1
        j = i + 1
        while j < len(planes) and planes[j] - planes[j - 1] == step and planes[j] // CHUNK_PX == planes[i] // CHUNK_PX:
            j += 1
        runs.append((slice(planes[i], planes[j - 1] + 1, step), slice(i, j)))
        i = j
    return runs


def _cannot_write(error: OSError, path: Path) -> OSError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OSError(f"{path}: the disk is full; free some space; {RESUME}")
    return OSError(f"{path} cannot be written: {_plain(error)}; {RESUME}")


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
