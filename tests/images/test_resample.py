"""Planes are cut where they say, and a slide averaged down in linear light lands where its placement says."""

import numpy as np
import pytest
from scipy import ndimage

from tomostain.images.geometry import Grid, Placement, Plane
from tomostain.images.image import Level, Slide, Volume
from tomostain.images.resample import (
    area_average,
    mask_on_plane,
    plane_of,
    sample_volume,
    slide_on_plane,
    to_linear,
    to_srgb,
)


def ramp(grid):
    """A volume whose value is z + 10 y + 100 x of the voxel's place in um."""
    z, y, x = (o + np.arange(n) * s for o, n, s in zip(grid.origin_um, grid.shape, grid.spacing_um, strict=True))
    return (z[:, None, None] + 10 * y[:, None] + 100 * x).astype(np.float32)


def test_srgb_and_linear_light_are_inverse():
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_srgb(to_linear(values)), values)


def test_average_of_black_and_white_is_half_the_light():
    board = np.indices((8, 8)).sum(axis=0) % 2 * 255
    mean = to_srgb(area_average(np.repeat(board[..., None], 3, axis=2).astype(np.uint8), 2))
    assert (mean == 188).all()  # sRGB of half the light, where the mean of the values would be 128


def test_oblique_plane_meets_the_values_at_its_points(ct_grid):
    volume = Volume(ramp(ct_grid), ct_grid, "ramp")
    down, right = np.array([0.2, 0.97, 0.0]), np.array([0.0, 0.0, 1.0])
    plane = Plane((20, 30), 4.0, (50.0, 60.0, 70.0), tuple(down / np.linalg.norm(down)), tuple(right))
    points = plane.points_um()
    expected = points[..., 0] + 10 * points[..., 1] + 100 * points[..., 2]
    np.testing.assert_allclose(plane_of(volume, plane)[0], expected, rtol=1e-5)


