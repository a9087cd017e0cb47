"""A slide is found where it was cut, from nothing or from a prior, and a stranger is told from it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tomostain.registration.align import align, placement_of, pose_of
from tomostain.registration.coarse import Pose
from tomostain.registration.hints import Hints
from tomostain.registration.modality import read_stained, read_target
from tomostain.registration.quality import placed

SPEC = importlib.util.spec_from_file_location("cut", Path(__file__).with_name("cut.py"))
cutting = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(cutting)


@pytest.fixture(scope="module")
def section():
    return cutting.cut(0)


@pytest.fixture(scope="module")
def found(section):
    target, stained = read_target(section.ct), read_stained(section.slide, cutting.VOXEL_UM)
    return align(target, stained), stained


def test_section_is_found_with_nothing_known(section, found):
    made = placement_of(*found)
    distance = cutting.distance_um(made, section.truth)
    assert np.median(distance) < cutting.VOXEL_UM
    assert np.percentile(distance, 90) < 2.5 * cutting.VOXEL_UM
    true = pose_of(section.truth, found[1])
    assert np.degrees(np.arccos(abs(found[0].fit.pose.normal @ true.normal))) < 1.0
    assert made.notes["mirrored"] == true.mirrored


def test_elastic_field_brings_it_closer_and_folds_nowhere(section, found):
    done, stained = found
    px = np.stack(np.meshgrid(*(np.linspace(0.02, 0.98, 20) * (n - 1) for n in stained.slide_shape), indexing="ij"), -1)
    flat = placed(done.rigid, stained.um_of(px))
    rigid = np.linalg.norm(flat - section.truth.slide_to_volume_um(px), axis=-1)
    bent = cutting.distance_um(placement_of(done, stained), section.truth)
    assert np.median(rigid) > 2.5  # the section is bent by up to 15 um
    assert np.median(bent) < 0.4 * np.median(rigid)
    assert np.percentile(bent, 90) < 0.4 * np.percentile(rigid, 90)
    assert done.jacobian.min() > 0.2


def test_confidence_is_high_where_it_fits_and_zero_off_the_volume(found):
    done, _ = found
    inside = np.isfinite(done.fit.residual)
    assert np.median(done.confidence[inside]) > 0.6
    assert (done.confidence[~inside] == 0).all()
    assert done.confidence.min() >= 0
    assert done.confidence.max() <= 1


def test_prior_is_enough_and_bounds_the_search(section):
    target, stained = read_target(section.ct), read_stained(section.slide, cutting.VOXEL_UM)
    true = pose_of(section.truth, stained)
    off = Pose(true.centre_um + np.asarray([25.0, -40.0, 30.0]), true.axes)
    done = align(target, stained, Hints(prior_within_um=60.0, prior_within_deg=6.0), prior=off)
    assert np.median(cutting.distance_um(placement_of(done, stained), section.truth)) < cutting.VOXEL_UM


def test_a_thick_section_differs_from_a_thin_one():
    found = {}
    for thickness_um in (10.0, 60.0):
        made = cutting.cut(0, thickness_um=thickness_um)
        target, stained = read_target(made.ct), read_stained(made.slide, cutting.VOXEL_UM)
        near, prior = Hints(prior_within_um=30.0, prior_within_deg=3.0), pose_of(made.truth, stained)
        found[thickness_um] = placement_of(align(target, stained, near, prior=prior), stained).thickness_um
    assert found[10.0] <= 20.0
    assert 30.0 <= found[60.0] <= 60.0


@pytest.fixture(scope="module")
def wrong(section):
    """The score of another specimen's slide."""
    return align(read_target(section.ct), read_stained(cutting.cut(7).slide, cutting.VOXEL_UM)).score


def test_slide_of_another_specimen_scores_worse(found, wrong):
    right = found[0].score
    assert wrong.detail < 0.5 * right.detail
    assert wrong.margin < right.margin
    assert wrong.disagreement_um > 2 * right.disagreement_um
    assert right.fault() is None


def test_slide_of_another_specimen_is_refused(wrong):
    assert wrong.fault() is not None


def test_empty_slide_is_refused(section):
    white = np.full((*section.slide.shape[:2], 3), 240, dtype=np.uint8)
    slide = cutting.Slide(white, section.slide.grid, name="white.tif")
    with pytest.raises(ValueError, match="nothing to register"):
        align(read_target(section.ct), read_stained(slide, 5.0))


def test_single_plane_is_matched_in_its_plane(section):
    plane = section.ct.array[30:31]
    ct = cutting.Volume(plane, cutting.Grid(plane.shape, (5.0, 5.0, 5.0)), name="plane")
    level = cutting.truth(section.ct.shape, tilt_deg=0.0, turn_deg=-50.0, mirrored=False, bend_um=6.0)
    labels = cutting.specimen(0)[30]
    px = np.stack(np.indices(level.slide_shape), axis=-1)
    at = np.clip(np.round(level.slide_to_volume_um(px)[..., 1:] / 5.0).astype(int), 0, 119)
    rgb = cutting.COLOURS[labels[at[..., 0], at[..., 1]]].astype(np.uint8)
    stained = read_stained(cutting.Slide(rgb, cutting.Grid(rgb.shape[:2], (2.5, 2.5)), name="s"), 5.0)
    made = placement_of(align(read_target(ct), stained), stained)
    axes = [np.linspace(0.1, 0.9, 15) * (n - 1) for n in level.slide_shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    off = (made.slide_to_volume_um(grid) - level.slide_to_volume_um(grid))[..., 1:]
    assert np.median(np.linalg.norm(off, axis=-1)) < 5.0
    assert made.notes["tilt_deg"] == pytest.approx(0.0, abs=1e-6)
