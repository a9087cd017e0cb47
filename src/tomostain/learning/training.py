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
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from tomostain import runs
from tomostain.learning.checkpoint import FOLDER, load_checkpoint, save_checkpoint
from tomostain.learning.curves import FILE as CURVES
from tomostain.learning.curves import Curves, Tally, in_short, save_samples
from tomostain.learning.interrupts import first_interrupt_waits
from tomostain.learning.losses import WAY_BACK, Translation, discriminator_loss
from tomostain.learning.methods import Method
from tomostain.learning.nets.toned import tone_knots
from tomostain.learning.patches import Patch, PatchDataset, evenly
from tomostain.learning.ranges import CTRange, RGBRange
from tomostain.learning.recipe import TrainRecipe
from tomostain.learning.stainer import Stainer
from tomostain.learning.state import DISCRIMINATORS, GENERATORS, State
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
    pairs: Sequence[Pair], out: Path, recipe: TrainRecipe, *, held: Sequence[Pair] = (), watch: Watch | None = None
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
    out, many = Path(out), recipe.devices > 1
    out.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(
        accelerator=recipe.device,
        devices=recipe.devices,
        strategy="ddp_spawn" if many else "auto",
        precision=recipe.precision,
    )
    if many:
        # as one function: Fabric would look into the arguments and refuse frozen dataclasses
        fabric.launch(partial(_fit, pairs=list(pairs), out=out, recipe=recipe, held=list(held), watch=watch))
    else:
        _fit(fabric, pairs, out, recipe, held, watch)
    return Stainer.load(out, trust=True)


def _fit(
    fabric: Fabric, pairs: Sequence[Pair], out: Path, recipe: TrainRecipe, held: Sequence[Pair], watch: Watch | None
) -> None:
    """What each process does; the first one writes."""
    rank, first = fabric.global_rank, fabric.is_global_zero
    with (
        _reproducible(recipe, fabric.device),
        ThreadPoolExecutor(recipe.workers) as helpers,
        first_interrupt_waits(fabric.world_size == 1) as interrupted,
    ):
        method, ct_range = recipe.chosen_method(), fitted_range(pairs, recipe)
        state = State(recipe, method, len(pairs[0].ct), fabric.device)
        identity = {"recipe": json.loads(json.dumps(recipe.lasting())), "pairs": _digest(pairs)}
        begin, tally = 0, Tally(_columns(state, method))
        if recipe.generator_spec().args.get("tone"):
            state.set_tone(_tone(pairs, ct_range))
        if recipe.resume:
            about, shared, own = load_checkpoint(out / FOLDER, rank=rank)
            _check_same(about["identity"], identity, out)
            state.restore(shared, own, fabric.device)
            begin, tally = int(about["step"]), Tally(**about["tally"])
        watched = evenly(held or pairs, ct_range=ct_range, patch_px=recipe.patch_px, count=_WATCHED)
        curves = Curves(out / CURVES, _lines(tally, recipe, held), step=begin) if first else None
        feed = _Feed(_patches(pairs, ct_range, recipe), helpers, recipe, method, fabric)
        kept = lined = time.monotonic()
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
                }
                if held and recipe.validate_every and (_every(recipe.validate_every, done, recipe.log_every) or last):
                    values |= _scores(state, watched, fabric)
                if bar is not None:
                    bar.set_postfix_str(in_short(values, tally.names), refresh=False)
                tally.clear()
                lined = time.monotonic()
                if curves:
                    curves.add(done, values)
                if watch:
                    watch(done, values)
            if first and (last or (recipe.sample_every and done % recipe.sample_every == 0)):
                save_samples(out / "samples" / f"step_{done:06d}.png", watched, _stained(state, watched, fabric))
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
            _stainer(state, pairs, held, ct_range, recipe, steps=end).save(out)
        fabric.barrier()


