import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from tomostain import runs
from tomostain.images.geometry import Grid
from tomostain.learning.recipe import TrainRecipe
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import Pair, save_pair
from tomostain.scoring.baselines import load_baselines
from tomostain.steps import train as step
from tomostain.steps.train import train

TINY = TrainRecipe(
    precision="32-true",
    width=4,
    depth=1,
    discriminator_width=4,
    discriminator_depth=1,
    patch_px=32,
    steps=4,
    log_every=2,
    workers=1,
)


def pair_of(specimen, seed, **changes):
    rng = np.random.default_rng(seed)
    shape = changes.pop("shape", (48, 56))
    label = ndimage.gaussian_filter(rng.standard_normal(shape), 3.0) > 0
    ct = label + rng.normal(0, 0.1, (changes.pop("planes", 1), *shape))
    values = {
        "ct": ct.astype(np.float32),
        "stain": np.where(label[..., None], np.uint8([180, 190, 220]), np.uint8([240, 240, 240])),
        "mask": np.ones(shape, bool),
        "confidence": np.ones(shape, np.float32),
        "grid": Grid(shape, (changes.pop("um", 5.0),) * 2),
        "specimen": specimen,
        "name": f"{specimen}-{seed}",
    }
    return Pair(**(values | changes))


@pytest.fixture
def folder(tmp_path):
    for index, specimen in enumerate(("S0", "S0", "S1", "S2")):
        save_pair(pair_of(specimen, index), tmp_path / "pairs" / f"{index}.pair.zarr")
    return tmp_path / "pairs"


def test_training_writes_a_stainer_its_baselines_and_its_record(folder, tmp_path):
    out = train(folder, tmp_path / "stainer", recipe=replace(TINY, hold_out=("S2",), ct_units="1/cm"))
    model, record = Stainer.load(out), runs.read_record(out)
    assert model.history["specimens"] == ["S0", "S1"]
    assert model.history["held_out"] == ["S2"]
    assert (model.um_per_px, model.stain, model.ct_range.units) == (5.0, "toluidine blue", "1/cm")
    assert record["results"]["specimens"] == ["S0", "S1"]
    assert set(load_baselines(out)) == {"colour table", "mean colour"}
    names = {path.name for path in out.iterdir()}
    assert names >= {"stainer.json", "weights.safetensors", "baselines.json", "curves.csv", "samples", "run.json"}
    assert "checkpoint" not in names


def test_specimens_in_other_units_are_refused_by_name_and_both_ranges(folder, tmp_path):
    for index, specimen in enumerate(("S3", "S3"), start=4):
        pair = pair_of(specimen, index)
        save_pair(replace(pair, ct=pair.ct * 100), folder / f"{index}.pair.zarr")
    with pytest.raises(ValueError, match=r"do not overlap with those of S0, S1, S2 \(-0\.\d+ to 1\.\d+\): S3 \(-\d+"):
        train(folder, tmp_path / "stainer", recipe=TINY)
    assert not (tmp_path / "stainer").exists()
    with pytest.warns(UserWarning, match="do not overlap"):
        out = train(folder, tmp_path / "stainer", recipe=replace(TINY, any_values=True, steps=1))
    assert sorted(Stainer.load(out).grey_values) == ["S0", "S1", "S2", "S3"]


@pytest.mark.parametrize("which", ["pairs", "pairs/0.pair.zarr"])
def test_half_made_pairs_are_refused_and_gathered_ones_are_not(folder, tmp_path, which):
    mark = tmp_path / f"{which}.unfinished"
    mark.write_text("{}")
    with pytest.raises(ValueError, match=r"is not finished.*run the same command again"):
        train(folder, tmp_path / "stainer", recipe=TINY)
    mark.unlink()
    assert train(folder, tmp_path / "stainer", recipe=replace(TINY, steps=1)).is_dir()


