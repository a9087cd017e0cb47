"""A stained volume is what the network says plane by plane, whatever the tiles."""

import numpy as np
import pytest

from tomostain.images import read_volume
from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.images.ome_zarr import create_volume
from tomostain.staining.blocks import plan_blocks
from tomostain.staining.local import stain_volume


def neighbours(block):
    """A stand-in network that sees 3 planes and 4 px around: colours from means over all it sees."""
    _, height, width = block.shape
    seen = np.lib.stride_tricks.sliding_window_view(block, (3, 9, 9))[0].mean(axis=(-3, -2, -1))
    assert seen.shape == (height - 8, width - 8)
    return np.round(np.stack([seen, seen / 2, 255 - seen], axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("tile", [None, (64, 64), (32, 100)])
def test_every_voxel_is_painted_from_its_own_neighbourhood(tmp_path, rng, tile):
    values = (rng.integers(0, 64, (70, 90, 110)) * 4).astype(np.float32)
    grid = Grid(values.shape, (5, 5, 5))
    plan = plan_blocks(values.shape, halo_px=4, stride_px=4, planes=3, tile_px=tile)
    with create_volume(tmp_path / "v.ome.zarr", grid, colours=3) as writer:
        met = stain_volume(neighbours, Volume(values, grid, "ct"), plan, writer)
    padded = np.pad(values, ((1, 1), (4, 4), (4, 4)), mode="reflect")
    expected = np.stack([neighbours(padded[z : z + 3]) for z in range(70)])
    np.testing.assert_array_equal(read_volume(tmp_path / "v.ome.zarr")[:, :, :], expected)
    assert met == {"ct_min": 0.0, "ct_max": 252.0}


def test_nan_deep_in_a_volume_names_its_place(tmp_path):
    values = np.zeros((8, 16, 16), np.float32)
    values[5, 3, 7] = np.nan
    grid = Grid(values.shape, (5, 5, 5))
    plan = plan_blocks(values.shape, halo_px=4, stride_px=4, planes=3)

    def run():
        with create_volume(tmp_path / "v.ome.zarr", grid, colours=3) as writer:
            stain_volume(neighbours, Volume(values, grid, "ct.h5"), plan, writer)

    with pytest.raises(ValueError, match=r"ct\.h5 has NaN or infinite values near voxel \(5, 3, 7\)"):
        run()
    with pytest.raises(ValueError, match="did not finish"):
        read_volume(tmp_path / "v.ome.zarr")
