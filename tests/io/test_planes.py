"""One plane of CT saved by itself, as a picture or as a volume of one plane."""

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from tomostain.io.planes import read_plane
from tomostain.io.volumes.options import VolumeOptions


@pytest.fixture
def plane(rng):
    return rng.integers(0, 255, (20, 30), dtype=np.uint8)


def test_pictures_and_volumes_of_one_plane_are_read_alike(tmp_path, plane):
    Image.fromarray(plane).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", plane)
    sitk.WriteImage(sitk.GetImageFromArray(plane[None]), str(tmp_path / "a.mha"))
    sitk.WriteImage(sitk.GetImageFromArray(plane), str(tmp_path / "b.nrrd"))
    for name in ("a.png", "a.tif", "a.mha", "b.nrrd"):
        found = read_plane(tmp_path / name, (5.0, 4.0))
        np.testing.assert_array_equal(found[0], plane)
        assert found.grid.spacing_um == (5.0, 5.0, 4.0)


def test_a_calibrated_plane_keeps_its_units_and_its_fill(tmp_path, plane):
    about = {"axes": "YX", "cf": 0, "c0": -10.0, "c1": 2.0, "vunit": "HU"}
    tifffile.imwrite(tmp_path / "a.tif", plane, imagej=True, metadata=about)
    found = read_plane(tmp_path / "a.tif", (5.0, 5.0))
    np.testing.assert_array_equal(found[0], plane * 2.0 - 10)
    assert found.about["units"] == "HU"
    values = plane.astype(np.float32)
    values[3, 3] = np.nan
    tifffile.imwrite(tmp_path / "b.tif", values)
    assert read_plane(tmp_path / "b.tif", (5.0, 5.0), VolumeOptions(fill=7.0))[0, 3, 3] == 7.0


def test_several_planes_are_refused_with_the_command_that_saves_one(tmp_path, plane):
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([plane, plane])), str(tmp_path / "a.mha"))
    with pytest.raises(ValueError, match=r"a\.mha has 2 planes .*tomostain convert a\.mha plane\.tif --planes 0 1"):
        read_plane(tmp_path / "a.mha", (5.0, 5.0))