def test_ctrl_c_keeps_what_was_trained_and_says_how_to_go_on(folder, tmp_path, monkeypatch, capsys):
    recipe = replace(TINY, steps=8)
    train(folder, tmp_path / "whole", recipe=recipe)
    out, fit = tmp_path / "stopped", step.fit

    def pressed(*args, **kwargs):
        return fit(*args, **kwargs, watch=lambda done, values: done == 4 and os.kill(os.getpid(), signal.SIGINT))

    monkeypatch.setattr(step, "fit", pressed)
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        train(folder, out, recipe=recipe)
    told = capsys.readouterr().err
    assert f"tomostain train {folder} {out} ... --resume" in told
    for line in ("trained on: 4 pairs of specimens S0, S1, S2", "held out: none", "steps: 8 of 4 patches of 32 px"):
        assert line in told
    monkeypatch.setattr(step, "fit", fit)
    with pytest.raises(ValueError, match="holds an unfinished training; continue it with --resume, end it with"):
        train(folder, out, recipe=recipe)
    shutil.copytree(out, tmp_path / "ended")
    shutil.copy(tmp_path / "stopped.unfinished", tmp_path / "ended.unfinished")
    ended = Stainer.load(train(folder, tmp_path / "ended", recipe=replace(recipe, finish_now=True)))
    assert ended.history["steps"] == 4
    train(folder, out, recipe=replace(recipe, resume=True))
    for name in ("weights.safetensors", "stainer.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(ValueError, match="holds no checkpoint to finish from"):
        train(folder, tmp_path / "new", recipe=replace(recipe, finish_now=True))


def test_a_fold_holds_out_whole_specimens(folder, tmp_path):
    held = []
    for fold in range(3):
        out = train(folder, tmp_path / f"stainer{fold}", recipe=replace(TINY, fold=fold, folds=3, steps=1))
        history = Stainer.load(out).history
        assert not set(history["held_out"]) & set(history["specimens"])
        held += history["held_out"]
    assert sorted(held) == ["S0", "S1", "S2"]


def test_the_held_out_specimen_never_reaches_the_weights(folder, tmp_path):
    recipe = replace(TINY, hold_out=("S2",), validate_every=2)
    train(folder, tmp_path / "one", recipe=recipe)
    save_pair(replace(pair_of("S2", 3), ct=pair_of("S2", 99).ct), folder / "3.pair.zarr")
    train(folder, tmp_path / "two", recipe=recipe)
    for name in ("weights.safetensors", "stainer.json", "baselines.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_stopped_training_is_resumed_and_ends_in_the_same_bytes(folder, tmp_path, monkeypatch):
    recipe = replace(TINY, steps=8, checkpoint_every=3)
    train(folder, tmp_path / "whole", recipe=recipe)
    out, fit = tmp_path / "stopped", step.fit

    def stopped(*args, **kwargs):
        def watch(done, values):
            if done == 6:
                raise KeyboardInterrupt

        return fit(*args, **kwargs, watch=watch)

    monkeypatch.setattr(step, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(folder, out, recipe=recipe)
    monkeypatch.setattr(step, "fit", fit)
    assert not runs.is_complete(out)
    with pytest.raises(ValueError, match="--resume"):
        train(folder, out, recipe=recipe)
    train(folder, out, recipe=replace(recipe, resume=True))
    for name in ("weights.safetensors", "stainer.json", "baselines.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_resume_begins_where_there_is_nothing_to_resume(folder, tmp_path):
    assert runs.is_complete(train(folder, tmp_path / "stainer", recipe=replace(TINY, steps=1, resume=True)))


def test_a_finished_stainer_is_not_overwritten(folder, tmp_path):
    out = train(folder, tmp_path / "stainer", recipe=replace(TINY, steps=1))
    before = (out / "stainer.json").read_bytes()
    for resume in (False, True):
        with pytest.raises(ValueError, match="exists"):
            train(folder, out, recipe=replace(TINY, steps=1, seed=1, resume=resume))
    assert (out / "stainer.json").read_bytes() == before


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (lambda: pair_of("S9", 9, stain_name="H&E"), "differ in stain"),
        (lambda: pair_of("S9", 9, um=4.0), "make the pairs at one size"),
        (lambda: pair_of("S9", 9, planes=3), "differ in number of CT planes"),
        (lambda: pair_of("S9", 9, confidence=np.zeros((48, 56), np.float32)), "no pixel of positive confidence"),
        (lambda: pair_of("S9", 9, name="S0-0"), "two pairs are named S0-0"),
    ],
)
def test_pairs_that_do_not_belong_together_are_refused_before_any_work(folder, tmp_path, odd, message):
    save_pair(odd(), folder / "9.pair.zarr")
    with pytest.raises(ValueError, match=message):
        train(folder, tmp_path / "stainer", recipe=TINY)
    assert not (tmp_path / "stainer").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hold_out": ("S1x",)}, "did you mean 'S1'"),
        ({"hold_out": ("S0", "S1", "S2")}, "all specimens are held out"),
        ({"fold": 0, "folds": 9}, "cannot make 9 folds"),
        ({"method": "paired_cyclegann"}, "did you mean 'paired_cyclegan'"),
        ({"net": "resnt"}, "did you mean 'resnet'"),
        ({"weights": ("pared=3",)}, "did you mean 'paired'"),
        ({"patch_px": 34}, "multiple of the network's stride 8"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_work(folder, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(folder, tmp_path / "stainer", recipe=replace(TINY, **changes))
    assert not (tmp_path / "stainer").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"decay_from": 2.0}, "decay_from must be at least 0 and at most 1"),
        ({"fold": 4}, "fold must lie in 0 .. 3"),
        ({"fold": 1, "hold_out": ("S0",)}, "not both"),
        ({"ct_percentiles": (60.0, 50.0)}, "ct_percentiles"),
    ],
)
def test_an_impossible_recipe_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainRecipe(**changes)


def test_no_pairs_and_an_unpaired_cohort_are_distinguished(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no"):
        train(tmp_path / "nothing", tmp_path / "stainer")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "cohort.json").write_text(json.dumps({"format": "tomostain-cohort"}))
    with pytest.raises(FileNotFoundError, match="tomostain pair"):
        train(tmp_path / "cohort", tmp_path / "stainer")


def test_a_stainer_names_the_specimens_that_were_simulated(folder, tmp_path):
    save_pair(pair_of("P0", 7, simulated=("CT", "stain")), folder / "7.pair.zarr")
    mixed = Stainer.load(train(folder, tmp_path / "mixed", recipe=replace(TINY, steps=1)))
    assert (mixed.history["simulated"], mixed.simulated) == (["P0"], "specimens P0")
    real = Stainer.load(train(folder, tmp_path / "real", recipe=replace(TINY, steps=1, hold_out=("P0",))))
    assert (real.history["simulated"], real.simulated) == ([], None)
