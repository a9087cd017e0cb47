"""NRRD, MetaImage, NIfTI, raw and .npy: geometry told, calibration applied, lies and bombs refused."""

import gzip
import tempfile

import h5py
import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import zarr

from tomostain.io.volumes import read_volume
from tomostain.io.volumes.spool import spool

UNIT = {"spacing_um": (1, 1, 1)}


@pytest.fixture
def ct(rng):
    return rng.integers(0, 999, (6, 8, 9)).astype(np.int16)


@pytest.fixture
def mha(tmp_path, ct):
    """Write a MetaImage with the library's own hand and change lines of its header."""

    def make(*changes, name="a.mha", **settings):
        image = sitk.GetImageFromArray(ct)
        image.SetSpacing((0.01, 0.02, 0.03))
        image.SetOrigin((1.0, 2.0, 3.0))
        sitk.WriteImage(image, str(tmp_path / name), settings.get("compressed", False))
        raw = (tmp_path / name).read_bytes()
        for old, new in changes:
            assert old in raw
            raw = raw.replace(old, new, 1)
        (tmp_path / name).write_bytes(raw)
        return tmp_path / name

    return make


def test_metaimage_origin_and_orientation_are_reported(mha):
    volume = read_volume(mha())
    assert volume.grid.origin_um == (3000.0, 2000.0, 1000.0)
    assert volume.about["orientation"] == "x y z to RAI, matrix 1 0 0 0 1 0 0 0 1"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (b"DimSize = 9 8 6", b"DimSize = 9 0 6", "three positive sizes|must be at least 1"),
        (b"DimSize = 9 8 6", b"DimSize = 9 8 1099511627776", "bytes too early"),
        (b"DimSize = 9 8 6", b"DimSize = 9 8", "needs 3 numbers as DimSize"),
        (b"MET_SHORT", b"MET_STRING", "type MET_STRING"),
        (b"NDims = 3", b"NDims = many", "whole number as NDims"),
        (b"DimSize = 9 8 6", b"DimSize = 9 8 6.5", "needs 3 numbers as DimSize"),
        (b"ElementDataFile = LOCAL", b"ElementDataFile = ../secret", "outside its own folder"),
        (b"ElementDataFile = LOCAL", b"ElementDataFile = /etc/hostname", "outside its own folder"),
        (b"ElementDataFile = LOCAL", b"ElementDataFile = LIST", "several files"),
        (b"ElementDataFile = LOCAL", b"Nothing = LOCAL", "does not end with ElementDataFile"),
    ],
)
def test_metaimage_headers_that_lie_are_refused(mha, old, new, fault):
    with pytest.raises(ValueError, match=rf"a\.mha.*{fault}"):
        read_volume(mha((old, new)))[:]


def test_default_spacing_of_one_millimetre_is_refused(tmp_path, ct):
    sitk.WriteImage(sitk.GetImageFromArray(ct), str(tmp_path / "a.mha"))
    nibabel.save(nibabel.Nifti1Image(ct.T, np.eye(4)), tmp_path / "a.nii")
    for name in ("a.mha", "a.nii"):
        with pytest.raises(ValueError, match=rf"{name} states voxels of 1 x 1 x 1.*pass --spacing-um z y x"):
            read_volume(tmp_path / name)
        np.testing.assert_array_equal(read_volume(tmp_path / name, **UNIT)[:], ct)


def test_nifti_slope_calibrates_and_orientation_is_reported_not_applied(tmp_path, ct):
    image = nibabel.Nifti2Image(ct.T, np.diag([-5.0, 5.0, 5.0, 1.0]))
    image.header.set_xyzt_units("micron")
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(volume[:], ct * 0.5 - 3)
    assert volume.grid.spacing_um == (5.0, 5.0, 5.0)
    assert volume.about["orientation"].startswith("z to S, y to A, x to L")


def test_nifti_with_several_times_is_refused(tmp_path, ct):
    nibabel.save(nibabel.Nifti1Image(np.stack([ct.T, ct.T], axis=3), np.diag([2.0, 2, 2, 1])), tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"a\.nii has a shape of \(9, 8, 6, 2\)"):
        read_volume(tmp_path / "a.nii")


def test_nrrd_directions_give_spacing_origin_and_words(tmp_path, ct):
    header = {"space": "left-posterior-superior", "space directions": np.diag([0.01, 0.02, 0.03])}
    header |= {"space origin": np.array([1.0, 2.0, 3.0]), "space units": ["mm"] * 3}
    nrrd.write(str(tmp_path / "a.nrrd"), ct, header, index_order="C")
    volume = read_volume(tmp_path / "a.nrrd")
    assert volume.grid.spacing_um == (30.0, 20.0, 10.0)
    assert volume.grid.origin_um == (3000.0, 2000.0, 1000.0)
    assert volume.about["orientation"].startswith("left-posterior-superior, x y z along (0.01,0,0)")


