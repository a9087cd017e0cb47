"""Landmarks that are set on the page give the plane, lay the slide over it, and are saved as ``register`` reads."""

import base64
import importlib.util
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tomostain import runs
from tomostain.images.geometry import Grid, Placement, Plane
from tomostain.images.image import Volume
from tomostain.images.resample import slide_part
from tomostain.io.ome_zarr import create_volume
from tomostain.io.writers.pyramidal_tiff import write_slide
from tomostain.registration.hints import Hints
from tomostain.registration.landmarks import read_landmarks
from tomostain.steps.landmarks import landmarks
from tomostain.steps.register import RegisterRecipe, register
from tomostain.viewing.landmarks import LandmarkPage, z_plane
from tomostain.viewing.server import serve

SPEC = importlib.util.spec_from_file_location("cut", Path(__file__).parents[1] / "registration" / "cut.py")
cutting = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(cutting)
PLACES_PX = np.array([[20.0, 25.0], [25.0, 150.0], [150.0, 30.0], [160.0, 155.0], [90.0, 85.0], [60.0, 120.0]])


@pytest.fixture(scope="module")
def own():
    return cutting.cut(0)


@pytest.fixture
def shown(own, tmp_path):
    return LandmarkPage(own.ct, own.slide, tmp_path / "points.csv")


def pairs(own, count=6, *, flat=False):
    """True pairs as the page sends them; ``flat`` without the section's bending."""
    truth = own.truth
    if flat:
        truth = Placement(truth.slide_shape, truth.corner_um, truth.step_y_um, truth.step_x_um)
    um = truth.slide_to_volume_um(PLACES_PX)
    names = [f"place {n}" for n in range(len(um))]
    listed = zip(names, PLACES_PX.tolist(), um.tolist(), strict=True)
    return [{"name": name, "slide_px": px, "volume_um": there} for name, px, there in listed][:count]


def answer(shown, name, asked=None):
    return json.loads(shown.site.actions[name](asked or {}).body)


def decoded(reply):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(reply["picture"].partition(",")[2]))))


def test_three_pairs_give_the_plane_and_two_do_not(shown, own):
    found = answer(shown, "fit", {"points": pairs(own, 3, flat=True)})
    assert found["mirrored"] is True
    assert found["tilt_deg"] == pytest.approx(7.0, abs=0.5)
    assert max(found["distance_um"]) < 5.0
    with pytest.raises(ValueError, match="set 3 pairs, well apart; there are 2"):
        shown.site.actions["fit"]({"points": pairs(own, 2)})


def test_a_pair_that_does_not_agree_is_named(shown, own):
    listed = pairs(own, flat=True)
    listed[2]["volume_um"][1] += 300.0
    found = answer(shown, "fit", {"points": listed})
    assert found["outliers"] == ["place 2"]
    assert found["distance_um"][2] == pytest.approx(300.0, rel=0.1)


def test_a_plane_along_z_shows_the_voxels_of_that_depth(shown, own):
    k = 20
    found = answer(shown, "cut", {"z_um": own.ct.grid.origin_um[0] + k * 5.0})
    plane = Plane.from_json(found["plane"])
    assert plane.shape == own.ct.shape[1:]
    assert np.allclose(plane.points_um()[3, 7], [k * 5.0, 15.0, 35.0])
    low, high = shown.window
    expected = np.clip((own.ct[k].astype(float) - low) / (high - low), 0, 1) * 255
    assert np.abs(decoded(found).astype(float)[..., 0] - expected).mean() < 8


def test_the_plane_of_a_volume_with_flat_voxels_covers_it_once():
    plane = z_plane(Grid((4, 10, 30), (20.0, 6.0, 2.0), (0.0, 100.0, 50.0)), 20.0, 2.0)
    assert plane.shape == (30, 30)
    assert plane.points_um()[0, 0].tolist() == [20.0, 98.0, 50.0]
    assert plane.points_um()[-1, -1].tolist() == [20.0, 156.0, 108.0]


def test_the_bent_overlay_meets_the_truth_where_the_flat_one_does_not(shown, own):
    listed = pairs(own)
    plane = answer(shown, "cut", {"points": listed})["plane"]
    points = Plane.from_json(plane).points_um()
    at_px = own.truth.volume_um_to_slide_px(points)
    inside = np.all((at_px > 25) & (at_px < 150), axis=-1)
    near = np.clip(np.round(at_px).astype(int), 0, np.array(own.slide.shape[:2]) - 1)
    true = own.slide[:, :][near[..., 0], near[..., 1]].astype(float)
    error = {}
    for bend in (True, False):
        shown_there = decoded(answer(shown, "overlay", {"points": listed, "plane": plane, "bend": bend}))
        assert (shown_there[inside][:, 3] == 255).all()
        error[bend] = np.abs(shown_there[..., :3].astype(float) - true)[inside].mean()
    assert error[True] < 0.8 * error[False]


def test_a_plane_too_large_to_be_shown_is_refused(shown, own):
    plane = answer(shown, "cut", {"z_um": 50.0})["plane"] | {"shape": [20_000, 20_000]}
    with pytest.raises(ValueError, match="20000 x 20000 px is too large"):
        shown.site.actions["overlay"]({"points": pairs(own), "plane": plane})


