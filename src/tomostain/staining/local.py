"""Stain a CT volume on this machine: while the network paints a block, the next is read and the last is written."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tomostain.staining.background import Answers
from tomostain.staining.blocks import Block
from tomostain.staining.levels import Shard
from tomostain.staining.run import Run
from tomostain.staining.work import RESUME, Facts, Paint, Values, Work

UNDER_WAY = 3
"""Blocks in memory at once for each painter: one being read, one being painted, one being written."""
Painted = tuple[npt.NDArray[np.uint8], Facts]


def stain_here(work: Work, run: Run, painters: Sequence[Paint]) -> None:
    """Do all that is left of a run: read, paint and write overlap, and the pyramid grows with the blocks.

    Each painter (one for a CPU, one for each GPU) has a thread of its own. No more than ``UNDER_WAY`` blocks a painter
    are in memory, which is what the prediction counts on, and a block is not painted before the last but one is noted,
    so that a crash costs little. When something fails, what is under way is brought to its end
    and noted before the error is raised.

    Raises
    ------
    ValueError, OSError
        A block cannot be read or written.
    MemoryError
        The network ran out of memory.
    """
    free: queue.SimpleQueue[tuple[Work, Paint]] = queue.SimpleQueue()
    for painter in painters:
        free.put((replace(work, answers=Answers()), painter))
    under_way: deque[Future[None]] = deque()
    n = len(painters)

    def paint(block: Block, read: Future[Values]) -> Painted:
        values = read.result()
        mine, painter = free.get()
        try:
            return mine.paint(block, values, painter)
        except (MemoryError, RuntimeError) as error:
            raise told_out_of_memory(error) from error
        finally:
            free.put((mine, painter))

    def write(block: Block, painted: Future[Painted]) -> None:
        colours, facts = painted.result()
        work.write(block, colours)
        build_later(run.finish_block(block, facts))

    def build(shard: Shard) -> None:
        work.build(shard)
        build_later(run.finish_shard(shard))

    with (
        ThreadPoolExecutor(n, "write") as writing,
        ThreadPoolExecutor(n, "paint") as painting,
        ThreadPoolExecutor(n, "read") as reading,
    ):

        def build_later(shards: Sequence[Shard]) -> None:
            under_way.extend(writing.submit(build, shard) for shard in shards)

        ahead: deque[tuple[Block, Future[Values]]] = deque()

        def paint_next() -> None:
            _wait(under_way, most=(UNDER_WAY - 1) * n - 1)
            block, read = ahead.popleft()
            painted = painting.submit(paint, block, read)
            under_way.append(writing.submit(write, block, painted))

        try:
            build_later(run.due())
            for block in run.blocks:
                if len(ahead) == n:
                    paint_next()
                ahead.append((block, reading.submit(work.read, block)))
            while ahead:
                paint_next()
            _wait(under_way, most=0)
        except KeyboardInterrupt:
            for future in under_way:
                future.cancel()
            raise


def told_out_of_memory(error: Exception) -> Exception:
    """The error itself, or a plain ``MemoryError`` where that is what it means."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in ("out of memory", "not enough memory", "alloc")):
        return MemoryError(f"the network ran out of memory; take a smaller --tile-px; {RESUME}")
    return error


def _wait(under_way: deque[Future[Any]], *, most: int) -> None:
    while len(under_way) > most:
        under_way.popleft().result()
