"""A stranger's network, loss and metric, one file outside the package: trained, evaluated, stained, on a worker too."""

import dataclasses

import numpy as np
import pytest

from learning.conftest import synthetic_pair
from tomostain.images.geometry import Grid
from tomostain.io.ome_zarr import create_volume
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import VolumeOptions
from tomostain.learning.recipe import TrainRecipe
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import save_pair
from tomostain.scoring.evaluation import Evaluation
from tomostain.steps.evaluate import EvaluateRecipe, evaluate
from tomostain.steps.stain import StainRecipe, stain
from tomostain.steps.train import train

MODULE = """
import numpy as np
import torch
from torch import nn
from tomostain.images.geometry import Grid
from tomostain.images.image import Volume

class Net(nn.Module):
    halo_px, stride_px, tile_exact = 4, 4, True

    def __init__(self, inputs, outputs, *, width=1, gain=1.0):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1, padding_mode="reflect"), nn.Tanh(),
                                  nn.Conv2d(width, outputs, 1))
        self.gain = gain
        self.scale = torch.tensor(0.5)  # kept by the class and not among its weights

    def forward(self, image):
        return torch.tanh(self.gain * self.scale * self.body(image))

def blue(t):
    return (t.fake_stain[:, 2] - t.stain[:, 2]).abs().mean()

def read_lab(path, hints):
    values = np.load(path)
    return Volume(values, Grid(values.shape, hints.spacing_um or (5.0, 5.0, 5.0)), name=path.name)

def as_array(path, hints):
    return np.load(path)

def largest(pred, target, *, data_range, mask):
    return ((pred - target).abs() * mask.reshape(mask.shape[-2:])).amax()
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    (tmp_path / "strangers_own.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        save_pair(synthetic_pair(seed, specimen=f"S{seed}"), tmp_path / "pairs" / f"{seed}.pair.zarr")
    ct = np.concatenate([synthetic_pair(seed).ct for seed in (7, 8, 9)])
    with create_volume(tmp_path / "ct.ome.zarr", Grid(ct.shape, (5, 5, 5)), dtype=np.float32) as writer:
        writer[0:3, 0:96, 0:112] = ct
    return tmp_path


def test_one_file_outside_the_package_is_trained_evaluated_and_stained_with(lab):
    recipe = TrainRecipe(
        net="strangers_own:Net",
        net_args=("width=6", "gain=2.0"),
        weights=("strangers_own:blue=3",),
        hold_out=("S2",),
        discriminator_width=4,
        discriminator_depth=1,
        patch_px=32,
        steps=4,
    )
    stainer = train(lab / "pairs", lab / "stainer", recipe=recipe)
    for run in (
        lambda: Stainer.load(stainer),
        lambda: evaluate(stainer, lab / "pairs", lab / "untrusted", recipe=EvaluateRecipe(metrics=("ssim",))),
        lambda: stain(stainer, lab / "ct.ome.zarr", lab / "untrusted.ome.zarr"),
    ):
        with pytest.raises(ValueError, match=r"strangers_own:Net' is code from outside tomostain.*--trust"):
            run()
    model = Stainer.load(stainer, trust=True)
    assert dict(model.spec.args) == {"width": 6, "gain": 2.0}
    assert model.net.body[0].out_channels == 6
    assert model.history["losses"]["strangers_own:blue"] == 3.0

    scored = EvaluateRecipe(metrics=("ssim", "strangers_own:largest"), trust=True)
    summary = Evaluation.load(evaluate(stainer, lab / "pairs", lab / "evaluation", recipe=scored)).summary
    assert "strangers_own:largest" in summary["metrics"]

    here = stain(stainer, lab / "ct.ome.zarr", lab / "here.ome.zarr", recipe=StainRecipe(trust=True, backend="torch"))
    whole = read_volume(here)[:]
    np.testing.assert_array_equal(whole[1], model(read_volume(lab / "ct.ome.zarr")[1:2], tile_px=None))
    pytest.importorskip("distributed")
    asked = dataclasses.replace(StainRecipe(trust=True, backend="torch"), cluster="local:1")
    there = stain(stainer, lab / "ct.ome.zarr", lab / "there.ome.zarr", recipe=asked)
    np.testing.assert_array_equal(read_volume(there)[:], whole)


def test_a_reader_outside_the_package_reads_what_is_stained_here_and_on_a_worker(lab):
    recipe = TrainRecipe(width=4, depth=1, patch_px=32, steps=2, precision="32-true", weights=("perceptual=0",))
    stainer = train(lab / "pairs", lab / "stainer", recipe=recipe)
    values = read_volume(lab / "ct.ome.zarr")[:]
    with (lab / "ct.lab").open("wb") as file:
        np.save(file, values)
    with pytest.raises(ValueError, match=r"ct\.lab: volumes are read from .*--reader with a reader of your own"):
        read_volume(lab / "ct.lab")
    own = VolumeOptions(reader="strangers_own:read_lab")
    np.testing.assert_array_equal(read_volume(lab / "ct.lab", **vars(own))[:], values)
    with pytest.raises(ValueError, match=r"returned a ndarray, not a tomostain Volume"):
        read_volume(lab / "ct.lab", reader="strangers_own:as_array")
    asked = StainRecipe(backend="torch", reading=own)
    here = read_volume(stain(stainer, lab / "ct.lab", lab / "here.ome.zarr", recipe=asked))[:]
    plain = StainRecipe(backend="torch")
    known = read_volume(stain(stainer, lab / "ct.ome.zarr", lab / "known.ome.zarr", recipe=plain))[:]
    np.testing.assert_array_equal(here, known)
    pytest.importorskip("distributed")
    asked = dataclasses.replace(asked, cluster="local:1")
    there = stain(stainer, lab / "ct.lab", lab / "there.ome.zarr", recipe=asked)
    np.testing.assert_array_equal(read_volume(there)[:], here)
