"""A cohort on disk is whole, repeatable, and true about itself."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from tomostain.images.geometry import Grid, Placement, Plane
from tomostain.images.resample import slide_on_plane
from tomostain.images.simulated import SIMULATED
from tomostain.io.slides import read_slide
from tomostain.io.volumes import read_volume
from tomostain.phantom import cohort as cohort_module
from tomostain.phantom.cohort import CohortRecipe, plan_cohort, write_cohort, write_specimen
from tomostain.phantom.colours import TOLUIDINE_BLUE, palette, voxel_colours
from tomostain.phantom.morphometry import Morphometer
from tomostain.phantom.tissues import BONE, IMPLANT, Tissue, is_any
from tomostain.runs import fingerprint

RECIPE = CohortRecipe(specimens=2, slides=1, size=(66, 56, 48), materials=("Mg-10Gd", "Ti"), without=("all",), seed=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort") / "cohort"
    write_cohort(out, RECIPE)
    return out


def _entries(folder):
    return json.loads((folder / "cohort.json").read_text())["specimens"]


def test_every_file_that_the_manifest_names_is_there_and_fits(folder):
    for specimen in _entries(folder):
        ct, labels, stain = (read_volume(folder / specimen[key]) for key in ("ct", "labels", "stain_truth"))
        assert ct.grid == labels.grid == stain.grid == Grid((66, 56, 48), (5.0, 5.0, 5.0))
        assert stain.stain == "toluidine blue"
        for slide in specimen["slides"]:
            picture = read_slide(folder / slide["slide"])
            placement = Placement.load(folder / slide["placement"])
            assert picture.shape[:2] == placement.slide_shape
            assert picture.pixel_um == pytest.approx((1.0, 1.0))
            assert np.asarray(Image.open(folder / slide["damage"])).shape == placement.slide_shape
            registered = np.asarray(Image.open(folder / slide["registered"]))
            assert registered.shape[:2] == Plane.from_json(slide["registered_plane"]).shape


def test_the_slide_on_its_true_placement_is_the_registered_truth(folder):
    for specimen in _entries(folder):
        slide = specimen["slides"][0]
        plane = Plane.from_json(slide["registered_plane"])
        placement = Placement.load(folder / slide["placement"])
        averaged, covered = slide_on_plane(read_slide(folder / slide["slide"]), placement, plane)
        true = np.asarray(Image.open(folder / slide["registered"]))
        difference = np.abs(averaged.astype(int) - true)[covered]
        assert difference.mean() < 2.0
        shifted = np.abs(averaged[:, 2:].astype(int) - true[:, :-2])[covered[:, 2:] & covered[:, :-2]]
        assert shifted.mean() > 3 * difference.mean(), "two voxels off would be seen"


def test_ct_labels_and_stain_show_the_same_specimen(folder):
    for specimen in _entries(folder):
        ct, labels, stain = (read_volume(folder / specimen[key])[:] for key in ("ct", "labels", "stain_truth"))
        bone, soft = is_any(labels, BONE), labels == Tissue.MARROW
        assert ct[bone].mean() > ct[soft].mean() + 0.5, "bone attenuates more than marrow, in 1/cm"
        assert stain[bone].mean() < stain[soft].mean() - 20, "and is dyed more"
        metal = labels == Tissue.METAL
        if metal.any():
            assert np.median(stain[metal]) < 20


def test_a_voxel_of_one_tissue_has_its_colour(folder):
    specimen = _entries(folder)[0]
    labels, stain = (read_volume(folder / specimen[key])[:] for key in ("labels", "stain_truth"))
    pure = voxel_colours(np.full((2, 2, 2), Tissue.LAMELLAR, np.uint8), palette(TOLUIDINE_BLUE, "Mg-10Gd"))[0, 0, 0]
    at = labels == Tissue.LAMELLAR
    assert np.all(stain[at] == pure, axis=-1).mean() > 0.4
    np.testing.assert_allclose(np.median(stain[at], axis=0), pure, atol=1)


def test_the_truth_is_what_the_labels_say(folder):
    for specimen in _entries(folder):
        labels = read_volume(folder / specimen["labels"])[:]
        said = json.loads((folder / specimen["truth"]).read_text())["morphometry"]
        tissue = ~is_any(labels, IMPLANT | {Tissue.RESIN, Tissue.GAS})
        assert said["bv_tv"] == pytest.approx(is_any(labels, BONE).sum() / tissue.sum())
        assert said["volume_fractions"]["woven"] == pytest.approx((labels == Tissue.WOVEN).mean())
        assert said["bic"] == pytest.approx(_bic(labels))


def _bic(labels):
    implant, bone = is_any(labels, IMPLANT), is_any(labels, BONE)
    surface = contact = 0
    for axis in range(3):
        for first, second in (((0, -1), (1, None)), ((1, None), (0, -1))):
            here = tuple(slice(*first) if k == axis else slice(None) for k in range(3))
            there = tuple(slice(*second) if k == axis else slice(None) for k in range(3))
            surface += int((implant[here] & ~implant[there]).sum())
            contact += int((implant[here] & bone[there]).sum())
    return contact / surface


def test_morphometry_of_a_coated_ball_is_that_of_a_coated_ball():
    grid = Grid((90, 90, 90), (5.0, 5.0, 5.0))
    z, y, x = np.indices(grid.shape) - 44.5
    radius = np.sqrt(z**2 + y**2 + x**2)
    labels = np.full(grid.shape, Tissue.MARROW, dtype=np.uint8)
    labels[(radius < 40) & (z > 0)] = Tissue.WOVEN
    labels[radius < 30] = Tissue.DEGRADATION
    labels[radius < 20] = Tissue.METAL
    whole, streamed = Morphometer(grid), Morphometer(grid)
    whole.add(labels)
    for start in range(0, 90, 16):
        streamed.add(labels[start : start + 16])
    said = whole.result()
    assert streamed.result() == said, "slabs must not matter"
    assert said["bic"] == pytest.approx(0.5, abs=0.03)
    assert said["degradation_depth_um"]["mean"] == pytest.approx(50.0, abs=2.5)
    assert said["degradation_depth_um"]["max"] == pytest.approx(50.0, abs=7.5)
    assert (
        said["bv_new_tv"]
        == said["bv_tv"]
        == pytest.approx((40**3 - 30**3) * 2 / 3 * np.pi / (90**3 - 36e3 * np.pi), rel=0.01)
    )
    assert said["volume_mm3"] == pytest.approx(0.45**3)


def test_a_volume_without_an_implant_has_no_contact():
    measured = Morphometer(Grid((2, 3, 4), (5.0, 5.0, 5.0)))
    measured.add(np.full((2, 3, 4), Tissue.MARROW, dtype=np.uint8))
    said = measured.result()
    assert said["bic"] is None
    assert said["degradation_depth_um"] == {"mean": 0.0, "max": 0.0}
    with pytest.raises(ValueError, match="0 of 2 planes"):
        Morphometer(Grid((2, 3, 4), (5.0, 5.0, 5.0))).result()


def test_every_fold_holds_every_material():
    plans = plan_cohort(CohortRecipe(specimens=16))
    for fold in range(4):
        materials = [plan.anatomy.material for plan in plans if plan.fold == fold]
        assert sorted(materials) == ["Mg-10Gd", "Mg-5Gd", "PEEK", "Ti"]
    assert {plan.anatomy.weeks for plan in plans} == {4.0, 8.0, 12.0}
    assert len({plan.tomography.photons for plan in plans}) == 16, "the dose varies"


def test_a_small_cohort_has_more_than_one_fold():
    assert len({plan.fold for plan in plan_cohort(CohortRecipe(specimens=3))}) == 3


def test_whole_specimens_are_kept_and_half_written_ones_made_again(folder, tmp_path, monkeypatch):
    plans = plan_cohort(RECIPE)
    out = tmp_path / "cohort"
    write_specimen(out, plans[0])
    before = fingerprint(out / "S00")
    made = []
    make = cohort_module.make_anatomy
    monkeypatch.setattr(cohort_module, "make_anatomy", lambda *a: made.append(a) or make(*a))
    write_specimen(out, plans[0])
    assert not made, "whole: kept"
    (out / "S00" / "truth.json").unlink()
    (out / "S00" / "slides" / "left_over.tif").touch()
    write_specimen(out, plans[0])
    assert len(made) == 1, "half-written: made again"
    assert fingerprint(out / "S00") == before == fingerprint(folder / "S00"), "and the same, byte for byte"
    write_specimen(out, dataclasses.replace(plans[0], damage=2.0))
    assert len(made) == 2, "another recipe: made again"


def test_every_image_of_a_cohort_says_in_its_own_metadata_that_it_is_simulated(folder):
    for specimen in _entries(folder):
        for key in ("ct", "labels", "stain_truth"):
            assert read_volume(folder / specimen[key]).simulated == SIMULATED
        assert read_slide(folder / specimen["slides"][0]["slide"]).simulated == SIMULATED
