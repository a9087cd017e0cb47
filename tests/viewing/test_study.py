"""What is shown is where it belongs; what cannot be shown is refused in one sentence."""

import json
import shutil

import numpy as np
import pytest
import tifffile
import zarr

from tomostain import runs
from tomostain.images.geometry import Grid, Placement
from tomostain.io.ome_zarr import create_volume
from tomostain.steps.view import ViewRecipe, view
from tomostain.viewing.sections import load_section
from tomostain.viewing.state import Study, viewer_state
from tomostain.viewing.stores import open_store
from viewing.known import SLIDE_PX

pytest.importorskip("neuroglancer")


@pytest.fixture
def stores(specimen):
    return open_store(specimen / "ct.ome.zarr", colours=False), open_store(specimen / "stained.ome.zarr", colours=True)


def test_grey_values_are_shown_between_their_percentiles_in_their_units(stores):
    ct = stores[0]
    assert ct.window == pytest.approx((0.0, 2.0), abs=0.06)
    assert (ct.units, ct.slope, ct.version) == ("1/cm", 1.0, 3)


def test_a_calibrated_map_is_shown_by_its_stored_values(tmp_path):
    path = tmp_path / "map.ome.zarr"
    about = {"slope": 0.1, "intercept": -1.0, "units": "dE"}
    with create_volume(path, Grid((4, 8, 8), (10.0,) * 3), attributes=about) as volume:
        volume[0:4, 0:8, 0:8] = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    found = open_store(path, colours=False)
    assert (found.slope, found.intercept, found.units) == (0.1, -1.0, "dE")
    assert 0 <= found.window[0] < 30
    assert 220 < found.window[1] <= 255


def test_a_section_lies_where_its_placement_puts_the_slide(specimen, stores):
    section = load_section(specimen / "slide.placement.json", *stores)
    placement = Placement.load(specimen / "slide.placement.json")
    matrix = np.asarray(section.matrix)
    spacing = section.plane.spacing_um
    for row, column in ((3, 7), (40, 100), (100, 40)):
        there = matrix[1:] @ [0.0, 0.0, row * spacing, column * spacing, 1.0]
        row_px, column_px = placement.volume_um_to_slide_px(there)
        assert (row_px, column_px) == pytest.approx((row * spacing / 2.5, column * spacing / 2.5), abs=1e-6)
        assert np.allclose(placement.slide_to_volume_um(np.array([row_px, column_px])), there, atol=1e-6)
        expected = (20, 180, 60) if row_px < 59 and column_px < 79 else (250, 220, 20)
        assert np.abs(section.rgb[row, column].astype(int) - expected).max() <= 1
    axes = section.axes_xyz
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert np.linalg.det(axes) == pytest.approx(1.0)


def test_black_ink_is_not_taken_for_what_the_slide_does_not_cover(specimen, stores, tmp_path):
    placement = tmp_path / "black.placement.json"
    Placement.load(specimen / "slide.placement.json").save(placement)
    tifffile.imwrite(tmp_path / "black.tif", np.zeros((*SLIDE_PX, 3), np.uint8), resolution=(4000, 4000))
    section = load_section(placement, *stores)
    assert (section.rgb == 1).all()


def test_the_state_names_what_neuroglancer_needs(specimen, stores):
    section = load_section(specimen / "slide.placement.json", *stores)
    state = viewer_state(Study("s", stores[1], stores[0], {}, (section,)), root="https://lab.example/x/")
    ct, stain, slide = state["layers"]
    assert ct["source"]["url"] == "zarr3://https://lab.example/x/store0/"
    assert stain["source"]["transform"]["outputDimensions"].keys() == {"c^", "z", "y", "x"}
    assert slide["visible"] is False
    assert state["displayDimensions"] == ["x", "y", "z"]
    assert state["position"] == pytest.approx([10.0 + 39.5 * 5, -5.0 + 29.5 * 5, 2.5 + 14.5 * 5])


