"""The register step: a placement that can be used, a page that shows it, and refusals that leave nothing behind."""

import dataclasses
import html
import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tomostain import runs
from tomostain.cli import main
from tomostain.images.geometry import Placement
from tomostain.io.ome_zarr import create_volume
from tomostain.io.reference import read_reference
from tomostain.io.slides import read_slide
from tomostain.io.tables import read_table
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import VolumeOptions
from tomostain.io.writers.pyramidal_tiff import write_slide
from tomostain.pairs.pair import load_pair, make_pair
from tomostain.pairs.table import rows_of_table
from tomostain.registration import quality
from tomostain.registration.align import align, placement_of, pose_of
from tomostain.registration.hints import Hints
from tomostain.registration.modality import read_stained, read_target
from tomostain.registration.prior import start_of
from tomostain.registration.slide import Outcome
from tomostain.reporting.registration import is_refused_page
from tomostain.steps.pair import PairRecipe, pair
from tomostain.steps.register import RegisterRecipe, register

SPEC = importlib.util.spec_from_file_location("cut", Path(__file__).parents[1] / "registration" / "cut.py")
cutting = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(cutting)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with a CT, a slide that was cut from it, a stranger, and a rough prior."""
    folder = tmp_path_factory.mktemp("lab")
    own = cutting.cut(0)
    with create_volume(folder / "ct.ome.zarr", own.ct.grid, dtype=np.float32) as writer:
        writer[0:60, 0:120, 0:120] = own.ct.array
    write_slide(folder / "slide.tif", own.slide.array, pixel_um=cutting.PIXEL_UM)
    write_slide(folder / "stranger.tif", cutting.cut(7).slide.array, pixel_um=cutting.PIXEL_UM)
    own.truth.save(folder / "truth.placement.json")
    prior = Placement(
        own.truth.slide_shape, tuple(np.add(own.truth.corner_um, 20.0)), own.truth.step_y_um, own.truth.step_x_um
    )
    prior.save(folder / "prior.placement.json")
    return folder


@pytest.fixture(scope="module")
def registered(lab):
    hints = Hints(prior_within_um=60, prior_within_deg=6)
    recipe = RegisterRecipe(prior=lab / "prior.placement.json", hints=hints, report=lab / "page.html")
    return register(lab / "ct.ome.zarr", lab / "slide.tif", lab / "slide.placement.json", recipe=recipe)


def test_placement_is_true_and_says_how_sure_it_is(lab, registered):
    made, truth = Placement.load(registered), Placement.load(lab / "truth.placement.json")
    assert np.median(cutting.distance_um(made, truth)) < cutting.VOXEL_UM
    assert 0 < made.expected_tre_um < 5 * cutting.VOXEL_UM
    assert made.notes["probability"] > 0.5
    record = json.loads(runs.record_path(registered).read_text())
    assert record["results"]["mirrored"] is True
    px = np.asarray([[20.0, 30.0], [100.0, 90.0]])
    np.testing.assert_allclose(made.volume_um_to_slide_px(made.slide_to_volume_um(px)), px, atol=0.01)


def test_page_shows_it_without_reaching_for_the_net(lab, registered):
    text = (lab / "page.html").read_text(encoding="utf-8")
    assert "Chequerboard of both" in text
    assert "Displacement" in text
    assert text.count("data:image/png;base64") == 8 + 2
    assert text.count("<polygon") == 3
    assert "REFUSED" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_confidence_and_expected_error_travel_into_the_pair(lab, registered):
    recipe = PairRecipe(specimen="S1", placement=registered)
    made = load_pair(pair(lab / "ct.ome.zarr", lab / "slide.tif", lab / "a.pair.zarr", recipe=recipe))
    assert made.notes["expected_tre_um"] == pytest.approx(Placement.load(registered).expected_tre_um)
    inside = made.confidence[made.mask]
    assert inside.min() < 0.9
    assert np.median(inside) > 0.5


@pytest.fixture(scope="module")
def refused(lab):
    """The words of a refusal and its page: another specimen's slide."""
    out = lab / "stranger.placement.json"
    with pytest.raises(ValueError, match="not registered") as fault:
        register(lab / "ct.ome.zarr", lab / "stranger.tif", out)
    return str(fault.value), (lab / "stranger.placement.html").read_text(encoding="utf-8")


def test_slide_of_another_specimen_is_refused_with_its_page_alone(lab, refused):
    told, page = refused
    assert "pixel size of the slide or the voxel size of the CT is wrong" in told
    assert "another specimen" in told
    assert "--landmarks" in told
    assert "stranger.placement.html" in told
    assert [path.name for path in lab.glob("stranger.placement*")] == ["stranger.placement.html"]
    assert "REFUSED" in page


def test_command_of_a_refused_page_tries_the_place_that_is_shown(lab, refused, monkeypatch):
    commands = re.findall(r"<code>(tomostain register .*?)</code>", refused[1])
    assert 1 <= len(commands) <= 6
    assert refused[1].count("data:image/png;base64") == 2 + 8 + 2 * len(commands)
    asked = []
    monkeypatch.setattr(
        "tomostain.steps.register.register_slide",
        lambda ct, slide, known, progress: asked.append(known) or pytest.fail("stop"),
    )
    with pytest.raises(pytest.fail.Exception):
        main(shlex.split(html.unescape(commands[0]))[1:])
    (known,) = asked
    stained = read_stained(read_slide(lab / "stranger.tif"), cutting.VOXEL_UM)
    pose = start_of(stained, known).pose
    shown = re.search(r"<h3>1. Depth (\d+) um, tilt ([\d.]+) degrees", refused[1])
    assert pose.centre_um[0] == pytest.approx(float(shown[1]), abs=1)
    assert pose.tilt_deg == pytest.approx(float(shown[2]), abs=0.2)
    assert pose.mirrored == known.hints.mirrored
    assert known.hints.prior_within_um == 100


