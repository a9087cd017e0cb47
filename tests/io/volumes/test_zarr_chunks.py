"""Chunks of Zarr: none unpacks to more than its place holds, is read from outside the store, or is missing unseen."""

import bz2
import gzip
import lzma
import os
import struct
import tracemalloc
import warnings

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr

from tomostain.images.geometry import Grid
from tomostain.io.ome_zarr import create_volume
from tomostain.io.volumes import read_volume

UNIT = {"spacing_um": (1, 1, 1)}


def test_a_chunk_that_claims_to_unfold_to_gigabytes_is_refused_by_the_volumes_name(tmp_path):
    zarr.create_array(tmp_path / "v.zarr", data=np.ones((8, 8, 8), "u2"), compressors=zarr.codecs.BloscCodec())
    chunk = tmp_path / "v.zarr" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:4] + b"\xff\xff\xff\x7f" + chunk.read_bytes()[8:])
    with pytest.raises(
        ValueError, match=r"v\.zarr cannot be read as .*: a blosc chunk of \d+ bytes cannot be unpacked"
    ):
        read_volume(tmp_path / "v.zarr", spacing_um=(1, 1, 1))[:]


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


ZSTD_NOTHING = struct.pack("<II", 0x184D2A50, 8) + bytes(8)
"""A frame that decoders skip."""
ZEROS = 2**25


def zstd(values):
    return bytes(numcodecs.Zstd().encode(values))


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize(
    ("codec", "packed"),
    [
        ("zstd", lambda first: first + zstd(bytes(ZEROS))),
        ("zstd", lambda _: ZSTD_NOTHING + zstd(bytes(ZEROS))),
        ("gzip", lambda first: first + gzip.compress(bytes(ZEROS))),
        ("bz2", lambda first: first + bz2.compress(bytes(ZEROS))),
        ("lzma", lambda first: first + lzma.compress(bytes(ZEROS))),
        ("lz4", lambda _: struct.pack("<I", ZEROS) + bytes(numcodecs.LZ4().encode(bytes(ZEROS)))[4:]),
        ("blosc", lambda _: numcodecs.Blosc().encode(bytes(ZEROS))),
    ],
)
def test_no_chunk_unpacks_to_more_than_its_place_holds(tmp_path, rng, form, codec, packed):
    """Whatever comes first: a small frame, a frame that is skipped, or the bomb itself."""
    values = rng.integers(0, 2000, (8, 8, 8)).astype("u2")
    names = {"zstd": "Zstd", "gzip": "GZip", "bz2": "BZ2", "lzma": "LZMA", "lz4": "LZ4", "blosc": "Blosc"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of numcodecs' codecs are no part of Zarr 3's standard
        packer = getattr(numcodecs if form == 2 else zarr.codecs.numcodecs, names[codec])()
        array = zarr.create_array(tmp_path / "v.zarr", data=values, compressors=packer, zarr_format=form)
        np.testing.assert_array_equal(read_volume(tmp_path / "v.zarr", **UNIT)[:], values)
        chunk = tmp_path / "v.zarr" / array.metadata.encode_chunk_key((0, 0, 0))
        chunk.write_bytes(packed(chunk.read_bytes()))
        tracemalloc.start()
        with pytest.raises(ValueError, match=rf"v\.zarr .*a {codec} chunk of \d+ bytes cannot be unpacked"):
            read_volume(tmp_path / "v.zarr", **UNIT)[:]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < ZEROS / 2


def test_a_bomb_in_a_shard_is_refused(tmp_path):
    """The shard's index says where its one chunk lies: it is made to be the bomb."""
    array = zarr.create_array(tmp_path / "v.zarr", shape=(8, 8, 8), dtype="u2", chunks=(8, 8, 8), shards=(8, 8, 8))
    array[:] = 1
    shard = tmp_path / "v.zarr" / "c" / "0" / "0" / "0"
    bomb = ZSTD_NOTHING + zstd(bytes(ZEROS))
    index = struct.pack("<QQ", 0, len(bomb))
    shard.write_bytes(bomb + index + struct.pack("<I", google_crc32c.value(index)))
    with pytest.raises(ValueError, match=r"v\.zarr .*a zstd chunk of \d+ bytes cannot be unpacked"):
        read_volume(tmp_path / "v.zarr", **UNIT)[:]


@pytest.mark.parametrize("form", [2, 3])
def test_frames_that_follow_one_another_are_one_chunk(tmp_path, rng, form):
    values = rng.integers(0, 2000, (8, 8, 8)).astype("u2")
    packer = numcodecs.Zstd() if form == 2 else zarr.codecs.ZstdCodec()
    array = zarr.create_array(tmp_path / "v.zarr", data=values, compressors=packer, zarr_format=form)
    chunk = tmp_path / "v.zarr" / array.metadata.encode_chunk_key((0, 0, 0))
    chunk.write_bytes(ZSTD_NOTHING + zstd(values[:3].tobytes()) + zstd(values[3:].tobytes()))
    np.testing.assert_array_equal(read_volume(tmp_path / "v.zarr", **UNIT)[:], values)


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("what", ["chunk", "folder", "relative"])
def test_chunks_that_are_links_out_of_the_store_are_not_read(tmp_path, form, what):
    values = np.ones((4, 8, 8), "u1")
    store = tmp_path / "in" / "v.zarr"
    key = {"name": "v2", "separator": "/"} if form == 2 else None
    array = zarr.create_array(
        store, data=values, chunks=(2, 8, 8), compressors=None, zarr_format=form, chunk_key_encoding=key
    )
    chunk = store / array.metadata.encode_chunk_key((0, 0, 0))
    secret = tmp_path / "secret" / "0"
    secret.mkdir(parents=True)
    (secret / "0").write_bytes(bytes([7]) * 128)
    if what == "folder":
        chunk.parent.rename(tmp_path / "moved")
        chunk.parent.symlink_to(secret)
    else:
        chunk.unlink()
        chunk.symlink_to(secret / "0" if what == "chunk" else os.path.relpath(secret / "0", chunk.parent))
    volume = read_volume(store, **UNIT)
    with pytest.raises(
        ValueError, match=r"v\.zarr takes its values from .*, a link to .*secret.*, outside its own folder"
    ):
        volume[0]
    if what != "folder":
        assert (volume[2] == 1).all()


def test_a_chunk_that_is_a_link_within_the_store_is_read(tmp_path):
    values = np.arange(256, dtype="u1").reshape(4, 8, 8)
    zarr.create_array(tmp_path / "v.zarr", data=values, chunks=(2, 8, 8), compressors=None, zarr_format=2)
    (tmp_path / "v.zarr" / "0.0.0").rename(tmp_path / "v.zarr" / "shared")
    (tmp_path / "v.zarr" / "0.0.0").symlink_to("shared")
    np.testing.assert_array_equal(read_volume(tmp_path / "v.zarr", **UNIT)[:], values)


def test_a_chunk_of_far_more_bytes_than_its_values_is_not_read(tmp_path):
    zarr.create_array(tmp_path / "v.zarr", data=np.ones((4, 8, 8), "u1"), compressors=None, zarr_format=2)
    os.truncate(tmp_path / "v.zarr" / "0.0.0", 2**34)
    with pytest.raises(ValueError, match=r"its chunk 0\.0\.0 is larger than its values can be"):
        read_volume(tmp_path / "v.zarr", **UNIT)[:]
