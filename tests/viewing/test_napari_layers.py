"""What the napari plugin hands over lies where it belongs, in one layer of colours, read only when it is shown."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tomostain.images.geometry import Grid, Placement
from tomostain.io.ome_zarr import create_volume
from tomostain.pairs.pair import Pair, save_pair
from tomostain.viewing import napari_plugin
from viewing.known import GRID, colours_of


def test_a_stained_volume_is_one_lazy_pyramid_of_colours_in_um(specimen):
    path = specimen / "stained.ome.zarr"
    ((levels, settings, kind),) = napari_plugin.get_reader(str(path))(str(path))
    assert (kind, settings["rgb"], settings["multiscale"]) == ("image", True, True)
    assert [level.shape for level in levels] == [(30, 60, 80, 3), (15, 30, 40, 3)]
    assert (settings["scale"], settings["translate"]) == (GRID.spacing_um, GRID.origin_um)
    assert (np.asarray(levels[0][11, 20:24, 30:40]) == colours_of(GRID)[11, 20:24, 30:40]).all()
    assert settings["metadata"]["tomostain"]["stain"] == "giemsa"


def test_grey_values_come_in_their_units(tmp_path):
    path = tmp_path / "ct.ome.zarr"
    stored = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
    with create_volume(path, Grid((4, 8, 8), (5.0,) * 3), attributes={"slope": 0.1, "intercept": -2.0}) as volume:
        volume[0:4, 0:8, 0:8] = stored
    ((levels, settings, _),) = napari_plugin.get_reader(str(path))(str(path))
    assert np.allclose(np.asarray(levels[0]), stored * 0.1 - 2.0, atol=1e-5)
    low, high = settings["contrast_limits"]
    assert -2.0 <= low < 1.0 < 20.0 < high <= 23.5


def test_a_placement_is_a_polygon_in_space_and_the_slide_in_it(specimen):
    path = str(specimen / "slide.placement.json")
    slide, polygon = napari_plugin.get_reader(path)(path)
    placement = Placement.load(path)
    data, affine = slide[0], slide[1]["affine"]
    for row, column in ((0, 0), (50, 90), (data.shape[1] - 1, data.shape[2] - 1)):
        there = affine @ [0.0, row, column, 1.0]
        px = placement.volume_um_to_slide_px(there[:3])
        assert np.allclose(placement.slide_to_volume_um(px), there[:3], atol=1e-6)
        expected = (20, 180, 60) if (px < [59.5, 79.5]).all() else (250, 220, 20)
        assert np.abs(data[0, row, column, :3].astype(int) - expected).max() <= 1
    assert np.allclose(polygon[0][0][0], placement.slide_to_volume_um(np.zeros(2)), atol=1e-6)
    assert np.allclose(polygon[0][0][2], placement.slide_to_volume_um(np.array([119.0, 159.0])), atol=3.0)


def test_a_pair_is_ct_stain_and_what_does_not_count(tmp_path, rng):
    shape = (20, 30)
    mask = np.ones(shape, bool)
    mask[:5] = False
    stain = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
    ct = rng.random((3, *shape), dtype=np.float32)
    confidence = np.ones(shape, np.float32)
    made = Pair(ct, stain, mask, confidence, Grid(shape, (5.0, 4.0)), specimen="S", name="one", stain_name="giemsa")
    path = str(save_pair(made, tmp_path / "one.pair.zarr") or tmp_path / "one.pair.zarr")
    shown = {layer[1]["name"]: layer for layer in napari_plugin.get_reader([path])([path])}
    assert (shown["one CT"][0] == ct[1]).all()
    assert (shown["one giemsa"][0] == stain).all()
    assert (shown["one not compared"][0] == ~mask).all()
    assert shown["one CT"][1]["scale"] == (5.0, 4.0)


def test_what_others_wrote_is_left_to_others(tmp_path):
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "other.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    for name in ("other.zarr", "none.ome.zarr", "picture.png"):
        assert napari_plugin.get_reader(str(tmp_path / name)) is None
    assert napari_plugin.get_reader([]) is None


def test_the_manifest_names_functions_that_exist():
    file = Path(napari_plugin.__file__).with_name("napari.yaml")
    manifest = yaml.safe_load(file.read_text(encoding="utf-8"))
    known = set()
    for command in manifest["contributions"]["commands"]:
        module, _, name = command["python_name"].partition(":")
        assert callable(getattr(importlib.import_module(module), name))
        known.add(command["id"])
    used = re.findall(r"- command: (\S+)", file.read_text(encoding="utf-8"))
    assert set(used) == known


def test_without_napari_the_widget_says_how_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(ModuleNotFoundError, match=r"tomostain\[napari\]"):
        napari_plugin.compare()
