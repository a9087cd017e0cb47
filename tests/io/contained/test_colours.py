"""Colour profiles are applied pixel by pixel; sRGB's own leave every pixel as it is; broken ones are said."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from icc import SRGB_TO_XYZ, TO_XYZ, wide_profile
from tomostain.io.contained import scanner
from tomostain.io.contained.colours import ToSrgb
from tomostain.io.contained.seen import Seen
from tomostain.io.slides import read_picture, read_slide
from tomostain.steps.convert import convert

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def srgb_of(wide, gamma=2.2):
    """The arithmetic of the profile, in double precision."""
    linear = np.clip((wide / 255.0) ** gamma @ TO_XYZ.T @ np.linalg.inv(SRGB_TO_XYZ).T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.fixture
def rgb(rng):
    return rng.integers(60, 200, (70, 90, 3), dtype=np.uint8)


def test_a_profile_is_applied_in_slides_and_pictures_whole_or_by_the_window(tmp_path, rgb):
    rgb = np.ascontiguousarray(np.kron(rgb[:3, :3], np.ones((32, 32, 1), np.uint8))[:70, :90])
    icc, right = wide_profile(), srgb_of(rgb)
    tifffile.imwrite(tmp_path / "s.tif", rgb, photometric="rgb", tile=(32, 32), iccprofile=icc)
    Image.fromarray(rgb).save(tmp_path / "s.png", icc_profile=icc)
    Image.fromarray(rgb).save(tmp_path / "s.jpg", icc_profile=icc, quality=100, subsampling=0)
    assert np.abs(right - rgb).max() > 20
    for name, most in (("s.tif", 1.5), ("s.png", 1.5), ("s.jpg", 3)):
        slide = read_slide(tmp_path / name, pixel_um=1.0)
        seen = slide[:, :]
        assert np.abs(seen - right).max() < most
        np.testing.assert_array_equal(slide[11:60, 5:77], seen[11:60, 5:77])
        np.testing.assert_array_equal(read_picture(tmp_path / name), seen)
        assert slide.about["colours"] == "converted to sRGB from its colour profile wide"
        assert slide.about["colours"] in slide.about["notes"]


def test_levels_are_converted_as_the_slide_is(tmp_path, rgb):
    with tifffile.TiffWriter(tmp_path / "s.tif") as tiff:
        fine = np.kron(rgb, np.ones((2, 2, 1), np.uint8))
        tiff.write(fine, photometric="rgb", metadata=None, iccprofile=wide_profile())
        tiff.write(rgb, photometric="rgb", metadata=None, subfiletype=1)
    slide = read_slide(tmp_path / "s.tif", pixel_um=1.0)
    np.testing.assert_array_equal(slide.levels[1].array[:, :], slide[:, :][::2, ::2])


def test_openslides_profile_is_applied(tmp_path, rgb):
    tifffile.imwrite(
        tmp_path / "s.tif", rgb, photometric="rgb", tile=(64, 64), metadata=None, iccprofile=wide_profile()
    )
    slide = Seen(scanner.ScannerSlide(str(tmp_path / "s.tif")))
    assert np.abs(slide.read(0, (0, 70, 0, 90)) - srgb_of(rgb)).max() < 1.5


def test_srgbs_own_profile_leaves_every_pixel_as_it_is(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "s.png", icc_profile=SRGB)
    slide = read_slide(tmp_path / "s.png", pixel_um=1.0)
    np.testing.assert_array_equal(slide[:, :], rgb)
    assert slide.about["colours"].startswith("sRGB by its colour profile")
    assert slide.about["notes"] == []
    assert ToSrgb(SRGB).is_identity
    assert not ToSrgb(wide_profile()).is_identity


@pytest.mark.parametrize(
    ("icc", "fault"),
    [
        (b"\0" * 300, "cannot be read"),
        (wide_profile()[:200], "cannot be read"),
        (wide_profile().replace(b"RGB ", b"GRAY", 1), "of GRAY colours, not of RGB"),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), "of Lab colours, not of RGB"),
    ],
)
def test_a_profile_that_cannot_be_applied_is_said(tmp_path, rgb, icc, fault):
    tifffile.imwrite(tmp_path / "s.tif", rgb, photometric="rgb", iccprofile=icc)
    with pytest.warns(UserWarning, match=rf"s\.tif embeds a colour profile that .*{fault}.* taken as sRGB"):
        slide = read_slide(tmp_path / "s.tif", pixel_um=1.0)
    np.testing.assert_array_equal(slide[:, :], rgb)


def test_a_gamma_that_is_not_applied_is_said(tmp_path, rgb):
    for gamma in (45455, 100000):
        info = PngImagePlugin.PngInfo()
        info.add(b"gAMA", struct.pack(">I", gamma))
        Image.fromarray(rgb).save(tmp_path / f"{gamma}.png", pnginfo=info)
    assert read_slide(tmp_path / "45455.png", pixel_um=1.0).about["notes"] == []
    with pytest.warns(UserWarning, match=r"100000\.png states a gamma of 1 \(PNG gAMA\), which is not applied"):
        read_slide(tmp_path / "100000.png", pixel_um=1.0)


def test_a_converted_slide_is_srgb_and_says_so(tmp_path, rgb):
    tifffile.imwrite(
        tmp_path / "s.tif", rgb, photometric="rgb", iccprofile=wide_profile(), resolution=(2e4, 2e4), resolutionunit=3
    )
    out = convert(tmp_path / "s.tif", tmp_path / "out.tif")
    np.testing.assert_array_equal(read_slide(out)[:, :], read_slide(tmp_path / "s.tif")[:, :])
    with tifffile.TiffFile(out) as tiff:
        assert tiff.pages.first.iccprofile is None
    assert "converted to sRGB from its colour profile wide" in (tmp_path / "out.tif.run.json").read_text()
