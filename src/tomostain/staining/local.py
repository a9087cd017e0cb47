"""Stain a CT volume on this machine: while the network stains a block, the next is read and the last is written."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tomostain.inference.predictor import Predictor
from tomostain.staining.background import Cache
from tomostain.staining.blocks import Block
from tomostain.staining.levels import Shard
from tomostain.staining.run import Run
from tomostain.staining.work import RESUME, Facts, Values, Work

UNDER_WAY = 3
"""Blocks in memory at once for each predictor: one being read, one being stained, one being written."""
Stained = tuple[npt.NDArray[np.uint8], Facts]


def stain_here(work: Work, run: Run, predictors: Sequence[Predictor]) -> None:
    """Do all that is left of a run: reading, staining and writing overlap, and the pyramid grows with the blocks.

    Each predictor (one for a CPU, one for each GPU) has a thread of its own and no more than ``UNDER_WAY`` blocks in
    memory, which is what the prediction counts on. A block is not stained before the last but one is noted, so that a
    crash costs little. When something fails, what is in progress is finished and noted before the error is raised.

    Raises
    ------
    ValueError, OSError
        A block cannot be read or written.
    MemoryError
        The network ran out of memory.
    """
    free: queue.SimpleQueue[tuple[Work, Predictor]] = queue.SimpleQueue()
    for predictor in predictors:
        free.put((replace(work, cache=Cache()), predictor))
    under_way: deque[Future[None]] = deque()
    n = len(predictors)

    def stain(block: Block, read: Future[Values]) -> Stained:
        values = read.result()
        mine, predictor = free.get()
        try:
            return mine.stain(block, values, predictor)
        except (MemoryError, RuntimeError) as error:
            raise as_out_of_memory(error) from error
        finally:
            free.put((mine, predictor))

    def write(block: Block, stained: Future[Stained]) -> None:
        colours, facts = stained.result()
        work.write(block, colours)
        build_later(run.finish_block(block, facts))

    def build(shard: Shard) -> None:
        work.build(shard)
        build_later(run.finish_shard(shard))

    with (
        ThreadPoolExecutor(n, "write") as writing,
        ThreadPoolExecutor(n, "stain") as staining,
        ThreadPoolExecutor(n, "read") as reading,
    ):

        def build_later(shards: Sequence[Shard]) -> None:
            under_way.extend(writing.submit(build, shard) for shard in shards)

        ahead: deque[tuple[Block, Future[Values]]] = deque()

        def stain_next() -> None:
            _wait(under_way, most=(UNDER_WAY - 1) * n - 1)
            block, read = ahead.popleft()
            stained = staining.submit(stain, block, read)
            under_way.append(writing.submit(write, block, stained))

        try:
            build_later(run.due())
            for block in run.blocks:
                if len(ahead) == n:
                    stain_next()
                ahead.append((block, reading.submit(work.read, block)))
            while ahead:
                stain_next()
            _wait(under_way, most=0)
        except KeyboardInterrupt:
            for future in under_way:
                future.cancel()
            raise


def as_out_of_memory(error: Exception) -> Exception:
    """The error itself, or a plain ``MemoryError`` where that is what it means."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in ("out of memory", "not enough memory", "alloc")):
        return MemoryError(f"the network ran out of memory; take a smaller --tile-px; {RESUME}")
    return error


def _wait(under_way: deque[Future[Any]], *, most: int) -> None:
    while len(under_way) > most:
        under_way.popleft().result()
