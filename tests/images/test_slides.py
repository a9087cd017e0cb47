"""Slides: lossless pyramids with their pixel size, read by the window, as OpenSlide reads them too."""

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from tomostain.images import read_slide
from tomostain.images.resample import area_average, to_srgb
from tomostain.images.slides import read_grey, read_mask, write_slide


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (700, 900, 3), dtype=np.uint8)


def test_windows_of_a_slide_are_what_was_written(tmp_path, rgb):
    slide = read_slide(write_slide(tmp_path / "s.tif", rgb, pixel_um=0.75))
    np.testing.assert_array_equal(slide[:, :], rgb)
    np.testing.assert_array_equal(slide[250:600, 255:513], rgb[250:600, 255:513])
    assert slide.pixel_um == pytest.approx((0.75, 0.75))


def test_plain_striped_tiff_is_read_by_the_window_too(tmp_path, rgb):
    tifffile.imwrite(
        tmp_path / "s.tif", rgb, photometric="rgb", rowsperstrip=16, resolution=(2e4, 2e4), resolutionunit="CENTIMETER"
    )
    slide = read_slide(tmp_path / "s.tif")
    np.testing.assert_array_equal(slide[37:99, 5:17], rgb[37:99, 5:17])
    assert slide.pixel_um == pytest.approx((0.5, 0.5))


def test_openslide_reads_levels_and_pixel_size(tmp_path, rgb):
    write_slide(tmp_path / "s.tif", rgb, pixel_um=0.75)
    with openslide.OpenSlide(tmp_path / "s.tif") as other:
        assert other.dimensions == (900, 700)
        assert other.level_count == 3
        assert float(other.properties["openslide.mpp-x"]) == pytest.approx(0.75, rel=1e-4)
        np.testing.assert_array_equal(
            np.asarray(other.read_region((300, 200), 0, (50, 40)))[..., :3], rgb[200:240, 300:350]
        )
        level = np.asarray(other.read_region((0, 0), 1, (450, 350)))[..., :3]
    np.testing.assert_array_equal(level, to_srgb(area_average(rgb, 2)))


def test_slide_without_pixel_size_is_refused(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "s.png")
    with pytest.raises(ValueError, match=r"s\.png does not state its pixel size; pass --slide-um"):
        read_slide(tmp_path / "s.png")
    assert read_slide(tmp_path / "s.png", pixel_um=2.0).pixel_um == (2.0, 2.0)


def test_absurd_pixel_size_is_challenged(tmp_path, rgb):
    tifffile.imwrite(tmp_path / "s.tif", rgb, photometric="rgb", resolution=(72, 72), resolutionunit="INCH")
    with pytest.raises(ValueError, match=r"states a pixel size of 352\.778 um, which cannot be"):
        read_slide(tmp_path / "s.tif")


def test_grey_tiff_is_no_slide(tmp_path):
    tifffile.imwrite(tmp_path / "g.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"g\.tif cannot be read as a slide"):
        read_slide(tmp_path / "g.tif", pixel_um=1.0)


def test_mask_is_set_where_any_channel_is(tmp_path):
    picture = np.zeros((4, 5, 3), np.uint8)
    picture[1, 2, 1] = 200
    Image.fromarray(picture).save(tmp_path / "m.png")
    assert np.argwhere(read_mask(tmp_path / "m.png")).tolist() == [[1, 2]]


def test_sixteen_bit_grey_keeps_its_values(tmp_path):
    values = np.array([[0, 300], [40000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "g.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "g.png"), values)
