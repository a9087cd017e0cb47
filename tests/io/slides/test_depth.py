"""More than eight bits are refused or kept, never scaled; three grey planes named so are one picture in colours."""

import struct
import zlib

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from tomostain.io.contained.planes import imagej_planes, ome_planes
from tomostain.io.slides import is_slide, read_grey, read_mask, read_picture, read_slide
from tomostain.steps.convert import convert
from tomostain.steps.inspect import facts_of


def png16(path, values, *, interlaced=False):
    """A PNG of 16 bits a sample: grey (1), grey and alpha (2), RGB (3) or RGBA (4)."""
    rows, columns, samples = values.shape
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", columns, rows, 16, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, interlaced)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )
    return path


SIXTEEN = r"holds 16-bit colours; a slide is 8-bit RGB, .*save it as 8-bit"


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_sixteen_bit_pngs_are_no_slides(tmp_path, samples, interlaced):
    path = png16(tmp_path / "s.png", np.full((5, 6, samples), 4080, np.uint16), interlaced=interlaced)
    for reader in (lambda p: read_slide(p, pixel_um=1.0), read_picture):
        with pytest.raises(ValueError, match=rf"s\.png cannot be read as a \w+: it {SIXTEEN}"):
            reader(path)


def test_a_sixteen_bit_tiff_is_not_made_eight_bits_by_the_picture_reader(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.full((5, 6, 3), 4080, np.uint16), photometric="rgb")
    with pytest.raises(ValueError, match=rf"s\.tif cannot be read as a picture: it {SIXTEEN}"):
        read_picture(tmp_path / "s.tif")


def test_pictures_that_pillow_would_make_eight_bits_of_are_refused(tmp_path):
    (tmp_path / "s.png").write_bytes(b"P6 2 1 65535\n" + np.full((1, 2, 3), 4080, ">u2").tobytes())
    with pytest.raises(ValueError, match=r"s\.png cannot be read as a slide: it is not a PNG, JPEG or BMP"):
        read_slide(tmp_path / "s.png", pixel_um=1.0)
    twelve = tmp_path / "s.jpg"
    Image.new("RGB", (8, 8)).save(twelve)
    data = bytearray(twelve.read_bytes())
    data[data.index(b"\xff\xc0") + 4] = 12
    twelve.write_bytes(data)
    with pytest.raises(ValueError, match=r"s\.jpg cannot be read .*12-bit JPEG.*save it as 8-bit"):
        read_slide(twelve, pixel_um=1.0)


