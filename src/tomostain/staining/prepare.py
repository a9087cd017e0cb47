"""What is settled before a run begins, kept in its journal's head, and the same when it is resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tomostain import runs
from tomostain.images.image import Volume
from tomostain.learning.stainer import Stainer
from tomostain.staining.backends import BACKENDS, Sample
from tomostain.staining.background import Background, find_background
from tomostain.staining.blocks import Cut, Plan, plan_blocks
from tomostain.staining.choose import Trial, choose_backend, take_sample
from tomostain.staining.memory import GIB, Memory, available_bytes, fit_plan
from tomostain.staining.work import Paint

_SAMPLED_PLANES = 16


@dataclass(frozen=True)
class Wishes:
    """What was asked for, beyond stainer, volume and cut."""

    backend: str = "auto"
    tile_px: tuple[int, int] | None = None
    memory_gib: float = 2.0
    skip_background: bool = False
    workers: int = 1
    """Processes of this machine that each do blocks by themselves."""
    processes: int = 1
    """Processes of this machine that share the memory: the same, and the client of a cluster."""


@dataclass(frozen=True)
class Prepared:
    """What was settled."""

    plan: Plan
    backend: str
    background: Background | None
    trials: tuple[Trial, ...] = ()
    memory: Memory | None = None

    def to_json(self) -> dict[str, Any]:
        """For the journal's head."""
        return {
            "planes": self.plan.planes,
            "block_px": self.plan.block_px,
            "tile_px": self.plan.tile_px,
            "least_px": self.plan.least_px,
            "backend": self.backend,
            "background": None if self.background is None else asdict(self.background),
            "trials": [str(trial) for trial in self.trials],
        }


def identity(stainer: Path, ct: Volume, cut: Cut, wishes: Wishes) -> dict[str, str]:
    """What a run is bound to: a journal whose identity differs in a word belongs to another run.

    The volume is known by its shape, type and voxel size, and by the SHA-256 of 16 evenly spaced planes.
    """
    digest = hashlib.sha256(repr((ct.shape, ct.dtype.newbyteorder("=").str, ct.grid.spacing_um)).encode())
    for z in np.unique(np.linspace(0, ct.shape[0] - 1, min(ct.shape[0], _SAMPLED_PLANES)).astype(int)):
        digest.update(np.ascontiguousarray(ct[slice(int(z), int(z) + 1)]).tobytes())
    region = ",".join(f"{part.start}:{part.stop}" for part in cut.roi)
    return {
        "stainer": runs.fingerprint(Path(stainer) / "stainer.json"),
        "volume": digest.hexdigest(),
        "region": f"{region} along {'zyx'[cut.axis]} every {cut.every}",
        "skip-background": str(wishes.skip_background),
    }


def prepare(model: Stainer, ct: Volume, cut: Cut, wishes: Wishes) -> tuple[Prepared, Sample]:
    """Choose background, tiles and backend of a new run; returns them with the sample they were chosen on.

    Raises
    ------
    ValueError
        The backend cannot be used, or the run does not fit the memory.
    """
    limit = int(min(wishes.memory_gib * GIB, available_bytes()))
    painters = max(1, torch.cuda.device_count()) if model.device.type == "cuda" else 1
    at_once = planes_at_once(model)
    first = plan_blocks(cut, planes=model.planes, halo_px=model.halo_px, align_px=model.stride_px)
    sample = take_sample(ct, first)
    name, trials = choose_backend(model, sample, first, wanted=wishes.backend)
    if BACKENDS[name].lattice and wishes.tile_px is not None:
        raise ValueError(f"backend {name} has tiles of its own; leave --tile-px out, or take another --backend")
    plan, memory = fit_plan(
        cut,
        model,
        ct.dtype,
        limit=limit,
        tile_px=wishes.tile_px,
        backend=BACKENDS[name],
        at_once=at_once,
        painters=painters * wishes.workers,
        processes=wishes.processes,
    )
    background = find_background(ct) if wishes.skip_background else None
    return Prepared(plan, name, background, tuple(trials), memory), sample


def prepared_before(
    model: Stainer, ct: Volume, cut: Cut, head: Mapping[str, Any], found: Mapping[str, str], wishes: Wishes
) -> tuple[Prepared, Sample]:
    """What was settled when a run began, from its journal's head; the tile may be another where it changes nothing.

    Raises
    ------
    ValueError
        The journal belongs to another run; what differs is told.
    """
    known = head["identity"]
    differs = [what for what in found if known.get(what) != found[what]]
    if wishes.backend not in ("auto", head["backend"]):
        differs.append("backend")
    if differs:
        raise ValueError(
            f"this output was begun with another {' and another '.join(differs)}; give what it was begun with, or "
            "remove it to begin anew"
        )
    background = Background(**head["background"]) if head["background"] else None
    backend = BACKENDS[head["backend"]]
    free = model.tile_exact and not backend.lattice
    tile = wishes.tile_px if wishes.tile_px and free else tuple(head["tile_px"])
    first = plan_blocks(cut, planes=head["planes"], halo_px=model.halo_px, align_px=model.stride_px)
    plan = replace(
        first,
        align_px=model.stride_px * backend.align,
        block_px=tuple(head["block_px"]),
        tile_px=tile,
        lattice=backend.lattice,
        least_px=tuple(head["least_px"]),
    )
    return Prepared(plan, head["backend"], background), take_sample(ct, first)


def planes_at_once(model: Stainer) -> int:
    """Planes of a tile in the network at once: more than one only fills a GPU better."""
    return 8 if model.device.type == "cuda" else 1


def painters_of(model: Stainer, backend: str, sample: Sample) -> list[Paint]:
    """A painter for the CPU, or one for each GPU."""
    make = BACKENDS[backend].make
    if model.device.type != "cuda":
        return [make(model, sample)]
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [make(replace(model, net=deepcopy(model.net).to(device)), sample) for device in devices]
