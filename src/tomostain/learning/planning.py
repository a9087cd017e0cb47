"""A training that plans itself: pairs, machine and hours in; every setting that was left out, with its reason, out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning_fabric import Fabric

from tomostain.learning.nets import build_generator
from tomostain.learning.patches import PatchDataset
from tomostain.learning.ranges import CTRange
from tomostain.learning.recipe import Precision, Settled, TrainRecipe
from tomostain.learning.state import State
from tomostain.learning.step import take_step
from tomostain.pairs.pair import Pair
from tomostain.scoring.lpips import SMALLEST_PX, find_weights

CPU_HOURS, GPU_HOURS = 1.0, 12.0
_PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed")
_PERCEPTUAL = 0.1
"""Weight of the perceptual loss: 0.5 gave sharper pictures and lost SSIM and PSNR, 0 the reverse."""
_WORTH = 1.2
"""Factor by which half precision must be faster to be taken."""
_WARM, _TIMED = 2, 4
"""Steps before the clock is started, and steps that are timed."""
_MOST_VISITS = 4000
"""Times that the pairs' area is gone through at most; beyond it a training only learns its pairs by heart."""
_OVERHEAD = 1.06
"""Time of a training over that of its steps: reading, samples, checkpoints."""


@dataclass(frozen=True)
class Choice:
    """One line of a plan."""

    setting: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.value} ({self.reason})"


def plan(recipe: TrainRecipe, pairs: Sequence[Pair]) -> tuple[Settled, list[Choice]]:
    """Settle all that a recipe leaves out; a few steps are run and timed, their weights are thrown away.

    Parameters
    ----------
    recipe
        What is set in it is kept; where steps are set too, nothing is timed.
    pairs
        What will be trained on.
    """
    usual = recipe.filled()
    device = Fabric(accelerator=recipe.device, devices=1).device
    on_gpu = device.type != "cpu"
    where = "a GPU" if on_gpu else f"{recipe.threads or torch.get_num_threads()} threads of the processor"
    source = f"from {recipe.from_stainer}" if recipe.from_stainer else f"the network of the method {recipe.method}"
    choices = [_described(pairs), Choice("net", usual.net, source)]
    stride = _stride(usual, len(pairs[0].ct))
    edge = max(max(pair.grid.shape) for pair in pairs)
    patch_px = recipe.patch_px or min(usual.patch_px, max(-(-edge // stride) * stride, 2 * stride))
    why = f"pairs are up to {edge} px" if patch_px < usual.patch_px else "usual for this network"
    batch = recipe.batch or (4 * usual.batch if on_gpu else usual.batch)
    choices += [
        Choice("patch_px", patch_px, _given(recipe.patch_px, why)),
        Choice("batch", batch, _given(recipe.batch, where)),
    ]
    chosen = replace(usual, patch_px=patch_px, batch=batch)
    if (
        recipe.method == "supervised"
        and patch_px >= SMALLEST_PX
        and not any(w.startswith("perceptual") for w in recipe.weights)
    ):
        with suppress(FileNotFoundError):
            find_weights("squeeze")
            chosen = replace(chosen, weights=(*recipe.weights, f"perceptual={_PERCEPTUAL:g}"))
            choices.append(Choice("weights", chosen.weights[-1], "the weights of LPIPS are on this machine"))
    if recipe.steps and recipe.precision:
        return chosen, choices
    seconds = {}
    for name in (recipe.precision,) if recipe.precision else _PRECISIONS:
        try:
            seconds[name] = seconds_per_step(replace(chosen, precision=name), pairs)
        except RuntimeError:  # this device has no bfloat16
            if not seconds:
                raise
    precision = min(seconds, key=lambda name: seconds[name] * (_WORTH if name != "32-true" else 1.0))
    timed = ", ".join(f"{name} {value:.2f} s a step" for name, value in seconds.items())
    choices.append(Choice("precision", precision, _given(recipe.precision, f"measured: {timed}")))
    hours = recipe.hours or (GPU_HOURS if on_gpu else CPU_HOURS)
    fitting = max(1, int(hours * 3600 / _OVERHEAD / seconds[precision]))
    area = sum(float((pair.weight > 0).sum()) for pair in pairs)
    useful = max(500, int(_MOST_VISITS * area / (batch * patch_px**2)))
    steps = recipe.steps or min(fitting, useful)
    why = (
        f"{hours:g} h at {seconds[precision]:.2f} s a step"
        if fitting <= useful
        else (f"{len(pairs)} pairs of {area / 1e6:.2f} million px are learnt by then; the time would do for {fitting}")
    )
    choices.append(Choice("steps", steps, _given(recipe.steps, why)))
    minutes = steps * seconds[precision] * _OVERHEAD / 60
    choices.append(Choice("time", f"{minutes:.0f} min", f"{where}; another number of hours: --hours"))
    return replace(chosen, steps=steps, precision=precision), choices


def seconds_per_step(recipe: Settled, pairs: Sequence[Pair]) -> float:
    """Seconds that a step takes here, patches included: the median of a few."""
    fabric = Fabric(accelerator=recipe.device, devices=1, precision=recipe.precision)
    method, threads = recipe.chosen_method(), torch.get_num_threads()
    torch.set_num_threads(recipe.threads or threads)
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        state = State(recipe, method, len(pairs[0].ct), fabric.device)
        dataset = PatchDataset(
            pairs,
            ct_range=CTRange.fit(pair.ct[:, pair.mask] for pair in pairs[:3]),
            patch_px=recipe.patch_px,
            augment=recipe.augmentation(),
            seed=recipe.seed,
            min_weight=recipe.min_weight,
        )
        took = []
        for step in range(_WARM + _TIMED):
            begun = time.perf_counter()
            patch = dataset.batch(step, recipe.batch).to(fabric.device)
            terms = take_step(fabric, state, patch, patch, recipe, method, step)
            float(next(iter(terms.values())).detach())  # waits for a GPU
            took.append(time.perf_counter() - begun)
    torch.set_num_threads(threads)
    return statistics.median_high(took[_WARM:])


def _described(pairs: Sequence[Pair]) -> Choice:
    """What there is to learn from: number, pixel size, share that counts, and how well it is registered."""
    specimens = {pair.specimen for pair in pairs}
    share = sum(float(pair.weight.sum()) for pair in pairs) / sum(pair.weight.size for pair in pairs)
    pixel_um = float(pairs[0].grid.spacing_um[0])
    errors = [float(pair.notes["expected_tre_um"]) for pair in pairs if "expected_tre_um" in pair.notes]
    placed = (
        f"registration error expected: {statistics.median(errors) / pixel_um:.1f} px"
        if errors
        else "registration not judged"
    )
    return Choice(
        "pairs",
        f"{len(pairs)} of {len(specimens)} specimens, {pixel_um:g} um",
        f"{share:.0%} of their area counts; {placed}",
    )


def _given(value: Any, reason: str) -> str:
    return reason if value is None else "as set"


def _stride(recipe: Settled, planes: int) -> int:
    with torch.device("meta"):
        return int(build_generator(recipe.generator_spec(), planes, 3).stride_px)  # type: ignore[arg-type]