def test_tiles_deeper_than_their_tags_say_are_refused(tmp_path):
    """A JPEG 2000 tile of 16 bits under tags of 8: its values would be cut to their lower byte."""
    deep = np.full((64, 64, 3), 4080, np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", deep, photometric="rgb", tile=(64, 64), compression="jpeg2000", metadata=None)
    data = bytearray((tmp_path / "s.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "s.tif") as tiff:
        at = tiff.pages.first.tags["BitsPerSample"].valueoffset
    struct.pack_into("<3H", data, at, 8, 8, 8)
    (tmp_path / "s.tif").write_bytes(data)
    with pytest.raises(
        ValueError,
        match=r"s\.tif cannot be read at 0, 0 px: .*its tags say uint8 values, but its strips or tiles hold uint16",
    ):
        read_slide(tmp_path / "s.tif", pixel_um=1.0)[:, :]


def test_grey_of_sixteen_bits_keeps_its_values_with_alpha_or_as_colours(tmp_path, rng):
    values = rng.integers(0, 65536, (5, 6), dtype=np.uint16)
    opaque = np.full_like(values, 65535)
    for samples in ([values], [values, opaque], [values] * 3, [values] * 3 + [opaque]):
        path = png16(tmp_path / "g.png", np.stack(samples, axis=-1))
        np.testing.assert_array_equal(read_grey(path), values)


def test_masks_of_sixteen_bits_are_set_where_any_value_is(tmp_path):
    values = np.zeros((4, 5, 3), np.uint16)
    values[1, 2, 1] = 3  # nothing is left of it in eight bits
    assert np.argwhere(read_mask(png16(tmp_path / "m.png", values))).tolist() == [[1, 2]]


@pytest.mark.parametrize(("bits", "largest"), [(1, 1), (2, 3), (4, 15)])
def test_grey_of_few_bits_keeps_its_values(tmp_path, bits, largest):
    Image.fromarray(np.arange(0, largest + 1, dtype=np.uint8)[None] * (255 // largest)).save(
        tmp_path / "g.png", bits=bits
    )
    data = bytearray((tmp_path / "g.png").read_bytes())
    raw = np.packbits(np.unpackbits(np.arange(largest + 1, dtype=np.uint8)[:, None], axis=1)[:, 8 - bits :].ravel())
    chunk = b"IHDR" + struct.pack(">IIBBBBB", largest + 1, 1, bits, 0, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(b"\0" + raw.tobytes())
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, pixels, b"IEND")
    )
    (tmp_path / "g.png").write_bytes(data)
    np.testing.assert_array_equal(read_grey(tmp_path / "g.png"), np.arange(largest + 1)[None])


def test_cmyk_is_refused_everywhere(tmp_path):
    Image.new("CMYK", (8, 8), (0, 0, 0, 99)).save(tmp_path / "c.jpg")
    for reader in (lambda p: read_slide(p, pixel_um=1.0), read_picture, read_grey, read_mask):
        with pytest.raises(ValueError, match=r"c\.jpg cannot be read .*CMYK"):
            reader(tmp_path / "c.jpg")


def test_palettes_are_looked_up_unless_imagej_only_shows_them(tmp_path):
    index = np.array([[0, 1], [2, 1]], np.uint8)
    ramp = np.zeros((3, 256), np.uint16)
    ramp[:, :3] = np.array([0, 7, 9]) * 257
    tifffile.imwrite(tmp_path / "p.tif", index, photometric="palette", colormap=ramp, metadata=None)
    np.testing.assert_array_equal(read_grey(tmp_path / "p.tif"), [[0, 7], [9, 7]])
    tifffile.imwrite(tmp_path / "j.tif", index, imagej=True, colormap=ramp)
    np.testing.assert_array_equal(read_grey(tmp_path / "j.tif"), index)


def test_planar_colours_are_masks_of_their_own_shape(tmp_path):
    planes = np.zeros((3, 4, 5), np.uint8)
    planes[1, 2, 3] = 9
    tifffile.imwrite(tmp_path / "m.tif", planes, photometric="rgb", planarconfig="separate")
    assert np.argwhere(read_mask(tmp_path / "m.tif")).tolist() == [[2, 3]]
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((4, 5, 6), np.uint8), photometric="minisblack")
    with pytest.raises(ValueError, match=r"s\.tif cannot be read as a picture: it holds 4 x 5 x 6 values .*one plane"):
        read_mask(tmp_path / "s.tif")


def test_what_is_transparent_is_not_set(tmp_path):
    drawn = np.full((4, 5, 4), 255, np.uint8)
    drawn[..., 3] = 0
    drawn[1, 2, 3] = 255
    Image.fromarray(drawn).save(tmp_path / "m.png")
    assert np.argwhere(read_mask(tmp_path / "m.png")).tolist() == [[1, 2]]


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)


def write_planes(path, rgb, about, order=(0, 1, 2)):
    """H&E as three grey planes, each with a coarser level in its SubIFDs."""
    planes = np.moveaxis(rgb, -1, 0)[list(order)]
    size = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    settings = {"photometric": "minisblack", "tile": (32, 32), "compression": "zlib"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(planes, subifds=1, metadata=size | about, **settings)
        tiff.write(planes[:, ::2, ::2], subfiletype=1, **settings)
    return path


@pytest.mark.parametrize(
    ("about", "order"),
    [
        ({"Channel": {"Name": ["Red", "Green", "Blue"]}}, (0, 1, 2)),
        ({"Channel": {"Name": ["b", "G", "r"]}}, (2, 1, 0)),
        ({"Channel": {"Name": ["Channel:0:0 green", "Channel:0:1 RED", "Channel:0:2 blue"]}}, (1, 0, 2)),
        ({"Channel": {"Color": [65535, 16711935, -16776961]}}, (2, 1, 0)),
    ],
)
def test_planes_named_red_green_and_blue_are_one_slide(tmp_path, rgb, about, order):
    path = write_planes(tmp_path / "s.ome.tif", rgb, about, order)
    slide = read_slide(path)
    np.testing.assert_array_equal(slide[:, :], rgb)
    np.testing.assert_array_equal(slide[9:50, 31:70], rgb[9:50, 31:70])
    assert [level.downsample for level in slide.levels] == [(1, 1), (2, 2)]
    np.testing.assert_array_equal(slide.levels[1].array[:, :], rgb[::2, ::2])
    assert slide.pixel_um == (0.5, 0.5)
    np.testing.assert_array_equal(read_picture(path), rgb)
    assert is_slide(path)
    assert facts_of(path)["kind"] == "slide"
    np.testing.assert_array_equal(tifffile.imread(convert(path, tmp_path / "out.tif"), key=0), rgb)


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"Channel": {"Name": ["DAPI", "FITC", "TRITC"], "Color": [65535, 16711935, -16776961]}},
        {"Channel": {"Name": ["Red", "Red", "Blue"]}},
        {"Channel": {"Color": [65535, 16711935, -16776961], "EmissionWavelength": [460, 520, 600]}},
    ],
)
def test_planes_without_these_names_are_refused_as_a_slide(tmp_path, rgb, about):
    path = write_planes(tmp_path / "s.ome.tif", rgb, about)
    for use in (lambda: read_slide(path), lambda: facts_of(path), lambda: convert(path, tmp_path / "out.tif")):
        with pytest.raises(ValueError, match=r"s\.ome\.tif cannot be read as a slide: .* Red, Green and Blue"):
            use()


