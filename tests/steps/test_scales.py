"""One specimen, stored in five units and windows, gets one set of colours from one stainer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from tomostain import runs
from tomostain.images.anchors import find_anchors
from tomostain.images.geometry import Grid
from tomostain.images.srgb import to_srgb
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import VolumeOptions
from tomostain.learning.recipe import SMALL
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import Pair, save_pair
from tomostain.phantom.attenuation import attenuation
from tomostain.phantom.colours import TOLUIDINE_BLUE, palette
from tomostain.phantom.tissues import Tissue
from tomostain.steps.stain import StainRecipe, stain
from tomostain.steps.train import train

SIZE = 144


def specimen(material, seed, *, planes=1):
    """CT (1/cm, planes y x) and stain of soft tissue, old and woven bone and an implant."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), 6.0)
    labels = np.where(field > 0, Tissue.LAMELLAR, Tissue.MARROW)
    labels = np.where((field > 0) & (field < 0.3 * field.std()), Tissue.WOVEN, labels)
    y, x = np.indices(labels.shape)
    labels = np.where(np.hypot(y - SIZE / 2, x - SIZE / 3) < SIZE / 6, Tissue.METAL, labels)
    clean = ndimage.gaussian_filter(attenuation(material, 38.0)[labels], 0.7)
    ct = clean + 0.08 * rng.standard_normal((planes, SIZE, SIZE))
    return ct.astype(np.float32), to_srgb(palette(TOLUIDINE_BLUE, material))[labels]


@pytest.fixture(scope="module")
def stainer(tmp_path_factory):
    home = tmp_path_factory.mktemp("scales")
    for number, material in enumerate(("Mg-5Gd", "PEEK", "Mg-10Gd")):
        ct, stained = specimen(material, number)
        mask = np.ones(ct.shape[1:], bool)
        about = {"grid": Grid(mask.shape, (5.0, 5.0)), "specimen": f"S{number}", "name": f"S{number}"}
        pair = Pair(ct, stained, mask, mask.astype(np.float32), **about, anchors=find_anchors(ct))
        save_pair(pair, home / "pairs" / f"{number}.pair.zarr")
    return train(
        home / "pairs", home / "stainer", recipe=replace(SMALL, method="pix2pix", tone=True, steps=40, patch_px=64)
    )


def window(low, high, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return lambda ct: np.clip(np.rint((ct - low) / (high - low) * top), 0, top).astype(dtype)


SCALES = {
    "16 bits": window(-2, 14, np.uint16),
    "a window of bone": window(-0.5, 3),
    "a narrow window": window(-0.1, 2.2),
    "a wide window": window(-0.2, 8),
}


def test_the_same_specimen_gets_the_same_colours_whatever_its_ct_was_stored_in(stainer, tmp_path):
    assert Stainer.load(stainer).anchors is not None
    ct, _ = specimen("Mg-5Gd", 9)
    colours, maps = {}, {}
    for name, stored_as in {"1/cm": lambda values: values, **SCALES}.items():
        np.save(tmp_path / f"{name.replace('/', ' per ')}.npy", stored_as(ct))
        recipe = StainRecipe(backend="torch", reading=VolumeOptions(spacing_um=(5.0, 5.0, 5.0)))
        volume, out = (
            tmp_path / f"{name.replace('/', ' per ')}.npy",
            tmp_path / f"{name[:8].replace('/', ' ')}.ome.zarr",
        )
        colours[name] = read_volume(stain(stainer, volume, out, recipe=recipe))[:].astype(float)
        maps[name] = runs.read_record(out)["results"]["grey_map"]
    assert maps.pop("1/cm") is None, "a scan in the units of the training is not touched"
    assert all(maps.values())
    for name in SCALES:
        assert np.abs(colours[name] - colours["1/cm"]).mean() < 2.0, name
    assert colours["1/cm"].std() > 30


def test_anchors_can_be_given_and_any_values_takes_the_scan_as_it_is(stainer, tmp_path):
    ct, _ = specimen("PEEK", 8)
    np.save(tmp_path / "ct.npy", window(-0.5, 3)(ct))
    reading = VolumeOptions(spacing_um=(5.0, 5.0, 5.0))
    out = stain(
        stainer,
        tmp_path / "ct.npy",
        tmp_path / "given.ome.zarr",
        recipe=StainRecipe(backend="torch", anchors=(57, 141), reading=reading),
    )
    target = Stainer.load(stainer).anchors
    found = runs.read_record(out)["results"]["grey_map"]
    assert found["slope"] * 57 + found["intercept"] == pytest.approx(target.soft)
    assert found["slope"] * 141 + found["intercept"] == pytest.approx(target.bone)
    with pytest.warns(UserWarning, match="grey values of ct.npy|outside those of training"):
        plain = stain(
            stainer,
            tmp_path / "ct.npy",
            tmp_path / "plain.ome.zarr",
            recipe=StainRecipe(backend="torch", any_values=True, reading=reading),
        )
    assert runs.read_record(plain)["results"]["grey_map"] is None
    with pytest.raises(ValueError, match="the smaller first"):
        StainRecipe(anchors=(141, 57))
