"""Every format that is written keeps values, voxel size and type, as others' code and our own readers see them."""

import dataclasses
import importlib.util
import os
import signal
import subprocess
import sys

import h5py
import nibabel
import numpy as np
import openslide
import pytest
import tifffile
import yaozarrs

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.images.pyramid import level_shapes
from tomostain.images.resample import area_average
from tomostain.images.srgb import to_srgb
from tomostain.io.slides import read_slide
from tomostain.io.volumes import READERS, read_volume
from tomostain.io.writers import FORMATS, format_of, write_volume
from tomostain.io.writers import formats as formats_module
from tomostain.io.writers.pyramidal_tiff import write_slide
from tomostain.io.writers.target import Target

SPACING = (2.5, 0.5, 0.65)
ORIGIN = (10.0, -3.0, 4.0)
NAMES = {key: "v" + (form.suffixes[0] if form.suffixes else "") for key, form in FORMATS.items()}
NAMES["ome-zarr"] = "v.ome.zarr"
SPACING_IS_GIVEN = {"npy", "raw", "tiff-stack", "ome-tiff-planes"}
"""Formats whose files do not state all three lengths where they are read."""


def volume_of(dtype, shape=(7, 30, 41), colours=None):
    rng = np.random.default_rng(3)
    full = (*shape, *((colours,) if colours else ()))
    if np.dtype(dtype).kind == "f":
        values = rng.normal(size=full).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        values = rng.integers(limits.min, limits.max, full, dtype=dtype, endpoint=True)
    return Volume(values, Grid(shape, SPACING, ORIGIN), "v")


def readable(kind):
    """Whether this version reads volumes of a format back, with what they state."""
    if "tiff" in kind:
        return kind == "tiff-stack" or importlib.util.find_spec("tomostain.io.volumes") is not None
    return any(NAMES[kind].endswith(suffix) for suffix in READERS)


def given(kind, volume):
    more = {"shape": volume.shape[:3], "dtype": volume.dtype.name} if kind == "raw" else {}
    return more | ({"spacing_um": SPACING} if kind in SPACING_IS_GIVEN else {})


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("kind", [key for key in FORMATS if key != "ome-tiff-planes"])
def test_what_is_written_is_read_back(tmp_path, kind, dtype):
    volume = volume_of(dtype)
    write_volume(tmp_path / NAMES[kind], volume, kind)
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[kind]]
    if not readable(kind):
        pytest.skip(f"no reader of {kind} in this version")
    again = read_volume(tmp_path / NAMES[kind], **given(kind, volume))
    assert again.dtype == dtype
    np.testing.assert_array_equal(again[0:7, 0:30, 0:41], volume[:])
    np.testing.assert_allclose(again.grid.spacing_um, SPACING, rtol=1e-6)


@pytest.mark.parametrize("first", [key for key in FORMATS if key != "ome-tiff-planes"])
def test_every_pair_of_formats_hands_on_values_type_and_size(tmp_path, first):
    if not readable(first):
        pytest.skip(f"no reader of {first} in this version")
    volume = volume_of("uint16", shape=(4, 20, 30))
    (tmp_path / "first").mkdir()
    write_volume(tmp_path / "first" / NAMES[first], volume, first)
    there = read_volume(tmp_path / "first" / NAMES[first], **given(first, volume))
    for second in FORMATS:
        if second == "ome-tiff-planes" or not readable(second):
            continue
        write_volume(tmp_path / NAMES[second], there, second)
        back = read_volume(tmp_path / NAMES[second], **given(second, volume))
        assert back.dtype == np.uint16
        np.testing.assert_array_equal(back[0:4, 0:20, 0:30], volume[:])
        np.testing.assert_allclose(back.grid.spacing_um, SPACING, rtol=1e-6)


def as_sitk(path):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(path))
    return (
        sitk.GetArrayFromImage(image),
        np.array(image.GetSpacing()[::-1]) * 1000,
        np.array(image.GetOrigin()[::-1]) * 1000,
    )


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("kind", ["mha", "nrrd", "nifti", "nifti-gz"])
def test_simpleitk_reads_values_and_lengths(tmp_path, kind, dtype):
    volume = volume_of(dtype)
    write_volume(tmp_path / NAMES[kind], volume, kind)
    values, spacing, origin = as_sitk(tmp_path / NAMES[kind])
    np.testing.assert_array_equal(values, volume[:])
    np.testing.assert_allclose(spacing, SPACING, rtol=1e-6)
    if "origin" in FORMATS[kind].keeps:
        np.testing.assert_allclose(origin, ORIGIN)


