"""The same blocks on many workers (Dask distributed): on this machine, at a scheduler's address, or through Slurm.

The client alone keeps the journal; a block is noted when its worker says that its shards are on disk. What a worker did
not live to say is done again by another: shards are whole files that are renamed into place, so that doing a block
twice writes the same bytes once more and harms nothing.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tomostain import runs
from tomostain._imports import require
from tomostain.inference.backends import BACKENDS
from tomostain.inference.predictor import Predictor
from tomostain.learning.stainer import Stainer
from tomostain.staining.blocks import Block
from tomostain.staining.levels import Shard
from tomostain.staining.local import as_out_of_memory
from tomostain.staining.run import Run
from tomostain.staining.samples import calibration_of
from tomostain.staining.slurm import batch_script, cancel, read_slurm, submit
from tomostain.staining.work import RESUME, Facts, Work
from tomostain.staining.workers import QUIET, THREADS

ATTEMPTS = 4
"""Times that a task whose workers died (each time several of them) is submitted."""
_WAIT_S = 120
_RESULT_S = 20
"""Time within which a finished task's few numbers arrive; if they do not, the worker has died."""


def workers_of(cluster: str | None) -> int:
    """How many processes of this machine the run will take: N for ``local:N``, else one.

    Raises
    ------
    ValueError
        ``cluster`` is none of local:N, an address, and a YAML file.
    """
    if cluster is None or "://" in cluster or Path(cluster).suffix in (".yaml", ".yml"):
        return 1
    found = re.fullmatch(r"local:([1-9]\d*)", cluster)
    if not found:
        raise ValueError(f"cluster {cluster!r} is none of local:N, tcp://scheduler:8786, slurm.yaml")
    return int(found[1])


def processes_of(cluster: str | None) -> int:
    """Processes of this machine that share the run's memory: for ``local:N`` the workers and the client, else one."""
    return 1 + workers_of(cluster) if cluster and cluster.startswith("local:") else 1


@dataclass(frozen=True)
class Job:
    """What a worker must know beside its task; the same for all tasks of a run."""

    work: Work
    stainer: Path
    sha256: str
    """Of the stainer that the run began with."""
    backend: str
    device: str
    threads: int
    """Threads of the worker's network."""
    trust: bool = False
    """Whether a network of another package may be imported."""


def stain_on_cluster(job: Job, run: Run, cluster: str) -> None:
    """Do all that is left of a run on the workers of ``cluster``; they need the stainer, the volume and the output.

    Raises
    ------
    ModuleNotFoundError
        Dask distributed is not installed.
    ValueError, OSError, MemoryError
        A block failed on a worker, or workers kept dying on it; the run can be resumed.
    """
    distributed: Any = require("distributed", extra="cluster")
    payload = pickle.dumps(job)
    with connected(cluster) as client:
        tasks: deque[Block | Shard] = deque([*run.due(), *run.blocks])
        handed_out: Counter[str] = Counter()
        deaths: Counter[str] = Counter()
        under_way: dict[Any, Block | Shard] = {}
        finished = distributed.as_completed()

        def hand_out(task: Block | Shard) -> None:
            key = _key(task)
            handed_out[key] += 1
            name = f"{key}-{handed_out[key]}"
            future = client.submit(do, payload, task, key=name, pure=False, priority=_priority(task))
            under_way[future] = task
            finished.add(future)

        def fill() -> None:
            most = (THREADS + 1) * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
            while tasks and len(under_way) < most:
                hand_out(tasks.popleft())

        fill()
        try:
            while under_way:
                future = next(finished)
                task = under_way.pop(future)
                try:
                    facts = future.result(timeout=_RESULT_S)
                except TimeoutError:
                    if future.status == "error":
                        raise
                    client.cancel([future])
                    tasks.appendleft(task)
                except distributed.KilledWorker:
                    deaths[_key(task)] += 1
                    if deaths[_key(task)] >= ATTEMPTS:
                        raise MemoryError(
                            f"workers died repeatedly on {_key(task)}, most likely for lack of memory: give them "
                            f"more, or take a smaller --tile-px; {RESUME}"
                        ) from None
                    tasks.appendleft(task)
                else:
                    due = run.finish_block(task, facts) if isinstance(task, Block) else run.finish_shard(task)
                    tasks.extendleft(due)
                fill()
        finally:
            client.cancel(list(under_way))


