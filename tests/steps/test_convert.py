"""What convert writes is what was there: values, sizes and place; what is lost is told, what exists is kept."""

import json
import warnings

import numpy as np
import openslide
import pytest
import tifffile

from tomostain.cli import main
from tomostain.images.geometry import Grid
from tomostain.images.resample import area_average
from tomostain.images.simulated import SIMULATED
from tomostain.images.srgb import to_srgb
from tomostain.io.ome_zarr import create_volume
from tomostain.io.slides import read_slide
from tomostain.io.volumes import read_volume
from tomostain.io.writers.pyramidal_tiff import write_slide
from tomostain.steps.convert import ConvertRecipe, convert

GRID = Grid((9, 40, 50), (3.0, 1.0, 1.5), (30.0, 0.0, -6.0))


@pytest.fixture
def values(rng):
    return rng.integers(0, 65536, GRID.shape, dtype=np.uint16)


@pytest.fixture
def ct(tmp_path, values):
    with create_volume(tmp_path / "ct.ome.zarr", GRID, dtype=values.dtype) as writer:
        writer[0:9, 0:40, 0:50] = values
    return tmp_path / "ct.ome.zarr"


@pytest.fixture
def slide(tmp_path, rng):
    rgb = rng.integers(0, 256, (700, 900, 3), dtype=np.uint8)
    return write_slide(tmp_path / "slide.tif", rgb, pixel_um=0.5), rgb


def test_there_and_back_through_imagej_tiff_keeps_values_and_size(tmp_path, ct, values):
    with pytest.warns(UserWarning, match="does not store the origin 30 0 -6 um"):
        convert(ct, tmp_path / "a.tif")
    convert(tmp_path / "a.tif", tmp_path / "b.ome.zarr")
    again = read_volume(tmp_path / "b.ome.zarr")
    np.testing.assert_array_equal(again[:], values)
    assert again.dtype == np.uint16
    assert again.grid.spacing_um == pytest.approx(GRID.spacing_um)


def test_part_of_a_volume_lies_where_it_lay(tmp_path, ct, values):
    recipe = ConvertRecipe(planes=(2, 7), roi=(10, 30, 5, 45))
    part = read_volume(convert(ct, tmp_path / "part.ome.zarr", recipe=recipe))
    np.testing.assert_array_equal(part[:], values[2:7, 10:30, 5:45])
    assert part.grid.spacing_um == GRID.spacing_um
    assert part.grid.origin_um == (36.0, 10.0, 1.5)
    for wrong in (ConvertRecipe(planes=(2, 10)), ConvertRecipe(roi=(5, 5, 0, 9))):
        with pytest.raises(ValueError, match=r"ct\.ome\.zarr has [zy] from 0 to \d+; \d+ to \d+ is not part of it"):
            convert(ct, tmp_path / "never.ome.zarr", recipe=wrong)


def test_what_is_lost_is_reported_and_recorded(tmp_path, ct, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["convert", str(ct), str(tmp_path / "ct.npy")]) == 0
    assert "NumPy array does not store the voxel size 3 1 1.5 um (z y x)" in capsys.readouterr().err
    record = json.loads((tmp_path / "ct.npy.run.json").read_text())
    assert record["step"] == "convert"
    assert record["results"]["spacing_um"] == [3.0, 1.0, 1.5]
    assert record["results"]["not_kept"][1] == "the origin 30 0 -6 um (z y x)"