def test_an_export_is_a_folder_that_a_web_server_needs_and_nothing_more(specimen, tmp_path):
    out, state = tmp_path / "web", tmp_path / "web.json"
    recipe = ViewRecipe(
        slide=(specimen / "slide.placement.json",), export=out, share_state=state, at="https://lab.example/bone/"
    )
    assert view(specimen / "stained.ome.zarr", recipe=recipe) == out
    page = (out / "v" / "specimen" / "index.html").read_text(encoding="utf-8")
    assert "here:/" in page
    assert "127.0.0.1" not in page
    assert 'url=v/specimen/"' in (out / "index.html").read_text(encoding="utf-8")
    linked = zarr.open_array(out / "v" / "specimen" / "store1" / "0", mode="r")
    assert (np.asarray(linked[:, 3, 4, 5]) == zarr.open_array(specimen / "stained.ome.zarr" / "0")[:, 3, 4, 5]).all()
    assert (out / "v" / "specimen" / "store0").is_symlink()
    assert not (out / "v" / "specimen" / "section0").is_symlink()
    assert runs.read_record(out)["results"]["layers"] == ["CT", "stain"]
    sources = [layer["source"]["url"] for layer in json.loads(state.read_text())["layers"]]
    assert sources[0] == "zarr3://https://lab.example/bone/v/specimen/store0/"


def test_a_shared_state_needs_the_address_of_its_data():
    with pytest.raises(ValueError, match="--at"):
        ViewRecipe(share_state="x.json")


def test_what_cannot_be_shown_is_refused_in_one_sentence(specimen, tmp_path, stores):
    with pytest.raises(FileNotFoundError, match="there is no volume"):
        view(tmp_path / "none.ome.zarr")
    with pytest.raises(ValueError, match="convert it: tomostain convert"):
        view(specimen / "slide.tif")
    with pytest.raises(ValueError, match="holds grey values, not colours"):
        view(specimen / "ct.ome.zarr")
    with pytest.raises(ValueError, match="holds colours, not grey values"):
        view(specimen / "stained.ome.zarr", recipe=ViewRecipe(ct=specimen / "stained.ome.zarr"))
    broken = tmp_path / "broken.ome.zarr"
    shutil.copytree(specimen / "stained.ome.zarr", broken)
    (broken / "zarr.json").write_text('{"zarr_format": 3, "node')
    with pytest.raises(ValueError, match=r"broken\.ome\.zarr") as caught:
        view(broken)
    assert "\n" not in str(caught.value)


def test_a_store_that_is_being_written_or_was_left_is_refused(specimen, tmp_path):
    stained = tmp_path / "stained.ome.zarr"
    shutil.copytree(specimen / "stained.ome.zarr", stained)
    (stained / "run.json").unlink()
    mark = tmp_path / "stained.ome.zarr.unfinished"
    with runs.lock(tmp_path / "stained.ome.zarr", "stain") as lock:
        lock.write()
        with pytest.raises(ValueError, match=r"is being written \(tomostain stain\); wait"):
            view(stained)
    mark.write_text(json.dumps({"step": "stain", "process": 2**22 + 1, "machine": "elsewhere"}))
    with pytest.raises(ValueError, match="was interrupted; run it again"):
        view(stained)


def test_a_placement_of_another_volume_is_refused(specimen, tmp_path, stores):
    other = tmp_path / "other.ome.zarr"
    with create_volume(other, Grid((30, 60, 80), (5.0,) * 3, (2.5, -5.0, 10.0)), dtype=np.float32) as volume:
        volume[0:30, 0:60, 0:80] = np.ones((30, 60, 80), np.float32)
    shown = open_store(other, colours=False)
    with pytest.raises(ValueError, match=r"is a placement in .* another volume than"):
        load_section(specimen / "slide.placement.json", shown, stores[1])
    far = tmp_path / "far.placement.json"
    placement = Placement((10, 10), (900.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 2.0))
    placement.save(far)
    with pytest.raises(ValueError, match="lies outside this volume"):
        load_section(far, *stores)


def test_the_same_volume_elsewhere_is_the_same(specimen, tmp_path, stores):
    copied = tmp_path / "copy.ome.zarr"
    shutil.copytree(specimen / "ct.ome.zarr", copied)
    assert load_section(specimen / "slide.placement.json", open_store(copied, colours=False), stores[1]).name == "slide"


def test_a_slide_that_is_not_found_is_said(specimen, tmp_path, stores):
    lonely = tmp_path / "lonely.placement.json"
    Placement.load(specimen / "slide.placement.json").save(lonely)
    with pytest.raises(FileNotFoundError, match=r"put it beside it, as lonely\.tif"):
        load_section(lonely, *stores)
