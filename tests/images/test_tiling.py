"""Tiles cover everything once, see their whole halo where the image has one, and stay on the network's raster."""

import numpy as np
import pytest

from tomostain.images.tiling import tiles

SHAPE = (83, 131)


@pytest.mark.parametrize("size", [(16, 16), (64, 40), (30, 7), (200, 200)])
@pytest.mark.parametrize("within", [None, (slice(5, 70), slice(33, 131))])
def test_cores_cover_each_pixel_of_the_window_once(size, within):
    seen, expected = np.zeros(SHAPE, int), np.zeros(SHAPE, int)
    expected[within or ...] = 1
    for tile in tiles(SHAPE, size, halo=(8, 8), align=(4, 4), within=within):
        seen[tile.core] += 1
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("least", [(0, 0), (48, 64)])
def test_outer_holds_the_halo_on_the_raster_and_no_more_than_the_image(rng, least):
    image = rng.random(SHAPE)
    for tile in tiles(SHAPE, (30, 17), halo=(8, 12), align=(4, 4), within=(slice(3, 83), slice(0, 131)), least=least):
        np.testing.assert_array_equal(image[tile.outer][tile.inner], image[tile.core])
        for core, outer, halo, length, shortest in zip(tile.core, tile.outer, (8, 12), SHAPE, least, strict=True):
            assert outer.start <= max(core.start - halo, 0)
            assert outer.stop >= min(core.stop + halo, length)
            assert outer.start % 4 == 0
            assert outer.stop == length or outer.stop % 4 == 0
            filled = -(-outer.stop // 4) * 4 - outer.start
            assert filled >= shortest
            if shortest:
                assert filled <= max(shortest, 30 + 2 * halo + 8)


def test_one_size_serves_all_tiles_that_ask_for_it():
    lengths = {
        tuple(-(-o.stop // 4) * 4 - o.start for o in tile.outer)
        for tile in tiles(SHAPE, (32, 32), halo=(8, 8), align=(4, 4), least=(56, 56))
    }
    assert lengths == {(56, 56)}


def test_a_tile_without_pixels_is_refused():
    with pytest.raises(ValueError, match=r"at least one pixel along each axis, not \(0, 32\)"):
        list(tiles((64, 64), (0, 32)))
