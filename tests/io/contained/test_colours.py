"""Colour profiles are applied pixel by pixel; sRGB's own leave every pixel as it is; broken ones are said."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from tomostain.io.contained import scanner
from tomostain.io.contained.colours import ToSrgb
from tomostain.io.contained.seen import Seen
from tomostain.io.slides import read_picture, read_slide
from tomostain.steps.convert import convert

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TO_XYZ = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])
"""A wide space (Adobe RGB's primaries), adapted to D50."""
SRGB_TO_XYZ = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])


def wide_profile(gamma=2.2):
    """An ICC profile of three primaries and a gamma, as scanners embed it (ICC.1:2001)."""

    def fixed(values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, int(gamma * 256))
    text = b"wide\0"
    tags = {
        **{name: b"XYZ \0\0\0\0" + fixed(TO_XYZ[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
        b"wtpt": b"XYZ \0\0\0\0" + fixed((0.9642, 1.0, 0.8249)),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 81,
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
    }
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", at, len(data))
        at, body = at + len(data), body + data
    head = struct.pack(">I4sI4s4s4s6H", at, b"none", 0x02100000, b"scnr", b"RGB ", b"XYZ ", 2026, 1, 1, 0, 0, 0)
    return head + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061) + b"\0" * 48 + table + body


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
