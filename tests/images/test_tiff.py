"""TIFF volumes: values, order, spacing; gaps and mixtures refused by the name of the first bad file."""

import numpy as np
import pytest
import tifffile

from tomostain.images import read_volume


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, ">u2"])
def test_folder_is_read_in_natural_order_with_its_values(tmp_path, rng, dtype):
    values = (rng.random((12, 20, 30)) * 200).astype(dtype)
    for z in range(12):
        tifffile.imwrite(tmp_path / f"slice_{z}.tif", values[z])
    volume = read_volume(tmp_path, spacing_um=(2.0, 1.0, 1.0))
    np.testing.assert_array_equal(volume[:, :, :], values)
    np.testing.assert_array_equal(volume[9:12, 3:7, 5], values[9:12, 3:7, 5])
    np.testing.assert_array_equal(volume[-1], values[-1])
    assert volume.grid.spacing_um == (2.0, 1.0, 1.0)


def test_multi_page_file_is_read_page_by_page(tmp_path, rng):
    values = rng.random((6, 20, 30)).astype(np.float32)
    tifffile.imwrite(tmp_path / "stack.tif", values, photometric="minisblack")
    np.testing.assert_array_equal(read_volume(tmp_path / "stack.tif", spacing_um=(1, 1, 1))[2:5], values[2:5])


def test_imagej_stack_states_its_voxel_size(tmp_path):
    values = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)
    about = {"spacing": 3.0, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "ij.tif", values, imagej=True, resolution=(1 / 2.0, 1 / 2.0), metadata=about)
    assert read_volume(tmp_path / "ij.tif").grid.spacing_um == pytest.approx((3.0, 2.0, 2.0))


def test_no_voxel_size_is_asked_for(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 4, 5), np.uint8), photometric="minisblack")
    with pytest.raises(ValueError, match=r"a\.tif has no voxel size; pass --spacing-um z y x"):
        read_volume(tmp_path / "a.tif")


def test_gap_names_the_slice_after_it(tmp_path):
    for z in (0, 1, 2, 4):
        tifffile.imwrite(tmp_path / f"s{z:03}.tif", np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match=r"slices are missing before s004\.tif"):
        read_volume(tmp_path, spacing_um=(1, 1, 1))


def test_mixed_shapes_name_the_first_odd_file(tmp_path):
    for z, shape in enumerate([(4, 5), (4, 5), (4, 6)]):
        tifffile.imwrite(tmp_path / f"s{z}.tif", np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match=r"s2\.tif holds uint8 \(4, 6\), but s0\.tif holds uint8 \(4, 5\)"):
        read_volume(tmp_path, spacing_um=(1, 1, 1))


def test_colour_slices_are_no_ct(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    with pytest.raises(ValueError, match=r"rgb\.tif holds colours"):
        read_volume(tmp_path / "rgb.tif", spacing_um=(1, 1, 1))


def test_garbage_is_named(tmp_path):
    (tmp_path / "x.tif").write_bytes(b"II*\0not a tiff")
    with pytest.raises(ValueError, match=r"x\.tif cannot be read as TIFF"):
        read_volume(tmp_path / "x.tif", spacing_um=(1, 1, 1))
