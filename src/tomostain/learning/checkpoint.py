"""The whole state of a training, on disk: written beside and renamed, read without running code.

A checkpoint is a folder ``step-N/`` of safetensors files and ``about.json``, which holds their SHA-256 and all plain
values. A training killed while it writes one leaves the one before.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor
from torch.optim import Optimizer

FOLDER = "checkpoint"
_KEPT = 2


def save_checkpoint(
    folder: Path,
    step: int,
    shared: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    about: Mapping[str, Any],
    *,
    fabric: Fabric,
) -> None:
    """Write the state after ``step`` steps and drop all but the last two checkpoints.

    ``shared`` tensors and ``about`` are the same in every process and written by the first; ``own`` ones (the image
    pools) are written by each. All processes must call it.
    """
    rank = fabric.global_rank
    part, whole = folder / f".step-{step:08d}.part", folder / f"step-{step:08d}"
    if rank == 0:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    fabric.barrier()
    _write(part / f"rank-{rank}.safetensors", _bytes(own))
    fabric.barrier()
    if rank == 0:
        _write(part / "state.safetensors", _bytes(shared))
        hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(part.iterdir())}
        text = {"format": "tomostain-checkpoint", "step": step, "ranks": fabric.world_size, "files": hashes, **about}
        _write(part / "about.json", json.dumps(text).encode())
        shutil.rmtree(whole, ignore_errors=True)
        part.rename(whole)
        for old in checkpoints(folder)[:-_KEPT]:
            shutil.rmtree(old)
    fabric.barrier()


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def load_checkpoint(folder: Path, *, rank: int = 0) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """The newest whole checkpoint: the arguments of ``save_checkpoint`` as (about, shared, own).

    Raises
    ------
    ValueError
        There is none, or none that is whole.
    """
    broken = ""
    for path in reversed(checkpoints(folder)):
        try:
            about: dict[str, Any] = json.loads((path / "about.json").read_text(encoding="utf-8"))
            files = {name: (path / name).read_bytes() for name in ("state.safetensors", f"rank-{rank}.safetensors")}
            for name, content in files.items():
                if hashlib.sha256(content).hexdigest() != about["files"][name]:
                    raise ValueError(f"{name} is truncated or altered")
        except (OSError, ValueError, KeyError) as error:
            broken = broken or f" ({path.name}: {error})"
            continue
        shared, own = (tensors_from_bytes(content) for content in files.values())
        return about, shared, own
    raise ValueError(f"{folder} holds no whole checkpoint to resume from{broken}; train without --resume")


def optimiser_tensors(optimiser: Optimizer, prefix: str) -> dict[str, Tensor]:
    """An optimiser's state as named tensors; its settings are the recipe's and are not kept."""
    state = optimiser.state_dict()["state"]
    return {f"{prefix}.{index}.{key}": tensor for index, values in state.items() for key, tensor in values.items()}


def restore_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Give an optimiser the state that ``optimiser_tensors`` took, in its parameters' memory layout."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix + "."):
            index, key = name.removeprefix(prefix + ".").split(".")
            laid_out = tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
            state.setdefault(int(index), {})[key] = laid_out
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return tensors_to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
