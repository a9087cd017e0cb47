"""A staining run that can be killed at any moment: its journal, what is left to do, and how far it is."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tomostain import runs
from tomostain.io.ome_zarr import VolumeWriter, open_writer
from tomostain.staining.blocks import Block, Plan
from tomostain.staining.journal import Journal
from tomostain.staining.levels import Levels, Shard
from tomostain.staining.work import Facts


def journal_path(out: Path) -> Path:
    """Where the journal of the run that writes ``out`` lies until the run is finished."""
    return out.with_name(out.name + ".journal")


class Run:
    """What is finished of a run and what is left; several threads may report finished work to it."""

    def __init__(self, plan: Plan, writer: VolumeWriter, journal: Journal) -> None:
        self.journal = journal
        self._plan, self._lock = plan, threading.Lock()
        self.facts = Facts()
        finished_blocks = set()
        shards: list[Shard] = []
        for entry in journal.entries:
            place = tuple(entry["at"])
            if entry["level"]:
                shards.append((entry["level"], (place[0], place[1], place[2])))
            else:
                finished_blocks.add(place)
                self.facts.add(Facts(*entry["facts"]))
        everything = plan.blocks()
        self.blocks: Sequence[Block] = [block for block in everything if block.corner not in finished_blocks]
        """What is left to stain, in order."""
        done = [block for block in everything if block.corner in finished_blocks]
        shards += [(0, corner) for block in done for corner in plan.shards(block)]
        self._levels = Levels(writer, shards)
        total = sum(_voxels(block) for block in everything)
        begun = sum(_voxels(block) for block in done)
        self._bar = runs.progress_bar(total=total, initial=begun, desc="staining", unit="voxel")

    def finish_block(self, block: Block, facts: Facts) -> list[Shard]:
        """Record a block whose shards are on disk; returns the shards of the pyramid that can now be built."""
        values = [facts.ct_min, facts.ct_max, facts.tiles, facts.constant, facts.skipped]
        self.journal.add(level=0, at=block.corner, facts=values)
        with self._lock:
            self.facts.add(facts)
            self._bar.update(_voxels(block))
            return [due for corner in self._plan.shards(block) for due in self._levels.finish((0, corner))]

    def finish_shard(self, shard: Shard) -> list[Shard]:
        """Record a shard of the pyramid that is on disk; returns those that can now be built."""
        self.journal.add(level=shard[0], at=shard[1])
        with self._lock:
            return self._levels.finish(shard)

    def due(self) -> list[Shard]:
        """Shards of the pyramid that can be built now."""
        return self._levels.due()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self.journal.close()


def begin(out: Path, plan: Plan, head: Mapping[str, Any]) -> tuple[VolumeWriter, Journal]:
    """Create the empty output of a new run, then its journal."""
    writer = open_writer(out, plan.cut.shape, colours=3, shard=plan.shard_px)
    return writer, Journal.begin(journal_path(out), head)


def go_on(out: Path, plan: Plan) -> VolumeWriter:
    """Open the output of a run that was broken off, and clear files that it was writing."""
    for part in out.rglob("*.partial"):
        part.unlink(missing_ok=True)
    return open_writer(out, plan.cut.shape, colours=3, shard=plan.shard_px, keep=True)


def _voxels(block: Block) -> int:
    z, y, x = (part.stop - part.start for part in block.core)
    return int(z * y * x)