@pytest.mark.parametrize("kind", ["nifti", "nifti-gz"])
def test_nibabel_reads_values_and_lengths_and_no_claimed_orientation(tmp_path, kind):
    volume = volume_of("int16")
    write_volume(tmp_path / NAMES[kind], volume, kind)
    image = nibabel.load(tmp_path / NAMES[kind])
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), volume[:])
    np.testing.assert_allclose(image.header.get_zooms(), np.array(SPACING)[::-1] / 1000, rtol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 0)


def test_h5py_reads_values_axes_and_voxel_size(tmp_path):
    volume = volume_of("uint16")
    write_volume(tmp_path / "v.h5", volume, "hdf5")
    with h5py.File(tmp_path / "v.h5") as file:
        group = file[file.attrs["default"]]
        group = group[group.attrs["default"]]
        data = group[group.attrs["signal"]]
        np.testing.assert_array_equal(data[...], volume[:])
        np.testing.assert_array_equal(data.attrs["element_size_um"], SPACING)
        np.testing.assert_allclose(group["y"][:3], [-3.0, -2.5, -2.0])
        assert group["y"].attrs["units"] == "um"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("colours", [None, 3])
def test_one_tiff_is_an_imagej_stack(tmp_path, dtype, colours):
    if colours and dtype != "uint8":
        pytest.skip("colours are 8-bit")
    volume = volume_of(dtype, colours=colours)
    write_volume(tmp_path / "v.tif", volume, "tiff")
    with tifffile.TiffFile(tmp_path / "v.tif") as tiff:
        assert tiff.is_imagej
        assert tiff.series[0].axes == ("ZYXS" if colours else "ZYX")
        assert tiff.imagej_metadata["spacing"] == 2.5
        assert tiff.imagej_metadata["unit"] == "um"
        assert len(tiff.pages) == 7
        np.testing.assert_array_equal(tiff.pages[3].asarray(), volume[3])
        across, units = tiff.pages.first.tags["XResolution"].value
        assert units / across == pytest.approx(0.65)


@pytest.mark.parametrize(("kind", "dtype"), [("tiff", "int16"), ("ome-tiff", "uint16"), ("ome-tiff", "float64")])
def test_what_imagej_has_no_type_for_is_ome_tiff(tmp_path, kind, dtype):
    volume = volume_of(dtype)
    write_volume(tmp_path / NAMES[kind], volume, kind)
    with tifffile.TiffFile(tmp_path / NAMES[kind]) as tiff:
        assert tiff.is_ome
        assert tiff.series[0].axes == "ZYX"
        np.testing.assert_array_equal(tiff.asarray(), volume[:])
        assert 'PhysicalSizeZ="2.5" PhysicalSizeZUnit="µm"' in tiff.ome_metadata


def test_more_than_4_gb_is_a_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr("tomostain.io.writers.tiff._CLASSIC_BYTES", 1000)
    volume = volume_of("uint8")
    write_volume(tmp_path / "v.tif", volume, "tiff")
    with tifffile.TiffFile(tmp_path / "v.tif") as tiff:
        assert tiff.is_bigtiff
        assert tiff.is_ome
        np.testing.assert_array_equal(tiff.asarray(), volume[:])


@pytest.mark.parametrize("colours", [None, 3])
def test_slices_are_numbered_in_order_and_open_in_imagej(tmp_path, colours):
    volume = volume_of("uint8", shape=(12, 20, 30), colours=colours)
    write_volume(tmp_path / "bone", volume, "tiff-stack")
    files = sorted((tmp_path / "bone").iterdir())
    assert [file.name for file in files] == [f"bone_{z:04d}.tif" for z in range(12)]
    with tifffile.TiffFile(files[11]) as tiff:
        assert tiff.is_imagej
        assert tiff.imagej_metadata["spacing"] == 2.5
        np.testing.assert_array_equal(tiff.asarray(), volume[11])


