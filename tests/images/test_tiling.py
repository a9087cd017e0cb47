"""Tiles cover everything once, see their halo mirrored at the border, and refuse to leave the network's raster."""

import numpy as np
import pytest

from tomostain.images.tiling import tiles


@pytest.mark.parametrize("size", [(16, 16), (64, 40), (200, 200)])
def test_cores_cover_each_pixel_once(size):
    shape, seen = (83, 131), np.zeros((83, 131), int)
    for tile in tiles(shape, size, halo=(8, 8), align=(4, 4)):
        seen[tile.core] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("size", [(16, 16), (64, 40), (200, 200)])
def test_padded_outer_is_the_mirrored_image(rng, size):
    image = rng.random((83, 131))
    mirrored = np.pad(image, 16, mode="reflect")
    for tile in tiles(image.shape, size, halo=(8, 8), align=(4, 4)):
        block = tile.padded(image[tile.outer])
        top, left = (part.start - 8 + 16 for part in tile.core)
        np.testing.assert_array_equal(block, mirrored[top : top + block.shape[0], left : left + block.shape[1]])
        np.testing.assert_array_equal(block[tile.inner], image[tile.core])
        assert all(n % 4 == 0 for n in block.shape)


def test_tile_off_the_raster_is_refused():
    with pytest.raises(ValueError, match="tile size 30 is not a multiple of the network's stride 4"):
        list(tiles((64, 64), (32, 30), halo=(8, 8), align=(4, 4)))
