"""Pairs -> Stainer: one loop that reads from top to bottom.

Everything that is drawn is a pure function of (seed, step), so that a training killed at any step and resumed from its
checkpoint ends in the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from tomostain import runs
from tomostain.learning.checkpoint import FOLDER, load_checkpoint, save_checkpoint
from tomostain.learning.curves import FILE as CURVES
from tomostain.learning.curves import Curves, Tally, in_short, save_samples
from tomostain.learning.dye import Dye, dyes_of, normalised, to_json
from tomostain.learning.feed import Feed
from tomostain.learning.interrupts import first_interrupt_waits
from tomostain.learning.methods import Method
from tomostain.learning.nets.toned import tone_knots
from tomostain.learning.patches import Patch, PatchDataset, evenly
from tomostain.learning.ranges import CTRange, RGBRange
from tomostain.learning.recipe import Settled, TrainRecipe
from tomostain.learning.stainer import Stainer
from tomostain.learning.start import check_start, described, from_start
from tomostain.learning.state import DISCRIMINATORS, State
from tomostain.learning.step import learning_rate, take_step
from tomostain.pairs.pair import Pair, grey_values_by_specimen
from tomostain.pairs.scale import median_anchors
from tomostain.pairs.splits import specimens_of
from tomostain.scoring.baselines import fit_baselines
from tomostain.scoring.metrics import psnr, ssim

Watch = Callable[[int, Mapping[str, float]], None]
"""Called with the step and the values of each line of the curves."""

_WATCHED = 6
"""Patches in a sample picture and behind a score on held-out specimens."""


def fit(
    pairs: Sequence[Pair],
    out: Path,
    recipe: TrainRecipe,
    *,
    held: Sequence[Pair] = (),
    start: Stainer | None = None,
    watch: Watch | None = None,
) -> Stainer:
    """Train on pairs; write weights, curves, samples and (while it runs) checkpoints into a folder.

    Parameters
    ----------
    pairs
        What is learnt from, all of one stain, pixel size and number of CT planes.
    out
        The stainer's folder.
    recipe
        All settings; ``hold_out`` and ``fold`` are the caller's to apply.
    held
        Pairs of other specimens, on which the stainer is scored now and then; nothing is chosen by these scores.
    start
        The stainer to be fine-tuned: its network, its CT range and its weights are where the training begins.
    watch
        Called with each line of the curves; what it raises stops the training as a kill would.

    Returns
    -------
    Stainer
        As saved in ``out``. The last checkpoint stays in ``out``/checkpoint, for the caller to remove.

    Raises
    ------
    ValueError
        A setting or a network does not fit, a loss is no longer finite, or the checkpoint to be resumed from belongs
        to other pairs or settings.
    """
    if start is not None:
        check_start(start, pairs[0], recipe)
        recipe = from_start(recipe, start)
    out, many, settled = Path(out), recipe.devices > 1, recipe.filled()
    out.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(
        accelerator=recipe.device,
        devices=recipe.devices,
        strategy="ddp_spawn" if many else "auto",
        precision=settled.precision,
    )
    if many:
        # as one function: Fabric would look into the arguments and refuse frozen dataclasses
        fabric.launch(
            partial(_fit, pairs=list(pairs), out=out, recipe=settled, held=list(held), start=start, watch=watch)
        )
    else:
        _fit(fabric, pairs, out, settled, held, start, watch)
    return Stainer.load(out, trust=True)


def _fit(
    fabric: Fabric,
    pairs: Sequence[Pair],
    out: Path,
    recipe: Settled,
    held: Sequence[Pair],
    start: Stainer | None,
    watch: Watch | None,
) -> None:
    """What each process does; the first one writes."""
    rank, first = fabric.global_rank, fabric.is_global_zero
    with (
        _reproducible(recipe, fabric.device),
        ThreadPoolExecutor(recipe.workers) as helpers,
        first_interrupt_waits(fabric.world_size == 1) as interrupted,
    ):
        method, ct_range = recipe.chosen_method(), fitted_range(pairs, recipe)
        dyes = dyes_of(pairs) if recipe.dye else {}
        state = State(recipe, method, len(pairs[0].ct), fabric.device, start.net if start else None)
        identity = {"recipe": json.loads(json.dumps(recipe.lasting())), "pairs": _digest(pairs)}
        identity |= {"start": start.sha256 if start else ""}
        raw, pairs = pairs, normalised(pairs, dyes) if dyes else pairs
        begin, tally = 0, Tally(_columns(state, method))
        if recipe.generator_spec().args.get("tone") and start is None:
            state.set_tone(_tone(pairs, ct_range))
        if recipe.resume:
            about, shared, own = load_checkpoint(out / FOLDER, rank=rank)
            _check_same(about["identity"], identity, out)
            state.restore(shared, own, fabric.device)
            begin, tally = int(about["step"]), Tally(**about["tally"])
        watched = evenly(held or pairs, ct_range=ct_range, patch_px=recipe.patch_px, count=_WATCHED)
        lines = _lines(tally, recipe, held)
        curves = Curves(out / CURVES, lines, step=begin, tensorboard=recipe.tensorboard) if first else None
        feed = Feed(_patches(pairs, ct_range, recipe), helpers, recipe, method, fabric)
        kept = lined = time.monotonic()
        worked = time.process_time()
        end = begin if recipe.finish_now else recipe.steps
        bar = runs.progress_bar(total=end, initial=begin, desc="training", unit="step") if first else None
        for step in range(begin, end):
            torch.manual_seed(_number(recipe.seed, step, rank))  # for networks that draw, as dropout does
            here, there = feed(step)
            tally.add(take_step(fabric, state, here, there, recipe, method, step))
            done, last = step + 1, step + 1 == recipe.steps
            if done % recipe.log_every == 0 or last:
                values = tally.means(done, out)
                values |= {
                    "lr": learning_rate(recipe, step),
                    "s_per_step": (time.monotonic() - lined) / len(tally.steps),
                    "processor_s_per_step": (time.process_time() - worked) / len(tally.steps),
                }
                if held and recipe.validate_every and (_every(recipe.validate_every, done, recipe.log_every) or last):
                    values |= _scores(state, watched, fabric)
                if bar is not None:
                    bar.set_postfix_str(in_short(values, tally.names), refresh=False)
                tally.clear()
                lined, worked = time.monotonic(), time.process_time()
                if curves:
                    curves.add(done, values)
                if watch:
                    watch(done, values)
            if curves and (last or (recipe.sample_every and done % recipe.sample_every == 0)):
                file = out / "samples" / f"step_{done:06d}.png"
                curves.show(done, save_samples(file, watched, _stained(state, watched, fabric)))
            minutes = fabric.broadcast(time.monotonic() - kept) / 60.0
            stop = interrupted() and not last
            if last or stop or minutes > recipe.checkpoint_minutes or _every(recipe.checkpoint_every, done):
                tally.means(done, out)
                about = {"identity": identity, "tally": tally.plain()}
                shared, own = state.shared_tensors(), state.own_tensors()
                save_checkpoint(out / FOLDER, done, shared, own, about, fabric=fabric)
                kept = time.monotonic()
            if bar is not None:
                bar.update(1)
            if stop:
                raise KeyboardInterrupt
        if bar is not None:
            bar.close()
        if first:
            _stainer(state, raw, held, ct_range, recipe, start, dyes, steps=end).save(out)
        fabric.barrier()


def fitted_range(pairs: Sequence[Pair], recipe: Settled) -> CTRange:
    """The CT range that the recipe gives, or the one its percentiles find in the pairs' masked CT."""
    seen = CTRange.fit(
        (pair.ct[:, pair.mask] for pair in pairs), percentiles=recipe.ct_percentiles, units=recipe.ct_units
    )
    if recipe.ct_range is None:
        return seen
    return dataclasses.replace(seen, low=recipe.ct_range[0], high=recipe.ct_range[1])


