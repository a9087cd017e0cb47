"""Simulate a staining run on many workers: the plan's own blocks and pyramid, the client's own rules, no network.

python benchmarks/staining_scheduler.py [--size 4000] [--workers 1 64 1000] [--block-s 20] [--deaths-per-hour 0.05]

A worker paints a block in --block-s seconds (give what was measured on yours), spread by a tenth; building a shard of
the pyramid takes --shard-s. The client needs --client-s for each task that it notes (journal line forced to disk, next
task sent), one after the other. Workers die at random, lose what they had, and are back after --restart-s. Told are the
length of the run, the share of the workers' time that went into blocks, blocks painted again, and how busy the client
was.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections import deque
from dataclasses import dataclass

from _results import Figure, save
from tomostain.images.pyramid import level_shapes
from tomostain.io.ome_zarr import shard_of
from tomostain.staining.blocks import Corner, Plan, choose_cut, plan_blocks
from tomostain.staining.cluster import THREADS
from tomostain.staining.levels import Levels, Shard


@dataclass(frozen=True)
class Shards:
    """The levels of a volume as ``Levels`` sees them in a writer, with nothing on disk."""

    levels: tuple[Corner, ...]
    shard_px: Corner

    def shards(self, level: int) -> Corner:
        shape = self.levels[level]
        z, y, x = (-(-n // s) for n, s in zip(shape, shard_of(shape, self.shard_px), strict=True))
        return z, y, x

    def window(self, level: int, corner: Corner) -> tuple[slice, ...]:
        shape = self.levels[level]
        steps = shard_of(shape, self.shard_px)
        return tuple(slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(corner, steps, shape, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 64, 1000])
    parser.add_argument("--block-s", type=float, default=20.0)
    parser.add_argument("--shard-s", type=float, default=5.0)
    parser.add_argument("--client-s", type=float, default=0.005)
    parser.add_argument("--deaths-per-hour", type=float, default=0.05, help="of one worker")
    parser.add_argument("--restart-s", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    cut = choose_cut((asked.size,) * 3)
    plan = plan_blocks(cut, planes=1, halo_px=88, align_px=4)
    print(f"{len(plan.blocks())} blocks of {plan.block_px}, {asked.block_s} s each")
    print(f"{'workers':>8} {'hours':>8} {'in blocks':>10} {'deaths':>7} {'repeated':>9} {'client busy':>12}")
    figures = []
    for workers in asked.workers:
        length, share, deaths, repeated, busy = simulate(plan, workers, asked)
        print(f"{workers:>8} {length / 3600:8.2f} {share:10.1%} {deaths:>7} {repeated:>9} {busy:12.1%}")
        value = f"{length / 3600:.2f} h, {share:.0%} of the workers' time in blocks, client busy {busy:.0%}"
        figures.append(Figure(f"{asked.size}^3, {asked.block_s:g} s a block, {workers} workers", value))
    save("staining_scheduler", figures, note="simulated")
    return 0


def simulate(plan: Plan, workers: int, asked: argparse.Namespace) -> tuple[float, float, int, int, float]:
    """Length in seconds, share of the workers' time in blocks, deaths, blocks repeated, share of time of the client."""
    chance = random.Random(asked.seed)
    levels = Levels(Shards(tuple(level_shapes(plan.cut.shape)), plan.shard_px))  # type: ignore[arg-type]
    blocks = plan.blocks()
    shards_of = {block.corner: [(0, corner) for corner in plan.shards(block)] for block in blocks}
    tasks: deque[Shard] = deque((0, block.corner) for block in blocks)
    idle, lives = deque(range(workers)), [0] * workers
    events: list[tuple[float, int, str, int, int, Shard | None]] = []
    order = 0

    def at(time: float, what: str, worker: int, task: Shard | None = None) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (time, order, what, worker, lives[worker], task))

    def mortal(time: float, worker: int) -> None:
        if asked.deaths_per_hour > 0:
            at(time + chance.expovariate(asked.deaths_per_hour / 3600), "dies", worker)

    holds: dict[int, Shard] = {}
    sent = dict.fromkeys(tasks, 0)
    now = client_free = client_busy = painted = 0.0
    deaths = 0

    def hand_out(time: float) -> None:
        while tasks and idle:
            task, worker = tasks.popleft(), idle.popleft()
            seconds = asked.shard_s if task[0] else asked.block_s * chance.uniform(0.9, 1.1)
            holds[worker] = task
            sent[task] = sent.get(task, 0) + 1
            at(time + seconds, "done", worker, task)

    for worker in range(workers):
        mortal(0.0, worker)
    hand_out(0.0)
    left = len(blocks) + levels.total
    while left:
        now, _, what, worker, life, task = heapq.heappop(events)
        if what != "back" and life != lives[worker]:
            continue
        if what == "dies":
            deaths += 1
            lives[worker] += 1
            if worker in holds:
                tasks.appendleft(holds.pop(worker))
            else:
                idle.remove(worker)
            at(now + asked.restart_s, "back", worker)
        elif what == "back":
            idle.append(worker)
            mortal(now, worker)
        elif task is not None:
            del holds[worker]
            client_free = max(now, client_free) + asked.client_s
            client_busy += asked.client_s
            left -= 1
            painted += 0.0 if task[0] else asked.block_s
            finished = [task] if task[0] else shards_of[task[1]]
            tasks.extendleft(due for shard in finished for due in levels.finish(shard))
            # a worker holds its next tasks already: only when the client lags that far does it wait for it
            idle.append(worker)
            now = max(now, client_free - THREADS * asked.block_s)
        hand_out(now)
    repeated = sum(count - 1 for (level, _), count in sent.items() if not level)
    return now, painted / (now * workers), deaths, repeated, client_busy / now


if __name__ == "__main__":
    sys.exit(main())
