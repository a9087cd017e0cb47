"""What is written as OME-Zarr is read back by us and by others, and half-written is not an image."""

import numpy as np
import pytest
import yaozarrs
import zarr

from tomostain.images.checking import check_ct
from tomostain.images.geometry import Grid
from tomostain.images.srgb import to_linear, to_srgb
from tomostain.io.ome_zarr import create_volume
from tomostain.io.volumes import read_volume


@pytest.fixture
def colours(rng):
    return rng.integers(0, 256, (40, 70, 90, 3), dtype=np.uint8)


def write(path, grid, values, **settings):
    with create_volume(path, grid, dtype=values.dtype, **settings) as writer:
        writer[0 : grid.shape[0], 0 : grid.shape[1], 0 : grid.shape[2]] = values
    return path


def test_colours_come_back_with_grid_and_stain(tmp_path, ct_grid, colours):
    volume = read_volume(write(tmp_path / "v.ome.zarr", ct_grid, colours, colours=3, stain="toluidine blue"))
    np.testing.assert_array_equal(volume[:, :, :], colours)
    np.testing.assert_array_equal(volume[3, 10:20, 5:9], colours[3, 10:20, 5:9])
    assert volume.grid == ct_grid
    assert volume.stain == "toluidine blue"


def test_other_peoples_code_reads_shape_scale_and_colours(tmp_path, ct_grid, colours):
    path = write(tmp_path / "v.ome.zarr", ct_grid, colours, colours=3)
    yaozarrs.validate_zarr_store(str(path))
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    (node,) = [node for node in Reader(parse_url(str(path)))() if node.data]
    assert node.data[0].shape == (3, 40, 70, 90)
    np.testing.assert_array_equal(np.asarray(node.data[0][:, 7]), np.moveaxis(colours[7], -1, 0))
    assert [axis["name"] for axis in node.metadata["axes"]] == ["c", "z", "y", "x"]
    scale, shift = node.metadata["coordinateTransformations"][0]
    assert scale["scale"][1:] == [5.0, 5.0, 5.0]
    assert shift["translation"][1:] == [2.5, -5.0, 10.0]
    assert node.metadata["channel_names"] == ["red", "green", "blue"]
    np.testing.assert_array_equal(node.metadata["colormap"][0][-1], [1, 0, 0])


def test_coarser_level_is_the_mean_in_linear_light_at_the_right_place(tmp_path, ct_grid, colours):
    path = write(tmp_path / "v.ome.zarr", ct_grid, colours, colours=3)
    coarse = read_volume(f"{path}::1")
    assert coarse.shape == (20, 35, 45, 3)
    assert coarse.grid.spacing_um == (10.0, 10.0, 10.0)
    assert coarse.grid.origin_um == (5.0, -2.5, 12.5)
    expected = to_srgb(to_linear(colours[4:6, 6:8, 8:10]).reshape(-1, 3).mean(axis=0))
    np.testing.assert_array_equal(coarse[2, 3, 4], expected)


def test_labels_are_never_averaged(tmp_path, rng):
    labels = rng.choice([0, 8], (33, 65, 67)).astype(np.uint8)
    path = write(tmp_path / "l.ome.zarr", Grid(labels.shape, (5, 5, 5)), labels, reduce="nearest")
    assert set(np.unique(read_volume(f"{path}::1")[:, :, :])) == {0, 8}


def test_calibrated_values_come_back_in_their_unit(tmp_path, ct_grid):
    stored = np.arange(40 * 70 * 90, dtype=np.uint16).reshape(40, 70, 90)
    settings = {"slope": 0.001, "intercept": -0.2, "units": "1/cm"}
    volume = read_volume(write(tmp_path / "c.ome.zarr", ct_grid, stored, attributes=settings))
    assert volume.dtype == np.float32
    np.testing.assert_allclose(volume[1, 2, 3:5], stored[1, 2, 3:5] * 0.001 - 0.2, rtol=1e-6)


def test_half_written_is_no_image(tmp_path, ct_grid, colours):
    def broken():
        with create_volume(tmp_path / "v.ome.zarr", ct_grid, colours=3) as writer:
            writer[0:10, 0:70, 0:90] = colours[:10]
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        broken()
    with pytest.raises(ValueError, match=r"v\.ome\.zarr has no OME-Zarr metadata; .* did not finish"):
        read_volume(tmp_path / "v.ome.zarr")


def test_no_unit_means_no_guess(tmp_path, ct_grid, colours):
    path = write(tmp_path / "v.ome.zarr", ct_grid, colours, colours=3)
    root = zarr.open_group(path)
    ome = root.attrs["ome"]
    for axis in ome["multiscales"][0]["axes"]:
        axis.pop("unit", None)
    root.attrs["ome"] = ome
    with pytest.raises(ValueError, match=r"v\.ome\.zarr has no voxel size.*--spacing-um z y x"):
        read_volume(path)
    assert read_volume(path, spacing_um=(7.0, 7.0, 7.0)).grid.spacing_um == (7.0, 7.0, 7.0)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (np.zeros((4, 5, 6, 3), np.uint8), "holds colours"),
        (np.full((4, 5, 6), 7.0, np.float32), "is constant"),
        (np.where(np.arange(120).reshape(4, 5, 6) == 77, np.nan, 1.0).astype(np.float32), "first in plane 2"),
    ],
)
def test_what_is_no_ct_is_refused_by_name(tmp_path, values, fault):
    path = write(
        tmp_path / "bad.ome.zarr", Grid(values.shape[:3], (5, 5, 5)), values, colours=3 if values.ndim == 4 else None
    )
    with pytest.raises(ValueError, match=rf"bad\.ome\.zarr .*{fault}"):
        check_ct(read_volume(path))
