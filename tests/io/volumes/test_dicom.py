"""CT as DICOM: order, spacing and units come from the headers; what is no single even series is refused by name."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from tomostain.io.volumes import read_volume

imagecodecs = pytest.importorskip("imagecodecs")
CT, ENHANCED = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"


@pytest.fixture
def values(rng):
    return rng.integers(-1000, 3000, (6, 9, 11)).astype(np.int16)


def dataset(plane, **elements):
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    signed = plane.dtype.kind == "i"
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CT, pydicom.uid.generate_uid(), "CT"
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.PhotometricInterpretation = "1.2.3", "1", "MONOCHROME2"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = plane.shape[-2], plane.shape[-1], 1
    ds.BitsAllocated = ds.BitsStored = 8 * plane.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(signed)
    ds.PixelSpacing, ds.ImageOrientationPatient = [0.03, 0.02], [1, 0, 0, 0, 1, 0]
    ds.PixelData = plane.tobytes()
    for key, value in elements.items():
        if value is None:
            delattr(ds, key)
        else:
            setattr(ds, key, value)
    return ds


def save(folder, values, *, names=None, step=0.05, **elements):
    for z, plane in enumerate(values):
        ds = dataset(plane, InstanceNumber=z + 1, ImagePositionPatient=[1, 2, 10 + step * z], SliceThickness=0.08)
        for key, value in elements.items():
            made = value(z) if callable(value) else value
            if made is None:
                delattr(ds, key)
            else:
                setattr(ds, key, made)
        ds.save_as(folder / (names[z] if names else f"IM{len(values) - z:03}.dcm"), enforce_file_format=True)
    return folder


def test_slices_lie_in_the_order_of_their_positions_in_their_spacing(tmp_path, values):
    volume = read_volume(save(tmp_path, values))
    np.testing.assert_array_equal(volume[:], values)
    np.testing.assert_array_equal(volume[2:4, 3:7, 5:], values[2:4, 3:7, 5:])
    assert volume.grid.spacing_um == pytest.approx((50, 30, 20))
    assert volume.dtype == np.int16
    assert volume.about["format"] == "DICOM"
    assert read_volume(tmp_path, spacing_um=(7, 6, 5)).grid.spacing_um == (7, 6, 5)


def test_files_without_an_ending_are_found_by_their_first_bytes(tmp_path, values):
    save(tmp_path, values, names=[f"1.2.3.{n}" for n in (6, 5, 4, 3, 2, 1)])
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    np.testing.assert_array_equal(read_volume(tmp_path)[:], values)


def test_slope_and_intercept_of_each_slice_give_hounsfield_units(tmp_path, values):
    save(tmp_path, values, RescaleSlope=lambda z: 1 + 0.5 * z, RescaleIntercept=-1024)
    volume = read_volume(tmp_path)
    np.testing.assert_allclose(volume[:], values * (1 + 0.5 * np.arange(6)[:, None, None]) - 1024, rtol=1e-6)
    assert (volume.dtype, volume.about["units"]) == (np.float32, "HU")


def test_slices_across_another_axis_are_ordered_along_their_normal(tmp_path, values):
    save(
        tmp_path,
        values,
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        ImagePositionPatient=lambda z: [3 - 0.05 * z, 2, 1],
    )
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume[:], values)
    assert volume.about["orientation"] == "z to R, y to I, x to P (L left, P posterior, S superior)"


def test_without_positions_the_instance_numbers_order_and_the_spacing_is_required(tmp_path, values):
    save(tmp_path, values, ImagePositionPatient=None)
    with pytest.raises(ValueError, match=r"has no voxel size \(its slices are 80 um thick\); pass --spacing-um z y x"):
        read_volume(tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path, spacing_um=(1, 1, 1))[:], values)
    for file in tmp_path.iterdir():
        ds = pydicom.dcmread(file)
        ds.SpacingBetweenSlices = 0.06
        ds.save_as(file)
    assert read_volume(tmp_path).grid.spacing_um == pytest.approx((60, 30, 20))


FAULTS = {
    "missing": (lambda d: (d / "IM003.dcm").unlink(), r"slices are missing between IM004\.dcm and IM002\.dcm"),
    "doubled": (lambda d: (d / "copy.dcm").write_bytes((d / "IM003.dcm").read_bytes()), r"lie at the same place"),
    "colours": (lambda d: edit(d / "IM002.dcm", PhotometricInterpretation="RGB", SamplesPerPixel=3), "holds colours"),
    "sizes": (lambda d: edit(d / "IM002.dcm", Rows=11, Columns=9), r"has a shape of \(11, 9\), but IM"),
    "pixels": (lambda d: edit(d / "IM002.dcm", PixelSpacing=[1, 1]), r"IM002\.dcm has pixels \(um\) of"),
    "another plane": (lambda d: edit(d / "IM002.dcm", ImageOrientationPatient=[0, 1, 0, 0, 0, 1]), "in another plane"),
    "lengths": (lambda d: edit(d / "IM002.dcm", Rows=3), "states 198 bytes of values where its sizes make 66"),
    "cut off": (lambda d: (d / "IM002.dcm").write_bytes((d / "IM002.dcm").read_bytes()[:-9]), "ends before its values"),
    "a table": (lambda d: edit(d / "IM002.dcm", RescaleSlope=0), r"IM002\.dcm gives its values by a table or without"),
}  # fmt: skip


def edit(file, **elements):
    ds = pydicom.dcmread(file)
    for key, value in elements.items():
        setattr(ds, key, value)
    ds.save_as(file)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_single_even_series_is_refused_by_name(tmp_path, values, fault):
    spoil, message = FAULTS[fault]
    spoil(save(tmp_path, values))
    with pytest.raises(ValueError, match=message):
        read_volume(tmp_path)


def test_a_tilted_gantry_is_refused(tmp_path, values):
    save(tmp_path, values, ImagePositionPatient=lambda z: [0, 0.02 * z, 0.05 * z])
    with pytest.raises(ValueError, match=r"sheared by 21\.8 degrees \(a tilted gantry\); resample"):
        read_volume(tmp_path)


def test_of_two_series_one_is_chosen(tmp_path, values):
    save(tmp_path, values)
    save(tmp_path, values + 1, names=[f"b{z}.dcm" for z in range(6)], SeriesInstanceUID="1.2.4", SeriesNumber="7")
    with pytest.raises(ValueError, match=r"2 series: . \(6 slices\), . \(6 slices\); choose one with .*::NUMBER"):
        read_volume(tmp_path)
    np.testing.assert_array_equal(read_volume(f"{tmp_path}::7")[:], values + 1)
    np.testing.assert_array_equal(read_volume(f"{tmp_path}::1.2.3")[:], values)
    with pytest.raises(ValueError, match="0 series called 9"):
        read_volume(f"{tmp_path}::9")


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEGLSLossless, imagecodecs.jpegls_encode),
        (JPEG2000Lossless, lambda p: imagecodecs.jpeg2k_encode(p, level=0, codecformat="j2k", reversible=True)),
        (JPEGLosslessSV1, lambda p: imagecodecs.ljpeg_encode(p)),
    ],
)
def test_compressed_slices_are_decoded(tmp_path, values, syntax, encode):
    stored = (values + 1000).astype(np.uint16)
    for z, plane in enumerate(stored):
        ds = dataset(plane, InstanceNumber=z, ImagePositionPatient=[0, 0, 0.05 * z])
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = pydicom.encaps.encapsulate([bytes(encode(plane))])
        ds["PixelData"].is_undefined_length = True
        ds.save_as(tmp_path / f"{z}.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(tmp_path)[:], stored)


def test_run_lengths_are_decoded(tmp_path, values):
    for z, plane in enumerate(values):
        ds = dataset(plane, InstanceNumber=z, ImagePositionPatient=[0, 0, 0.05 * z])
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(tmp_path / f"{z}.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(tmp_path)[1:4, 2:5], values[1:4, 2:5])


def test_bits_beside_the_stored_ones_are_no_part_of_the_value(tmp_path, values):
    twelve = (values % 4096).astype(np.uint16)
    save(tmp_path, twelve | 0xA000, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_volume(tmp_path)[:], twelve)
    signed = (values % 2048 - 1024).astype(np.int16)
    save(tmp_path, signed & 0x0FFF, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_volume(tmp_path)[:], signed)


def test_enhanced_multi_frame_ct_is_read_in_the_order_of_its_positions(tmp_path, values):
    turned = values[::-1]
    ds = dataset(turned, SOPClassUID=ENHANCED, NumberOfFrames=6, PixelSpacing=None, ImageOrientationPatient=None)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    measures, shared, line, plane = (pydicom.Dataset() for _ in range(4))
    measures.PixelSpacing, measures.SliceThickness = [0.03, 0.02], 0.05
    line.RescaleSlope, line.RescaleIntercept, line.RescaleType = 2, -10, "HU"
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [line]
    ds.SharedFunctionalGroupsSequence, groups = [shared], []
    for z in range(6):
        group, place = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [0, 0, 1 - 0.05 * z]
        group.PlanePositionSequence = [place]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    volume = read_volume(tmp_path / "ct.dcm")
    np.testing.assert_allclose(volume[:], values * 2.0 - 10)
    assert volume.grid.spacing_um == pytest.approx((50, 30, 20))
    assert volume.about["units"] == "HU"


def test_a_decimal_comma_in_its_numbers_is_read(tmp_path, values):
    save(tmp_path, values)
    for file in tmp_path.iterdir():
        raw = file.read_bytes()
        assert b"0.03\\0.02" in raw
        file.write_bytes(raw.replace(b"0.03\\0.02", b"0,03\\0,02"))
    assert read_volume(tmp_path).grid.spacing_um == pytest.approx((50, 30, 20))