def test_what_is_saved_is_read_again_with_names_and_calibration(shown, own):
    listed = pairs(own)
    listed[1]["name"] = 'bone, "edge"'
    assert answer(shown, "save", {"points": listed})["saved"] == 6
    found = read_landmarks(shown.file)
    assert found.names[1] == 'bone, "edge"'
    assert np.allclose(found.slide_px, PLACES_PX)
    assert np.allclose(found.volume_um, [one["volume_um"] for one in listed], rtol=1e-9)
    first = shown.file.read_text().splitlines()[1].split(",")
    assert [float(v) for v in first[-2:]] == (PLACES_PX[0] * cutting.PIXEL_UM).tolist()
    again = json.loads(shown.site.answers["facts"]({}).body)["points"]
    assert again[1]["name"] == 'bone, "edge"'
    assert np.allclose(again[4]["slide_px"], PLACES_PX[4])


@pytest.mark.parametrize(
    "points",
    ["x", [{}], [{"name": "a", "slide_px": [1], "volume_um": [1, 2, 3]}],
     [{"name": "a", "slide_px": [1, float("nan")], "volume_um": [1, 2, 3]}], [{}] * 501],
)  # fmt: skip
def test_what_is_no_list_of_landmarks_is_not_saved(shown, points):
    with pytest.raises(ValueError, match=r"landmark|reshape"):
        shown.site.actions["save"]({"points": points})
    assert not shown.file.exists()


def test_part_of_a_slide_is_shown_where_it_lies(own):
    whole, box = slide_part(own.slide, ((0, own.slide.shape[0]), (0, own.slide.shape[1])), 10_000)
    assert box == ((0, own.slide.shape[0]), (0, own.slide.shape[1]))
    assert np.abs(whole.astype(int) - own.slide[:, :]).max() <= 1
    part, ((top, bottom), (left, right)) = slide_part(own.slide, ((40, 100), (50, 130)), 20)
    factor = (bottom - top) / part.shape[0]
    assert factor == 4.0
    assert (abs(top - 40) <= 4, abs(right - 130) <= 4) == (True, True)
    mean = own.slide[int(top) : int(bottom), int(left) : int(right)].mean()
    assert part.mean() == pytest.approx(mean, abs=8)


def test_a_file_that_holds_no_landmarks_is_refused_before_the_page_is_opened(tmp_path):
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"wrong\.csv lacks the columns slide_y_px"):
        landmarks(tmp_path / "ct.ome.zarr", tmp_path / "slide.tif", wrong)
    with pytest.raises(ValueError, match=r"landmarks are a \.csv file"):
        landmarks(tmp_path / "ct.ome.zarr", tmp_path / "slide.tif", tmp_path / "points.txt")


def test_a_constant_ct_is_shown_without_a_fault(own, tmp_path):
    flat = Volume(np.ones((1, 8, 8), np.float32), Grid((1, 8, 8), (5.0,) * 3), "flat")
    assert LandmarkPage(flat, own.slide, tmp_path / "p.csv").window == (1.0, 2.0)


ON_SCREEN = """([view, at]) => {
  const shown = view === 'slide' ? slide : ct, box = shown.canvas.getBoundingClientRect();
  const place = view === 'slide' ? [at[1], at[0]] : toPlane(at).slice(0, 2);
  const [x, y] = shown.toScreen(place);
  return [box.left + x, box.top + y];
}"""


def wait_for_state(page, text):
    page.locator("#state", has_text=re.compile(text)).wait_for()


def test_pairs_are_clicked_undone_jumped_to_saved_and_register_takes_the_file(own, make_page, tmp_path):
    ct, slide, points = tmp_path / "ct.ome.zarr", tmp_path / "slide.tif", tmp_path / "points.csv"
    with runs.output(ct, "convert"), create_volume(ct, own.ct.grid, dtype=np.float32) as writer:
        writer[0:60, 0:120, 0:120] = own.ct.array
    write_slide(slide, own.slide.array, pixel_um=cutting.PIXEL_UM)
    with serve(LandmarkPage(own.ct, own.slide, points).site) as running, make_page() as page:
        page.goto(running.address)
        page.wait_for_selector("body[data-ready]")
        for number, pair in enumerate(pairs(own), start=1):
            depth = round(pair["volume_um"][0] / 5.0)
            with page.expect_response(re.compile("/cut$")):
                page.locator("#depth").fill(str(depth))
            page.mouse.click(*page.evaluate(ON_SCREEN, ["slide", pair["slide_px"]]))
            page.mouse.click(*page.evaluate(ON_SCREEN, ["ct", pair["volume_um"]]))
            wait_for_state(page, f"^{number} ")
        assert page.locator("#pairs tr").count() == 6
        assert "mirrored" in page.inner_text("#fit")
        page.locator("#pairs tr").nth(5).get_by_text("Remove").click()
        wait_for_state(page, "^5 ")
        page.click("#undo")
        wait_for_state(page, "^6 ")
        page.locator("#pairs input").first.fill("first")
        page.locator("#pairs input").first.press("Tab")
        page.check("#fitted")
        page.locator("#over").fill("60")
        page.locator("#pairs tr").nth(2).get_by_text("Jump").click()
        page.locator("#pairs tr.chosen").wait_for()
        assert page.evaluate("() => slide.centre") == pytest.approx(PLACES_PX[2][::-1].tolist(), abs=1.0)
        page.click("#save")
        wait_for_state(page, "6 landmarks saved")
        assert not page.faults
    saved = read_landmarks(points)
    assert saved.names[0] == "first"
    assert np.abs(saved.slide_px - PLACES_PX).max() < 1.0
    out = tmp_path / "slide.placement.json"
    register(ct, slide, out, recipe=RegisterRecipe(landmarks=points, hints=Hints(elastic=False)))
    assert np.median(cutting.distance_um(Placement.load(out), own.truth)) < 3 * cutting.VOXEL_UM
