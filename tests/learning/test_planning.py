"""A plan keeps what is set, gives a reason for the rest, and ends about when it says."""

import time
from dataclasses import replace

import pytest

from tomostain.learning import planning
from tomostain.learning.planning import plan
from tomostain.learning.recipe import TrainRecipe
from tomostain.learning.training import fit

SIZES = {"width": 4, "depth": 1, "weights": ("perceptual=0",)}


def test_what_is_set_is_kept_and_nothing_is_timed(pairs, monkeypatch):
    monkeypatch.setattr(planning, "seconds_per_step", lambda *_: pytest.fail("timed"))
    settled, _ = plan(TrainRecipe(steps=7, batch=3, patch_px=48, precision="32-true", lr=0.5, **SIZES), pairs)
    assert (settled.steps, settled.batch, settled.patch_px, settled.lr) == (7, 3, 48, 0.5)


def test_steps_follow_from_hours_and_from_what_there_is_to_learn(pairs, monkeypatch):
    seconds = {"32-true": 0.5, "bf16-mixed": 0.25}
    monkeypatch.setattr(planning, "seconds_per_step", lambda recipe, _: seconds[recipe.precision])
    settled, choices = plan(TrainRecipe(hours=0.1, device="cpu", **SIZES), pairs)
    assert settled.precision == "bf16-mixed"
    assert settled.steps == pytest.approx(0.1 * 3600 / 0.25, rel=0.1)
    assert {choice.setting for choice in choices} == {"net", "patch_px", "batch", "precision", "steps", "time"}
    assert "32-true 0.50 s a step, bf16-mixed 0.25 s a step" in str(choices[3])
    few, _ = plan(TrainRecipe(hours=1000.0, device="cpu", **SIZES), pairs)
    assert few.steps < 1000 * 3600
    assert settled.patch_px == 112  # no larger than the pairs


def test_the_perceptual_loss_is_planned_only_where_its_weights_are(pairs, monkeypatch, tmp_path):
    monkeypatch.setattr(planning, "find_weights", lambda net: tmp_path)
    recipe = TrainRecipe(steps=7, precision="32-true", width=4, depth=1, weights=("ssim=0.5",))
    assert plan(recipe, pairs)[0].weights == ("ssim=0.5", "perceptual=0.1")
    assert plan(replace(recipe, weights=("perceptual=0",)), pairs)[0].weights == ("perceptual=0",)
    assert plan(replace(recipe, method="pix2pix"), pairs)[0].weights == ("ssim=0.5",)

    def missing(net):
        raise FileNotFoundError(net)

    monkeypatch.setattr(planning, "find_weights", missing)
    assert plan(recipe, pairs)[0].weights == ("ssim=0.5",)


def test_a_planned_training_ends_about_when_it_says(pairs, tmp_path):
    recipe = TrainRecipe(hours=4 / 3600, device="cpu", threads=1, patch_px=32, batch=1, log_every=1000, **SIZES)
    settled, _ = plan(recipe, pairs[:2])
    begun = time.monotonic()
    fit(pairs[:2], tmp_path, settled)
    assert settled.steps >= 1
    assert time.monotonic() - begun < 60  # a loaded machine may take many times as long; a plan of a week would not end
