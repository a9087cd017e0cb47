"""Zarr folders: series, levels, plain arrays, and metadata that must not be believed."""

import json
import os

import numpy as np
import pytest
import zarr

from tomostain.images.geometry import Grid
from tomostain.io.ome_zarr import create_volume
from tomostain.io.volumes import read_volume

UNIT = {"spacing_um": (1, 1, 1)}


@pytest.fixture
def image(tmp_path, rng):
    values = rng.integers(0, 255, (70, 80, 90), dtype=np.uint8)
    path = tmp_path / "ct.OME.zarr"
    with create_volume(path, Grid(values.shape, (5.0, 4.0, 3.0))) as writer:
        writer[0:70, 0:80, 0:90] = values
    return path, values


@pytest.fixture
def plain(tmp_path, rng):
    values = rng.integers(0, 255, (6, 8, 9), dtype=np.uint8)
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=values, chunks=(2, 8, 9), zarr_format=2)
    return path, values


def edit(file, change):
    text = json.loads(file.read_text())
    change(text)
    file.write_text(json.dumps(text))


def test_a_level_and_an_array_can_be_chosen(image):
    path, values = image
    assert read_volume(path).shape == (70, 80, 90)
    coarse = read_volume(f"{path}::1")
    assert coarse.grid.spacing_um == (10.0, 8.0, 6.0)
    np.testing.assert_array_equal(read_volume(f"{path}::/1", **UNIT)[:], coarse[:])
    np.testing.assert_array_equal(read_volume(f"{path}::/0", **UNIT)[3], values[3])
    with pytest.raises(ValueError, match=r"ct\.OME\.zarr has levels 0 to 1, not 7"):
        read_volume(f"{path}::7")


def test_version_0_4_in_millimetres_is_read(tmp_path, rng):
    values = rng.integers(0, 255, (1, 1, 6, 8, 9), dtype=np.uint8)
    root = zarr.open_group(tmp_path / "old.zarr", mode="w", zarr_format=2)
    root.create_array("s0", data=values, chunks=(1, 1, 2, 8, 9), chunk_key_encoding={"name": "v2", "separator": "/"})
    axes = [{"name": "t"}, {"name": "c"}, *({"name": axis, "type": "space", "unit": "millimeter"} for axis in "zyx")]
    steps = [{"type": "scale", "scale": [1, 1, 0.003, 0.002, 0.001]}]
    scales = {"version": "0.4", "axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": steps}]}
    root.attrs["multiscales"] = [scales]
    volume = read_volume(tmp_path / "old.zarr")
    assert volume.grid.spacing_um == (3.0, 2.0, 1.0)
    assert volume.about["format"] == "OME-Zarr 0.4"
    np.testing.assert_array_equal(volume[2:4], values[0, 0, 2:4])


def test_a_plain_array_in_a_group_is_found(tmp_path, plain):
    _, values = plain
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    group.create_array("volume", data=values)
    np.testing.assert_array_equal(read_volume(tmp_path / "g.zarr", **UNIT)[:], values)
    group.create_array("other", data=values)
    with pytest.raises(ValueError, match=r"choose one of g\.zarr::/other, g\.zarr::/volume"):
        read_volume(tmp_path / "g.zarr", **UNIT)
    np.testing.assert_array_equal(read_volume(f"{tmp_path / 'g.zarr'}::/volume", **UNIT)[:], values)


@pytest.mark.parametrize("away", ["../../secret", "/etc", "..", "a/../../b"])
def test_metadata_that_leads_out_of_the_folder_is_refused(image, away):
    path, _ = image
    edit(path / "zarr.json", lambda text: text["attributes"]["ome"]["multiscales"][0]["datasets"][0].update(path=away))
    with pytest.raises(ValueError, match=r"leads out of its own folder|not a Zarr array"):
        read_volume(path)


@pytest.mark.parametrize("codec", ["pickle", "json2", "msgpack2", "vlen-bytes"])
def test_codecs_that_make_objects_are_refused(plain, codec):
    path, _ = plain
    edit(path / ".zarray", lambda text: text.update(filters=[{"id": codec}]))
    with pytest.raises(ValueError, match=rf"a\.zarr is stored with the codec '{codec}', which is not read here"):
        read_volume(path, **UNIT)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"shape": [2**20, 2**20, 9]}, r"claims 1048576 x 1048576 x 9 uint8 values"),
        ({"shape": [0, 8, 9]}, "three positive sizes"),
        ({"shape": [8, 9]}, r"has a shape of \(8, 9\)|cannot be read"),
        ({"chunks": [2**15, 2**15, 9]}, "too large to be read in part"),
        ({"dtype": "|O"}, "holds object|cannot be read"),
        ({"dtype": "|b1"}, "holds bool"),
        ({"shape": "many"}, "cannot be read as Zarr"),
    ],
)
def test_lying_metadata_is_refused(plain, change, fault):
    path, _ = plain
    edit(path / ".zarray", lambda text: text.update(change))
    with pytest.raises(ValueError, match=rf"a\.zarr.*({fault})"):
        read_volume(path, **UNIT)[0]


