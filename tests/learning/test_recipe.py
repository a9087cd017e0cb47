"""Recipes say what they do, and a network from outside the package gets its arguments."""

import dataclasses
from pathlib import Path

import pytest
from torch import nn

from tomostain import cli
from tomostain.learning.nets import build_generator
from tomostain.learning.nets.reference import ReferenceResNet, ReferenceUNet
from tomostain.learning.nets.resnet import ResNet
from tomostain.learning.nets.toned import Toned
from tomostain.learning.recipe import TrainRecipe
from tomostain.steps import train as step


@pytest.fixture
def shipped(monkeypatch):
    """The recipe that `tomostain train ... --recipe NAME` trains with."""
    seen = []

    def train(pairs: Path, out: Path, *, recipe: TrainRecipe = TrainRecipe()) -> None:
        seen.append(recipe)

    def recipe_of(name):
        assert cli.main(["train", "pairs", "out", "--recipe", name]) == 0
        return seen.pop()

    monkeypatch.setattr(step, "train", train)
    cli._app.cache_clear()
    yield recipe_of
    cli._app.cache_clear()


def test_the_reference_cyclegan_is_the_published_one(shipped):
    recipe = shipped("reference_cyclegan")
    net = build_generator(recipe.generator_spec(), 1, 3)
    assert isinstance(net, ReferenceResNet)
    kinds = [type(module) for module in net.modules()]
    assert kinds.count(nn.InstanceNorm2d) == 1 + 2 + 2 * 9 + 2
    assert kinds.count(nn.ConvTranspose2d) == 2
    assert {nn.BatchNorm2d, nn.Upsample, nn.Dropout}.isdisjoint(kinds)
    assert isinstance(net.model[-1], nn.Tanh)
    assert not net.tile_exact
    weights = {name: weight for name, (weight, _) in recipe.chosen_method().losses().items()}
    assert weights == {"adversarial": 1, "adversarial_ct": 1, "cycle": 10, "cycle_stain": 10, "identity": 0.5 * 10}
    assert not recipe.chosen_method().paired
    settled = recipe.filled()
    assert (settled.ema, settled.batch, settled.lr, settled.pool, settled.clip) == (0.0, 1, 2e-4, 50, 0.0)
    assert (settled.planes, settled.dye, settled.tone) == (1, False, False)
    assert recipe.discriminator_spec().args == {"width": 64, "depth": 3, "norm": "instance"}


def test_the_reference_pix2pix_is_the_published_one(shipped):
    recipe = shipped("reference_pix2pix")
    net = build_generator(dataclasses.replace(recipe, width=4).generator_spec(), 1, 3)
    assert isinstance(net, ReferenceUNet)
    kinds = [type(module) for module in net.modules()]
    assert kinds.count(nn.ConvTranspose2d) == 8
    assert kinds.count(nn.Dropout) == 3
    assert kinds.count(nn.BatchNorm2d) == 6 + 7
    assert not net.tile_exact
    method = recipe.chosen_method()
    assert {name: weight for name, (weight, _) in method.losses().items()} == {"adversarial_bce": 1, "paired": 100}
    assert method.conditional
    assert not method.there_and_back
    assert recipe.discriminator_spec().args == {"width": 64, "depth": 3, "norm": "batch"}
    settled = recipe.filled()
    assert (settled.net, settled.ema, settled.batch, settled.dye) == ("reference_unet", 0.0, 1, False)


def test_the_paired_cyclegan_has_nothing_that_was_added_here(shipped):
    settled = TrainRecipe(method="paired_cyclegan").filled()
    assert set(settled.chosen_method().losses()) == {
        "adversarial", "adversarial_ct", "cycle", "cycle_stain", "paired", "greyscale"
    }  # fmt: skip
    assert (settled.net, settled.ema, settled.clip, settled.dye, settled.planes) == (
        "reference_resnet", 0.0, 0.0, False, 1
    )  # fmt: skip


def test_the_full_recipe_is_the_paired_cyclegan_of_classical_size(shipped):
    recipe = shipped("full")
    net = build_generator(dataclasses.replace(recipe, width=4).generator_spec(), 1, 3)
    assert isinstance(net, ResNet)
    assert len(net.blocks) == 9
    assert recipe.steps == 100_000
    assert set(recipe.chosen_method().losses()) >= {"adversarial", "adversarial_ct", "paired", "greyscale", "cycle"}


def test_a_generator_begins_at_the_colour_table_only_where_asked_and_where_pairs_are_used():
    assert TrainRecipe().generator_spec().args["tone"] is False
    assert isinstance(build_generator(TrainRecipe(tone=True, width=4).generator_spec(), 1, 3), Toned)
    with pytest.raises(ValueError, match="tone needs the pairs, which cyclegan does not use"):
        TrainRecipe(method="cyclegan", tone=True).generator_spec()


@pytest.mark.parametrize(
    ("method", "net", "patch_px", "clip"),
    [
        ("supervised", "subpixel_unet", 128, 1.0),
        ("pix2pix", "reference_unet", 256, 0.0),
        ("cyclegan", "reference_resnet", 256, 0.0),
    ],
)
def test_what_is_left_out_is_what_the_method_is_usually_trained_with(method, net, patch_px, clip):
    settled = TrainRecipe(method=method).filled()
    assert (settled.net, settled.patch_px, settled.clip) == (net, patch_px, clip)
    kept = TrainRecipe(method=method, patch_px=64, lr=0.5, clip=3.0, steps=7).filled()
    assert (kept.patch_px, kept.lr, kept.clip, kept.steps) == (64, 0.5, 3.0, 7)


def test_arguments_of_a_network_are_read_as_yaml_reads_them():
    words = ("width=8", "skips=false", "gain=0.5", "kind=soft", "none=null")
    spec = TrainRecipe(net="my.nets:Mine", net_args=words).generator_spec()
    assert spec.args == {"width": 8, "skips": False, "gain": 0.5, "kind": "soft", "none": None}
    assert TrainRecipe(net_args=("skips=false",)).generator_spec().args["skips"] is False
    assert TrainRecipe(discriminator="my.nets:Mine", discriminator_args=("width=8",)).discriminator_spec().args == {
        "width": 8
    }


@pytest.mark.parametrize(
    "word", ["width", "=8", "a b=8", "width=[1, 2]", "width={a: 1}", "width=!!python/name:os.system"]
)
def test_an_argument_that_is_not_name_and_value_is_refused(word):
    with pytest.raises(ValueError, match="in net_args is not name=value"):
        TrainRecipe(net_args=(word,)).generator_spec()
