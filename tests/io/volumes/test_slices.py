"""A folder of slices: order, gaps, mixtures; and what SkyScan's NRecon leaves in one."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from tomostain.io.volumes import read_volume

UNIT = {"spacing_um": (1, 1, 1)}
LOG = """[System]
Scanner=SkyScan1272
[Acquisition]
Filename Prefix=bone_
Image Pixel Size (um)=8.000000
[Reconstruction]
Reconstruction Program=NRecon
First Section=106
Section to Section Step={step}
Result File Type=BMP
Pixel Size (um)=7.99712
Minimum for CS to Image Conversion=0.000000
Maximum for CS to Image Conversion=0.080000
"""


@pytest.fixture
def skyscan(tmp_path, rng):
    """What NRecon writes: BMP slices with a grey palette, a preview, the log, the projections' own thumbnails."""
    values = rng.integers(0, 256, (5, 20, 30), dtype=np.uint8)
    for z, plane in enumerate(values):
        Image.fromarray(plane).save(tmp_path / f"bone__rec{z + 106:08}.bmp")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "bone__rec_spr.bmp")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "bone_preview.bmp")
    (tmp_path / "bone__rec.log").write_text(LOG.format(step=1))
    return tmp_path, values


def test_natural_order(tmp_path, rng):
    values = rng.integers(0, 999, (12, 20, 30)).astype(np.uint16)
    for z in range(12):
        tifffile.imwrite(tmp_path / f"slice_{z}.TIF", values[z])
    np.testing.assert_array_equal(read_volume(tmp_path, **UNIT)[:], values)


def test_gap_names_the_slice_after_it(tmp_path):
    for z in (0, 1, 2, 4):
        tifffile.imwrite(tmp_path / f"s{z:03}.tif", np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match=r"slices are missing before s004\.tif"):
        read_volume(tmp_path, **UNIT)


def test_every_second_slice_is_no_gap(tmp_path):
    for z in (0, 2, 4):
        tifffile.imwrite(tmp_path / f"s{z:03}.tif", np.full((4, 5), z, np.uint8))
    assert read_volume(tmp_path, **UNIT)[:, 0, 0].tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("odd", "fault"),
    [(np.zeros((4, 6), np.uint8), r"uint8 \(4, 6\)"), (np.zeros((4, 5), np.uint16), r"uint16 \(4, 5\)")],
)
def test_mixtures_name_the_first_odd_file(tmp_path, odd, fault):
    for z in range(4):
        tifffile.imwrite(tmp_path / f"s{z}.tif", odd if z >= 2 else np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match=rf"s2\.tif holds {fault}, but s0\.tif holds uint8 \(4, 5\)"):
        read_volume(tmp_path, **UNIT)


def test_a_broken_slice_is_named(tmp_path):
    for z in range(3):
        tifffile.imwrite(tmp_path / f"s{z}.tif", np.zeros((4, 5), np.uint8))
    (tmp_path / "s1.tif").write_bytes(b"")
    with pytest.raises(ValueError, match=r"s1\.tif cannot be read"):
        read_volume(tmp_path, **UNIT)


def test_an_empty_folder_holds_no_slices(tmp_path):
    with pytest.raises(ValueError, match=r"holds no slices \(\.tif"):
        read_volume(tmp_path, **UNIT)


def test_skyscan_slices_and_pixel_size_are_found(skyscan):
    folder, values = skyscan
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume[:], values)
    assert volume.grid.spacing_um == (7.99712, 7.99712, 7.99712)
    assert volume.about["format"] == "SkyScan folder"
    assert "0.080000" in volume.about["units"]


def test_skyscan_sections_that_were_left_out_widen_z(skyscan):
    folder, _ = skyscan
    (folder / "bone__rec.log").write_text(LOG.format(step=3))
    assert read_volume(folder).grid.spacing_um == pytest.approx((23.99136, 7.99712, 7.99712))


def test_skyscan_log_with_the_scan_alone_gives_its_pixel_size(skyscan):
    folder, _ = skyscan
    (folder / "bone__rec.log").write_text("[Acquisition]\nImage Pixel Size (um)=8.5\n")
    assert read_volume(folder).grid.spacing_um == (8.5, 8.5, 8.5)


def test_skyscan_log_that_is_damaged_asks_for_the_voxel_size(skyscan):
    folder, _ = skyscan
    (folder / "bone__rec.log").write_text("Image Pixel Size (um)=eight\n")
    with pytest.raises(ValueError, match=r"log states a pixel of .eight. um .*pass --spacing-um z y x"):
        read_volume(folder)


def test_colour_pictures_are_no_slices(tmp_path):
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).save(tmp_path / "s0.png")
    with pytest.raises(ValueError, match=r"s0\.png holds colours; .* save these as grey"):
        read_volume(tmp_path, **UNIT)


def test_a_slice_that_is_a_link_out_of_the_folder_is_refused(tmp_path, rng):
    folder = tmp_path / "slices"
    folder.mkdir()
    for z in range(4):
        tifffile.imwrite(folder / f"s{z}.tif", rng.integers(0, 9, (5, 6)).astype("u2"))
    (folder / "s3.tif").rename(tmp_path / "away.tif")
    (folder / "s3.tif").symlink_to(tmp_path / "away.tif")
    with pytest.raises(
        ValueError, match=r"slices: s3\.tif takes its values from s3\.tif, a link to .*away\.tif, outside"
    ):
        read_volume(folder, spacing_um=(1, 1, 1))
