"""Images as hard as soft tissue: what one of them does not show bends nothing, and inverting changes nothing."""

import numpy as np
import pytest

from tomostain.images.geometry import Grid
from tomostain.images.image import Slide
from tomostain.phantom.section_pair import HardRecipe, hard_pair
from tomostain.registration.align import pose_of
from tomostain.registration.coarse import Pose
from tomostain.registration.field import Field
from tomostain.registration.fine import Schedule, fit
from tomostain.registration.modality import Stained, Target, read_stained, read_target
from tomostain.registration.quality import placed
from tomostain.registration.scene import picture, volume_scene
from tomostain.registration.softness import SOFTNESSES, best_softness

SMALL = {"shape": (110, 140), "pixel_um": 16.0}
PLANE = Schedule(8, scale=1.0, scale_spread=0.1, in_plane_only=True)


def test_the_same_seed_gives_the_same_pair_and_difficulties_move_no_tissue():
    one, again = (hard_pair(3, **SMALL) for _ in range(2))
    np.testing.assert_array_equal(one.ct.array, again.ct.array)
    np.testing.assert_array_equal(one.slide[:, :], again.slide[:, :])
    easy = hard_pair(3, HardRecipe(unseen=0, air=0, lost=0, uneven=0), **SMALL)
    np.testing.assert_array_equal(easy.tissue, one.tissue)
    np.testing.assert_array_equal(easy.truth.displacement_um, one.truth.displacement_um)
    assert (np.abs(easy.ct.array - one.ct.array) > 0.2).mean() > 0.005  # air


def test_an_inverted_grey_slide_has_the_same_densities_but_for_the_sign():
    grey = hard_pair(1, HardRecipe(inverted_grey=True), **SMALL).slide
    values = np.asarray(grey[:, :])
    back = Slide(255 - values, grey.grid, name="grey")
    one, other = read_stained(grey, 16.0), read_stained(back, 16.0)
    assert one.window_px == other.window_px
    np.testing.assert_allclose(one.density + other.density, 1.0, atol=1e-6)


@pytest.mark.parametrize(("bend_um", "expected"), [(0.0, min(SOFTNESSES)), (30.0, max(SOFTNESSES))])
def test_a_section_is_soft_only_where_it_was_bent(rng, bend_um, expected):
    blobs = np.kron(rng.random((40, 40)) < 0.5, np.ones((4, 4), bool))
    y, x = np.indices((160, 160))
    at = [np.clip(np.round(y + bend_um / 5 * np.sin(x / 18)).astype(int), 0, 159), x]
    stained = Stained.whole(np.where(blobs[*at][..., None], (0.5, 0.3, 0.1), 0.1).astype(np.float32), (5.0, 5.0))
    plane = (np.where(blobs, 1.0, -1.0) + 0.3 * rng.standard_normal((160, 160))).astype(np.float32)
    scene = volume_scene(Target(plane[None], Grid((1, 160, 160), (5.0, 5.0, 5.0))), 5.0)
    slide = picture(stained, 5.0, classes=4, rich=False)
    pose = Pose(np.asarray([0.0, 397.5, 397.5]), np.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    start = fit(scene, slide, pose, None, PLANE)
    assert best_softness(scene, slide, start, Field.flat(stained.extent_um, 100.0), PLANE) == expected


def test_truth_is_where_the_two_images_match():
    pair = hard_pair(5, HardRecipe(unseen=0, air=0, lost=0, uneven=0, noise=0.01), **SMALL)
    target, stained = read_target(pair.ct), read_stained(pair.slide, 16.0)
    scene, slide = volume_scene(target, 16.0), picture(stained, 16.0)
    true = pose_of(pair.truth, stained)
    found = fit(scene, slide, true, Field.flat(stained.extent_um, 250.0), PLANE)
    px = np.ascontiguousarray(np.argwhere(pair.tissue)[::40]).astype(np.float64)
    off = np.linalg.norm(placed(found, stained.um_of(px)) - pair.truth.slide_to_volume_um(px), axis=1)
    assert np.median(off) < 16.0


def test_stretched_tones_keep_their_classes_of_rank(rng):
    density = (rng.permutation(64 * 64).reshape(64, 64, 1) / 64**2).repeat(3, axis=2).astype(np.float32)
    maps = [
        picture(Stained.whole(tones, (5.0, 5.0)), 5.0, classes=6, rich=False, ranked=True).features[:, :6]
        for tones in (density, density**2)
    ]
    # The spread of the tones, by which ranks are scaled, differs; where the classes part is then rounded differently.
    assert (maps[0] == maps[1]).mean() > 0.98