def test_slices_that_imagej_labels_by_colour_are_one_slide(tmp_path, rgb):
    tifffile.imwrite(
        tmp_path / "s.tif", np.moveaxis(rgb, -1, 0), imagej=True, metadata={"Labels": ["Red", "Green", "Blue"]}
    )
    np.testing.assert_array_equal(read_slide(tmp_path / "s.tif", pixel_um=1.0)[:, :], rgb)
    assert is_slide(tmp_path / "s.tif")
    assert imagej_planes({"Labels": ["a", "b", "c"]}) is None


def test_tiff_data_says_which_page_is_which_plane():
    xml = (
        '<OME><Image><Pixels SizeC="3" SizeZ="1" SizeT="1"><Channel Name="R"/><Channel Name="G"/><Channel Name="B"/>{}'
        "</Pixels></Image></OME>"
    )
    data = '<TiffData IFD="{}" FirstC="{}" PlaneCount="1"{}'
    assert ome_planes(xml.format("".join(data.format(2 - c, c, "/>") for c in range(3)))) == (2, 1, 0)
    assert ome_planes(xml.format("")) == (0, 1, 2)
    elsewhere = "".join(data.format(0, c, f'><UUID FileName="{c}.tif">u</UUID></TiffData>') for c in range(3))
    assert ome_planes(xml.format(elsewhere)) is None
    assert ome_planes(xml.replace('SizeZ="1"', 'SizeZ="2"').format("")) is None
    assert ome_planes("<OME") is None


@pytest.mark.parametrize("values", [np.zeros((8, 8, 3), np.uint16), np.zeros((8, 8, 3), np.float32)])
def test_a_slides_own_reason_is_shown_and_not_a_volumes(tmp_path, values):
    tifffile.imwrite(tmp_path / "s.tif", values, photometric="rgb")
    for use in (lambda: facts_of(tmp_path / "s.tif"), lambda: convert(tmp_path / "s.tif", tmp_path / "out.tif")):
        with pytest.raises(ValueError, match=r"s\.tif cannot be read as a slide: it holds \d\d-bit colours"):
            use()


def test_a_grey_section_in_any_format_is_read_as_equal_colours_and_said(tmp_path, rng):
    sitk = pytest.importorskip("SimpleITK")
    values = rng.integers(0, 256, (20, 30), dtype=np.uint8)
    for name in ("s.mha", "s.nrrd"):
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((0.002, 0.002))
        sitk.WriteImage(image, str(tmp_path / name))
    np.save(tmp_path / "s.npy", values[None])
    Image.fromarray(values).save(tmp_path / "s.png")
    tifffile.imwrite(tmp_path / "s.tif", values, photometric="minisblack")
    for name in ("s.mha", "s.nrrd", "s.npy", "s.png", "s.tif"):
        slide = read_slide(tmp_path / name, pixel_um=2.0)
        assert "it is grey, and its values are read as three equal colours" in slide.about["notes"]
        assert slide.pixel_um == (2.0, 2.0)
        np.testing.assert_array_equal(slide[:, :], np.repeat(values[..., None], 3, axis=2))
        np.testing.assert_array_equal(slide[3:9, 4:20, 1], values[3:9, 4:20])
        np.testing.assert_array_equal(read_grey(tmp_path / name), values)
        np.testing.assert_array_equal(read_picture(tmp_path / name)[..., 2], values)
        np.testing.assert_array_equal(read_mask(tmp_path / name) > 0, values > 0)
    assert read_slide(tmp_path / "s.mha").pixel_um == read_slide(tmp_path / "s.nrrd").pixel_um == (2.0, 2.0)
    with pytest.raises(ValueError, match=r"s\.npy does not state a plausible pixel size.*--slide-um"):
        read_slide(tmp_path / "s.npy")


@pytest.mark.parametrize(
    ("uid", "slide"), [("1.2.840.10008.5.1.4.1.1.77.1.6", True), ("1.2.840.10008.5.1.4.1.1.2", False)]
)
def test_a_dicom_file_is_a_slide_if_it_is_whole_slide_microscopy(tmp_path, uid, slide):
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = uid, "1.2.3"
    ds.save_as(tmp_path / "s.dcm", enforce_file_format=True)
    assert is_slide(tmp_path / "s.dcm") is slide
    (tmp_path / "s.dcm").write_bytes(b"broken")
    assert not is_slide(tmp_path / "s.dcm")


def test_a_volume_is_no_slide_and_deep_grey_is_not_scaled(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(ValueError, match=r"v\.npy has 3 planes; a slide is one picture"):
        read_slide(tmp_path / "v.npy", pixel_um=1.0)
    np.save(tmp_path / "d.npy", np.zeros((1, 4, 5), np.uint16))
    with pytest.raises(ValueError, match=r"d\.npy holds uint16 values; a slide is 8-bit, .*save it as 8-bit"):
        read_slide(tmp_path / "d.npy", pixel_um=1.0)
