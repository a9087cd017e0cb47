"""Slides: lossless pyramids with their pixel size, read by the window, as OpenSlide reads them too."""

import struct
import sys
from typing import ClassVar

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from tomostain.images.resample import area_average
from tomostain.images.srgb import to_srgb
from tomostain.io.contained import scanner
from tomostain.io.slides import read_grey, read_mask, read_slide
from tomostain.io.writers.pyramidal_tiff import write_slide


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
    with pytest.raises(ValueError, match=r"s\.tif states 72 dots per inch .* not a pixel size; pass --slide-um"):
        read_slide(tmp_path / "s.tif")
    tifffile.imwrite(tmp_path / "s.tif", rgb, photometric="rgb", resolution=(10, 10), resolutionunit="CENTIMETER")
    with pytest.raises(
        ValueError, match=r"states a pixel size of 1000 x 1000 um .* which is not possible; pass --slide-um"
    ):
        read_slide(tmp_path / "s.tif")
    tifffile.imwrite(tmp_path / "s.tif", rgb, photometric="rgb", resolution=(1e4, 2e4), resolutionunit="CENTIMETER")
    with pytest.raises(ValueError, match=r"states pixels of 0\.5 x 1 um .* far from square; pass --slide-um"):
        read_slide(tmp_path / "s.tif")
    assert read_slide(tmp_path / "s.tif", pixel_um=0.5).about["pixel_from"] == "--slide-um"
    with pytest.raises(ValueError, match=r"--slide-um must be a positive number for s\.tif, got -1"):
        read_slide(tmp_path / "s.tif", pixel_um=-1.0)


def test_a_given_pixel_size_that_is_absurd_or_not_the_files_is_challenged_and_taken(tmp_path, rgb):
    write_slide(tmp_path / "s.tif", rgb, pixel_um=0.5)
    with pytest.warns(UserWarning, match=r"s\.tif: --slide-um 500 is used, .* in micrometres\?"):
        assert read_slide(tmp_path / "s.tif", pixel_um=500).pixel_um == (500, 500)
    with pytest.warns(UserWarning, match=r"s\.tif states pixels of 0\.5 x 0\.5 um .*; --slide-um 0\.7 is used instead"):
        assert read_slide(tmp_path / "s.tif", pixel_um=0.7).pixel_um == (0.7, 0.7)
    read_slide(tmp_path / "s.tif", pixel_um=0.51)


def test_ome_xml_of_another_size_than_its_page_is_doubted(tmp_path, rgb):
    path = write_slide(tmp_path / "s.ome.tif", rgb, pixel_um=0.5, ome=True)
    path.write_bytes(path.read_bytes().replace(b'SizeX="900"', b'SizeX="901"'))
    with pytest.warns(UserWarning, match=r"s\.ome\.tif states in its OME-XML that it is 700 x 901 px, .* 700 x 900"):
        read_slide(path)


