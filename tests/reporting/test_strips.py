"""What a reader scrolls through inside a page is the volume: the right planes, at the right places, small enough."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.reporting.strips import strips


def tile(made, which, z):
    """Plane number z of the picture, as it is decoded."""
    file = base64.b64decode(getattr(made, which).partition(",")[2])
    sheet = np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int)
    top, left = z // made.columns * made.tile_px[0], z % made.columns * made.tile_px[1]
    return sheet[top : top + made.shape[1], left : left + made.shape[2]]


def smooth(shape):
    z, y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    return z, y, x


def test_a_small_volume_is_there_plane_by_plane_at_its_own_size():
    shape = (10, 24, 40)
    z, y, x = smooth(shape)
    colours = (np.stack([x, y, z], axis=-1) * 200 + 20).astype(np.uint8)
    grid = Grid(shape, (5.0, 4.0, 4.0), (1.0, 2.0, 3.0))
    made = strips(Volume(colours, grid, "s"), Volume((x * 2).astype(np.float32), grid, "ct"), window=(0.0, 2.0))
    assert (made.shape, made.spacing_um, made.origin_um) == (shape, grid.spacing_um, grid.origin_um)
    for k in (0, 4, 9):
        assert (tile(made, "stained", k) == colours[k]).all()
        assert np.abs(tile(made, "ct", k)[..., 0] - x[k] * 255).max() <= 1


def test_a_large_volume_is_thinned_to_what_a_page_can_hold_and_stays_in_its_place():
    shape = (130, 400, 200)
    z, _, _ = smooth(shape)
    colours = np.repeat((z * 200 + 20).astype(np.uint8)[..., None], 3, axis=-1)
    made = strips(Volume(colours, Grid(shape, (5.0,) * 3), "s"), None, window=(0.0, 1.0))
    assert made.shape == (43, 133, 66)
    assert made.spacing_um == (15.0, 15.0, 15.0)
    assert made.origin_um == (5.0, 5.0, 5.0)
    assert made.ct is None
    for k in (0, 21, 42):
        assert tile(made, "stained", k).mean() == pytest.approx(colours[3 * k + 1].mean(), abs=3)


def test_noise_of_the_demos_size_stays_near_one_megabyte(rng):
    shape = (64, 192, 192)
    colours = rng.integers(90, 160, (*shape, 3), dtype=np.uint8)
    made = strips(Volume(colours, Grid(shape, (5.0,) * 3), "s"), None, window=(0.0, 2.0))
    assert len(made.stained) < 1_500_000
    assert made.tile_px == (192, 192)


def test_where_there_is_no_ct_it_is_grey():
    grid = Grid((4, 20, 20), (5.0,) * 3)
    colours = np.full((*grid.shape, 3), 200, np.uint8)
    ct = Volume(np.ones((4, 20, 10), np.float32), Grid((4, 20, 10), (5.0,) * 3), "ct")
    made = strips(Volume(colours, grid, "s"), ct, window=(0.0, 1.0))
    shown = tile(made, "ct", 2)[..., 0]
    assert (shown[:, :10] == 255).all()
    assert (shown[:, 10:] == 176).all()
