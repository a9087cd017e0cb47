"""Fine-tuning: a training that begins at the weights of a stainer instead of at random ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from tomostain.images.grid import scale_differs
from tomostain.learning.nets import GENERATORS
from tomostain.learning.recipe import TrainRecipe
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import Pair

_SIZES = ("width", "depth", "norm", "up")


def check_start(start: Stainer, pair: Pair, recipe: TrainRecipe) -> None:
    """Refuse a stainer that cannot be fine-tuned on these pairs, or by this recipe, before any work.

    Raises
    ------
    ValueError
        Its pixels are of another size, or the recipe asks for another network or other sizes than it has.
    """
    if scale_differs(pair.grid.spacing_um, start.um_per_px, within_um=start.within_um):
        raise ValueError(
            f"{recipe.from_stainer} was trained at {start.scale} per pixel, the pairs have "
            f"{pair.grid.spacing_um[0]:g} um; make the pairs at that size, or train without --from"
        )
    has = {"net": start.spec.name, **start.spec.args}
    for name in ("net", *_SIZES):
        asked = getattr(recipe, name)
        if asked is not None and asked != has.get(name, asked):
            raise ValueError(
                f"{recipe.from_stainer} has {name} {has[name]}; leave out --{name} {asked}, or train without --from"
            )


def from_start(recipe: TrainRecipe, start: Stainer) -> TrainRecipe:
    """The recipe with the network and the CT range of the stainer to start from."""
    arguments = dict(start.spec.args)
    own: dict[str, Any] = {}
    if start.spec.name in GENERATORS:
        own = {name: arguments.pop(name, None) for name in _SIZES} | {"tone": bool(arguments.pop("tone", False))}
    words = tuple(f"{name}={json.dumps(value)}" for name, value in arguments.items())
    ct_range = recipe.ct_range or (start.ct_range.low, start.ct_range.high)
    return replace(recipe, net=start.spec.name, net_args=words, ct_range=ct_range, **own)


def described(start: Stainer, recipe: TrainRecipe) -> dict[str, Any]:
    """What a fine-tuned stainer records of the one that it began from; specimens that either was trained on count."""
    before = start.history.get("from") or {}
    seen = [*(start.history.get("specimens") or []), *(before.get("specimens") or [])]
    return {
        "name": Path(recipe.from_stainer).name if recipe.from_stainer else "",
        "sha256": start.sha256,
        "stain": start.stain,
        "specimens": seen,
        "simulated": list(start.history.get("simulated") or []),
    }


def take_over(net: nn.Module, start: nn.Module) -> tuple[int, int]:
    """Copy into ``net`` the weights of ``start`` that fit, in place; returns how many tensors were taken, of how many.

    A tensor fits if it has the same name and shape. A convolution over another number of CT planes takes the planes
    that both have, centred; its other planes begin at zero. The rest keeps its own fresh weights.
    """
    own, theirs = net.state_dict(), start.state_dict()
    taken = 0
    for name, tensor in own.items():
        other = theirs.get(name)
        if other is None:
            continue
        if other.shape != tensor.shape:
            if tensor.ndim != 4 or other.ndim != 4 or other[:, 0].shape != tensor[:, 0].shape:
                continue
            other = _centred(other, tensor.shape[1])
        tensor.copy_(other)
        taken += 1
    return taken, len(own)


def _centred(weight: Tensor, channels: int) -> Tensor:
    """A convolution's weight (out, in, y, x) with its input channels cropped, or filled up with zeros, at both ends."""
    before = (channels - weight.shape[1]) // 2
    after = channels - weight.shape[1] - before
    return functional.pad(weight, (0, 0, 0, 0, before, after))