def test_nrrd_without_spacing_is_refused(tmp_path, ct):
    nrrd.write(str(tmp_path / "a.nrrd"), ct, {}, index_order="C")
    with pytest.raises(ValueError, match=r"a\.nrrd has no voxel size; pass --spacing-um z y x"):
        read_volume(tmp_path / "a.nrrd")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (b"sizes: 9 8 6", b"sizes: 9 8 0", "three positive sizes|must be at least 1"),
        (b"sizes: 9 8 6", b"sizes: 9 8 5", "144 bytes more than its header says"),
        (b"type: int16", b"type: int8", "432 bytes more than its header says"),
        (b"sizes: 9 8 6", b"sizes: 1099511627776 8 6", "bytes too early"),
        (b"type: int16", b"type: block", "type block"),
        (b"endian: little\n", b"", "does not say the byte order"),
        (b"endian: little\n", b"endian: little\ndata file: ../secret.raw\n", "outside its own folder"),
        (b"NRRD", b"NRRX", "cannot be read as NRRD"),
    ],
)
def test_nrrd_headers_that_lie_are_refused(tmp_path, ct, old, new, fault):
    path = tmp_path / "a.nrrd"
    nrrd.write(str(path), ct, {"spacings": [1, 1, 1], "encoding": "raw"}, index_order="C")
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"a\.nrrd.*{fault}"):
        read_volume(path, **UNIT)[:]


def test_a_gzip_that_holds_more_or_less_than_its_header_says_is_refused(tmp_path, ct):
    nibabel.save(nibabel.Nifti1Image(ct.T, np.diag([2.0, 2, 2, 1])), tmp_path / "a.nii")
    raw = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "more.nii.gz").write_bytes(gzip.compress(raw + b"\1" * 10))
    (tmp_path / "less.nii.gz").write_bytes(gzip.compress(raw[:-10]))
    with pytest.raises(ValueError, match=r"more\.nii\.gz holds more values than its header says"):
        read_volume(tmp_path / "more.nii.gz")[0]
    with pytest.raises(ValueError, match=r"less\.nii\.gz ends 10 bytes too early"):
        read_volume(tmp_path / "less.nii.gz")[0]


def test_a_bomb_is_refused_before_it_is_decompressed(tmp_path, ct):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((4096, 4096, 4096))
    header["vox_offset"], header["magic"], header["pixdim"][1:4] = 352, b"n+1", 0.005
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(2**20)))
    with pytest.raises(ValueError, match=r"bomb\.nii\.gz claims 4096 x 4096 x 4096 int16 values \(128 GiB\)"):
        read_volume(tmp_path / "bomb.nii.gz")


def test_the_spool_is_gone_with_its_volume(tmp_path, ct, monkeypatch):
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spool"))
    nibabel.save(nibabel.Nifti1Image(ct.T, np.diag([2.0, 2, 2, 1])), tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert not list((tmp_path / "spool").iterdir())
    np.testing.assert_array_equal(volume[2], ct[2])
    assert [file.stat().st_size for file in (tmp_path / "spool").iterdir()] == [ct.nbytes]
    del volume
    assert not list((tmp_path / "spool").iterdir())


def test_a_disk_too_small_for_the_spool_is_reported_first():
    with pytest.raises(ValueError, match=r"a\.nii\.gz needs 1\.1e\+12 GiB of .* set TMPDIR to a larger disk"):
        spool(iter([b"never read"]), 2**70, "a.nii.gz")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, r"is raw values without a header; pass --shape z y x and --dtype NAME"),
        ({"shape": (6, 8, 9), "dtype": "uint8"}, r"has 864 bytes; 6 x 8 x 9 uint8 after an offset of 0 would be 432"),
        ({"shape": (6, 8, 9), "dtype": "uint16", "offset": 4}, "would be 868"),
        ({"shape": (6, -8, 9), "dtype": "uint16"}, "three positive sizes|must be at least 1"),
        ({"shape": (6, 8, 9), "dtype": "complex64"}, "grey values are"),
        ({"shape": (6, 8, 9), "dtype": "uint17"}, "is not a type of values"),
    ],
)
def test_raw_values_must_fit_their_file(tmp_path, ct, settings, fault):
    ct.tofile(tmp_path / "a.raw")
    with pytest.raises(ValueError, match=fault):
        read_volume(tmp_path / "a.raw", **UNIT, **settings)


@pytest.mark.parametrize("dtype", [">i2", ">int16", "int16be", "INT16BE"])
def test_raw_byte_order_is_in_the_name(tmp_path, ct, dtype):
    (tmp_path / "a.raw").write_bytes(b"head" + ct.astype(">i2").tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path / "a.raw", shape=ct.shape, dtype=dtype, offset=4, **UNIT)[:], ct)


