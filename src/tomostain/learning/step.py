"""One step of a training: the generators learn with the discriminators fixed, then the discriminators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from tomostain.learning.losses import ADVERSARIAL, WAY_BACK, Translation, discriminator_loss
from tomostain.learning.methods import Method
from tomostain.learning.patches import Patch
from tomostain.learning.recipe import Settled
from tomostain.learning.state import DISCRIMINATORS, GENERATORS, State


def take_step(
    fabric: Fabric, state: State, here: Patch, there: Patch, recipe: Settled, method: Method, step: int
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
    _improve(fabric, state, "generators", total, generators, clip=recipe.clip)
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
    objectives = {"stain_discriminator": next((name for name in ADVERSARIAL if name in losses), ADVERSARIAL[0])}
    with fabric.autocast():
        lessons = {
            name: discriminator_loss(
                state.nets[name](real), state.nets[name](fake), objective=objectives.get(name, ADVERSARIAL[0])
            )
            for name, (real, fake) in shown.items()
        }
        total = torch.stack(list(lessons.values())).sum()
    _improve(fabric, state, "discriminators", total, discriminators)
    return terms | lessons


def learning_rate(recipe: Settled, step: int) -> float:
    """Constant, then falling linearly to reach 0 after the last step."""
    falling = recipe.steps * (1.0 - recipe.decay_from)
    return recipe.lr * min(1.0, (recipe.steps - step) / falling) if falling else recipe.lr


def _improve(
    fabric: Fabric, state: State, name: str, loss: Tensor, parameters: Sequence[nn.Parameter], *, clip: float = 0.0
) -> None:
    """One optimiser step; the gradients of several processes are averaged, and scaled down to the norm ``clip``."""
    state.optimisers[name].zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if fabric.world_size > 1:
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = fabric.all_reduce(torch.cat([g.reshape(-1) for g in gradients]), reduce_op="mean")
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):  # type: ignore[union-attr]
            gradient.copy_(mean.view(gradient.shape))
    if clip:
        nn.utils.clip_grad_norm_(parameters, clip)
    state.optimisers[name].step()


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
