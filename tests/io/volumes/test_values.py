"""What grey values mean and how they are saved: calibrations, colours that are grey, orientation tags, NaN."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from tomostain.images.checking import check_ct
from tomostain.io.volumes import read_volume

UNIT = {"spacing_um": (5, 5, 5)}
LINE = {"cf": 0, "c0": -700.0, "c1": 0.35, "vunit": "mgHA/ccm"}


@pytest.fixture
def raw(rng):
    return rng.integers(0, 65536, (3, 8, 9), dtype=np.uint16)


def imagej(path, values, axes="ZYX", **about):
    about = {"axes": axes, "unit": "um", "spacing": 5.0} | about
    tifffile.imwrite(path, values, imagej=True, resolution=(0.2, 0.2), metadata=about)
    return path


def test_fiji_straight_line_and_unit_are_honoured(tmp_path, raw):
    volume = read_volume(imagej(tmp_path / "a.tif", raw, **LINE))
    np.testing.assert_allclose(volume[:], raw * 0.35 - 700, rtol=1e-6, atol=1e-4)
    assert volume.about["units"] == "mgHA/ccm"
    assert volume.grid.spacing_um == (5.0, 5.0, 5.0)


@pytest.mark.parametrize("unit", [{}, {"vunit": "HU"}, {"vunit": "Gray Value"}])
def test_fiji_signed_16_bit_stacks_come_with_their_sign(tmp_path, raw, unit):
    signed = (raw.astype(np.int32) - 32768).astype(np.int16)
    volume = read_volume(imagej(tmp_path / "a.tif", raw, cf=0, c0=-32768, c1=1, **unit))
    np.testing.assert_array_equal(volume[1:, 2:5], signed[1:, 2:5])
    assert volume.about.get("units") == ("HU" if unit == {"vunit": "HU"} else None)


def test_values_stored_with_their_sign_are_not_shifted_twice(tmp_path, raw):
    signed = (raw.astype(np.int32) - 32768).astype(np.int16)
    about = "ImageJ=1.54f\nimages=3\nslices=3\nunit=um\nspacing=5\ncf=0\nc0=-32768\nc1=1\nvunit=HU\n"
    tifffile.imwrite(tmp_path / "a.tif", signed, photometric="minisblack", metadata=None, description=about)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif", **UNIT)[:], signed)


def test_fiji_calibrates_8_bit_too_and_leaves_32_bit_as_it_is(tmp_path, raw):
    eight = (raw >> 8).astype(np.uint8)
    np.testing.assert_allclose(read_volume(imagej(tmp_path / "a.tif", eight, **LINE))[:], eight * 0.35 - 700, rtol=1e-5)
    volume = read_volume(imagej(tmp_path / "b.tif", raw.astype(np.float32), **LINE))
    np.testing.assert_array_equal(volume[:], raw)
    assert volume.about["units"] == "mgHA/ccm"


def test_a_decimal_comma_is_read_in_fiji_s_numbers(tmp_path, raw):
    volume = read_volume(imagej(tmp_path / "a.tif", raw, **LINE | {"spacing": "2,5", "c0": "-700,0", "c1": "0,35"}))
    np.testing.assert_allclose(volume[:], raw * 0.35 - 700, rtol=1e-6, atol=1e-4)
    assert volume.grid.spacing_um == (2.5, 5.0, 5.0)


@pytest.mark.parametrize(
    ("about", "fault"),
    [
        ({"cf": 1, "c0": 0.0, "c1": 1.0, "c2": 0.1}, "2nd degree polynomial.*Image > Type > 32-bit"),
        ({"cf": 21}, "number 21"),
        ({"cf": 0, "c0": 0, "c1": 2, "zeroclip": "true"}, "clipped at zero"),
        ({"cf": 0, "c0": 0, "c1": 0}, "not a straight line; in Fiji, drop it"),
        ({"cf": 0, "c0": 0, "c1": "two"}, "not a straight line"),
    ],
)
def test_other_calibrations_are_refused_with_the_next_step(tmp_path, raw, about, fault):
    with pytest.raises(ValueError, match=rf"a\.tif is calibrated in ImageJ .*{fault}"):
        read_volume(imagej(tmp_path / "a.tif", raw, vunit="OD", **about))


def test_no_calibration_is_as_stored(tmp_path, raw):
    volume = read_volume(imagej(tmp_path / "a.tif", raw, cf=20))
    assert volume.dtype == np.uint16
    np.testing.assert_array_equal(volume[:], raw)


def test_slices_in_a_folder_keep_their_calibration_and_must_agree_in_it(tmp_path, raw):
    for z, plane in enumerate(raw):
        imagej(tmp_path / f"s{z}.tif", plane, axes="YX", **LINE)
    volume = read_volume(tmp_path)
    np.testing.assert_allclose(volume[:], raw * 0.35 - 700, rtol=1e-6, atol=1e-4)
    assert (volume.about["units"], volume.grid.spacing_um) == ("mgHA/ccm", (5.0, 5.0, 5.0))
    imagej(tmp_path / "s2.tif", raw[2], axes="YX", **LINE | {"c1": 0.5})
    with pytest.raises(ValueError, match=r"s2\.tif is calibrated by 0\.5 x \+ -700, but s0\.tif by 0\.35 x \+ -700"):
        read_volume(tmp_path)


def test_gdal_scale_and_offset_are_honoured(tmp_path, raw):
    items = '<Item name="OFFSET" sample="0" role="offset">-7</Item><Item name="SCALE" role="scale">0,5</Item>'
    extra = [(42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True)]
    tifffile.imwrite(tmp_path / "a.tif", raw, photometric="minisblack", extratags=extra, metadata=None)
    np.testing.assert_allclose(read_volume(tmp_path / "a.tif", **UNIT)[:], raw * 0.5 - 7)


def test_what_the_user_gives_wins_over_a_spacing_that_cannot_be_read(tmp_path, raw):
    path = imagej(tmp_path / "a.tif", raw, spacing="five")
    with pytest.raises(ValueError, match=r"a\.tif has no voxel size; pass --spacing-um z y x"):
        read_volume(path)
    assert read_volume(path, spacing_um=(4, 3, 2)).grid.spacing_um == (4, 3, 2)


GREY_AS_COLOUR = {
    "RGB": lambda p: np.repeat(p[..., None], 3, -1),
    "RGBA": lambda p: np.concatenate([np.repeat(p[..., None], 3, -1), np.full_like(p[..., None], 255)], -1),
    "LA": lambda p: np.stack([p, np.full_like(p, 255)], -1),
}


@pytest.mark.parametrize("mode", GREY_AS_COLOUR)
def test_pictures_whose_colours_are_grey_are_read_as_one_channel(tmp_path, raw, mode):
    eight = (raw >> 8).astype(np.uint8)
    for z, plane in enumerate(eight):
        Image.fromarray(GREY_AS_COLOUR[mode](plane)).save(tmp_path / f"s{z}.png")
    volume = read_volume(tmp_path, **UNIT)
    np.testing.assert_array_equal(volume[1:, 2:6, 3:], eight[1:, 2:6, 3:])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("form", [{}, {"tile": (16, 16), "compression": "zlib"}, {"rowsperstrip": 3}])
def test_tiff_pages_whose_colours_are_grey_are_read_as_one_channel(tmp_path, rng, planar, form):
    raw = rng.integers(0, 65536, (3, 24, 40), dtype=np.uint16)
    colours = np.repeat(raw[:, None] if planar == "separate" else raw[..., None], 3, 1 if planar == "separate" else -1)
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb", planarconfig=planar, **form)
    volume = read_volume(tmp_path / "a.tif", **UNIT)
    np.testing.assert_array_equal(volume[:], raw)
    np.testing.assert_array_equal(volume[1:, 5:21, 7:35], raw[1:, 5:21, 7:35])


def test_grey_with_alpha_and_ome_stacks_in_colours_are_read(tmp_path, raw):
    alpha = np.stack([raw, np.full_like(raw, 65535)], -1)
    tifffile.imwrite(tmp_path / "a.tif", alpha, photometric="minisblack", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif", **UNIT)[:], raw)
    colours = np.repeat(raw[..., None], 3, -1)
    tifffile.imwrite(tmp_path / "a.ome.tif", colours, photometric="rgb", metadata={"axes": "ZYXS"})
    np.testing.assert_array_equal(read_volume(tmp_path / "a.ome.tif", **UNIT)[:], raw)


def test_16_bit_png_in_grey_colours_keeps_all_its_bits(tmp_path, raw):
    imagecodecs = pytest.importorskip("imagecodecs")
    for z, plane in enumerate(raw):
        (tmp_path / f"s{z}.png").write_bytes(imagecodecs.png_encode(np.repeat(plane[..., None], 3, -1)))
    np.testing.assert_array_equal(read_volume(tmp_path, **UNIT)[:], raw)


def test_a_colour_in_a_later_plane_is_an_error_when_it_is_read(tmp_path, rng):
    planes = np.repeat(rng.integers(0, 255, (7, 8, 9, 1), dtype=np.uint8), 3, -1)
    planes[1, 4, 4] = (1, 2, 3)
    for z, plane in enumerate(planes):
        Image.fromarray(plane).save(tmp_path / f"s{z}.png")
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb")
    folder = tmp_path / "slices"
    folder.mkdir()
    for file in tmp_path.glob("*.png"):
        file.rename(folder / file.name)
    for source, name in ((folder, "s1.png"), (tmp_path / "a.tif", "a.tif: page 1")):
        volume = read_volume(source, **UNIT)
        np.testing.assert_array_equal(volume[2:], planes[2:, ..., 0])
        with pytest.raises(ValueError, match=f"{name} holds colours; a CT volume has one grey value a voxel: .*8-bit"):
            volume[0:3]


def test_transparent_pixels_are_refused(tmp_path, raw):
    plane = np.full((8, 9, 2), 255, np.uint8)
    plane[3, 3, 1] = 254
    Image.fromarray(plane).save(tmp_path / "s0.png")
    with pytest.raises(ValueError, match=r"s0\.png has transparent pixels.* save it without alpha"):
        read_volume(tmp_path, **UNIT)


SHOWN = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.T,
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).T,
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("tag", SHOWN)
def test_planes_are_turned_upright_by_their_orientation_tag(tmp_path, raw, tag):
    shown = np.stack([SHOWN[tag](plane) for plane in raw])
    folder = tmp_path / "slices"
    folder.mkdir()
    extra = {"extratags": [(274, "H", 1, tag, True)], "metadata": None, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", raw, **extra)
    for z, plane in enumerate(raw):
        tifffile.imwrite(folder / f"s{z}.tif", plane, **extra)
    for path in (tmp_path / "a.tif", folder):
        volume = read_volume(path, **UNIT)
        np.testing.assert_array_equal(volume[:], shown)
        np.testing.assert_array_equal(volume[1, 2:7, 3:6], shown[1, 2:7, 3:6])
        assert ("orientation" in volume.about) == (tag != 1)


def test_exif_orientation_of_slices_is_honoured(tmp_path):
    plane = np.repeat(np.arange(0, 240, 30, dtype=np.uint8)[:, None], 16, 1)
    exif = Image.Exif()
    exif[274] = 6
    for z in range(2):
        Image.fromarray(plane).save(tmp_path / f"s{z}.png", exif=exif)
    np.testing.assert_array_equal(read_volume(tmp_path, **UNIT)[0], np.rot90(plane, -1))


def test_nan_outside_the_scanned_circle_is_refused_with_the_option_that_fills_it(tmp_path, raw):
    values = raw.astype(np.float32)
    values[:, 0, :2], values[1, 2, 2] = np.nan, -np.inf
    path = imagej(tmp_path / "a.tif", values)
    with pytest.raises(ValueError, match=r"a\.tif has NaN or infinite values, first in plane 0; pass --fill VALUE"):
        check_ct(read_volume(path))
    volume = check_ct(read_volume(path, fill=-1))
    np.testing.assert_array_equal(volume[:], np.where(np.isfinite(values), values, -1))
    assert volume.dtype == np.float32
    np.testing.assert_array_equal(read_volume(imagej(tmp_path / "b.tif", raw), fill=-1)[:], raw)
