"""Entries of a comparison, its plan, and planes that are the same in two specimens."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from tomostain.experiment.leakage import ALIKE, near_duplicates, warn_of
from tomostain.experiment.outcomes import training_times
from tomostain.experiment.plan import make_plan
from tomostain.experiment.variants import variants_of
from tomostain.images.geometry import Grid
from tomostain.learning.recipe import TrainRecipe
from tomostain.pairs.pair import Pair

BASE = TrainRecipe(precision="32-true", validate_every=0)


def variants(*words, file=None):
    return variants_of(words, file, BASE)


def pair_of(specimen, seed, shape=(60, 70)):
    rng = np.random.default_rng(seed)
    ct = ndimage.gaussian_filter(rng.standard_normal(shape), 3.0) + 0.01 * rng.standard_normal(shape)
    return Pair(
        ct=ct[None].astype(np.float32),
        stain=rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        mask=np.ones(shape, bool),
        confidence=np.ones(shape, np.float32),
        grid=Grid(shape, (5.0, 5.0)),
        specimen=specimen,
        name=f"{specimen}_{seed}",
    )


def test_a_word_changes_losses_and_settings_of_a_method():
    plain, without, sized = variants(
        "supervised", "supervised:-ssim:paired=2", "pix2pix:width=16:lr=2e-4:net-args=dropout=false"
    )
    assert plain.recipe == replace(BASE, method="supervised")
    assert without.recipe.chosen_method().losses().keys() == {"paired", "squared", "texture"}
    assert without.recipe.chosen_method().weights["paired"] == 2.0
    assert (sized.recipe.width, sized.recipe.lr, sized.recipe.net_args) == (16, 2e-4, ("dropout=false",))
    assert variants("supervised:from=phantom-toluidine-blue")[0].recipe.from_stainer == "phantom-toluidine-blue"
    assert without.folder == "supervised_-ssim_paired=2"


def test_a_file_names_entries_and_a_word_may_change_them(tmp_path):
    file = tmp_path / "v.yaml"
    file.write_text(
        "small: {method: cyclegan, width: 8}\nlate: {method: supervised, weights: {ssim: 0}, decay_from: 1}\n"
    )
    small, late = variants(file=file)
    assert (small.name, small.recipe.method, small.recipe.width) == ("small", "cyclegan", 8)
    assert late.recipe.weights == ("ssim=0",)
    assert variants("small:depth=2", file=file)[0].recipe == replace(small.recipe, depth=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pix2pixx"], "did you mean 'pix2pix'"),
        (["supervised:-cycle"], "has no loss 'cycle' to leave out"),
        (["supervised:widht=8"], "did you mean 'width'"),
        (["supervised:width=wide"], "width"),
        (["supervised:seed=3"], "neither a setting nor a loss"),
        (["supervised", "supervised"], "two entries are named"),
    ],
)
def test_a_word_that_means_nothing_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        variants(*words)


def test_every_specimen_is_left_out_once_by_each_method_and_seed(tmp_path):
    pairs = [pair_of(f"S{i}", i) for i in range(5)]
    plan = make_plan(pairs, variants("supervised", "pix2pix"), tmp_path / "out", count=2, seeds=2, hours=None, steps=7)
    assert len(plan.runs) == 2 * 2 * 2
    assert sorted(sum(plan.held_out, ())) == [f"S{i}" for i in range(5)]
    run = plan.run_named("pix2pix/1/0")
    assert (run.recipe.hold_out, run.recipe.seed, run.recipe.steps) == (plan.held_out[1], 0, 7)
    with pytest.raises(ValueError, match="there is no run 'pix2pix/2/0'"):
        plan.run_named("pix2pix/2/0")


def test_the_steps_of_a_time_are_found_once_and_kept(tmp_path, monkeypatch):
    pairs, timed = [pair_of(f"S{i}", i) for i in range(4)], []

    def planned(recipe, pairs):
        timed.append(recipe.method)
        return replace(recipe.filled(), steps=10 * len(timed)), []

    monkeypatch.setattr("tomostain.experiment.plan.planned", planned)
    settings = {"count": 2, "hours": 0.1, "steps": None}
    make_plan(pairs, variants("supervised"), tmp_path / "out", seeds=1, **settings)
    plan = make_plan(pairs, variants("supervised", "pix2pix"), tmp_path / "out", seeds=3, **settings)
    assert timed == ["supervised", "pix2pix"]
    assert plan.steps == {"time": {"supervised": 10, "pix2pix": 20}}


def test_another_experiment_in_the_same_folder_is_refused(tmp_path):
    pairs = [pair_of(f"S{i}", i) for i in range(4)]
    settings = {"count": 2, "seeds": 1, "hours": None, "steps": 7}
    make_plan(pairs, variants("supervised"), tmp_path / "out", **settings)
    for others, changed, message in (
        (pairs[:3], {}, "other pairs"),
        (pairs, {"count": 4}, "other folds"),
        (pairs, {"steps": 8}, "runs of 7 steps"),
        (pairs, {"hours": None, "steps": None}, "needs a budget"),
    ):
        with pytest.raises(ValueError, match=message):
            make_plan(others, variants("supervised"), tmp_path / "out", **settings | changed)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="is no experiment"):
        make_plan(pairs, variants("supervised"), tmp_path / "mine", **settings)


def test_the_same_tissue_in_two_specimens_is_found_however_it_lies():
    first, other = pair_of("S0", 0), pair_of("S1", 1)
    ct = np.rot90(first.ct[0])[:, ::-1] * 1.7 + 3.0
    ct = np.roll(ct, (3, -2), (0, 1)) + 0.02 * np.random.default_rng(5).standard_normal(ct.shape)
    turned = replace(pair_of("S2", 2, ct.shape), ct=np.ascontiguousarray(ct[None], np.float32))
    found = near_duplicates([first, other, turned])
    assert [(one.first, one.second) for one in found] == [("S0_0", "S2_2")]
    assert found[0].correlation > ALIKE
    with pytest.warns(UserWarning, match="nearly the same: S0_0 and S2_2"):
        warn_of(found)
    assert near_duplicates([first, replace(turned, specimen="S0")]) == []  # of one animal: never in two folds


def test_the_time_of_a_training_counts_each_line_of_its_curves_for_the_steps_it_covers(tmp_path):
    (tmp_path / "curves.csv").write_text(
        "step,paired,s_per_step,processor_s_per_step\n10,1,2.0,0.5\n20,1,4.0,0.5\n25,1,1.0,3.0\n"
    )
    assert training_times(tmp_path) == {"seconds": 65.0, "processor_seconds": 25.0}