def _tone(pairs: Sequence[Pair], ct_range: CTRange) -> Tensor:
    """The colour table's colours at the knots of a tone, (3, TONE_KNOTS) in [-1, 1]."""
    table = fit_baselines(pairs, ct_range)["colour table"]
    colours = table(ct_range.from_unit(tone_knots().numpy())[None, None, :])[0]
    return torch.from_numpy(RGBRange.to_unit(colours)).T.contiguous()


def _columns(state: State, method: Method) -> list[str]:
    return [*method.losses(), *(name for name in DISCRIMINATORS if name in state.nets)]


def _lines(tally: Tally, recipe: Settled, held: Sequence[Pair]) -> list[str]:
    scores = ["val_ssim", "val_psnr"] if held and recipe.validate_every else []
    return [*tally.names, "lr", "s_per_step", "processor_s_per_step", *scores]


def _patches(pairs: Sequence[Pair], ct_range: CTRange, recipe: Settled) -> PatchDataset:
    augment = recipe.augmentation()
    return PatchDataset(
        pairs,
        ct_range=ct_range,
        patch_px=recipe.patch_px,
        augment=augment,
        seed=recipe.seed,
        min_weight=recipe.min_weight,
    )


def _stained(state: State, patches: Patch, fabric: Fabric) -> Tensor:
    """The running mean's stain of patches, (b, 3, y, x) on the CPU."""
    with torch.inference_mode(), fabric.autocast():
        stained: Tensor = state.averaged(patches.ct.to(fabric.device, memory_format=torch.channels_last))
    return stained.float().cpu()