def test_two_channels_are_refused(tmp_path, image):
    path, _ = image
    edit(
        path / "zarr.json",
        lambda text: text["attributes"]["ome"]["multiscales"][0]["axes"].insert(0, {"name": "c", "type": "channel"}),
    )
    with pytest.raises(ValueError, match=r"axes .* but an array of shape"):
        read_volume(path)


@pytest.mark.parametrize("file", ["zarr.json", ".zattrs", ".zgroup"])
def test_a_pipe_where_zarr_would_look_for_metadata_is_refused(tmp_path, file):
    array = zarr.create_array(tmp_path / "v.zarr", data=np.ones((8, 8, 8), "u2"), zarr_format=2)
    array.attrs["element_size_um"] = [1, 1, 1]
    assert read_volume(tmp_path / "v.zarr").grid.spacing_um == (1, 1, 1)
    (tmp_path / "v.zarr" / file).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "v.zarr" / file)
    with pytest.raises(ValueError, match=rf"v\.zarr.*{file} is not a file"):
        read_volume(tmp_path / "v.zarr", spacing_um=(1, 1, 1))


def bioformats2raw(path, form, series):
    """The layout that bioformats2raw writes: one image a series, in groups 0, 1, ... beside OME."""
    root = zarr.open_group(path, mode="w", zarr_format=form)

    def say(group, words, version):
        group.attrs.update(words if form == 2 else {"ome": {"version": version} | words})

    say(root, {"bioformats2raw.layout": 3}, "0.5")
    say(root.create_group("OME"), {"series": [str(i) for i in range(len(series))]}, "0.5")
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    for i, values in enumerate(series):
        image = root.create_group(str(i))
        steps = [[{"type": "scale", "scale": [1, 1, 5.0, 3.0 * 2**level, 3.0 * 2**level]}] for level in range(2)]
        sets = [{"path": str(level), "coordinateTransformations": step} for level, step in enumerate(steps)]
        say(image, {"multiscales": [{"version": "0.4", "axes": axes, "datasets": sets}]}, "0.5")
        for level in range(2):
            image.create_array(str(level), data=values[None, None, :, :: 2**level, :: 2**level], chunks=(1, 1, 1, 8, 8))
    return path


@pytest.mark.parametrize("form", [2, 3])
def test_one_series_of_bioformats2raw_opens_by_itself(tmp_path, rng, form):
    values = rng.integers(0, 2000, (6, 16, 12)).astype("u2")
    path = bioformats2raw(tmp_path / "ct.zarr", form, [values])
    for choice in ("", "::/0", "::0", "::/0/0", "::0/0", "/0", "/0/0"):
        volume = read_volume(f"{path}{choice}")
        assert volume.grid.spacing_um == (5.0, 3.0, 3.0)
        np.testing.assert_array_equal(volume[:], values)
    for choice in ("::/0/1", "/0::1", "/0/1"):
        coarse = read_volume(f"{path}{choice}")
        assert coarse.grid.spacing_um == (5.0, 6.0, 6.0)
        np.testing.assert_array_equal(coarse[:], values[:, ::2, ::2])


@pytest.mark.parametrize("form", [2, 3])
def test_several_series_are_listed(tmp_path, rng, form):
    series = [rng.integers(0, 2000, (6, 16, 12)).astype("u2") for _ in range(11)]
    path = bioformats2raw(tmp_path / "ct.zarr", form, series)
    with pytest.raises(
        ValueError, match=r"ct\.zarr holds 11 images; choose one of ct\.zarr::/0, ct\.zarr::/1, .*::/7 and 3"
    ):
        read_volume(path)
    np.testing.assert_array_equal(read_volume(f"{path}::/10/1")[:], series[10][:, ::2, ::2])
    for choice, fault in (
        ("::/11", r"ct\.zarr holds no 11; choose one of ct\.zarr::/0,"),
        ("::/1/2", r"ct\.zarr::/1 has levels 0 to 1, not 2"),
        ("::/OME", r"ct\.zarr::/OME holds no image; choose one of ct\.zarr::/0"),
    ):
        with pytest.raises(ValueError, match=fault):
            read_volume(f"{path}{choice}")


