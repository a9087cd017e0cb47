"""A plan keeps what is set, and gives a reason for the rest."""

from dataclasses import replace

import pytest
import torch

from tomostain.learning import planning
from tomostain.learning.planning import plan
from tomostain.learning.recipe import TrainRecipe

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
    assert {choice.setting for choice in choices} == {"pairs", "net", "patch_px", "batch", "precision", "steps", "time"}
    assert "32-true 0.50 s a step, bf16-mixed 0.25 s a step" in str(choices[4])
    assert choices[0].value == f"{len(pairs)} of {len({pair.specimen for pair in pairs})} specimens, 5 um"
    few, _ = plan(TrainRecipe(hours=1000.0, device="cpu", **SIZES), pairs)
    area = sum(float((pair.weight > 0).sum()) for pair in pairs)
    assert few.steps == max(500, int(4000 * area / (few.batch * few.patch_px**2)))
    assert settled.patch_px == 112  # no larger than the pairs


def test_the_perceptual_loss_is_planned_only_where_its_weights_are(pairs, monkeypatch, tmp_path):
    monkeypatch.setattr(planning, "find_weights", lambda net: tmp_path)
    recipe = TrainRecipe(steps=7, precision="32-true", width=4, depth=1, weights=("ssim=0.5",))
    assert plan(recipe, pairs)[0].weights == ("ssim=0.5", "perceptual=0.1")
    assert plan(replace(recipe, weights=("perceptual=0",)), pairs)[0].weights == ("perceptual=0",)
    assert plan(replace(recipe, method="pix2pix", net="unet"), pairs)[0].weights == ("ssim=0.5",)

    def missing(net):
        raise FileNotFoundError(net)

    monkeypatch.setattr(planning, "find_weights", missing)
    assert plan(recipe, pairs)[0].weights == ("ssim=0.5",)


def test_only_fp32_is_left_where_bfloat16_cannot_be_run(pairs, monkeypatch):
    def seconds(recipe, pairs):
        if recipe.precision == "bf16-mixed":
            raise RuntimeError("no bfloat16 here")
        return 0.5

    monkeypatch.setattr(planning, "seconds_per_step", seconds)
    assert plan(TrainRecipe(hours=0.1, device="cpu", **SIZES), pairs)[0].precision == "32-true"
    with pytest.raises(RuntimeError, match="no bfloat16"):
        plan(TrainRecipe(hours=0.1, device="cpu", precision="bf16-mixed", **SIZES), pairs)


def test_a_step_is_timed_with_the_threads_of_the_training_and_the_process_is_left_as_it_was(pairs):
    before = torch.get_num_threads()
    recipe = TrainRecipe(patch_px=32, batch=1, steps=1, threads=1, device="cpu", **SIZES).filled()
    assert planning.seconds_per_step(recipe, pairs[:2]) > 0
    assert torch.get_num_threads() == before
