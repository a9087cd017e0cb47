"""Real images that nobody here made: the whole way from files to scores, and a volume that others' code reads."""

import csv
import importlib.util
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tomostain.io.volumes import read_volume
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import load_pair
from tomostain.steps.experiment import ExperimentRecipe, experiment
from tomostain.steps.train import TrainRecipe

SPEC = importlib.util.spec_from_file_location("run_real", Path(__file__).with_name("run_real.py"))
real = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(real)


@pytest.fixture(scope="module")
def jaw(shared, tmp_path_factory):
    out = tmp_path_factory.mktemp("jaw")
    recipe = TrainRecipe(
        hold_out=("jaw_right",),
        steps=60,
        patch_px=64,
        width=8,
        depth=2,
        discriminator_width=8,
        discriminator_depth=2,
        sample_every=0,
        validate_every=0,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the grey values of specimen jaw_right")  # two halves of one small section
        return real.learn_jaw(shared, out, recipe=recipe)


def test_jaw_markers_and_empty_ct_are_left_out(jaw):
    left, right = (load_pair(path) for path in sorted(jaw[0].glob("*.pair.zarr")))
    assert left.ct.shape[2] == pytest.approx(0.6 * 851, abs=1)
    assert left.ct.shape[2] + right.ct.shape[2] == 851
    green = (left.stain[..., 1].astype(int) - left.stain[..., 0] > 60) & (left.stain[..., 2] < 120)
    assert green.sum() > 100
    assert (green & left.mask).sum() < 0.02 * green.sum()


def test_jaw_is_scored_on_the_side_it_never_saw(jaw):
    with (jaw[2] / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["specimen"] for row in rows} == {"jaw_right"}
    assert {row["method"] for row in rows} == {"stainer", "colour table", "mean colour"}
    scores = {row["method"]: {name: float(row[name]) for name in ("ssim", "psnr", "lpips")} for row in rows}
    assert scores["colour table"]["psnr"] > scores["mean colour"]["psnr"]
    assert 0 < scores["stainer"]["ssim"] < 1


def test_methods_are_compared_on_the_jaw_by_region(jaw, tmp_path):
    small = ":width=4:patch_px=64:discriminator_width=4"
    methods = (f"pix2pix{small}:depth=5", f"paired_cyclegan{small}:depth=1", f"supervised{small}:depth=1:perceptual=0")
    recipe = ExperimentRecipe(methods=methods, steps=2, folds=2, seeds=1, metrics=("ssim", "psnr"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the grey values of specimen jaw_")  # two halves of one small section
        page = experiment(jaw[0], tmp_path / "experiment", recipe=recipe)
    found = json.loads((tmp_path / "experiment" / "results.json").read_text())
    assert found["runs"] == {"done": 6, "of": 6}
    assert found["set_up"]["simulated"] == 0
    assert set(found["specimens"]["steps"][methods[0]]["ssim"]) == {"jaw_left", "jaw_right"}
    text = page.read_text()
    assert "With 2 specimens no test over specimens can show a difference." in text
    assert "Simulated" not in text


def test_trabecular_stack_is_stained_and_read_by_others(shared, jaw, tmp_path):
    with pytest.warns(UserWarning, match="outside those of training"):
        path = real.stain_trabeculae(shared, jaw[1], tmp_path / "trabecular.ome.zarr")
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    (node,) = [node for node in Reader(parse_url(str(path)))() if node.data]
    assert node.data[0].shape == (3, 200, 200, 200)
    assert node.data[0].dtype == np.uint8
    assert [axis["name"] for axis in node.metadata["axes"]] == ["c", "z", "y", "x"]
    assert node.metadata["coordinateTransformations"][0][0]["scale"] == [1.0, 19.5, 19.5, 19.5]
    assert node.metadata["channel_names"] == ["red", "green", "blue"]
    # One plane, stained on its own from the file itself, is what the volume holds there.
    files = sorted((shared / "data" / "ct" / "trabecular_bone").glob("*.tif"))
    alone = Stainer.load(jaw[1])(tifffile.imread(files[100])[None].astype(np.float32))
    np.testing.assert_array_equal(np.moveaxis(np.asarray(node.data[0][:, 100]), 0, -1), alone)
    assert read_volume(path).stain == "H&E"
