"""Choose the backend: each one that this machine has stains tiles of the volume itself, and is compared with fp32."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tomostain._imports import nearest
from tomostain.inference.backends import BACKENDS
from tomostain.inference.predictor import Backend, Calibration, Predictor, Tiles
from tomostain.inference.torch_backend import torch_fp32
from tomostain.learning.stainer import Stainer

WORTH_S = 60.0
"""A run that the reference finishes in this many seconds is not worth a self-test."""
AUTO_MOST = 1
"""Largest difference from fp32, in counts of 255, at which a backend is taken without being named."""


@dataclass(frozen=True)
class Sample:
    """Tiles of the volume as a run shows them to the network: the real shape, halo included."""

    tiles: Tiles
    stained_px: int
    """Pixels of a tile that are kept, its halo left out."""
    in_run: float
    """How many such tiles the whole run has."""


@dataclass(frozen=True)
class Trial:
    """What the self-test found of one backend."""

    name: str
    mpx_per_s: float
    """Stained pixels per second, in millions: preparing, network with halo, and conversion to uint8."""
    most: float
    """Largest difference from fp32 of any colour value, of 255."""
    mean: float
    fault: str = ""
    """Why it is not used."""

    def __str__(self) -> str:
        if not self.mpx_per_s:
            return f"{self.name}: cannot be used here: {self.fault}"
        differs = f"difference from fp32 {self.mean:.3f} mean, {self.most:.0f} most"
        return f"{self.name}: {self.mpx_per_s:.3f} Mpx/s, {differs}{f'; not used: {self.fault}' if self.fault else ''}"


def choose_backend(
    model: Stainer, sample_for: Callable[[Backend], Sample], calibration: Calibration, *, wanted: str = "auto"
) -> tuple[str, list[Trial]]:
    """The name of the backend to take, and what was measured: the fastest within its bounds, or the one wanted.

    ``auto`` leaves out int8, and what differs from fp32 by more than ``AUTO_MOST`` in any value of the sample.

    Raises
    ------
    ValueError
        The wanted backend is not known, cannot run here, exceeds its bounds, or its tiles do not agree.
    """
    if wanted != "auto" and wanted not in BACKENDS:
        raise ValueError(f"there is no backend {wanted!r}; {nearest(wanted, BACKENDS)}")
    if wanted not in ("auto", "torch"):
        trial = _try(wanted, model, sample_for, calibration)
        if trial.fault:
            raise ValueError(f"backend {trial}; take another with --backend")
        return wanted, [trial]
    sample = sample_for(BACKENDS["torch"])
    _, seconds = _timed(torch_fp32(model, calibration), sample.tiles[:1], 1)
    trials = [Trial("torch", sample.stained_px / seconds / 1e6, 0.0, 0.0)]
    if wanted == "auto" and sample.in_run * seconds > WORTH_S:
        names = [n for n, b in BACKENDS.items() if n != "torch" and not b.by_name_only and b.available(model)]
        trials += [_try(name, model, sample_for, calibration, auto=True) for name in names]
    best = max((trial for trial in trials if not trial.fault), key=lambda trial: trial.mpx_per_s)
    return best.name, trials


def _try(
    name: str,
    model: Stainer,
    sample_for: Callable[[Backend], Sample],
    calibration: Calibration,
    *,
    auto: bool = False,
) -> Trial:
    backend = BACKENDS[name]
    if not backend.available(model):
        return Trial(name, 0.0, 0.0, 0.0, "this machine, or its installed packages, do not have it")
    try:
        sample = sample_for(backend)
        predict = backend.make(model, calibration)
        found, seconds = _timed(predict, sample.tiles, backend.batch)
        agree = backend.one_shape or tiles_agree(model, predict, sample.tiles[:1])
    except Exception as error:  # whatever a backend's library raises, the others are still there
        return Trial(name, 0.0, 0.0, 0.0, " ".join(str(error).split())[:200] or type(error).__name__)
    reference = torch_fp32(model, calibration)
    expected = np.concatenate([reference(tile[None]) for tile in sample.tiles])
    off = np.abs(found.astype(np.int16) - expected)
    most, mean = float(off.max()), float(off.mean())
    fault = ""
    if not backend.bound.holds(mean, most):
        fault = f"its bounds are {backend.bound.mean:.3g} mean, {backend.bound.most} most"
    elif not agree:
        fault = "a voxel gets another colour in another tile"
    elif auto and most > AUTO_MOST:
        fault = f"more than {AUTO_MOST} is taken only when it is named"
    return Trial(name, sample.stained_px / seconds / 1e6, most, mean, fault)


def tiles_agree(model: Stainer, predict: Predictor, tile: Tiles) -> bool:
    """Whether pixels get the same colours in a tile (1, planes, y, x) and in a smaller one that shows their halos."""
    if not model.tile_exact:
        return True
    whole, halo = predict(tile)[0], model.halo_px
    rows, columns = (max(0, (n - halo) // 2 // model.stride_px * model.stride_px) for n in tile.shape[-2:])
    for y, x in {(rows, 0), (0, columns), (rows, columns)}:
        part = predict(np.ascontiguousarray(tile[:, :, y:, x:]))[0]
        top, left = (halo if start else 0 for start in (y, x))
        if not np.array_equal(part[top:, left:], whole[y + top :, x + left :]):
            return False
    return True


def _timed(predict: Predictor, tiles: Tiles, batch: int) -> tuple[npt.NDArray[np.uint8], float]:
    """Colours of the tiles, and the shortest time for one; the first call, which may compile, does not count."""
    predict(tiles[:batch])
    stained, best = [], np.inf
    for first in range(0, len(tiles), batch):
        part = tiles[first : first + batch]
        begun = time.perf_counter()
        stained.append(predict(part))
        best = min(best, (time.perf_counter() - begun) / len(part))
    return np.concatenate(stained), float(best)
