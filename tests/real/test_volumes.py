"""Real volumes in files that nobody here wrote: what is in them comes out, lazily and as others' code reads it."""

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from tomostain.images.checking import check_ct
from tomostain.io.volumes import read_volume

BONE_UM = (19.5, 19.5, 19.5)


@pytest.fixture
def ct(shared):
    return shared / "data" / "ct"


def test_trabecular_slices_are_read_in_order(ct):
    folder = ct / "trabecular_bone"
    volume = check_ct(read_volume(folder, spacing_um=BONE_UM))
    files = sorted(folder.glob("*.tif"))
    assert volume.shape == (len(files), 200, 200)
    np.testing.assert_array_equal(
        volume[57:59, 20:90, 7], np.stack([tifffile.imread(f) for f in files[57:59]])[:, 20:90, 7]
    )


def test_tooth_keeps_its_floats(ct):
    volume = read_volume(ct / "tooth_recon_2slices_f32.tif", spacing_um=(1, 1, 1))
    assert volume.dtype == np.float32
    np.testing.assert_array_equal(volume[:], tifffile.imread(ct / "tooth_recon_2slices_f32.tif"))


def test_implant_slice_keeps_its_16_bits(ct):
    volume = read_volume(ct / "implant_slice.tiff", spacing_um=(1, 1, 1))
    assert volume.dtype == np.uint16
    np.testing.assert_array_equal(volume[0], tifffile.imread(ct / "implant_slice.tiff"))


def test_jaw_plane_is_a_volume_of_one_plane_without_a_voxel_size(shared):
    path = shared / "data" / "pair" / "rat_jaw" / "ct.mha"
    with pytest.raises(ValueError, match=r"ct\.mha states voxels of 1 x 1 x 1 mm.*pass --spacing-um z y x"):
        read_volume(path)
    volume = read_volume(path, spacing_um=(10.2, 10.2, 10.2))
    assert volume.shape == (1, 700, 851)
    np.testing.assert_array_equal(volume[0], sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
