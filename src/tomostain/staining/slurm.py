"""Workers on a Slurm cluster: a batch script of `dask worker` under srun, rendered from a small YAML file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from tomostain._imports import nearest
from tomostain.staining.workers import QUIET, THREADS, as_environment


@dataclass(frozen=True)
class Slurm:
    """What one job of workers requests from Slurm."""

    workers: int = 1
    """Workers, one a task."""
    cpus: int = 4
    """Processors of a worker, which are the threads of its network."""
    memory_gib: float = 8.0
    """Memory of a worker; Slurm ends what takes more."""
    gpus: int = 0
    """GPUs of a worker, 0 or 1."""
    time: str = "12:00:00"
    """Time limit of the job; a run that takes longer is continued with --resume."""
    partition: str | None = None
    account: str | None = None
    interface: str | None = None
    """Network interface between workers and scheduler, ib0 for example."""
    directives: tuple[str, ...] = ()
    """Further lines behind #SBATCH."""
    setup: tuple[str, ...] = ()
    """Shell lines that come first: modules to load, an environment to activate."""
    python: str = sys.executable
    """The interpreter on the nodes that has tomostain."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.cpus < 1 or self.memory_gib <= 0 or self.gpus not in (0, 1):
            raise ValueError("slurm: workers and cpus are at least 1, memory_gib positive, gpus 0 or 1")


def read_slurm(path: Path) -> Slurm:
    """The settings in a YAML file.

    Raises
    ------
    ValueError
        The file cannot be read, or holds a setting that is not known; the nearest known one is named.
    """
    try:
        text = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as Slurm settings: {' '.join(str(error).split())}") from None
    if not isinstance(text, dict):
        raise ValueError(f"{path} holds no Slurm settings: it must hold one 'setting: value' a line")
    known = [field.name for field in fields(Slurm)]
    for key in text:
        if key not in known:
            raise ValueError(f"{path}: unknown setting {key!r}; {nearest(str(key), known)}")
    lists = {key: tuple(map(str, value)) for key, value in text.items() if isinstance(value, list)}
    return Slurm(**{**text, **lists})


def batch_script(slurm: Slurm, scheduler: str) -> str:
    """The script for sbatch: workers that connect to the scheduler at that address, each with its nanny."""
    directives = [
        "job-name=tomostain",
        f"ntasks={slurm.workers}",
        f"cpus-per-task={slurm.cpus}",
        f"mem-per-cpu={int(slurm.memory_gib * 1024 / slurm.cpus)}M",
        f"time={slurm.time}",
        *([f"gpus-per-task={slurm.gpus}"] if slurm.gpus else []),
        *([f"partition={slurm.partition}"] if slurm.partition else []),
        *([f"account={slurm.account}"] if slurm.account else []),
        *slurm.directives,
    ]
    worker = [
        "srun --kill-on-bad-exit=0",
        f"{slurm.python} -m distributed.cli.dask_worker {scheduler}",
        f"--nthreads {THREADS} --nworkers 1 --nanny --death-timeout 300",
        f"--memory-limit {slurm.memory_gib}GiB",
        *([f"--interface {slurm.interface}"] if slurm.interface else []),
    ]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{line}" for line in directives),
        f"export OMP_NUM_THREADS={slurm.cpus} OMP_WAIT_POLICY=PASSIVE THP_MEM_ALLOC_ENABLE=1",
        f"export {as_environment(QUIET)}",
        *slurm.setup,
        "exec " + " ".join(worker),
    ]
    return "\n".join(lines) + "\n"


def submit(script: str, *, command: Sequence[str] = ("sbatch", "--parsable")) -> str:
    """Submit a script with sbatch and return the job's number.

    Raises
    ------
    OSError
        There is no sbatch here, or it refuses.
    """
    if shutil.which(command[0]) is None:
        raise OSError(f"{command[0]} is not found here: start from a node that can submit Slurm jobs")
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command[0]} refused the workers' job: {' '.join(done.stderr.split())}")
    return done.stdout.strip().partition(";")[0]


def cancel(job: str) -> None:
    """End a job; one that has already ended is ignored."""
    subprocess.run(["scancel", job], capture_output=True, check=False)
