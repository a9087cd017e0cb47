"""Which shards of the pyramid can be built, from the shards that are finished below them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tomostain.io.ome_zarr import VolumeWriter
from tomostain.staining.blocks import Corner

Shard = tuple[int, Corner]
"""(level, place among the level's shards)."""


class Levels:
    """The state of all shards of a volume that is being written; a parent is due when its last child is finished."""

    def __init__(self, writer: VolumeWriter, finished: Iterable[Shard] = ()) -> None:
        self._writer = writer
        self._finished: set[Shard] = set()
        self._missing: dict[Shard, int] = {}
        self._parents: dict[Shard, list[Shard]] = {}
        for level in range(1, len(writer.levels)):
            for corner in np.ndindex(*writer.shards(level)):
                parent = (level, _corner(corner))
                children = list(self._children(parent))
                self._missing[parent] = len(children)
                for child in children:
                    self._parents.setdefault(child, []).append(parent)
        for shard in finished:
            self.finish(shard)

    @property
    def total(self) -> int:
        """Shards above the finest level."""
        return len(self._missing)

    def finish(self, shard: Shard) -> list[Shard]:
        """Note a finished shard; returns the parents that became due by it."""
        if shard in self._finished:
            return []
        self._finished.add(shard)
        due = []
        for parent in self._parents.get(shard, ()):
            self._missing[parent] -= 1
            if not self._missing[parent] and parent not in self._finished:
                due.append(parent)
        return due

    def due(self) -> list[Shard]:
        """Shards that can be built now and are not finished, finer levels first."""
        return sorted(shard for shard, missing in self._missing.items() if not missing and shard not in self._finished)

    def _children(self, parent: Shard) -> Iterator[Shard]:
        level, corner = parent
        window = self._writer.window(level, corner)
        counts = self._writer.shards(level - 1)
        first = self._writer.window(level - 1, (0, 0, 0))
        ranges = [
            range(2 * part.start // size.stop, min(-(-2 * part.stop // size.stop), count))
            for part, size, count in zip(window, first, counts, strict=True)
        ]
        for place in np.ndindex(*(len(r) for r in ranges)):
            yield level - 1, _corner(tuple(r[i] for r, i in zip(ranges, place, strict=True)))


def _corner(place: tuple[int, ...]) -> Corner:
    z, y, x = place
    return z, y, x