def test_page_of_a_refused_slide_may_be_replaced_and_no_other(lab, refused, tmp_path):
    page = tmp_path / "a.placement.html"
    page.write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="exists"):
        register(lab / "ct.ome.zarr", lab / "slide.tif", tmp_path / "a.placement.json")
    assert not is_refused_page(page)
    assert is_refused_page(lab / "stranger.placement.html")


def test_an_unsure_placement_asks_to_be_checked_everywhere(lab, registered, monkeypatch, tmp_path):
    placement = Placement.load(registered)
    doubtful = placement.expected_tre_um > quality.MOST_EXPECTED * cutting.VOXEL_UM
    assert placement.notes["check"] is (placement.notes["probability"] < quality.CHECKED or doubtful)
    unsure = dataclasses.replace(placement, notes=placement.notes | {"check": True, "probability": 0.6})
    file = unsure.save(tmp_path / "unsure.placement.json")
    with pytest.warns(UserWarning, match="check by eye"):
        made = make_pair(
            read_volume(lab / "ct.ome.zarr"),
            read_slide(lab / "slide.tif"),
            Placement.load(file),
            specimen="S",
            name="a",
        )
    assert made.notes["check"] is True
    score = quality.Score(0.9, 0.45, 0.2, 4.0, 1.0, 1000.0, 0.9, 5.0, 5.0)
    assert quality.ACCEPTED <= score.probability < quality.CHECKED
    assert score.uncertain


def test_many_slides_are_registered_from_a_table_and_the_rest_goes_on(lab, tmp_path, monkeypatch, capsys):
    """One slide in three cannot be read; what is done is not done again; the result is a table for `pair`."""
    table = lab / "slides.csv"
    (lab / "broken.tif").write_bytes(b"II*\0 nothing")
    lines = ["volume,slide,specimen,name", "ct.ome.zarr,slide.tif,S1,a", "ct.ome.zarr,broken.tif,S1,b"]
    table.write_text("\n".join([*lines, "ct.ome.zarr,slide.tif,S2,c"]) + "\n", encoding="utf-8")
    calls = []
    target = read_target(read_volume(lab / "ct.ome.zarr"))

    def quick(ct, slide, known, progress):
        calls.append(slide.name)
        stained = read_stained(slide, cutting.VOXEL_UM)
        done = align(target, stained, Hints(elastic=False), prior=pose_of(truth, stained))
        return Outcome(slide.name, target, stained, placement_of(done, stained), done, None, None)

    truth = Placement.load(lab / "truth.placement.json")
    monkeypatch.setattr("tomostain.steps.register.register_slide", quick)
    assert main(["register", str(table), str(tmp_path / "out")]) == 0
    assert "2 of 3 slides were placed" in capsys.readouterr().err
    assert main(["register", str(table), str(tmp_path / "out")]) == 0
    assert calls == ["slide.tif", "slide.tif"]
    rows = rows_of_table(tmp_path / "out" / "pairs.csv", PairRecipe())
    assert [(row.name, row.recipe.specimen) for row in rows] == [("a", "S1"), ("c", "S2")]
    every = read_table(tmp_path / "out" / "registrations.csv")[1]
    assert [line["status"] for _, line in every] == ["placed", "refused", "placed"]
    assert float(every[0][1]["probability"]) > 0
    assert "broken.tif" in every[1][1]["fault"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"hints": Hints(around=900.0)}, "outside the volume"),
        ({"prior": Path("nowhere.json")}, "there is no placement"),
        ({"landmarks": Path("nowhere.csv")}, "there are no landmarks"),
        ({"check": True}, "--check checks a table"),
    ],
)
def test_faulty_hints_are_reported(lab, tmp_path, change, fault):
    with pytest.raises((ValueError, FileNotFoundError), match=fault):
        register(lab / "ct.ome.zarr", lab / "slide.tif", tmp_path / "x.placement.json", recipe=RegisterRecipe(**change))
    assert not list(tmp_path.iterdir())


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="use only one of --prior"):
        RegisterRecipe(prior=Path("a"), landmarks=Path("b"))
    with pytest.raises(ValueError, match="shrinkage"):
        RegisterRecipe(hints=Hints(shrinkage=0.9))


def test_one_image_is_a_volume_of_one_plane(lab, tmp_path, rng):
    grey = rng.integers(0, 255, (30, 40), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "plane.png")
    plane = read_reference(tmp_path / "plane.png", VolumeOptions(spacing_um=(10.0, 12.0)))
    assert plane.shape == (1, 30, 40)
    assert plane.grid.spacing_um[1:] == (10.0, 12.0)
    np.testing.assert_array_equal(plane[0], grey)
    with pytest.raises(ValueError, match="pass --spacing-um y x"):
        read_reference(tmp_path / "plane.png")
    assert read_reference(lab / "ct.ome.zarr").shape == read_volume(lab / "ct.ome.zarr").shape
    assert read_slide(lab / "slide.tif").pixel_um == pytest.approx((2.5, 2.5))
