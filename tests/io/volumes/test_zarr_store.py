"""Zarr folders: levels, plain arrays, and metadata that must not be believed."""

import json
import os

import numcodecs
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
    with pytest.raises(ValueError, match=r"leads out of its own folder|no Zarr array"):
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


def test_a_chunk_that_claims_to_unfold_to_gigabytes_is_refused_by_the_volumes_name(tmp_path):
    zarr.create_array(tmp_path / "v.zarr", data=np.ones((8, 8, 8), "u2"), compressors=zarr.codecs.BloscCodec())
    chunk = tmp_path / "v.zarr" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:4] + b"\xff\xff\xff\x7f" + chunk.read_bytes()[8:])
    with pytest.raises(ValueError, match=r"v\.zarr cannot be read as .*: a blosc chunk .* far more than a chunk holds"):
        read_volume(tmp_path / "v.zarr", spacing_um=(1, 1, 1))[:]


@pytest.mark.parametrize("file", ["zarr.json", ".zattrs", ".zgroup"])
def test_a_pipe_where_zarr_would_look_for_metadata_is_refused(tmp_path, file):
    array = zarr.create_array(tmp_path / "v.zarr", data=np.ones((8, 8, 8), "u2"), zarr_format=2)
    array.attrs["element_size_um"] = [1, 1, 1]
    assert read_volume(tmp_path / "v.zarr").grid.spacing_um == (1, 1, 1)
    (tmp_path / "v.zarr" / file).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "v.zarr" / file)
    with pytest.raises(ValueError, match=rf"v\.zarr.*{file} is no file"):
        read_volume(tmp_path / "v.zarr", spacing_um=(1, 1, 1))


@pytest.mark.parametrize("form", [2, 3])
def test_a_blosc_chunk_that_was_cut_off_is_refused(tmp_path, rng, form):
    """Blosc itself reads on in memory behind the chunk."""
    packer = numcodecs.Blosc(cname="lz4") if form == 2 else zarr.codecs.BloscCodec(cname="lz4")
    values = rng.integers(0, 2000, (8, 40, 40)).astype("u2")
    array = zarr.create_array(tmp_path / "v.zarr", data=values, compressors=packer, zarr_format=form)
    chunk = tmp_path / "v.zarr" / array.metadata.encode_chunk_key((0, 0, 0))
    np.testing.assert_array_equal(read_volume(tmp_path / "v.zarr", **UNIT)[:], values)
    for keep in (chunk.stat().st_size - 1, 4000, 12):
        chunk.write_bytes(chunk.read_bytes()[:keep])
        with pytest.raises(ValueError, match=rf"v\.zarr .*a blosc chunk holds {keep} of its \d+ bytes; copy it again"):
            read_volume(tmp_path / "v.zarr", **UNIT)[:]


def test_an_empty_shard_is_refused_not_read_as_zeros(tmp_path):
    with create_volume(tmp_path / "v.ome.zarr", Grid((8, 9, 10), (1, 1, 1))) as writer:
        writer[0:8, 0:9, 0:10] = np.ones((8, 9, 10), np.uint8)
    (tmp_path / "v.ome.zarr" / "0" / "c" / "0" / "0" / "0").write_bytes(b"")
    with pytest.raises(ValueError, match=r"v\.ome\.zarr: its chunk c/0/0/0 is empty; copy it again"):
        read_volume(tmp_path / "v.ome.zarr")[:]
