"""Masks are set where any channel is; grey pictures keep their values."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from tomostain.io.slides import read_grey, read_mask, read_picture


def test_mask_is_set_where_any_channel_is(tmp_path):
    picture = np.zeros((4, 5, 3), np.uint8)
    picture[1, 2, 1] = 200
    Image.fromarray(picture).save(tmp_path / "m.png")
    assert np.argwhere(read_mask(tmp_path / "m.png")).tolist() == [[1, 2]]


def test_sixteen_bit_grey_keeps_its_values(tmp_path):
    values = np.array([[0, 300], [40000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "g.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "g.png"), values)


def test_mask_of_any_mode_is_set_where_it_is_not_zero(tmp_path):
    set_at = np.zeros((4, 5), bool)
    set_at[1, 2] = True
    palette = Image.fromarray(set_at.astype(np.uint8), mode=None).convert("P")
    pictures = {
        "bits.png": Image.fromarray(set_at),
        "sixteen.png": Image.fromarray(set_at.astype(np.uint16) * 300),
        "palette.png": palette,
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
    tifffile.imwrite(tmp_path / "m.tif", set_at.astype(np.uint8))
    for name in [*pictures, "m.tif"]:
        np.testing.assert_array_equal(read_mask(tmp_path / name), np.where(set_at, 255, 0))


def test_float_tiff_keeps_its_values(tmp_path):
    values = np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5)
    tifffile.imwrite(tmp_path / "g.tif", values)
    np.testing.assert_array_equal(read_grey(tmp_path / "g.tif"), values)


def test_grey_kept_as_colours_is_grey_and_colours_are_not(tmp_path, rng):
    values = rng.integers(0, 256, (4, 5), dtype=np.uint8)
    Image.fromarray(np.repeat(values[..., None], 3, axis=2)).save(tmp_path / "g.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "g.png"), values)
    Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(ValueError, match=r"c\.png holds colours, .*; save the one channel to be read as grey"):
        read_grey(tmp_path / "c.png")


@pytest.mark.parametrize("reader", [read_grey, read_mask, read_picture])
def test_what_is_no_picture_is_refused_by_name(tmp_path, reader):
    (tmp_path / "p.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"p\.png cannot be read as a picture"):
        reader(tmp_path / "p.png")
    with pytest.raises(FileNotFoundError, match="there is no picture"):
        reader(tmp_path / "none.png")