def do(payload: bytes, task: Block | Shard) -> Facts | None:
    """Do one task on a worker: stain and write a block, or build a shard of the pyramid."""
    job, predict, lock = _ready(payload)
    if not isinstance(task, Block):
        job.work.build(task)
        return None
    values = job.work.read(task)
    try:
        with lock:
            colours, facts = job.work.stain(task, values, predict)
    except (MemoryError, RuntimeError) as error:
        raise as_out_of_memory(error) from None
    job.work.write(task, colours)
    return facts


@lru_cache(maxsize=1)
def _ready(payload: bytes) -> tuple[Job, Predictor, threading.Lock]:
    """The run that this worker works for: its predictor is made once."""
    with _READYING:
        job: Job = pickle.loads(payload)
        torch.set_num_threads(job.threads)
        device = job.device
        if device.startswith("cuda"):
            worker: Any = require("distributed", extra="cluster").get_worker()
            name = str(worker.name)
            device = f"cuda:{int(name) % torch.cuda.device_count() if name.isdigit() else 0}"
        model = Stainer.load(job.stainer, trust=job.trust).on(device)
        if model.sha256 != job.sha256:
            raise ValueError(f"{job.stainer} is not the stainer that this run began with; {RESUME}")
        predict = BACKENDS[job.backend].make(model, lambda: calibration_of(job.work.ct, job.work.plan))
    return job, predict, threading.Lock()


_READYING = threading.Lock()


@contextmanager
def connected(cluster: str) -> Iterator[Any]:
    """A client of the cluster; what was started for it is ended with it.

    Raises
    ------
    OSError
        The scheduler does not respond, or Slurm refuses the workers' job.
    """
    distributed: Any = require("distributed", extra="cluster")
    dask: Any = require("dask", extra="cluster")
    if cluster.startswith("local:"):
        with (
            dask.config.set(QUIET),
            distributed.LocalCluster(
                n_workers=workers_of(cluster),
                threads_per_worker=THREADS,
                processes=True,
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            ) as local,
            distributed.Client(local) as client,
        ):
            yield client
    elif "://" in cluster:
        try:
            client = distributed.Client(cluster, timeout=_WAIT_S)
        except (OSError, TimeoutError) as error:
            raise OSError(f"no Dask scheduler responds at {cluster}: {' '.join(str(error).split())}") from None
        with client:
            yield client
    else:
        slurm = read_slurm(Path(cluster))
        with (
            dask.config.set(QUIET),
            distributed.LocalCluster(
                n_workers=0, host=None, interface=slurm.interface, dashboard_address="127.0.0.1:0", protocol="tcp://"
            ) as scheduler,
            distributed.Client(scheduler) as client,
        ):
            job = submit(batch_script(slurm, scheduler.scheduler_address))
            runs.say(f"Slurm job {job}: waiting for its first worker")
            try:
                client.wait_for_workers(1)
                yield client
            finally:
                cancel(job)


def threads_of(cluster: str) -> int:
    """Threads of a worker's network: this machine's processors shared out, or those that Slurm gives a task."""
    if cluster.startswith("local:"):
        return max(1, torch.get_num_threads() // workers_of(cluster))
    if "://" in cluster:
        return max(1, int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
    return read_slurm(Path(cluster)).cpus


def _key(task: Block | Shard) -> str:
    level, place = (0, task.corner) if isinstance(task, Block) else task
    return f"{'block' if isinstance(task, Block) else f'level {level} shard'} {place[0]} {place[1]} {place[2]}"


def _priority(task: Block | Shard) -> int:
    return 0 if isinstance(task, Block) else 1
