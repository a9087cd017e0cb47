"""The register step: a placement that can be used, a page that shows it, and refusals that leave nothing behind."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tomostain import runs
from tomostain.cli import main
from tomostain.images.geometry import Placement
from tomostain.io.ome_zarr import create_volume
from tomostain.io.slides import read_slide
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import VolumeOptions
from tomostain.io.writers.pyramidal_tiff import write_slide
from tomostain.pairs.pair import load_pair
from tomostain.steps.pair import PairRecipe, pair
from tomostain.steps.register import RegisterRecipe, read_reference, register

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
    recipe = RegisterRecipe(
        prior=lab / "prior.placement.json", prior_within_um=60, prior_within_deg=6, report=lab / "page.html"
    )
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
    text = (lab / "page.html").read_text()
    assert "Chequerboard of both" in text
    assert "Displacement" in text
    assert text.count("data:image/png;base64") == 8
    assert "http://" not in text
    assert "https://" not in text


def test_confidence_and_expected_error_travel_into_the_pair(lab, registered):
    recipe = PairRecipe(specimen="S1", placement=registered)
    made = load_pair(pair(lab / "ct.ome.zarr", lab / "slide.tif", lab / "a.pair.zarr", recipe=recipe))
    assert made.notes["expected_tre_um"] == pytest.approx(Placement.load(registered).expected_tre_um)
    inside = made.confidence[made.mask]
    assert inside.min() < 0.9
    assert np.median(inside) > 0.5


def test_stranger_is_refused_and_nothing_is_written(lab, capsys):
    out = lab / "stranger.placement.json"
    status = main(["register", str(lab / "ct.ome.zarr"), str(lab / "stranger.tif"), str(out)])
    told = capsys.readouterr().err
    assert status == 1
    assert "was not registered" in told
    assert "--landmarks" in told
    assert not list(lab.glob("stranger.placement*"))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"around": 900.0}, "outside the volume"),
        ({"prior": Path("nowhere.json")}, "there is no placement"),
        ({"landmarks": Path("nowhere.csv")}, "there are no landmarks"),
    ],
)
def test_faulty_knowledge_is_told(lab, tmp_path, change, fault):
    with pytest.raises((ValueError, FileNotFoundError), match=fault):
        register(lab / "ct.ome.zarr", lab / "slide.tif", tmp_path / "x.placement.json", recipe=RegisterRecipe(**change))
    assert not list(tmp_path.iterdir())


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="not both"):
        RegisterRecipe(prior=Path("a"), landmarks=Path("b"))
    with pytest.raises(ValueError, match="shrinkage"):
        RegisterRecipe(shrinkage=0.9)


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
