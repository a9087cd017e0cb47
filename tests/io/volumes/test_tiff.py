"""One TIFF file: what ImageJ and OME say of it, and what is refused by name."""

import re
import struct

import numpy as np
import pytest
import tifffile

from tomostain.io.volumes import read_volume

UNIT = {"spacing_um": (1, 1, 1)}


@pytest.fixture
def grey():
    return np.arange(6 * 8 * 9, dtype=np.uint16).reshape(6, 8, 9)


def test_imagej_stack_states_its_voxel_size(tmp_path, grey):
    about = {"spacing": 3.0, "unit": "micron", "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "ij.tif", grey, imagej=True, resolution=(1 / 2.0, 1 / 2.5), metadata=about)
    assert read_volume(tmp_path / "ij.tif").grid.spacing_um == pytest.approx((3.0, 2.5, 2.0))


def test_imagej_stack_of_one_page_holds_all_its_planes(tmp_path, grey):
    """Beyond 4 GiB ImageJ writes one page and the other planes behind it."""
    tifffile.imwrite(tmp_path / "ij.tif", grey, imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "ij.tif") as tiff:
        entries = struct.unpack(">H", (tmp_path / "ij.tif").read_bytes()[8:10])[0]
        assert len(tiff.pages) == 6
    raw = bytearray((tmp_path / "ij.tif").read_bytes())
    raw[10 + 12 * entries : 14 + 12 * entries] = b"\0\0\0\0"
    (tmp_path / "ij.tif").write_bytes(raw)
    np.testing.assert_array_equal(read_volume(tmp_path / "ij.tif", **UNIT)[:], grey)


def test_imagej_channels_and_times_are_refused_with_what_to_do(tmp_path, grey):
    tifffile.imwrite(tmp_path / "ij.tif", grey.reshape(3, 2, 8, 9), imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(ValueError, match=r"ij\.tif holds 2 channels and 1 time points; save the one .*Duplicate"):
        read_volume(tmp_path / "ij.tif", **UNIT)


@pytest.mark.parametrize(("unit", "um"), [("nm", 1e-3), ("mm", 1e3), ("Å", 1e-4), ("in", 25400.0), ("thou", 25.4)])
def test_ome_lengths_come_in_um(tmp_path, grey, unit, um):
    about = {"axes": "ZYX"} | {f"PhysicalSize{axis}": 7 / um for axis in "XYZ"}
    about |= {f"PhysicalSize{axis}Unit": unit for axis in "XYZ"}
    tifffile.imwrite(tmp_path / "a.ome.tif", grey, ome=True, metadata=about)
    assert read_volume(tmp_path / "a.ome.tif").grid.spacing_um == pytest.approx((7, 7, 7))


def test_ome_planes_are_taken_in_the_order_their_metadata_says(tmp_path, grey):
    tifffile.imwrite(tmp_path / "a.ome.tif", grey, ome=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        xml = tiff.ome_metadata
    turned = "".join(f'<TiffData IFD="{i}" FirstZ="{5 - i}" PlaneCount="1"/>' for i in range(6))
    tifffile.tiffcomment(tmp_path / "a.ome.tif", re.sub(r"<TiffData[^>]*/>", turned, xml).encode())
    np.testing.assert_array_equal(read_volume(tmp_path / "a.ome.tif", **UNIT)[:], grey[::-1])


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('SizeZ="6"', 'SizeZ="7"', "declares 7 planes but holds 6 pages"),
        ('SizeZ="6"', f'SizeZ="{2**60}"', "is not a number of planes"),
        ('SizeC="1"', 'SizeC="2"', "holds 2 channels and 1 time points; export the one"),
        ("<TiffData ", '<TiffData FirstZ="3" ', "does not say where each of its 6 planes is"),
        ("</Pixels>", "", "broken OME metadata"),
    ],
)
def test_ome_metadata_that_cannot_be_is_refused(tmp_path, grey, old, new, fault):
    tifffile.imwrite(tmp_path / "a.ome.tif", grey, ome=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        xml = tiff.ome_metadata
    assert old in xml
    tifffile.tiffcomment(tmp_path / "a.ome.tif", xml.replace(old, new, 1).encode())
    with pytest.raises(ValueError, match=rf"a\.ome\.tif.*{fault}"):
        read_volume(tmp_path / "a.ome.tif", **UNIT)


def test_a_missing_voxel_size_is_refused(tmp_path, grey):
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="minisblack")
    with pytest.raises(ValueError, match=r"a\.tif has no voxel size; pass --spacing-um z y x"):
        read_volume(tmp_path / "a.tif")


def test_pages_that_differ_are_named(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for shape in ((4, 5), (4, 5), (4, 6)):
            tiff.write(np.zeros(shape, np.uint8), metadata=None)
    with pytest.raises(ValueError, match=r"a\.tif: page 2 holds uint8 \(4, 6\), but page 0 holds uint8 \(4, 5\)"):
        read_volume(tmp_path / "a.tif", **UNIT)


def test_reduced_copies_of_a_page_are_no_planes(tmp_path, grey):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for plane in grey:
            tiff.write(plane, metadata=None)
            tiff.write(plane[::2, ::2], subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif", **UNIT)[:], grey)


def test_colour_slices_are_no_ct(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", np.arange(216, dtype=np.uint8).reshape(8, 9, 3), photometric="rgb")
    with pytest.raises(ValueError, match=r"rgb\.tif: page 0 holds colours"):
        read_volume(tmp_path / "rgb.tif", **UNIT)


def test_garbage_is_named(tmp_path):
    (tmp_path / "x.tif").write_bytes(b"II*\0not a tiff")
    with pytest.raises(ValueError, match=r"x\.tif cannot be read as TIFF"):
        read_volume(tmp_path / "x.tif", **UNIT)


def test_pages_that_lead_in_a_circle_are_refused(tmp_path, grey):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, grey, photometric="minisblack", metadata=None, byteorder="<")
    with tifffile.TiffFile(path) as tiff:
        first, last = tiff.pages[0].offset, tiff.pages[5].offset
    raw = bytearray(path.read_bytes())
    (entries,) = struct.unpack_from("<H", raw, last)
    struct.pack_into("<I", raw, last + 2 + 12 * entries, first)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.tif: page 6 leads back to an earlier one"):
        read_volume(path, **UNIT)


def test_a_page_of_2_to_the_40_pixels_is_refused_before_it_is_allocated(tmp_path, grey):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, grey[0], photometric="minisblack", metadata=None, compression="zlib", byteorder="<")
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        for tag in (256, 257, 278):
            entry = tiff.pages.first.tags[tag].offset
            struct.pack_into("<HHII", raw, entry, tag, 4, 1, 2**20)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.tif claims 1 x 1048576 x 1048576 uint16 values \(2\.05e\+03 GiB\)"):
        read_volume(path, **UNIT)