def test_a_png_whose_checksum_is_wrong_is_refused(tmp_path, rgb):
    Image.fromarray(rgb[:20, :30]).save(tmp_path / "s.png", compress_level=0)
    data = bytearray((tmp_path / "s.png").read_bytes())
    data[data.index(b"IDAT") + 100] ^= 4
    (tmp_path / "s.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"s\.png cannot be read at 0, 0 px: .*checksum"):
        read_slide(tmp_path / "s.png", pixel_um=1.0)[:, :]


@pytest.mark.parametrize(
    ("values", "photometric", "fault"),
    [
        (np.zeros((8, 8), np.uint8), "miniswhite", "its colours are miniswhite, a slide is RGB"),
        (np.zeros((8, 8), np.uint16), "minisblack", "holds 16-bit colours; a slide is 8-bit RGB"),
        (np.zeros((2, 8, 8), np.uint8), "minisblack", "it holds 2 grey planes of one size; a slide is one picture"),
        (np.zeros((8, 8, 3), np.uint16), "rgb", "holds 16-bit colours; a slide is 8-bit RGB"),
        (np.zeros((8, 8, 4), np.uint8), "separated", "its colours are separated"),
    ],
)
def test_what_is_not_8_bit_rgb_is_no_slide(tmp_path, values, photometric, fault):
    tifffile.imwrite(tmp_path / "g.tif", values, photometric=photometric, planarconfig=None)
    with pytest.raises(ValueError, match=rf"g\.tif cannot be read as a slide: .*{fault}"):
        read_slide(tmp_path / "g.tif", pixel_um=1.0)


@pytest.mark.parametrize(
    "layout",
    [
        {"tile": (64, 64), "compression": "jpeg2000"},
        {"tile": (64, 64), "compression": "lzw", "predictor": True},
        {"tile": (64, 64), "planarconfig": "separate"},
        {"rowsperstrip": 16, "compression": "zlib", "planarconfig": "separate"},
        {"bigtiff": True, "byteorder": ">", "tile": (64, 64), "compression": "zstd"},
        {"byteorder": ">"},
    ],
)
def test_every_layout_of_tiff_gives_the_same_pixels(tmp_path, rgb, layout):
    separate = layout.get("planarconfig") == "separate"
    stored = np.ascontiguousarray(np.moveaxis(rgb, -1, 0)) if separate else rgb
    byteorder, big = layout.pop("byteorder", None), layout.pop("bigtiff", False)
    with tifffile.TiffWriter(tmp_path / "s.tif", byteorder=byteorder, bigtiff=big) as tiff:
        tiff.write(stored, photometric="rgb", **layout)
    slide = read_slide(tmp_path / "s.tif", pixel_um=1.0)
    np.testing.assert_array_equal(slide[:, :], rgb)
    np.testing.assert_array_equal(slide[63:130, 127:400, 1], rgb[63:130, 127:400, 1])


def test_levels_are_pages_or_subifds_with_their_downsample(tmp_path, rgb):
    for name, ome in (("s.tif", False), ("s.ome.tif", True)):
        slide = read_slide(write_slide(tmp_path / name, rgb, pixel_um=0.75, ome=ome))
        assert [level.downsample for level in slide.levels] == [(1, 1), (2, 2), (4, 4)]
        assert [level.array.shape for level in slide.levels] == [(700, 900, 3), (350, 450, 3), (175, 225, 3)]
        half = to_srgb(area_average(rgb, 2))
        np.testing.assert_array_equal(slide.levels[1].array[:, :], half)
        np.testing.assert_array_equal(slide.levels[2].array[10:20, 7:9], to_srgb(area_average(half, 2))[10:20, 7:9])
        assert slide.pixel_um == pytest.approx((0.75, 0.75))
    assert slide.about["pixel_from"] == "OME PhysicalSizeX and Y"


def test_labels_thumbnails_and_other_pages_are_no_levels(tmp_path, rgb):
    with tifffile.TiffWriter(tmp_path / "s.tif") as tiff:
        tiff.write(rgb, photometric="rgb", tile=(256, 256), metadata=None)
        tiff.write(rgb[::4, ::4], photometric="rgb", metadata=None)
        tiff.write(rgb[:300, :200], photometric="rgb", tile=(256, 256), metadata=None)
    slide = read_slide(tmp_path / "s.tif", pixel_um=0.5)
    assert len(slide.levels) == 1
    assert slide.about["notes"] == ["2 further page(s) are left out"]


@pytest.mark.parametrize(("extra", "colour"), [("unassalpha", 200), ("assocalpha", 100)])
def test_alpha_is_composed_on_white(tmp_path, extra, colour):
    rgba = np.full((20, 30, 4), colour, np.uint8)
    rgba[..., 3] = 128
    rgba[:5] = 0
    tifffile.imwrite(tmp_path / "s.tif", rgba, photometric="rgb", extrasamples=[extra])
    seen = read_slide(tmp_path / "s.tif", pixel_um=1.0)[:, :]
    assert (seen[:5] == 255).all()
    assert (seen[5:] == 227).all()  # 200 x 128 / 255 + 255 x 127 / 255


def test_transparent_png_is_composed_on_white(tmp_path):
    rgba = np.full((20, 30, 4), 200, np.uint8)
    rgba[..., 3] = 128
    rgba[:5, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "s.png")
    seen = read_slide(tmp_path / "s.png", pixel_um=1.0)[:, :]
    assert (seen[:5] == 255).all()
    assert np.abs(seen[5:].astype(int) - 227).max() <= 1


def test_density_of_pictures_is_a_pixel_size_unless_it_is_a_screens(tmp_path, rgb):
    for name in ("s.png", "s.jpg"):
        Image.fromarray(rgb).save(tmp_path / name, dpi=(12700, 12700))
        slide = read_slide(tmp_path / name)
        assert slide.pixel_um == pytest.approx((2.0, 2.0), rel=1e-3)
        for density in (72, 96, 300):
            Image.fromarray(rgb).save(tmp_path / name, dpi=(density, density))
            with pytest.raises(ValueError, match=f"{density} dots per inch"):
                read_slide(tmp_path / name)


def test_two_statements_that_differ_are_reported(tmp_path, rgb):
    tifffile.imwrite(
        tmp_path / "s.tif",
        rgb,
        photometric="rgb",
        description="Aperio Image Library\n|MPP = 0.5",
        metadata=None,
        resolution=(1e4, 1e4),
        resolutionunit="CENTIMETER",
    )
    slide = read_slide(tmp_path / "s.tif")
    assert slide.pixel_um == (0.5, 0.5)
    assert slide.about["pixel_from"] == "aperio.MPP"
    assert slide.about["notes"] == ["TIFF resolution tags: 1 x 1 um instead"]


def philips(path, rgb):
    """A TIFF as Philips scanners write it, as far as OpenSlide looks at it."""
    level = (
        '<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" '
        'Element="0x0030" PMSVR="IDoubleArray">&quot;{0}&quot; &quot;{0}&quot;</Attribute></DataObject>'
    )
    image = (
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array>'
        '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" '
        'PMSVR="IString">WSI</Attribute><Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" '
        'Element="0x8B01" PMSVR="IDataObjectArray"><Array>' + level.format(0.0005) + level.format(0.001) + "</Array>"
        "</Attribute></DataObject></Array></Attribute>"
    )
    padded = np.pad(rgb, ((0, 68), (0, 124), (0, 0)))
    described = f'<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">{image}</DataObject>'
    settings = {"photometric": "rgb", "tile": (256, 256), "software": "Philips DP v1.0", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(padded, description=described, **settings)
        tiff.write(padded[::2, ::2], description="level=1", subfiletype=1, **settings)
    return path


def test_slide_of_a_maker_with_its_own_ways_is_read_by_openslide(tmp_path, rgb):
    slide = read_slide(philips(tmp_path / "p.tiff", rgb), pixel_um=0.25)
    assert slide.about["format"] == "philips slide, by OpenSlide"
    np.testing.assert_array_equal(slide[250:600, 255:513], rgb[250:600, 255:513])


def test_a_size_that_a_makers_tiles_do_not_bear_out_is_refused(tmp_path, rgb):
    """OpenSlide would show 65535 rows, those that no tile holds as background."""
    path = philips(tmp_path / "p.tiff", rgb)
    path.write_bytes(_patched(path.read_bytes(), 257, 65535))
    with openslide.OpenSlide(path) as other:
        assert other.dimensions[1] == 65535
    with pytest.raises(
        ValueError, match=r"p\.tiff .*65535 x 1024 px but lists 12 tiles or strips where 1024 are needed"
    ):
        read_slide(path, pixel_um=0.25)


def test_missing_openslide_is_reported_with_the_extra_that_brings_it(tmp_path, rgb, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    for path in (philips(tmp_path / "p.tiff", rgb), tmp_path / "p.ndpi"):
        path.touch()
        with pytest.raises(ModuleNotFoundError, match=r"openslide is needed here; .*tomostain\[slides\]"):
            read_slide(path)


def test_bounds_and_background_of_a_scan_are_respected(tmp_path, monkeypatch):
    """OpenSlide's bounds crop the slide, its levels too, and what was not scanned has the background's colour."""
    full = np.zeros((200, 300, 4), np.uint8)
    full[40:120, 100:220] = (10, 200, 30, 255)
    full[40:60, 100:220, 3] = 0

    class Scan:
        dimensions, level_downsamples = (300, 200), (1.0, 2.0)
        properties: ClassVar = {
            "openslide.bounds-x": "100", "openslide.bounds-y": "40",
            "openslide.bounds-width": "120", "openslide.bounds-height": "80",
            "openslide.background-color": "F0E0D0", "openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26",
        }  # fmt: skip

        def __init__(self, path):
            pass

        def read_region(self, corner, level, size):
            (x, y), step = corner, 2**level
            return Image.fromarray(np.ascontiguousarray(full[y::step, x::step][: size[1], : size[0]]))

    monkeypatch.setattr(scanner.openslide, "OpenSlide", Scan)
    (tmp_path / "scan.mrxs").touch()
    slide = scanner.ScannerSlide(str(tmp_path / "scan.mrxs"))
    assert slide.about["levels"] == [[80, 120, 1.0, 1.0], [40, 60, 2.0, 2.0]]
    assert slide.about["pixels_um"] == [(0.26, 0.25, "openslide.mpp-x and y")]
    for level in (0, 1):
        seen = slide.read(level, (0, 80 >> level, 0, 120 >> level))
        assert (seen[: 20 >> level] == (0xF0, 0xE0, 0xD0)).all()
        assert (seen[20 >> level :] == (10, 200, 30)).all()


def test_czi_mosaic_is_read_with_its_scaling(tmp_path, rgb):
    czi = pytest.importorskip("pylibCZIrw.czi")
    with czi.create_czi(str(tmp_path / "s.czi")) as file:
        file.write(np.ascontiguousarray(rgb[:, :500, ::-1]), location=(50, 20))
        file.write(np.ascontiguousarray(rgb[:, 500:, ::-1]), location=(550, 20))
        file.write_metadata(document_name="s", scale_x=0.44e-6, scale_y=0.45e-6)
    slide = read_slide(tmp_path / "s.czi")
    assert slide.pixel_um == pytest.approx((0.45, 0.44))
    np.testing.assert_array_equal(slide[:, :], rgb)
    np.testing.assert_array_equal(slide[37:99, 450:600], rgb[37:99, 450:600])
    data = (tmp_path / "s.czi").read_bytes()
    (tmp_path / "s.czi").write_bytes(data.replace(b"<SizeX>900<", b"<SizeX>950<"))
    with pytest.warns(
        UserWarning, match=r"s\.czi states a size of 700 x 950 px, but its tiles cover 700 x 900; is it complete"
    ):
        read_slide(tmp_path / "s.czi")


LIES = {
    "width of 2^31": lambda b: _patched(b, 256, 2**31 - 1),
    "length of 2^31": lambda b: _patched(b, 257, 2**31 - 1),
    "no width": lambda b: _patched(b, 256, 0),
    "tiles of 2^30": lambda b: _patched(_patched(b, 322, 2**30), 323, 2**30),
    "tiles of nothing": lambda b: _patched(b, 322, 0),
    "7 samples": lambda b: _patched(b, 277, 7),
    "cut short": lambda b: b[: len(b) // 2],
    "empty": lambda b: b"",
    "no TIFF": lambda b: b"GIF89a" + b,
}


def _patched(data, tag, value):
    """The bytes of a little-endian classic TIFF with one tag of its first page changed."""
    start = struct.unpack_from("<I", data, 4)[0]
    out = bytearray(data)
    for i in range(struct.unpack_from("<H", data, start)[0]):
        at = start + 2 + 12 * i
        if struct.unpack_from("<H", data, at)[0] == tag:
            struct.pack_into("<HII", out, at + 2, 4, 1, value)
    return bytes(out)


def test_a_tag_that_cannot_be_read_is_not_replaced_by_its_default(tmp_path, rgb):
    """Subsampling of 2 x 1 stored as something else: tifffile leaves the tag out, and shows other colours."""
    path = write_slide(tmp_path / "s.tif", rgb[:200, :200], pixel_um=0.75, jpeg_quality=80)
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, 4)[0]
    at = next(
        start + 2 + 12 * i
        for i in range(struct.unpack_from("<H", data, start)[0])
        if struct.unpack_from("<H", data, start + 2 + 12 * i)[0] == 530
    )
    struct.pack_into("<HII", data, at + 2, 3, 3, 2**31)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"s\.tif cannot be read as a slide: its TIFF tag 530 cannot be read"):
        read_slide(path)


@pytest.mark.parametrize("lie", LIES)
def test_lying_headers_are_refused_by_name(tmp_path, rgb, lie):
    good = write_slide(tmp_path / "good.tif", rgb, pixel_um=0.75).read_bytes()
    (tmp_path / "bad.tif").write_bytes(LIES[lie](good))
    with pytest.raises(ValueError, match=r"bad\.tif cannot be read"):
        read_slide(tmp_path / "bad.tif")[:, :]


def test_a_tile_that_unpacks_to_a_bomb_is_an_error(tmp_path, rgb):
    """A JPEG tile that says it is 65500 x 65500 px large would take 12 GB."""
    path = write_slide(tmp_path / "s.tif", rgb[:200, :200], pixel_um=0.75, jpeg_quality=80)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, 65500, 65500)
    path.write_bytes(data)
    slide = read_slide(path)
    with pytest.raises(ValueError, match=r"s\.tif cannot be read at 0, 0 px"):
        slide[:, :]


def test_pictures_too_large_to_decode_whole_are_refused(tmp_path):
    Image.new("1", (12000, 12000)).save(tmp_path / "bomb.png")
    for reader in (read_mask, read_grey, lambda path: read_slide(path, pixel_um=1.0)):
        with pytest.raises(ValueError, match=r"bomb\.png cannot be read .*12000 x 12000 px .* save it as a tiled TIFF"):
            reader(tmp_path / "bomb.png")


def test_unknown_suffix_names_the_known_ones(tmp_path):
    (tmp_path / "s.xyz").touch()
    with pytest.raises(ValueError, match=r"s\.xyz: slides are read from \.tif, .*\.czi"):
        read_slide(tmp_path / "s.xyz")


@pytest.mark.parametrize(
    ("name", "index", "line"),
    [
        ("s.vms", "s.vms", "ImageFile(1,0)=../secret.jpg"),
        ("s.vmu", "s.vmu", "MacroImage=/etc/passwd"),
        ("s.vms", "s.vms", "ImageFile=link.jpg"),
        ("s.mrxs", "s/Slidedat.ini", "FILE_0 = ../../secret.jpg"),
    ],
)
def test_files_that_a_slides_list_names_lie_in_its_folder(tmp_path, name, index, line):
    folder = tmp_path / "scan"
    (folder / "s").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (folder / "link.jpg").symlink_to("../secret.jpg")
    (folder / name).write_text("")
    (folder / index).write_text(f"[Virtual Microscope Specimen]\n{line}\n")
    with pytest.raises(ValueError, match=rf"{name}.* takes its values from .*outside its own folder"):
        read_slide(folder / name, pixel_um=1.0)
