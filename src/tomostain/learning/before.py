"""Before the first step of a training: settings that do not fit are refused, and a summary is reported."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from tomostain._imports import require
from tomostain.learning.nets import build_generator
from tomostain.learning.recipe import Settled, TrainRecipe
from tomostain.pairs.pair import Pair
from tomostain.pairs.splits import specimens_of


def check_network(recipe: TrainRecipe) -> None:
    """Refuse unknown names, misfitting sizes and a missing package before anything is read; builds no weights."""
    if recipe.tensorboard:
        require("tensorboard", extra="tensorboard")
    recipe.chosen_method()
    recipe.augmentation()
    with torch.device("meta"):
        stride = int(build_generator(recipe.generator_spec(), 1, 3).stride_px)  # type: ignore[arg-type]
    patch_px = recipe.filled().patch_px
    if patch_px % stride:
        raise ValueError(f"patch_px must be a multiple of the network's stride {stride}, it is {patch_px}")


def introduce(training: Sequence[Pair], held: Sequence[Pair], recipe: Settled) -> None:
    """Say what is trained, on what, before the first step."""
    device = recipe.device
    if device == "auto":
        device = "GPU" if torch.cuda.is_available() else "CPU"
    with torch.device("meta"):
        net = build_generator(recipe.generator_spec(), len(training[0].ct), 3)
    weights = sum(parameter.numel() for parameter in net.parameters())
    for line in (
        f"device: {device}",
        f"trained on: {len(training)} pairs of specimens {', '.join(specimens_of(training))}",
        f"held out: {f'{len(held)} pairs of specimens ' + ', '.join(specimens_of(held)) if held else 'none'}",
        f"network: {recipe.net}, {weights / 1e6:.2f} million weights, method {recipe.method}",
        f"steps: {recipe.steps} of {recipe.batch} patches of {recipe.patch_px} px",
    ):
        print(line, file=sys.stderr)