def take_step(
    fabric: Fabric, state: State, here: Patch, there: Patch, recipe: TrainRecipe, method: Method, step: int
) -> dict[str, Tensor]:
    """Train the generators with the discriminators fixed, then the discriminators; returns every loss by its name."""
    rng = np.random.default_rng([recipe.seed, 3, step, fabric.global_rank])
    for optimiser in state.optimisers.values():
        optimiser.param_groups[0]["lr"] = learning_rate(recipe, step)
    discriminators, generators = state.parameters(DISCRIMINATORS), state.parameters(GENERATORS)
    t = Translation(here, there, **state.nets, conditional=method.conditional)
    and_back = step % recipe.cycle_every == 0
    losses = {
        name: (weight * recipe.cycle_every if name in WAY_BACK else weight, loss)
        for name, (weight, loss) in method.losses().items()
        if and_back or name not in WAY_BACK
    }
    with _still(discriminators), fabric.autocast():
        terms = {name: loss(t) for name, (_, loss) in losses.items()}
        total = torch.stack([losses[name][0] * term for name, term in terms.items()]).sum()
    _improve(fabric, state, "generators", total, generators)
    state.average(step, recipe.ema)
    shown = {}
    with torch.no_grad():
        if "stain_discriminator" in state.nets:
            shown["stain_discriminator"] = (
                t.shown_stain,
                state.pools["stain_discriminator"].exchange(t.shown_fake_stain, rng),
            )
        if "ct_discriminator" in state.nets and and_back:
            shown["ct_discriminator"] = t.shown_ct, state.pools["ct_discriminator"].exchange(t.shown_fake_ct, rng)
    if not shown:
        return terms
    with fabric.autocast():
        lessons = {n: discriminator_loss(state.nets[n](real), state.nets[n](fake)) for n, (real, fake) in shown.items()}
        total = torch.stack(list(lessons.values())).sum()
    _improve(fabric, state, "discriminators", total, discriminators)
    return terms | lessons


def learning_rate(recipe: TrainRecipe, step: int) -> float:
    """Constant, then falling linearly to reach 0 after the last step."""
    falling = recipe.steps * (1.0 - recipe.decay_from)
    return recipe.lr * min(1.0, (recipe.steps - step) / falling) if falling else recipe.lr


def fitted_range(pairs: Sequence[Pair], recipe: TrainRecipe) -> CTRange:
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


class _Feed:
    """Patches for each step, drawn some steps ahead: (the CT's, the stain's), the same where pairs are used."""

    def __init__(
        self, dataset: PatchDataset, helpers: ThreadPoolExecutor, recipe: TrainRecipe, method: Method, fabric: Fabric
    ) -> None:
        self.dataset, self.helpers, self.recipe, self.paired, self.fabric = (
            dataset,
            helpers,
            recipe,
            method.paired,
            fabric,
        )
        self.ready: dict[int, Future[tuple[Patch, Patch]]] = {}

    def __call__(self, step: int) -> tuple[Patch, Patch]:
        for ahead in range(step, min(step + 1 + self.recipe.workers, self.recipe.steps)):
            if ahead not in self.ready:
                self.ready[ahead] = self.helpers.submit(self._draw, ahead)
        here, there = self.ready.pop(step).result()
        moved = here.to(self.fabric.device)
        return moved, moved if there is here else there.to(self.fabric.device)

    def _draw(self, step: int) -> tuple[Patch, Patch]:
        size, rank, ranks = self.recipe.batch, self.fabric.global_rank, self.fabric.world_size
        if self.paired:
            patch = self.dataset.batch(step, size, rank=rank, ranks=ranks)
            return patch, patch
        here, there = (self.dataset.batch(2 * step + i, size, rank=rank, ranks=ranks) for i in range(2))
        return here, there


def _improve(fabric: Fabric, state: State, name: str, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """One optimiser step; the gradients of several processes are averaged."""
    state.optimisers[name].zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if fabric.world_size > 1:
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = fabric.all_reduce(torch.cat([g.reshape(-1) for g in gradients]), reduce_op="mean")
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):  # type: ignore[union-attr]
            gradient.copy_(mean.view(gradient.shape))
    state.optimisers[name].step()


def _columns(state: State, method: Method) -> list[str]:
    return [*method.losses(), *(name for name in DISCRIMINATORS if name in state.nets)]


def _lines(tally: Tally, recipe: TrainRecipe, held: Sequence[Pair]) -> list[str]:
    scores = ["val_ssim", "val_psnr"] if held and recipe.validate_every else []
    return [*tally.names, "lr", "s_per_step", *scores]


def _patches(pairs: Sequence[Pair], ct_range: CTRange, recipe: TrainRecipe) -> PatchDataset:
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
    state: State, pairs: Sequence[Pair], held: Sequence[Pair], ct_range: CTRange, recipe: TrainRecipe, *, steps: int
) -> Stainer:
    history = {
        "method": recipe.method,
        "losses": {name: weight for name, (weight, _) in recipe.chosen_method().losses().items()},
        "specimens": specimens_of(pairs),
        "held_out": specimens_of(held),
        "simulated": specimens_of([pair for pair in pairs if pair.simulated]),
        "pairs": sorted(pair.name for pair in pairs),
        "pairs_sha256": _digest(pairs),
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
def _still(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Networks that pass gradients on but take none."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def _reproducible(recipe: TrainRecipe, device: torch.device) -> Iterator[None]:
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