def test_openslide_and_tifffile_read_pyramidal_planes(tmp_path):
    volume = volume_of("uint8", shape=(2, 600, 700), colours=3)
    write_volume(tmp_path / "stained", volume, "ome-tiff-planes")
    file = tmp_path / "stained" / "stained_0001.ome.tif"
    with openslide.OpenSlide(file) as slide:
        assert slide.dimensions == (700, 600)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.65, rel=1e-4)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5, rel=1e-4)
        np.testing.assert_array_equal(np.asarray(slide.read_region((0, 0), 0, (700, 600)))[..., :3], volume[1])
    with tifffile.TiffFile(file) as tiff:
        assert tiff.is_ome
        assert [level.shape for level in tiff.series[0].levels] == [(600, 700, 3), (300, 350, 3), (150, 175, 3)]


def test_ome_zarr_is_valid_and_others_read_it(tmp_path):
    volume = volume_of("uint16", shape=(7, 100, 41))
    write_volume(tmp_path / "v.ome.zarr", volume, "ome-zarr")
    yaozarrs.validate_zarr_store(str(tmp_path / "v.ome.zarr"))
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    (node,) = [node for node in Reader(parse_url(str(tmp_path / "v.ome.zarr")))() if node.data]
    np.testing.assert_array_equal(np.asarray(node.data[0]), volume[:])


def test_naparis_reader_opens_our_ome_zarr(tmp_path):
    reader = pytest.importorskip("napari_ome_zarr", reason="napari-ome-zarr is not installed")
    volume = volume_of("uint8", shape=(7, 100, 41))
    write_volume(tmp_path / "v.ome.zarr", volume, "ome-zarr")
    layers = reader.napari_get_reader(str(tmp_path / "v.ome.zarr"))(str(tmp_path / "v.ome.zarr"))
    np.testing.assert_array_equal(np.asarray(layers[0][0][0]), volume[:])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_writer_that_breaks_leaves_nothing(tmp_path, kind):
    class Breaks:
        shape, dtype = (7, 30, 41), np.dtype(np.uint8)

        def __getitem__(self, window):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_volume(tmp_path / NAMES[kind], Volume(Breaks(), Grid((7, 30, 41), SPACING), "v"), kind)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, sys, signal, numpy as np
from pathlib import Path
from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.io.writers import formats
formats.BLOCK_BYTES = 1
class Dies:
    shape, dtype, read = (70, 30, 41), np.dtype(np.uint8), 0
    def __getitem__(self, window):
        self.read += 1
        if self.read > 1 or sys.argv[2] == "ome-zarr":
            os.kill(os.getpid(), signal.SIGKILL)
        return np.ones(tuple(len(range(*w.indices(n))) for w, n in zip(window, self.shape)), np.uint8)