def test_what_exists_is_never_overwritten(tmp_path, ct):
    (tmp_path / "a.tif").write_text("precious")
    with pytest.raises(ValueError, match=r"a\.tif exists; choose another name"):
        convert(ct, tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_text() == "precious"
    with pytest.raises(ValueError, match="is the input itself"):
        convert(ct, ct)


def test_slide_becomes_an_ome_tiff_level_and_window_chosen(tmp_path, slide):
    path, rgb = slide
    recipe = ConvertRecipe(level=1, roi=(20, 320, 30, 430))
    out = convert(path, tmp_path / "part.ome.tif", recipe=recipe)
    expected = to_srgb(area_average(rgb, 2))[20:320, 30:430]
    again = read_slide(out)
    np.testing.assert_array_equal(again[:, :], expected)
    assert again.pixel_um == pytest.approx((1.0, 1.0))
    with openslide.OpenSlide(out) as other:
        assert other.dimensions == (400, 300)
    with tifffile.TiffFile(out) as tiff:
        assert tiff.is_ome


def test_slides_are_not_written_as_volumes(tmp_path, slide):
    with pytest.raises(ValueError, match=r"slide\.tif is a slide; it is written as \.ome\.tif or"):
        convert(slide[0], tmp_path / "slide.nrrd")
    with pytest.raises(ValueError, match="has levels 0 to 2, not 3"):
        convert(slide[0], tmp_path / "s.tif", recipe=ConvertRecipe(level=3))
    with pytest.raises(ValueError, match="is a slide and has no planes"):
        convert(slide[0], tmp_path / "s.tif", recipe=ConvertRecipe(planes=(0, 1)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slide.tif"]


def test_stained_volume_becomes_planes_that_open_as_slides(tmp_path, rng):
    values = rng.integers(0, 256, (3, 300, 280, 3), dtype=np.uint8)
    with create_volume(tmp_path / "stained.ome.zarr", Grid((3, 300, 280), (2, 2, 2)), colours=3) as writer:
        writer[0:3, 0:300, 0:280] = values
    with pytest.warns(UserWarning, match="does not store the distance of the planes, 2 um"):
        convert(tmp_path / "stained.ome.zarr", tmp_path / "p", recipe=ConvertRecipe(format="ome-tiff-planes"))
    plane = read_slide(tmp_path / "p" / "p_0002.ome.tif")
    np.testing.assert_array_equal(plane[:, :], values[2])
    assert plane.pixel_um == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize("name", ["copy.tif", "copy.ome.tif"])
def test_a_simulated_slide_says_so_after_conversion_too(tmp_path, rng, name):
    rgb = rng.integers(0, 256, (300, 320, 3), dtype=np.uint8)
    source = write_slide(tmp_path / "s.tif", rgb, pixel_um=1.0, description=SIMULATED)
    assert read_slide(convert(source, tmp_path / name)).simulated == SIMULATED
    plain = write_slide(tmp_path / "plain.tif", rgb, pixel_um=1.0)
    assert read_slide(convert(plain, tmp_path / f"plain_{name}")).simulated is None


def test_a_simulated_volume_says_so_in_ome_zarr_and_a_format_that_cannot_is_named(tmp_path, values):
    with create_volume(
        tmp_path / "ct.ome.zarr", Grid(values.shape, (5, 5, 5)), dtype=values.dtype, attributes={"simulated": SIMULATED}
    ) as writer:
        writer[tuple(slice(0, n) for n in values.shape)] = values
    assert read_volume(convert(tmp_path / "ct.ome.zarr", tmp_path / "copy.ome.zarr")).simulated == SIMULATED
    with pytest.warns(UserWarning, match="does not store that it is simulated"):
        convert(tmp_path / "ct.ome.zarr", tmp_path / "copy.nrrd")


@pytest.mark.parametrize("shape", [(1, 7, 9), (4, 7, 1), (4, 1, 9), (1, 1, 9), (1, 1, 1)])
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_volumes_of_one_plane_or_one_voxel_across_become_tiff_and_come_back(tmp_path, rng, shape, name, dtype):
    values = rng.integers(0, 99, shape).astype(dtype)
    with create_volume(tmp_path / "ct.ome.zarr", Grid(shape, (3.0, 3.0, 3.0)), dtype=values.dtype) as writer:
        writer[0 : shape[0], 0 : shape[1], 0 : shape[2]] = values
    with warnings.catch_warnings(action="ignore"):
        out = convert(tmp_path / "ct.ome.zarr", tmp_path / name)
    again = read_volume(out, spacing_um=(3, 3, 3))
    np.testing.assert_array_equal(again[:], values)
    assert again.dtype == values.dtype


def test_one_coloured_plane_becomes_tiff(tmp_path, rng):
    values = rng.integers(0, 256, (1, 20, 30, 3), dtype=np.uint8)
    with create_volume(tmp_path / "stained.ome.zarr", Grid((1, 20, 30), (2, 2, 2)), colours=3) as writer:
        writer[0:1, 0:20, 0:30] = values
    np.testing.assert_array_equal(
        tifffile.imread(convert(tmp_path / "stained.ome.zarr", tmp_path / "a.tif")), values[0]
    )