def test_npy_of_objects_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.empty((2, 2, 2), object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy holds object; grey values are"):
        read_volume(tmp_path / "a.npy", **UNIT)


def test_absurd_voxel_sizes_are_challenged(mha):
    path = mha((b"ElementSpacing = 0.0", b"ElementSpacing = 1000000.0"))
    with pytest.raises(ValueError, match=r"a\.mha states a voxel size of 30 x 20 x 1e\+09 um, outside 0\.001 to 2"):
        read_volume(path)


@pytest.mark.parametrize(
    "spacing", ["nan 0.02 0.03", "0 0 0", "1 1 1", "ten", "0.01 0.02", "0.01 0.01 1", "1e300 1 1", "0.01 -0.02 0.03"]
)
def test_the_users_voxel_size_wins_over_what_a_metaimage_states(mha, ct, spacing):
    path = mha((b"ElementSpacing =", f"ElementSpacing = {spacing}\nWas =".encode()))
    with pytest.raises(ValueError, match=r"a\.mha.*; pass --spacing-um z y x"):
        read_volume(path)
    volume = read_volume(path, spacing_um=(3, 2, 1))
    assert volume.grid.spacing_um == (3.0, 2.0, 1.0)
    np.testing.assert_array_equal(volume[:], ct)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Offset = 1 2 3", b"Offset = a b c"),
        (b"Offset = 1 2 3", b"Offset = 1e300 nan 1"),
        (b"TransformMatrix = 1", b"TransformMatrix = x"),
    ],
)
def test_a_place_that_cannot_be_read_is_no_reason_to_refuse_a_volume(mha, old, new):
    volume = read_volume(mha((old, new)))
    assert volume.grid.spacing_um == (30.0, 20.0, 10.0)
    if b"Offset" in old:
        assert volume.grid.origin_um == (0.0, 0.0, 0.0)


def test_metaimage_decimal_commas_units_and_scales_are_read(mha, ct):
    volume = read_volume(
        mha(
            (b"ElementSpacing =", b"DistanceUnits = um\nElementSpacing = 10,5 20 30\nWas ="),
            (
                b"ElementType",
                b"ElementToIntensityFunctionSlope = 0,5\nElementToIntensityFunctionOffset = -3\nElementType",
            ),
            (b"Offset = 1 2 3", b"Offset = 1000,5 2000 3000"),
        )
    )
    assert volume.grid.spacing_um == (30.0, 20.0, 10.5)
    assert volume.grid.origin_um == (3000.0, 2000.0, 1000.5)
    np.testing.assert_allclose(volume[:], ct * 0.5 - 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [("xyzt_units", 5), ("pixdim", [1, np.nan, 1, 1, 1, 1, 1, 1]), ("pixdim", [1, 0, 0, 0, 1, 1, 1, 1])],
)
def test_the_users_voxel_size_wins_over_what_a_nifti_states(tmp_path, ct, field, value):
    image = nibabel.Nifti1Image(ct.T, np.diag([2.0, 2, 2, 1]))
    nibabel.save(image, tmp_path / "a.nii")
    header = nibabel.load(tmp_path / "a.nii").header.copy()
    header[field], header["vox_offset"] = value, 352
    raw = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(header.binaryblock + raw[348:])
    with pytest.raises(ValueError, match=r"a\.nii.*; pass --spacing-um z y x"):
        read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii", **UNIT)[:], ct)


def test_a_nifti_of_one_micron_is_accepted_and_a_bad_quaternion_is_no_fault(tmp_path, ct):
    image = nibabel.Nifti1Image(ct.T, np.eye(4))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    header = nibabel.load(tmp_path / "a.nii").header.copy()
    header["sform_code"], header["qform_code"], header["quatern_b"] = 0, 1, 7.0
    header["vox_offset"] = 352
    (tmp_path / "a.nii").write_bytes(header.binaryblock + (tmp_path / "a.nii").read_bytes()[348:])
    volume = read_volume(tmp_path / "a.nii")
    assert volume.grid.spacing_um == (1.0, 1.0, 1.0)
    assert volume.about["orientation"] == "not stated"


@pytest.mark.parametrize(
    ("edges", "asked"),
    [
        ((1000, 1000, 1000), True),
        ((1000, 10, 10), True),
        ((1000, 300, 300), False),
        ((10, 10, 20), False),
        ((1, 1, 1), False),
    ],
)
def test_one_millimetre_is_refused_in_every_format(tmp_path, ct, edges, asked):
    """Programs write it along the axes whose size they do not know."""
    zarr.create_array(tmp_path / "a.zarr", data=ct).attrs["element_size_um"] = list(edges)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ct"] = ct
        file["ct"].attrs["element_size_um"] = edges
    image = sitk.GetImageFromArray(ct)
    image.SetSpacing([edge / 1000 for edge in edges[::-1]])
    for name in ("a.mha", "a.nrrd", "a.nii"):
        sitk.WriteImage(image, str(tmp_path / name))
    for name in ("a.zarr", "a.h5", "a.mha", "a.nrrd", "a.nii"):
        if asked:
            with pytest.raises(ValueError, match=r"which programs write when they know none; pass --spacing-um z y x"):
                read_volume(tmp_path / name)
        else:
            assert read_volume(tmp_path / name).grid.spacing_um == edges
