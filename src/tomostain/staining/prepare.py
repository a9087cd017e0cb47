"""What is settled before a run begins, kept in its journal's head, and the same when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from tomostain.images.image import Volume
from tomostain.inference.backends import BACKENDS
from tomostain.inference.predictor import Backend, Predictor
from tomostain.inference.selftest import Sample, Trial, choose_backend
from tomostain.learning.stainer import Stainer
from tomostain.staining.background import Background, find_background
from tomostain.staining.blocks import Cut, Plan, plan_blocks
from tomostain.staining.cluster import processes_of, workers_of
from tomostain.staining.memory import GIB, Memory, available_bytes, fit_plan
from tomostain.staining.samples import calibration_of, sample_of


@dataclass(frozen=True)
class Options:
    """Settings of a run, beyond stainer, volume and cut."""

    backend: str = "auto"
    tile_px: tuple[int, int] | None = None
    memory_gib: float = 2.0
    skip_background: bool = False
    resume: bool = False
    cluster: str | None = None
    trust: bool = False
    """Whether workers may import a network of another package."""


@dataclass(frozen=True)
class Settings:
    """What was settled: the same for a whole run, however often it is resumed."""

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
            "one_shape": self.plan.one_shape,
            "backend": self.backend,
            "background": None if self.background is None else asdict(self.background),
            "trials": [str(trial) for trial in self.trials],
        }


def identity(model: Stainer, ct: Volume, cut: Cut, options: Options) -> dict[str, str]:
    """What a run is bound to: a journal whose identity differs in a word belongs to another run.

    The stainer is known by the SHA-256 of its description and weights as they were loaded; the volume by
    its fingerprint.
    """
    region = ",".join(f"{part.start}:{part.stop}" for part in cut.roi)
    return {
        "stainer": model.sha256,
        "volume": ct.fingerprint(),
        "region": f"{region} along {'zyx'[cut.axis]} every {cut.every}",
        "skip-background": str(options.skip_background),
    }


def settle(model: Stainer, ct: Volume, cut: Cut, options: Options) -> Settings:
    """Choose background, tiles and backend of a new run.

    Raises
    ------
    ValueError
        The backend cannot be used, or the run does not fit the memory.
    """

    def fit(backend: Backend, *, advise: bool) -> tuple[Plan, Memory]:
        if _has_one_shape(backend, model) and options.tile_px is not None:
            raise ValueError("it chooses its own tiles; leave out --tile-px")
        return fit_plan(
            cut,
            model,
            ct.dtype,
            limit=int(min(options.memory_gib * GIB, available_bytes())),
            tile_px=options.tile_px,
            one_shape=_has_one_shape(backend, model),
            batch=backend.batch,
            predictors=workers_of(options.cluster) * (torch.cuda.device_count() if model.device.type == "cuda" else 1),
            processes=processes_of(options.cluster),
            advise=advise,
        )

    samples: dict[tuple[bool, int], Sample] = {}

    def sample_for(backend: Backend) -> Sample:
        key = (_has_one_shape(backend, model), backend.batch)
        if key not in samples:
            samples[key] = sample_of(ct, fit(backend, advise=False)[0], at_least=max(2, backend.batch))
        return samples[key]

    calibration = partial(calibration_of, ct, first_plan(model, cut))
    name, trials = choose_backend(model, sample_for, calibration, wanted=options.backend)
    plan, memory = fit(BACKENDS[name], advise=True)
    background = find_background(ct) if options.skip_background else None
    return Settings(plan, name, background, tuple(trials), memory)


def settled_before(
    model: Stainer, cut: Cut, head: Mapping[str, Any], found: Mapping[str, str], options: Options
) -> Settings:
    """What was settled when a run began, from its journal's head; the tile may be another where it changes nothing.

    Raises
    ------
    ValueError
        The journal belongs to another run; the message says what differs.
    """
    known = head["identity"]
    differs = [what for what in found if known.get(what) != found[what]]
    if options.backend not in ("auto", head["backend"]):
        differs.append("backend")
    if differs:
        raise ValueError(
            f"this output was begun with another {' and another '.join(differs)}; give what it was begun with, or "
            "remove it to begin anew"
        )
    background = Background(**head["background"]) if head["background"] else None
    free = model.tile_exact and not head["one_shape"]
    tile = options.tile_px if options.tile_px and free else tuple(head["tile_px"])
    plan = replace(
        first_plan(model, cut, planes=head["planes"]),
        block_px=tuple(head["block_px"]),
        tile_px=tile,
        one_shape=head["one_shape"],
    )
    return Settings(plan, head["backend"], background)


def first_plan(model: Stainer, cut: Cut, *, planes: int | None = None) -> Plan:
    """A plan of whole planes, before memory and backend are known."""
    return plan_blocks(cut, planes=planes or model.planes, halo_px=model.halo_px, align_px=model.stride_px)


def predictors_of(model: Stainer, ct: Volume, settings: Settings) -> list[Predictor]:
    """A predictor for the CPU, or one for each GPU."""
    make, calibration = BACKENDS[settings.backend].make, partial(calibration_of, ct, settings.plan)
    if model.device.type != "cuda":
        return [make(model, calibration)]
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [make(replace(model, net=deepcopy(model.net).to(device)), calibration) for device in devices]


def _has_one_shape(backend: Backend, model: Stainer) -> bool:
    """Whether all tiles must have one shape: on GPUs kernels are chosen by it."""
    return backend.one_shape or model.device.type != "cpu"
