"""Orientation tags: every way of reading a picture shows it upright."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from tomostain.io.contained import scanner
from tomostain.io.contained.seen import Seen, upright_levels
from tomostain.io.orientation import stated_orientation, stored_window, turned
from tomostain.io.slides import read_grey, read_mask, read_picture, read_slide
from tomostain.steps.convert import convert

ORIENTATIONS = range(1, 9)


def stored_as(upright, orientation):
    """The pixels that a file with this tag stores, by the words of TIFF 6.0: where row 0 and column 0 are seen."""
    return {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.swapaxes(0, 1),  # left, top
        6: upright[:, ::-1].swapaxes(0, 1),  # right, top
        7: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
        8: upright[::-1].swapaxes(0, 1),  # left, bottom
    }[orientation]


def save_tiff(path, values, orientation, **layout):
    layout = {"photometric": "rgb" if values.ndim == 3 else "minisblack", "metadata": None} | layout
    tifffile.imwrite(path, values, extratags=[(274, "H", 1, orientation, True)], **layout)
    return path


def exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_pillow_agrees_on_what_upright_is(rgb, orientation):
    picture = Image.fromarray(np.ascontiguousarray(stored_as(rgb, orientation)))
    picture.getexif()[274] = orientation
    np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(picture)), rgb)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_slides_and_pictures_of_every_format_are_upright(tmp_path, rgb, orientation):
    stored = np.ascontiguousarray(stored_as(rgb, orientation))
    save_tiff(tmp_path / "strips.tif", stored, orientation)
    save_tiff(tmp_path / "tiles.tif", stored, orientation, tile=(32, 16), compression="zlib")
    planes = np.ascontiguousarray(np.moveaxis(stored, -1, 0))
    save_tiff(tmp_path / "planar.tif", planes, orientation, planarconfig="separate")
    Image.fromarray(stored).save(tmp_path / "p.png", exif=exif(orientation))
    for name in ("strips.tif", "tiles.tif", "planar.tif", "p.png"):
        slide = read_slide(tmp_path / name, pixel_um=1.0)
        assert slide.grid.shape == (70, 90)
        np.testing.assert_array_equal(slide[:, :], rgb)
        np.testing.assert_array_equal(slide[13:57, 21:88], rgb[13:57, 21:88])
        np.testing.assert_array_equal(read_picture(tmp_path / name), rgb)
        assert (f"tag {orientation}" in str(slide.about["notes"])) is (orientation > 1)
    smooth = np.ascontiguousarray(np.kron(rgb[:7, :9, :1].repeat(3, 2), np.ones((10, 10, 1), np.uint8)))
    turned_smooth = np.ascontiguousarray(stored_as(smooth, orientation))
    Image.fromarray(turned_smooth).save(tmp_path / "p.jpg", exif=exif(orientation), quality=100)
    assert np.abs(read_slide(tmp_path / "p.jpg", pixel_um=1.0)[:, :].astype(int) - smooth).max() < 20
    with pytest.raises(ValueError, match=r"p\.jpg does not state its pixel size"):  # Pillow would say 72 dpi
        read_slide(tmp_path / "p.jpg")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_masks_and_grey_pictures_lie_in_the_frame_of_their_slide(tmp_path, rng, orientation):
    values = rng.integers(0, 3, (20, 30)).astype(np.uint16) * 300
    stored = np.ascontiguousarray(stored_as(values, orientation))
    save_tiff(tmp_path / "m.tif", stored, orientation)
    Image.fromarray(stored).save(tmp_path / "m.png", exif=exif(orientation))
    for name in ("m.tif", "m.png"):
        np.testing.assert_array_equal(read_grey(tmp_path / name), values)
        np.testing.assert_array_equal(read_mask(tmp_path / name) > 0, values > 0)


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path, rgb):
    Image.fromarray(np.ascontiguousarray(stored_as(rgb, 6))).save(tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    chunk = b"eXIf" + exif(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    at = data.rindex(b"IEND") - 4
    (tmp_path / "p.png").write_bytes(data[:at] + chunk + data[at:])
    np.testing.assert_array_equal(read_picture(tmp_path / "p.png"), rgb)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_levels_of_a_pyramid_are_turned_with_the_slide(tmp_path, rng, orientation):
    coarse = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    fine = np.kron(coarse, np.ones((2, 2, 1), np.uint8))
    with tifffile.TiffWriter(tmp_path / "s.tif") as tiff:
        for i, level in enumerate((fine, coarse)):
            tiff.write(
                np.ascontiguousarray(stored_as(level, orientation)), photometric="rgb", metadata=None,
                subfiletype=min(i, 1), extratags=[(274, "H", 1, orientation, True)],
            )  # fmt: skip
    slide = read_slide(tmp_path / "s.tif", pixel_um=1.0)
    assert [level.downsample for level in slide.levels] == [(1, 1), (2, 2)]
    np.testing.assert_array_equal(slide.levels[1].array[3:19, 5:30], coarse[3:19, 5:30])


def test_a_level_that_would_lie_beside_the_turned_slide_is_left_out():
    """Of 41 rows a level of 20 leaves out the last; turned, that is the first, half a pixel of the level."""
    levels = [[41, 60, 1.0, 1.0], [20, 30, 2.0, 2.0]]
    assert [upright_levels(levels, orientation)[1] for orientation in (1, 2, 4)] == [[0, 1], [0, 1], [0]]
    assert upright_levels(levels, 5)[0] == [[60, 41, 1.0, 1.0], [30, 20, 2.0, 2.0]]
    assert upright_levels(levels, 6)[1] == [0]  # what is seen as columns are the rows of the file, last ones first


def test_edges_of_pixels_are_turned_too(tmp_path, rgb):
    save_tiff(
        tmp_path / "s.tif", np.ascontiguousarray(stored_as(rgb, 8)), 8, resolution=(20000, 19000), resolutionunit=3
    )
    assert read_slide(tmp_path / "s.tif").pixel_um == pytest.approx((1e4 / 20000, 1e4 / 19000))


def test_a_converted_slide_is_upright_and_carries_no_tag(tmp_path, rgb):
    save_tiff(tmp_path / "s.tif", np.ascontiguousarray(stored_as(rgb, 7)), 7, resolution=(2e4, 2e4), resolutionunit=3)
    convert(tmp_path / "s.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert 274 not in tiff.pages.first.tags
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif", key=0), rgb)
    np.testing.assert_array_equal(read_slide(tmp_path / "out.tif")[:, :], rgb)


def test_slides_that_openslide_reads_are_upright_where_it_decodes_tiles_as_they_are_stored(tmp_path, rgb):
    stored = np.ascontiguousarray(stored_as(rgb, 6))
    save_tiff(tmp_path / "o.tif", stored, 6, tile=(64, 64), compression="jpeg", compressionargs={"level": 100})
    slide = Seen(scanner.ScannerSlide(str(tmp_path / "o.tif")))
    assert slide.about["levels"][0][:2] == [70, 90]
    seen = read_slide(tmp_path / "o.tif", pixel_um=1.0)
    np.testing.assert_array_equal(slide.read(0, (3, 50, 7, 80)), seen[3:50, 7:80])
    save_tiff(tmp_path / "o.tif", stored, 6, tile=(64, 64))
    with pytest.raises(ValueError, match="its orientation tag 6 turns each of its tiles by itself"):
        scanner.ScannerSlide(str(tmp_path / "o.tif"))


def test_a_tag_that_is_none_is_noted(tmp_path, rgb):
    save_tiff(tmp_path / "s.tif", rgb, 9)
    slide = read_slide(tmp_path / "s.tif", pixel_um=1.0)
    np.testing.assert_array_equal(slide[:, :], rgb)
    assert slide.about["notes"] == ["its orientation tag 9 is none of 1 to 8"]
    assert [stated_orientation(tag)[0] for tag in (0, None, "x", 8)] == [1, 1, 1, 8]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_window_of_the_upright_image_is_one_window_of_the_file(rgb, orientation):
    top, bottom, left, right = stored_window((3, 50, 7, 80), (70, 90), orientation)
    part = stored_as(rgb, orientation)[top:bottom, left:right]
    np.testing.assert_array_equal(turned(part, orientation), rgb[3:50, 7:80])