def test_fields_of_a_plate_are_listed(tmp_path, rng):
    values = rng.integers(0, 2000, (6, 16, 12)).astype("u2")
    path = tmp_path / "plate.zarr"
    zarr.open_group(path, mode="w", zarr_format=2).attrs["plate"] = {"wells": [{"path": "A/1"}]}
    for well in ("A/1", "B/2"):
        zarr.open_group(path / well[0], mode="a", zarr_format=2)
        bioformats2raw(path / well, 2, [values])
    with pytest.raises(ValueError, match=r"holds 2 images; choose one of plate\.zarr::/A/1/0, plate\.zarr::/B/2/0$"):
        read_volume(path)
    np.testing.assert_array_equal(read_volume(f"{path}::/B/2")[:], values)


def test_versions_that_name_no_axes_or_units_need_the_voxel_size(tmp_path, rng):
    values = rng.integers(0, 2000, (6, 16, 12)).astype("u2")
    for axes in (None, ["t", "c", "z", "y", "x"]):
        root = zarr.open_group(tmp_path / "old.zarr", mode="w", zarr_format=2)
        root.create_array("0", data=values[None, None])
        scales = {"version": "0.1" if axes is None else "0.3", "datasets": [{"path": "0"}]}
        root.attrs["multiscales"] = [scales | ({"axes": axes} if axes else {})]
        with pytest.raises(ValueError, match=r"old\.zarr has no voxel size \(it states no scale\); pass --spacing-um"):
            read_volume(tmp_path / "old.zarr")
        np.testing.assert_array_equal(read_volume(tmp_path / "old.zarr", spacing_um=(3, 2, 2))[:], values)


@pytest.mark.parametrize(
    "steps",
    [None, "fine", [{"type": "scale"}], [{"scale": [1, 1, 1]}], [{"type": "scale", "scale": [1, "a", None]}]]
    + [[{"type": "scale", "scale": scale}] for scale in ([1, 1], [0, 0, 0], [1, 1, float("nan")], [1e9, 1e9, 1e9])],
)
def test_the_users_voxel_size_wins_over_scales_that_cannot_be_read(image, steps):
    path, values = image

    def change(text):
        text["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"] = steps

    edit(path / "zarr.json", change)
    with pytest.raises(ValueError, match=r"ct\.OME\.zarr.*; pass --spacing-um z y x"):
        read_volume(path)
    volume = read_volume(path, spacing_um=(3, 2, 1))
    assert volume.grid.spacing_um == (3.0, 2.0, 1.0)
    np.testing.assert_array_equal(volume[:], values)


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize(
    ("attributes", "slope", "intercept"),
    [
        ({"scale_factor": 0.5, "add_offset": -1000.0}, 0.5, -1000.0),
        ({"scaling_factor": 0.5, "offset": -100}, 0.5, -50.0),
        ({"slope": "0,5"}, 0.5, 0.0),
        ({"offset": [0, 0, 12]}, 1.0, 0.0),
    ],
)
def test_scales_among_the_attributes_of_an_array_are_honoured(tmp_path, plain, form, attributes, slope, intercept):
    values = plain[1]
    array = zarr.create_array(tmp_path / "c.zarr", data=values, zarr_format=form)
    array.attrs.update(attributes | {"units": "1/cm"})
    volume = read_volume(tmp_path / "c.zarr", **UNIT)
    np.testing.assert_allclose(volume[:], values * slope + intercept, rtol=1e-6)
    assert volume.about["units"] == "1/cm"


@pytest.mark.parametrize("scale", [0, "much", None, [1, 2]])
def test_a_scale_that_says_nothing_is_refused(plain, scale):
    path, _ = plain
    (path / ".zattrs").write_text(json.dumps({"scale_factor": scale}))
    with pytest.raises(ValueError, match=r"a\.zarr states scale_factor = .* does not say how its values are scaled"):
        read_volume(path, **UNIT)


def test_raw_projections_in_zarr_are_no_volume(tmp_path, rng):
    group = zarr.open_group(tmp_path / "raw.zarr", mode="w").create_group("exchange")
    group.create_array("data", data=rng.integers(0, 2000, (7, 8, 9)).astype("u2"))
    group.create_array("data_white", data=np.ones((2, 8, 9), "u2"))
    group.create_array("theta", data=np.linspace(0, 180, 7))
    for name in ("", "::/exchange", "::/exchange/data", "::/exchange/data_white"):
        with pytest.raises(
            ValueError, match=r"holds raw projections, not a reconstructed volume .*reconstruct them first"
        ):
            read_volume(f"{tmp_path / 'raw.zarr'}{name}", **UNIT)
    group.create_array("recon", data=np.ones((8, 9, 9), "u2"))
    assert read_volume(tmp_path / "raw.zarr", **UNIT).shape == (8, 9, 9)
