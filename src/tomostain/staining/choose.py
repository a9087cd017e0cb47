"""Choose the backend: each that this machine has paints tiles of the volume itself and is held to its promise."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tomostain._imports import nearest
from tomostain.images.image import Volume
from tomostain.learning.stainer import Stainer
from tomostain.staining.backends import BACKENDS, Backend, Sample, torch_fp32
from tomostain.staining.blocks import Plan
from tomostain.staining.work import Paint

SAMPLE_TILES = 8
SAMPLE_PX = 256
WORTH_S = 60.0
"""A run that the reference finishes in this many seconds is not worth a self-test."""


@dataclass(frozen=True)
class Trial:
    """What the self-test found of one backend."""

    name: str
    mpx_per_s: float
    """Pixels through the network per second, halo included, in millions."""
    most: float
    """Largest difference from fp32 of any colour value, of 255."""
    mean: float
    kept: bool
    """Whether the differences are within what the backend promises."""
    fault: str = ""
    """Why it could not be run."""

    def __str__(self) -> str:
        if self.fault:
            return f"{self.name}: cannot be used here: {self.fault}"
        verdict = "" if self.kept else ", which is more than it promises: not used"
        differs = f"difference from fp32 {self.mean:.3f} mean, {self.most:.0f} most"
        return f"{self.name}: {self.mpx_per_s:.3f} Mpx/s, {differs}{verdict}"


def take_sample(ct: Volume, plan: Plan, *, tiles: int = SAMPLE_TILES, size_px: int = SAMPLE_PX) -> Sample:
    """Tiles of the volume (b, planes, y, x) float32, evenly spread, each where its plane varies most."""
    cut = plan.cut
    part, step = cut.roi[cut.axis], max(1, (cut.roi[cut.axis].stop - cut.roi[cut.axis].start) // tiles)
    rows, columns = (min(size_px, n) for n in plan.plane_shape)
    depth = cut.ct_shape[cut.axis]
    found = []
    for z in list(range(part.start + step // 2, part.stop, step))[:tiles]:
        window = [slice(None)] * 3
        first = min(max(z - plan.planes // 2, 0), max(depth - plan.planes, 0))
        window[cut.axis] = slice(first, first + plan.planes)
        slab = np.moveaxis(np.asarray(ct[tuple(window)], np.float32), cut.axis, 0)
        slab = np.concatenate([slab, np.repeat(slab[-1:], plan.planes - len(slab), axis=0)])
        corners = [
            (y, x)
            for y in range(0, slab.shape[1] - rows + 1, max(rows // 2, 1))
            for x in range(0, slab.shape[2] - columns + 1, max(columns // 2, 1))
        ]
        y, x = max(corners, key=lambda c: float(slab[:, c[0] : c[0] + rows : 4, c[1] : c[1] + columns : 4].std()))
        found.append(slab[:, y : y + rows, x : x + columns])
    return np.stack(found)


def choose_backend(model: Stainer, sample: Sample, plan: Plan, *, wanted: str = "auto") -> tuple[str, list[Trial]]:
    """The name of the backend to take, and what was measured: the fastest that keeps its promise, or the one wanted.

    Backends with larger differences (bf16 on CPUs, int8) are only tried when they are wanted.

    Raises
    ------
    ValueError
        The wanted backend is not known, cannot run here, or differs from fp32 by more than it promises.
    """
    if wanted != "auto" and wanted not in BACKENDS:
        raise ValueError(f"there is no backend {wanted!r}; {nearest(wanted, BACKENDS)}")
    reference = torch_fp32(model, sample)
    expected, base_s = _timed(reference, sample)
    pixels = sample[0, 0].size
    trials = [Trial("torch", pixels / base_s / 1e6, 0.0, 0.0, True)]
    if wanted == "torch":
        return wanted, trials
    if wanted != "auto":
        trials.append(_try(wanted, BACKENDS[wanted], model, sample, expected))
        if not trials[-1].kept:
            raise ValueError(f"backend {trials[-1]}; take another with --backend")
        return wanted, trials
    if plan.network_px() / pixels * base_s > WORTH_S:
        names = [n for n, b in BACKENDS.items() if n != "torch" and not b.asked_for and b.available(model)]
        trials += [_try(name, BACKENDS[name], model, sample, expected) for name in names]
    best = max((trial for trial in trials if trial.kept), key=lambda trial: trial.mpx_per_s)
    return best.name, trials


def _try(
    name: str, backend: Backend, model: Stainer, sample: Sample, expected: Sequence[npt.NDArray[np.uint8]]
) -> Trial:
    if not backend.available(model):
        return Trial(name, 0.0, 0.0, 0.0, False, "this machine, or its installed packages, do not have it")
    try:
        found, seconds = _timed(backend.make(model, sample), sample)
    except Exception as error:  # whatever a backend's library throws, the others are still there
        return Trial(name, 0.0, 0.0, 0.0, False, " ".join(str(error).split())[:200] or type(error).__name__)
    off = np.abs(np.stack(found).astype(np.int16) - np.stack(expected))
    most, mean = float(off.max()), float(off.mean())
    kept = most <= backend.most and mean <= backend.mean
    return Trial(name, sample[0, 0].size / seconds / 1e6, most, mean, kept)


def _timed(paint: Paint, sample: Sample) -> tuple[list[npt.NDArray[np.uint8]], float]:
    """What a painter makes of the sample, and its shortest time for one tile; the first call does not count."""
    paint(sample[:1])
    painted, best = [], np.inf
    for tile in sample:
        begun = time.perf_counter()
        painted.append(paint(tile[None])[0])
        best = min(best, time.perf_counter() - begun)
    return painted, float(best)
