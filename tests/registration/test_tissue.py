"""The box around tissue: glass and air around a section or a specimen have no influence on its registration."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tomostain.images.geometry import Grid, Placement
from tomostain.images.image import Slide, Volume
from tomostain.registration.align import align, placement_of, pose_of
from tomostain.registration.hints import Hints
from tomostain.registration.modality import read_stained, read_target

SPEC = importlib.util.spec_from_file_location("cut", Path(__file__).with_name("cut.py"))
cutting = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(cutting)


@pytest.fixture(scope="module")
def section():
    return cutting.cut(0)


def empty(kind, shape, rgb):
    """A canvas of nothing: white, of the slide's own colours, shaded, of dust, or black."""
    rng = np.random.default_rng(1)
    rows, columns = np.indices(shape)
    if kind == "own tint":
        border = np.concatenate([rgb[:8].reshape(-1, 3), rgb[-8:].reshape(-1, 3)])
        return border[rng.integers(0, len(border), shape)]
    level = {"white": 250.0, "black": 2.0, "dust": 244.0}.get(kind, 235.0)
    canvas = np.full((*shape, 3), level)
    if kind == "shaded":
        canvas += (12 * columns / shape[1] - 10 * rows / shape[0])[..., None]
    if kind == "dust":
        for y, x in rng.uniform(0, 1, (40, 2)) * shape:
            canvas[(rows - y) ** 2 + (columns - x) ** 2 < rng.uniform(1, 9)] = rng.uniform(20, 160, 3)
    return np.clip(canvas + rng.normal(0, 2, canvas.shape) * (kind != "white"), 0, 255).astype(np.uint8)


def on_glass(slide, kind, corner=(90, 110), size=(2, 2)):
    """The slide at ``corner`` of a canvas ``size`` times as large."""
    rgb = np.asarray(slide.array)
    canvas = empty(kind, (rgb.shape[0] * size[0], rgb.shape[1] * size[1]), rgb)
    canvas[corner[0] : corner[0] + rgb.shape[0], corner[1] : corner[1] + rgb.shape[1]] = rgb
    grid = Grid(canvas.shape[:2], slide.grid.spacing_um)
    return Slide(canvas, grid, name=f"{kind}.tif")


@pytest.mark.parametrize("kind", ["white", "black", "shaded", "dust", "own tint"])
@pytest.mark.parametrize(("corner", "size"), [((90, 46), (2, 2)), ((0, 0), (3, 1)), ((0, 184), (1, 2))])
def test_box_is_the_section_wherever_it_lies_on_empty_glass(section, kind, corner, size):
    found = read_stained(on_glass(section.slide, kind, corner, size), cutting.VOXEL_UM).window_px
    shape = section.slide.shape
    off = [edge - (c + np.asarray([0, n])) for edge, c, n in zip(np.asarray(found), corner, shape, strict=False)]
    assert np.abs(off).max() <= (12 if kind == "dust" else 6)
    if kind in ("white", "black"):
        assert np.abs(off).max() <= 2


def test_slide_without_glass_is_taken_whole(section):
    assert read_stained(section.slide, cutting.VOXEL_UM).window_px == ((0, 180), (0, 184))


def test_glass_of_another_tint_beside_the_slides_own_glass_is_left_out_too(section):
    rgb = np.asarray(section.slide.array)
    own = np.full((rgb.shape[0] + 80, rgb.shape[1] + 80, 3), (238, 236, 228), np.uint8)
    own[40:-40, 40:-40] = rgb
    slide = Slide(own, Grid(own.shape[:2], section.slide.grid.spacing_um), name="own")
    (top, bottom), (left, right) = read_stained(on_glass(slide, "white", (60, 60)), cutting.VOXEL_UM).window_px
    np.testing.assert_allclose([top, bottom, left, right], [100, 280, 100, 284], atol=2)


def test_densities_do_not_depend_on_the_glass_around(section):
    plain, wide = (
        read_stained(s, cutting.VOXEL_UM) for s in (section.slide, on_glass(section.slide, "white", (90, 110)))
    )
    assert wide.extent_um == plain.extent_um
    np.testing.assert_allclose(wide.density, plain.density, atol=1e-6)
    np.testing.assert_allclose(wide.um_of([90 + 7, 110 + 9]), plain.um_of([7, 9]))


def test_placement_is_the_same_on_plain_and_on_empty_glass(section):
    target = read_target(section.ct)
    found = {}
    for kind in ("plain", "own tint"):
        corner = (0, 0) if kind == "plain" else (90, 110)
        slide = section.slide if kind == "plain" else on_glass(section.slide, kind, corner)
        stained = read_stained(slide, cutting.VOXEL_UM)
        steps = np.asarray([section.truth.step_y_um, section.truth.step_x_um])
        first = tuple(np.asarray(section.truth.corner_um) - corner @ steps)
        known = Placement(stained.slide_shape, first, section.truth.step_y_um, section.truth.step_x_um)
        near, prior = Hints(prior_within_um=40.0, prior_within_deg=4.0), pose_of(known, stained)
        made = placement_of(align(target, stained, near, prior=prior), stained)
        px = np.stack(np.meshgrid(np.linspace(4, 175, 20), np.linspace(4, 179, 20), indexing="ij"), -1)
        at = made.slide_to_volume_um(px + corner)
        true = np.linalg.norm(at - section.truth.slide_to_volume_um(px), axis=-1)
        found[kind] = (at, float(np.median(true)), made.notes["probability"])
        if kind != "plain":
            assert (made.confidence_at(np.asarray([[5.0, 5.0]])) == 0).all()
            assert made.plane(5.0).shape[0] < 1.1 * section.truth.plane(5.0).shape[0]
    apart = np.linalg.norm(found["own tint"][0] - found["plain"][0], axis=-1)
    assert np.median(apart) < 0.25 * cutting.VOXEL_UM
    assert found["own tint"][1] < found["plain"][1] + 0.25 * cutting.VOXEL_UM


def test_air_around_a_specimen_changes_neither_its_contrast_nor_its_size(rng):
    plain = cutting.cut(0).ct
    values = rng.normal(0.0, 0.05, (100, 240, 200)).astype(np.float32)
    values[20:80, 70:190, 40:160] = plain.array
    wide = read_target(Volume(values, Grid(values.shape, (5.0,) * 3, (-100.0, -350.0, -200.0)), name="wide"))
    own = read_target(plain)
    assert max(np.asarray(wide.values.shape) / own.values.shape) < 1.2
    first = np.round(-np.asarray(wide.grid.origin_um) / 5.0).astype(int)
    same = wide.values[tuple(slice(a, a + n) for a, n in zip(first, own.values.shape, strict=True))]
    np.testing.assert_allclose(same, own.values, atol=0.05, rtol=0.05)
    assert read_target(plain).grid == plain.grid