def test_slab_is_centred_on_the_plane(ct_grid):
    volume = Volume(ramp(ct_grid), ct_grid, "ramp")
    plane = Plane((5, 5), 5.0, (50.0, 60.0, 70.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    slab = plane_of(volume, plane, planes=3)
    np.testing.assert_allclose(slab[1], plane_of(volume, plane)[0])
    assert abs(slab[2, 0, 0] - slab[1, 0, 0]) == pytest.approx(5.0, rel=1e-4)
    assert slab[0, 0, 0] - slab[1, 0, 0] == pytest.approx(-(slab[2, 0, 0] - slab[1, 0, 0]), rel=1e-4)


def test_outside_the_volume_is_nan(ct_grid):
    values = sample_volume(ramp(ct_grid), ct_grid, np.array([[0.0, -50.0, 0.0], [10.0, 0.0, 20.0]]))
    assert np.isnan(values[0])
    assert values[1] == pytest.approx(10 + 2000, rel=1e-5)


def smooth_slide(shape, pixel_um):
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] * pixel_um
    rgb = np.stack([120 + 60 * np.sin(x / 60), 140 + 50 * np.cos(y / 45), 90 + 40 * np.sin((x + y) / 70)], axis=-1)
    return Slide(np.round(rgb).astype(np.uint8), Grid(shape, (pixel_um, pixel_um)), "slide")


def test_slide_lands_where_its_placement_says():
    slide = smooth_slide((500, 600), 1.0)
    y, x = np.mgrid[0:6, 0:7]
    wave = np.stack([10 * np.sin(x), 10 * np.cos(y)], axis=-1).astype(np.float32)
    placement = Placement((500, 600), (40.0, 5.0, 5.0), (0.1, 0.93, 0.0), (0.0, 0.0, 0.96), 20.0, 100.0, wave)
    plane = placement.plane(5.0)
    rgb, inside = slide_on_plane(slide, placement, plane)
    at = placement.volume_um_to_slide_px(plane.points_um())
    expected = np.stack(
        [
            120 + 60 * np.sin(at[..., 1] / 60),
            140 + 50 * np.cos(at[..., 0] / 45),
            90 + 40 * np.sin((at[..., 0] + at[..., 1]) / 70),
        ],
        axis=-1,
    )
    assert 0.85 < inside.mean() < 1
    error = np.abs(rgb.astype(float) - expected).max(axis=-1)
    off_the_edge = ((at > 10) & (at < np.array([490, 590]))).all(axis=-1)
    assert error[inside & off_the_edge].max() < 1.5
    assert error[inside].max() < 4


def pyramid(rgb, pixel_um):
    """A slide with levels that are halved in linear light, and a note of every window that is read."""
    read, levels, image, factor = [], [], rgb, 1

    class Watched:
        def __init__(self, values, factor):
            self.values, self.shape, self.dtype, self.factor = values, values.shape, values.dtype, factor

        def __getitem__(self, window):
            part = self.values[window]
            read.append((self.factor, part.shape))
            return part

    while min(image.shape[:2]) > 32:
        levels.append(Level(Watched(image, factor), (float(factor),) * 2))
        image, factor = to_srgb(area_average(image, 2)), factor * 2
    grid = Grid(rgb.shape[:2], (pixel_um, pixel_um))
    return Slide(levels[0].array, grid, "slide", levels=tuple(levels)), read


@pytest.mark.parametrize("plane_um", [3.0, 5.0, 9.0, 18.0, 36.0])
def test_averaging_a_finer_level_gives_what_averaging_the_finest_gives(rng, plane_um):
    smooth = ndimage.gaussian_filter(rng.normal(size=(900, 1100, 3)), (9, 9, 0))
    rgb = np.clip(128 + smooth * 2500 + rng.normal(scale=25, size=smooth.shape), 0, 255).astype(np.uint8)
    slide, read = pyramid(rgb, 1.0)
    finest = Slide(slide.array, slide.grid, "finest")
    placement = Placement((900, 1100), (0.0, 3.0, 4.0), (0.1, 0.93, 0.05), (0.0, -0.05, 0.96), 20.0)
    plane = placement.plane(plane_um)
    expected, covered = slide_on_plane(finest, placement, plane)
    read.clear()
    seen, also = slide_on_plane(slide, placement, plane)
    np.testing.assert_array_equal(covered, also)
    inside = ndimage.binary_erosion(covered, iterations=2)
    difference = np.abs(seen.astype(int) - expected)[inside]
    assert difference.mean() < 1.5
    assert np.percentile(difference, 99) < 7
    assert {factor for factor, _ in read} == {{3.0: 1, 5.0: 1, 9.0: 2, 18.0: 4, 36.0: 8}[plane_um]}


def test_plane_pixel_is_the_area_average_of_the_slide_under_it(rng):
    smooth = ndimage.gaussian_filter(rng.normal(size=(240, 360, 3)), (4, 4, 0))
    rgb = np.clip(128 + smooth * 700, 0, 255).astype(np.uint8)
    slide = Slide(rgb, Grid((240, 360), (1.0, 1.0)), "slide")
    placement = Placement((240, 360), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    plane = Plane((20, 30), 12.0, (0.0, 5.5, 5.5), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    seen, covered = slide_on_plane(slide, placement, plane)
    assert covered.all()
    expected = to_srgb(area_average(rgb, 12))
    assert np.abs(seen.astype(int) - expected)[1:-1, 1:-1].mean() < 1.5


def test_slide_is_read_in_windows_and_only_where_the_plane_lies():
    shape = (12000, 9000, 3)
    read = []

    class Huge:
        dtype = np.dtype(np.uint8)

        def __init__(self):
            self.shape = shape

        def __getitem__(self, window):
            rows, columns = (range(*part.indices(n)) for part, n in zip(window, shape, strict=False))
            read.append((rows, columns))
            return np.full((len(rows), len(columns), 3), 77, np.uint8)

    slide = Slide(Huge(), Grid(shape[:2], (1.0, 1.0)), "huge")
    placement = Placement(shape[:2], (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    plane = Plane((800, 600), 5.0, (0.0, 3000.0, 2000.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    rgb, inside = slide_on_plane(slide, placement, plane)
    assert inside.all()
    assert (rgb == 77).all()
    assert max(len(rows) * len(columns) for rows, columns in read) <= 2048**2
    assert 2990 < min(rows.start for rows, _ in read) < max(rows.stop for rows, _ in read) < 7010
    assert 1990 < min(columns.start for _, columns in read) < max(columns.stop for _, columns in read) < 5010


def test_mask_covers_the_same_place_as_its_slide():
    mask = np.zeros((100, 120), np.uint8)
    mask[40:60, 30:90] = 255
    placement = Placement((500, 600), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    share = mask_on_plane(mask, placement, placement.plane(5.0))
    assert share[50, 60] == 1
    assert share[20, 60] == 0
    assert share.sum() == pytest.approx(20 * 60, rel=0.02)