def _scores(state: State, patches: Patch, fabric: Fabric) -> dict[str, float]:
    """Mean SSIM and PSNR of the running mean on patches."""
    pred, target = ((image + 1.0) * 127.5 for image in (_stained(state, patches, fabric), patches.stain))
    scored = {
        name: metric(pred.clamp(0.0, 255.0), target.clamp(0.0, 255.0), data_range=255.0, mask=patches.weight)
        for name, metric in (("val_ssim", ssim), ("val_psnr", psnr))
    }
    return {name: float(values.mean()) for name, values in scored.items()}


def _stainer(
    state: State,
    pairs: Sequence[Pair],
    held: Sequence[Pair],
    ct_range: CTRange,
    recipe: Settled,
    start: Stainer | None,
    dyes: Mapping[str, Dye],
    *,
    steps: int,
) -> Stainer:
    history = {
        "method": recipe.method,
        "losses": {name: weight for name, (weight, _) in recipe.chosen_method().losses().items()},
        "specimens": specimens_of(pairs),
        "held_out": specimens_of(held),
        "simulated": specimens_of([pair for pair in pairs if pair.simulated]),
        "pairs": sorted(pair.name for pair in pairs),
        "pairs_sha256": _digest(pairs),
        "dyes": to_json(dyes),
        "from": described(start, recipe) if start else None,
        "steps": steps,
        "seed": recipe.seed,
        "threads": torch.get_num_threads(),
        "recipe": json.loads(json.dumps(recipe.lasting())),
    }
    return Stainer(
        net=state.averaged.cpu().eval(),
        spec=recipe.generator_spec(),
        ct_range=ct_range,
        stain=pairs[0].stain_name,
        um_per_px=float(pairs[0].grid.spacing_um[0]),
        planes=len(pairs[0].ct),
        history=history,
        grey_values=grey_values_by_specimen(pairs),
        anchors=median_anchors(pairs),
    )


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    """Refuse to resume a training of other pairs or settings."""
    old, new = before["recipe"], now["recipe"]
    changed = [f"{name} was {old.get(name)!r}, is {new[name]!r}" for name in new if old.get(name) != new[name]]
    if changed:
        raise ValueError(f"{out} was begun with other settings: {'; '.join(changed)}. Resume with the same ones")
    if before.get("start", "") != now["start"]:
        raise ValueError(f"{out} was begun from another stainer; resume with the same --from")
    if before["pairs"] != now["pairs"]:
        raise ValueError(f"{out} was begun on other pairs than these; resume with the same ones, or train afresh")


def _digest(pairs: Sequence[Pair]) -> str:
    """SHA-256 over all that is learnt from."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(f"{pair.specimen};{pair.name};{pair.ct.shape};{pair.stain_name};".encode())
        for array in (pair.ct, pair.stain, pair.mask, pair.confidence):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _every(period: int, done: int, window: int = 1) -> bool:
    """Whether a multiple of ``period`` lies in the last ``window`` steps up to ``done``; never where it is 0."""
    return bool(period) and done // period > (done - window) // period


def _number(*parts: int) -> int:
    """One well-mixed number from several."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def _reproducible(recipe: Settled, device: torch.device) -> Iterator[None]:
    """Deterministic arithmetic from the recipe's seed; the process is left as it was."""
    memory: Any = torch.utils.deterministic
    threads, benchmark, fill = torch.get_num_threads(), torch.backends.cudnn.benchmark, memory.fill_uninitialized_memory
    strict, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    # on a GPU some gradients (reflection padding) have no deterministic kernel: warn, do not stop
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(recipe.seed)
            yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(threads)
