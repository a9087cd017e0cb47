"""What a registration is judged by: plausible sizes, detail, contrast without metal, and images of a known plane."""

import numpy as np
import pytest

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.registration import quality
from tomostain.registration.coarse import Pose
from tomostain.registration.fine import Schedule, fit, plausible
from tomostain.registration.modality import Stained, Target, read_target
from tomostain.registration.scene import picture, volume_scene


def score(**changed):
    right = {"ratio": 0.9, "detail": 0.7, "margin": 0.4, "disagreement_um": 3.0, "inside": 0.9}
    right |= {"softness": 1.0, "size_um": 1000.0}
    return quality.Score(**{**right, **changed}, voxel_um=5.0, fitted_um=10.0)


def test_sizes_no_section_has_are_brought_back_and_possible_ones_kept():
    how = Schedule(scale=1.05, scale_spread=0.03)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0][:, :2]
    possible = turn @ np.asarray([[1.08, 0.01], [0.01, 1.02]])
    np.testing.assert_allclose(plausible(possible, how), possible, atol=1e-12)
    squeezed = turn @ np.asarray([[0.70, 0.15], [0.15, 1.40]])
    back = plausible(squeezed, how)
    assert np.linalg.norm(back[:, 0]) == pytest.approx(1.05 - 0.12, abs=0.002)
    assert np.linalg.norm(back[:, 1]) == pytest.approx(1.05 + 0.12, abs=0.002)
    # The plane is the same, so no tilt was added.
    np.testing.assert_allclose(np.abs(np.cross(*back.T) @ np.cross(*turn.T)), np.linalg.norm(np.cross(*back.T)))


def test_titanium_does_not_decide_how_much_bone_differs_from_marrow(rng):
    tissue = np.where(rng.random((20, 60, 60)) < 0.4, 1.35, 0.3) + rng.normal(0, 0.03, (20, 60, 60))
    metal = tissue.copy()
    metal[:, 20:50, 20:50] = 11.5 + rng.normal(0, 0.05, (20, 30, 30))
    contrast = []
    for values in (tissue, metal):
        ct = Volume(values.astype(np.float32), Grid(values.shape, (5.0, 5.0, 5.0)), name="ct")
        found = read_target(ct).values
        bone, marrow = (values > 1.0) & (values < 2.0), values < 0.6
        contrast.append(float(np.median(found[bone]) - np.median(found[marrow])))
    assert contrast[0] > 1.2
    assert contrast[1] == pytest.approx(contrast[0], rel=0.1)


def test_detail_is_what_the_colours_predict_elsewhere(rng):
    blobs = np.kron(rng.random((40, 40)) < 0.5, np.ones((4, 4), bool))
    density = np.where(blobs[..., None], (0.5, 0.3, 0.1), (0.1, 0.1, 0.05)).astype(np.float32)
    stained = Stained.whole(density, (5.0, 5.0))
    pose = Pose(np.asarray([0.0, 397.5, 397.5]), np.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    once = Schedule(1, scale=1.0, in_plane_only=True)
    found = {}
    for name, truth in (("own", blobs), ("other", np.kron(rng.random((40, 40)) < 0.5, np.ones((4, 4), bool)))):
        plane = np.where(truth, 1.0, -1.0).astype(np.float32)[None]
        scene = volume_scene(Target(plane, Grid(plane.shape, (5.0, 5.0, 5.0))), 5.0)
        slide = picture(stained, 5.0, classes=4, rich=False)
        found[name] = quality.explained_detail(fit(scene, slide, pose, None, once), scene, slide)
    assert found["own"] > 0.8
    assert abs(found["other"]) < 0.1


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"detail": 0.05, "margin": 0.02}, "explains only 5% of the CT's detail"),
        ({"detail": 0.3, "margin": 0.0, "disagreement_um": 15.0}, "another position fits nearly as well"),
        ({"detail": 0.45, "margin": 0.03, "disagreement_um": 11.0}, "two halves of the slide disagree by 11 um"),
    ],
)
def test_refusal_says_which_number_is_wrong(changed, told):
    assert score().fault() is None
    assert told in score(**changed).fault()


def test_a_slide_that_lies_mostly_outside_the_volume_is_less_probable_and_says_so():
    assert score(inside=0.7).probability == score().probability
    assert score(inside=0.3).probability < score().probability
    weak = {"detail": 0.4, "margin": 0.1, "disagreement_um": 8.0}
    assert score(**weak).fault() is None
    assert "only 20% of the slide lies in the volume" in score(**weak, inside=0.2).fault()


def test_halves_that_agree_are_not_believed_where_no_detail_is_seen():
    agreed = {"disagreement_um": 0.5, "size_um": 6000.0}
    expected = {key: score(**agreed, detail=detail).expected_tre_um for key, detail in (("seen", 0.9), ("not", 0.2))}
    assert expected["seen"] == pytest.approx(np.hypot(0.55, 0.36), rel=1e-6)
    assert expected["not"] == pytest.approx(np.hypot(0.55, 23.04), rel=1e-6)
    assert score(**agreed, detail=0.2).uncertain
    assert not score().uncertain


def test_plane_image_stays_in_its_plane(rng):
    """A fit in the plane alone takes no step out of it, however long it runs."""
    plane = rng.random((1, 80, 80)).astype(np.float32)
    scene = volume_scene(Target(plane, Grid(plane.shape, (5.0, 5.0, 5.0))), 5.0)
    density = np.repeat(plane[0][..., None], 3, axis=2)
    slide = picture(Stained.whole(density, (5.0, 5.0)), 5.0, classes=4, rich=False)
    start = Pose(np.asarray([0.0, 200.0, 194.0]), np.asarray([[0.0, 0.0], [0.98, 0.03], [-0.02, 1.03]]))
    found = fit(scene, slide, start, None, Schedule(20, scale=1.0, scale_spread=0.1, in_plane_only=True))
    np.testing.assert_allclose(found.pose.axes[0], 0.0, atol=1e-9)
    assert found.inside > 0.9
