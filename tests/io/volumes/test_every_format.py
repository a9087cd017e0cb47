"""Files that others' libraries wrote: values, type, voxel size; windows that read no more than they need; workers."""

import pickle
from pathlib import Path

import h5py
import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr

from fuzz.formats import FORMATS as FUZZED
from tomostain.io.volumes import read_volume
from tomostain.io.writers import FORMATS as WRITERS
from tomostain.io.writers import write_volume

SPACING_UM = (3.0, 2.0, 1.0)
GIVEN = {"spacing_um": SPACING_UM}


def tiff(path, values, **settings):
    tifffile.imwrite(path, values, photometric="minisblack", metadata=None, **settings)


def imagej(path, values, **settings):
    about = {"spacing": 3.0, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(path, values, imagej=True, resolution=(1.0, 0.5), metadata=about, **settings)


def ome_tiff(path, values, **settings):
    sizes = {"PhysicalSizeX": 1000, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 2.0}
    about = {"axes": "ZYX", **sizes, "PhysicalSizeZ": 0.003, "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(path, values, ome=True, metadata=about, **settings)


def folder(path, values):
    path.mkdir()
    for z, plane in enumerate(values):
        tifffile.imwrite(path / f"slice_{z}.tif", plane)


def hdf5(path, values, **settings):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("volume", data=values, **settings)
        data.attrs["element_size_um"] = SPACING_UM


def nexus(path, values):
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs["default"] = "data"
        entry["detector"] = values
        entry["projections"] = np.zeros((9, 300, 300))
        data = entry.create_group("data")
        data.attrs.update({"NX_class": "NXdata", "signal": "ct", "axes": ["z", "y", "x"]})
        data["ct"] = h5py.SoftLink("/entry/detector")
        for name, size, step in zip("zyx", values.shape, SPACING_UM, strict=True):
            data[name] = np.arange(size) * step * 1e-6
            data[name].attrs["units"] = "m"


def plain_zarr(path, values, zarr_format=3):
    array = zarr.create_array(path, shape=values.shape, dtype=values.dtype, chunks=(4, 32, 32), zarr_format=zarr_format)
    array[...] = values
    array.attrs["element_size_um"] = SPACING_UM


def write_nrrd(path, values, **header):
    nrrd.write(str(path), values, {"spacings": [0.001, 0.002, 0.003], **header}, index_order="C")


def write_itk(path, values, compressed=False):
    image = sitk.GetImageFromArray(values.astype(values.dtype.newbyteorder("=")))
    image.SetSpacing((0.001, 0.002, 0.003))
    sitk.WriteImage(image, str(path), compressed)


def write_nifti(path, values):
    image = nibabel.Nifti1Image(values.T, np.diag([-0.001, 0.002, 0.003, 1.0]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def chunked(**settings):
    return lambda path, values: hdf5(path, values, chunks=(4, 32, 32), **settings)


def tiffs(write=tiff, **settings):
    return lambda path, values: write(path, values, **settings)


FORMATS = {
    "plain.tif": (tiff, GIVEN),
    "big.TIFF": (tiffs(bigtiff=True, byteorder=">"), GIVEN),
    "strips.tif": (tiffs(compression="zlib", predictor=True, rowsperstrip=8), GIVEN),
    "tiles.tif": (tiffs(compression="zstd", tile=(32, 32)), GIVEN),
    "imagej.tif": (imagej, {}),
    "plain.OME.tif": (ome_tiff, {}),
    "lzw.ome.tif": (tiffs(ome_tiff, compression="lzw"), {}),
    "slices": (folder, GIVEN),
    "plain.h5": (hdf5, {}),
    "gzip.hdf5": (chunked(compression="gzip", shuffle=True), {}),
    "scan.nxs": (nexus, {}),
    "v2.zarr": (lambda path, values: plain_zarr(path, values, 2), {}),
    "v3.zarr": (plain_zarr, {}),
    "raw.nrrd": (lambda path, values: write_nrrd(path, values, encoding="raw"), {}),
    "gzip.nrrd": (write_nrrd, {}),
    "bzip2.nhdr": (lambda path, values: write_nrrd(path, values, encoding="bzip2"), {}),
    "plain.mha": (write_itk, {}),
    "zlib.mhd": (lambda path, values: write_itk(path, values, True), {}),
    "plain.nii": (write_nifti, {}),
    "packed.NII.gz": (write_nifti, {}),
    "itk.nii.gz": (write_itk, {}),
    "c.npy": (lambda path, values: np.save(path, values), GIVEN),
    "fortran.npy": (lambda path, values: np.save(path, np.asfortranarray(values)), GIVEN),
    "values.raw": (
        lambda path, values: values.astype(">i2").tofile(path),
        {"shape": (24, 90, 70), "dtype": "int16be", **GIVEN},
    ),
}


def _of_tiff(path, _):
    with tifffile.TiffFile(path) as tiff:
        if tiff.is_ome:
            about = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
            return tiff.asarray(), [about[f"PhysicalSize{axis}"] for axis in "ZYX"]
        y, x = (den / num for num, den in (tiff.pages[0].tags.valueof(f"{axis}Resolution") for axis in "YX"))
        return tiff.asarray(), [tiff.imagej_metadata["spacing"], y, x]


def _of_folder(path, _):
    return np.stack([tifffile.imread(file) for file in sorted(path.glob("*.tif"))]), None


def _of_hdf5(path, _):
    with h5py.File(path) as file:
        data = file[f"{file.attrs['default']}/{file[file.attrs['default']].attrs['default']}/data"]
        return data[()], data.attrs["element_size_um"]


def _of_itk(path, _):
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), np.array(image.GetSpacing())[::-1] * 1e3


def _of_nibabel(path, _):
    image = nibabel.load(path)
    return np.asarray(image.dataobj.get_unscaled()).T, np.array(image.header.get_zooms())[::-1] * 1e3


def _of_zarr(path, _):
    root = zarr.open_group(path, mode="r")
    step = root.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]
    return root["0"][...], step["scale"]


OTHERS = {
    "ome-zarr": _of_zarr,
    "tiff": _of_tiff,
    "ome-tiff": _of_tiff,
    "tiff-stack": _of_folder,
    "hdf5": _of_hdf5,
    "nrrd": _of_itk,
    "mha": _of_itk,
    "nifti": _of_nibabel,
    "nifti-gz": _of_nibabel,
    "npy": lambda path, _: (np.load(path), None),
    "raw": lambda path, volume: (np.fromfile(path, volume.dtype).reshape(volume.shape), None),
}
SPOOLED = ("gzip.nrrd", "bzip2.nhdr", "zlib.mhd", "packed.NII.gz", "itk.nii.gz")
TURNED = ("fortran.npy",)


@pytest.fixture(params=FORMATS)
def written(request, tmp_path, values):
    write, given = FORMATS[request.param]
    path = tmp_path / request.param
    write(path, values)
    return path, given


def test_values_type_and_voxel_size_come_back(written, values):
    path, given = written
    volume = read_volume(path, **given)
    assert volume.dtype == np.int16
    assert volume.dtype.isnative
    assert volume.grid.spacing_um == SPACING_UM
    assert volume.name == path.name
    np.testing.assert_array_equal(volume[:], values)
    for window in (
        np.s_[3:5, 2:47, 4],
        np.s_[-1],
        np.s_[::5, ::-2, 1::4],
        np.s_[..., 40:],
        np.s_[7, 33:, 60],
        np.s_[5:5],
    ):
        found = volume[window]
        np.testing.assert_array_equal(found, values[window])
        assert found.dtype.isnative


def test_every_format_that_is_read_is_converted_to_every_one_that_is_written(tmp_path, written, values):
    """Values, type and voxel size, as h5py, tifffile, SimpleITK, nibabel and zarr see them."""
    path, given = written
    _assert_converted(tmp_path, read_volume(path, **given), values, SPACING_UM)


@pytest.mark.parametrize(
    "name", ["isq", "aim", "skyscan", "png-folder", "nexus", "hdf5-blosc", "ome-zarr-0.4", "ome-zarr-0.5-blosc"]
)
def test_formats_of_scanners_are_converted_to_every_one_that_is_written(tmp_path, name):
    """Calibrated, external, compressed: the values are those that others' code sees in the file itself."""
    (tmp_path / "in").mkdir()
    path = FUZZED[name].write(tmp_path / "in")
    seen = FUZZED[name].strict(path)
    volume = read_volume(path, **(GIVEN if name == "png-folder" else {}))
    spacing = SPACING_UM if name == "png-folder" else tuple(seen["spacing_um"])
    _assert_converted(tmp_path, volume, seen["whole"], spacing)


def _assert_converted(tmp_path, volume, values, spacing_um):
    for kind, others in OTHERS.items():
        out = tmp_path / f"out_{kind}{WRITERS[kind].suffixes[0]}"
        write_volume(out, volume, kind)
        found, spacing = others(out, volume)
        assert found.dtype == values.dtype, kind
        np.testing.assert_array_equal(found, values, err_msg=kind)
        if spacing is not None:
            np.testing.assert_allclose(spacing, spacing_um[-len(spacing) :], rtol=1e-6, err_msg=kind)


def test_one_plane_reads_a_small_part_of_the_file(written, values, bytes_read):
    path, given = written
    volume = read_volume(path, **given)
    if path.name in SPOOLED:
        volume[0]
    before = bytes_read()
    np.testing.assert_array_equal(volume[13], values[13])
    share = (bytes_read() - before) / values.nbytes
    assert share < (1.01 if path.name in TURNED else 0.4)


def test_a_worker_process_reads_by_the_path(written, values):
    path, given = written
    volume = read_volume(path, **given)
    carried = pickle.loads(pickle.dumps(volume))
    np.testing.assert_array_equal(carried[11:13, :, 5], values[11:13, :, 5])
    assert len(pickle.dumps(volume)) < 20_000


def test_a_truncated_file_is_refused_in_one_sentence(written, tmp_path):
    path, given = written
    cut = max((file for file in tmp_path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    cut.write_bytes(cut.read_bytes()[: -cut.stat().st_size // 3])
    with pytest.raises(ValueError, match=r".{20}") as told:
        read_volume(path, **given)[:]
    assert "\n" not in str(told.value)
    assert cut.name in str(told.value) or path.name in str(told.value)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", ">u2", ">f4"])
@pytest.mark.parametrize("name", ["a.tif", "a.h5", "a.zarr", "a.nrrd", "a.mha", "a.nii", "a.npy"])
def test_types_and_byte_orders_keep_their_values(tmp_path, values, name, dtype):
    stored = (values[:3].astype(np.float64) / 200 + 100).clip(0).astype(dtype)
    writers = {
        ".tif": tiff,
        ".h5": hdf5,
        ".zarr": plain_zarr,
        ".nrrd": write_nrrd,
        ".mha": write_itk,
        ".nii": write_nifti,
    }
    writers[".npy"] = lambda path, kept: np.save(path, kept)
    writers[Path(name).suffix](tmp_path / name, stored)
    volume = read_volume(tmp_path / name, spacing_um=SPACING_UM)
    assert volume.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(volume[:], stored)


def test_unknown_endings_are_refused_with_the_known_ones(tmp_path):
    (tmp_path / "scan.xyz").write_bytes(b"123456")
    with pytest.raises(
        ValueError, match=r"scan\.xyz: volumes are read from \.zarr, \.tif, .*or pass --shape and --dtype"
    ):
        read_volume(tmp_path / "scan.xyz")
    assert read_volume(tmp_path / "scan.xyz", shape=(1, 2, 3), dtype="uint8", spacing_um=SPACING_UM)[0, 1, 2] == ord(
        "6"
    )


def test_raw_settings_are_refused_where_a_file_states_its_own(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ValueError, match=r"a\.npy states its own shape and type; --shape"):
        read_volume(tmp_path / "a.npy", shape=(1, 2, 3), spacing_um=SPACING_UM)


def test_a_choice_inside_a_file_with_one_volume_is_refused(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ValueError, match=r"a\.npy holds one volume only; leave out '::/x'"):
        read_volume(f"{tmp_path / 'a.npy'}::/x", spacing_um=SPACING_UM)


def test_a_volume_has_one_fingerprint_in_every_format_and_another_with_other_values(tmp_path, values):
    hdf5(tmp_path / "a.h5", values)
    plain_zarr(tmp_path / "a.zarr", values)
    other = values.copy()
    other[-1, 5, 7] += 1
    hdf5(tmp_path / "other.h5", other)
    seen = [read_volume(tmp_path / name).fingerprint() for name in ("a.h5", "a.zarr", "other.h5")]
    seen.append(read_volume(tmp_path / "a.h5", spacing_um=(3, 2, 2)).fingerprint())
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3