formats.write_volume(Path(sys.argv[1]), Volume(Dies(), Grid((70, 30, 41), (1, 1, 1)), "v"), sys.argv[2])
"""


@pytest.mark.parametrize("kind", ["tiff", "tiff-stack", "hdf5", "nrrd", "ome-zarr"])
def test_a_writer_that_is_killed_leaves_nothing_under_the_name(tmp_path, kind):
    told = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / NAMES[kind]), kind], check=False)
    assert told.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [f".{NAMES[kind]}.part"]
    write_volume(tmp_path / NAMES[kind], volume_of("uint8"), kind)
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[kind]]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_missing_permission_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        write_volume(tmp_path / "v.nrrd", volume_of("uint8"), "nrrd")


def test_a_disk_without_room_is_refused_before_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(formats_module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10_000}))
    with pytest.raises(ValueError, match=r"v\.nrrd will take about .* GB free; make room or choose another disk"):
        write_volume(tmp_path / "v.nrrd", volume_of("uint16"), "nrrd")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_held_is_refused_with_what_can(tmp_path):
    with pytest.raises(
        ValueError, match="holds colours, NRRD here takes grey values; choose one of ome-zarr, ome-tiff"
    ):
        write_volume(tmp_path / "v.nrrd", volume_of("uint8", colours=3), "nrrd")
    with pytest.raises(ValueError, match="holds float16 values"):
        write_volume(tmp_path / "v.nrrd", volume_of("float16"), "nrrd")
    with pytest.raises(ValueError, match="NIfTI-1 ends at 32767 voxels an axis"):
        write_volume(tmp_path / "v.nii", volume_of("uint8", shape=(1, 1, 40000)), "nifti")


def test_what_is_not_kept_is_reported(tmp_path):
    volume = volume_of("uint8")
    assert write_volume(tmp_path / "v.ome.zarr", volume, "ome-zarr") == []
    assert write_volume(tmp_path / "v.nii", volume, "nifti") == ["the origin 10 -3 4 um (z y x)"]
    assert write_volume(tmp_path / "v.npy", volume, "npy") == [
        "the voxel size 2.5 0.5 0.65 um (z y x)",
        "the origin 10 -3 4 um (z y x)",
    ]
    assert write_volume(tmp_path / "v", volume_of("int16"), "tiff-stack")[0] == "the distance of the planes, 2.5 um"
    calibrated = dataclasses.replace(volume_of("float32"), about={"units": "1/cm"})
    assert "the unit of the values, 1/cm" in write_volume(tmp_path / "c.nrrd", calibrated, "nrrd")
    assert write_volume(tmp_path / "c.ome.zarr", calibrated, "ome-zarr") == []
    assert read_volume(tmp_path / "c.ome.zarr").about["units"] == "1/cm"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.ome.zarr", "ome-zarr"),
        ("a.ome.tif", "ome-tiff"),
        ("a.TIF", "tiff"),
        ("a.nii.gz", "nifti-gz"),
        ("a", "tiff-stack"),
    ],
)
def test_the_ending_chooses_the_format(tmp_path, name, kind):
    assert format_of(tmp_path / name) == kind
    assert format_of(tmp_path / name, "raw") == "raw"


def test_unknown_endings_and_formats_are_reported_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"a\.jpg: volumes are written as ome-zarr \(\.zarr\), .*--format"):
        format_of(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="there is no format 'tif' to write; known: ome-zarr"):
        format_of(tmp_path / "a", "tif")


@pytest.mark.parametrize("slab", [(64, 512, 512), (1, 0, 0), (16, 256, 0)])
def test_pieces_cover_every_voxel_once_within_their_size(monkeypatch, slab):
    monkeypatch.setattr(formats_module, "BLOCK_BYTES", 2**21)
    target = Target("v", Grid((100, 700, 900), (1, 1, 1)), np.dtype(np.uint8))
    seen = np.zeros(target.shape, np.uint8)
    for window in formats_module.windows(target, slab):
        seen[window] += 1
        floor = slab[0] * (slab[1] or 700) * (slab[2] or 900)
        assert seen[window].size <= max(2**21, floor)
    assert (seen == 1).all()


def test_same_volume_same_bytes(tmp_path):
    for kind in ("nifti-gz", "nrrd", "tiff", "npy"):
        files = []
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_volume(tmp_path / folder / NAMES[kind], volume_of("uint8"), kind)
            files.append((tmp_path / folder / NAMES[kind]).read_bytes())
        assert files[0] == files[1]


@pytest.mark.parametrize("ome", [False, True])
def test_slides_and_volumes_round_their_levels_up(tmp_path, rng, ome):
    """An odd last row is repeated, so that no tissue at the edge is left out of a coarser level."""
    rgb = rng.integers(0, 255, (601, 303, 3), dtype=np.uint8)
    write_slide(tmp_path / "s.tif", rgb, pixel_um=0.5, ome=ome)
    with tifffile.TiffFile(tmp_path / "s.tif") as tiff:
        levels = (
            [level.asarray() for level in tiff.series[0].levels] if ome else [page.asarray() for page in tiff.pages]
        )
    assert [level.shape[:2] for level in levels] == [shape[:2] for shape in level_shapes((601, 303), smallest=256)]
    assert [level.shape[:2] for level in levels] == [(601, 303), (301, 152), (151, 76)]
    edge = np.pad(rgb, ((0, 1), (0, 1), (0, 0)), mode="edge")
    np.testing.assert_array_equal(levels[1], to_srgb(area_average(edge, 2)))
    slide = read_slide(tmp_path / "s.tif")
    assert [level.downsample for level in slide.levels] == [(1, 1), (2, 2), (4, 4)]
    with openslide.OpenSlide(tmp_path / "s.tif") as other:
        assert other.level_dimensions[0] == (303, 601)
