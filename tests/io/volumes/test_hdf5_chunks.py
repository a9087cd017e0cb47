"""Chunks of HDF5: what each filter holds is read to the byte, or refused."""

import subprocess
import sys
import zlib

import h5py
import hdf5plugin
import numcodecs
import numpy as np
import pytest

from tomostain.io.volumes import read_volume

UNIT = {"spacing_um": (1, 1, 1)}


def test_a_filter_that_is_not_installed_is_named(scan, ct, monkeypatch):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    path = scan(lambda file: file.create_dataset("ct", data=ct, chunks=(2, 8, 9), **hdf5plugin.Bitshuffle()))
    np.testing.assert_array_equal(read_volume(path, **UNIT)[:], ct)
    code = (
        "import sys; sys.modules['hdf5plugin'] = None\n"
        "from tomostain.io.volumes import read_volume\n"
        f"read_volume({str(path)!r}, spacing_um=(1, 1, 1))"
    )
    monkeypatch.setenv("HDF5_PLUGIN_PATH", "/nowhere")
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "compressed with bitshuffle (HDF5 filter 32008)" in failed.stderr
    assert "pip install 'tomostain[formats]'" in failed.stderr


def test_planes_of_deep_chunks_are_decoded_once(scan, rng, bytes_read):
    ct = rng.integers(0, 255, (32, 64, 64), dtype=np.uint8)
    path = scan(lambda file: file.create_dataset("ct", data=ct, chunks=(16, 32, 32), compression="gzip"))
    volume = read_volume(path, **UNIT)
    before = bytes_read()
    np.testing.assert_array_equal(np.stack([volume[z] for z in range(32)]), ct)
    assert bytes_read() - before < 1.3 * path.stat().st_size


def _first_chunk(path, change):
    """Store the first chunk anew, its bytes changed after all filters."""
    with h5py.File(path, "a") as file:
        mask, raw = file["ct"].id.read_direct_chunk((0, 0, 0))
        file["ct"].id.write_direct_chunk((0, 0, 0), change(raw), filter_mask=mask)


FILTERS = {
    "none": {},
    "shuffle": {"shuffle": True},
    "sum": {"fletcher32": True},
    "shuffle and sum": {"shuffle": True, "fletcher32": True},
    "deflate": {"compression": "gzip"},
    "deflate, shuffle": {"compression": "gzip", "shuffle": True},
    "deflate, shuffle and sum": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "lzf, shuffle and sum": {"compression": "lzf", "shuffle": True, "fletcher32": True},
    "szip": {"compression": "szip"},
    "scale-offset": {"scaleoffset": 0},
    **{name: hdf5plugin.Blosc(cname=name) for name in ("lz4", "zstd", "zlib")},
    "blosc2": hdf5plugin.Blosc2(),
    "lz4 alone": hdf5plugin.LZ4(),
    "zstd alone": hdf5plugin.Zstd(),
    **{f"bitshuffle, {name}": hdf5plugin.Bitshuffle(cname=name) for name in ("none", "lz4", "zstd")},
}


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("dtype", ["<i2", ">f4"])
def test_chunks_of_every_filter_read_as_h5py_reads_them(scan, rng, filters, dtype):
    values = rng.integers(0, 250, (9, 25, 29)).astype(dtype)
    path = scan(lambda file: file.create_dataset("ct", data=values, chunks=(4, 8, 11), **filters))
    volume = read_volume(path, **UNIT)
    np.testing.assert_array_equal(volume[:], values)
    np.testing.assert_array_equal(volume[3:6, 7:9, 10:29], values[3:6, 7:9, 10:29])


@pytest.mark.parametrize("filters", ["none", "shuffle", "sum", "shuffle and sum"])
def test_a_chunk_of_too_few_bytes_is_refused_not_filled_with_memory(scan, ct, filters):
    def fill(file):
        data = file.create_dataset("ct", ct.shape, ct.dtype, chunks=(3, 8, 9), **FILTERS[filters])
        tail = bytes(4 * ("sum" in filters))
        data.id.write_direct_chunk((0, 0, 0), ct[:3].tobytes()[:-40] + tail)
        data.id.write_direct_chunk((3, 0, 0), ct[3:].tobytes() + tail)

    path = scan(fill)
    with pytest.raises(ValueError, match=r"scan\.h5: its chunk at \(0, 0, 0\) holds 392 bytes, not 432"):
        read_volume(path, **UNIT)[0]


@pytest.mark.parametrize("filters", ["deflate", "deflate, shuffle"])
@pytest.mark.parametrize("n", [0, 100, 431, 433, 2000])
def test_a_deflate_stream_that_unpacks_to_another_size_is_refused(scan, ct, filters, n):
    path = scan(lambda file: file.create_dataset("ct", data=ct, chunks=(3, 8, 9), **FILTERS[filters]))
    _first_chunk(path, lambda raw: zlib.compress((zlib.decompress(raw) * 5)[:n]))
    with pytest.raises(
        ValueError, match=r"scan\.h5: its chunk at \(0, 0, 0\)( holds|, .* unpacked into the 432 bytes)"
    ):
        read_volume(path, **UNIT)[0]


@pytest.mark.parametrize("filters", ["sum", "deflate, shuffle and sum", "lzf, shuffle and sum"])
def test_a_wrong_checksum_is_reported(scan, ct, filters):
    path = scan(lambda file: file.create_dataset("ct", data=ct, chunks=(3, 8, 9), **FILTERS[filters]))
    _first_chunk(path, lambda raw: raw[:50] + bytes([raw[50] ^ 4]) + raw[51:])
    with pytest.raises(ValueError, match=r"scan\.h5"):
        read_volume(path, **UNIT)[0]


@pytest.mark.parametrize("filters", ["deflate", "lzf", "lz4 alone", "zstd alone"])
def test_a_chunk_that_cannot_be_unpacked_is_refused(scan, rng, filters):
    """HDF5's zstd filter hands out memory as it was instead."""
    values = rng.integers(0, 9, (4, 20, 30)).astype("u2")
    path = scan(lambda file: file.create_dataset("ct", data=values, chunks=(4, 20, 30), **FILTERS[filters]))
    _first_chunk(path, lambda raw: raw[: len(raw) // 2] + b"\xff\xff\xff\xff" * 40)
    with pytest.raises(ValueError, match=r"scan\.h5: its chunk at \(0, 0, 0\)(, .* cannot be unpacked| holds)"):
        read_volume(path, **UNIT)[0]


@pytest.mark.parametrize("filters", ["lzf", "lz4", "lz4 alone", "zstd alone", "blosc2", "bitshuffle, lz4", "szip"])
def test_a_chunk_of_a_smaller_chunk_size_is_refused_for_every_filter(scan, rng, filters):
    """As if a header had its chunk size or its type changed: the stored chunk is whole, and too small."""
    values = rng.integers(0, 9, (8, 16, 16)).astype("u2")
    small = scan(
        lambda file: file.create_dataset("ct", data=values[:, :8], chunks=(8, 8, 16), **FILTERS[filters]), "s.h5"
    )
    path = scan(lambda file: file.create_dataset("ct", data=values, chunks=(8, 16, 16), **FILTERS[filters]))
    with h5py.File(small) as file:
        piece = file["ct"].id.read_direct_chunk((0, 0, 0))[1]
    _first_chunk(path, lambda _: piece)
    with pytest.raises(ValueError, match=r"scan\.h5: its chunk at \(0, 0, 0\)"):
        read_volume(path, **UNIT)[0]


def test_chunks_that_were_never_written_read_as_the_fill_value_and_that_is_reported(scan, ct):
    def fill(file):
        data = file.create_dataset("ct", ct.shape, "u2", chunks=(3, 8, 9), compression="gzip", fillvalue=7)
        data[:3] = ct[:3]

    volume = read_volume(scan(fill), **UNIT)
    with pytest.warns(UserWarning, match="what is not stored reads as 7"):
        seen = volume[:]
    np.testing.assert_array_equal(seen, np.concatenate([ct[:3], np.full((3, 8, 9), 7)]))


@pytest.mark.parametrize("dtype", ["<u2", ">f4"])
def test_values_in_one_piece_behind_a_user_block_are_read_where_they_lie(tmp_path, ct, dtype):
    with h5py.File(tmp_path / "scan.h5", "w", userblock_size=512) as file:
        file["ct"] = ct.astype(dtype)[None, :, :, :, None]
    volume = read_volume(tmp_path / "scan.h5", **UNIT)
    assert volume.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(volume[2:5, 1:], ct[2:5, 1:])


def _low_level(path, values, filters, precision=16):
    """A data set whose filters and type h5py's own interface does not offer."""
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(values.shape)
        for code, settings in filters:
            plist.set_filter(code, h5py.h5z.FLAG_OPTIONAL, settings)
        kind = h5py.h5t.STD_U16LE.copy()
        kind.set_precision(precision)
        space = h5py.h5s.create_simple(values.shape)
        h5py.h5d.create(file.id, b"ct", kind, space, plist)
        file["ct"][:] = values
    return path


DEFLATE, BITSHUFFLE, ZSTD = (1, (6,)), (32008, (0, 0)), (32015, (3,))


@pytest.mark.parametrize(
    ("filters", "precision", "pack"),
    [
        ([BITSHUFFLE, DEFLATE], 16, zlib.compress),
        ([DEFLATE], 12, zlib.compress),
        ([ZSTD], 16, lambda raw: bytes(numcodecs.Zstd().encode(raw[:9])) + bytes(numcodecs.Zstd().encode(raw))),
    ],
    ids=["bitshuffle then deflate", "12 bits of 16", "zstd in two frames"],
)
def test_a_bomb_in_any_pipeline_of_filters_is_refused(tmp_path, ct, filters, precision, pack):
    path = _low_level(tmp_path / "scan.h5", ct, filters, precision)
    np.testing.assert_array_equal(read_volume(path, **UNIT)[:], ct)
    for bytes_ in (2**25, 100):
        _first_chunk(path, lambda _, n=bytes_: pack(bytes(n)))
        with pytest.raises(ValueError, match=r"scan\.h5: its chunk at .*(cannot be unpacked|does not unpack|holds)"):
            read_volume(path, **UNIT)[:]


def test_filters_that_pack_twice_are_undone_or_refused(tmp_path):
    values = np.ones((4, 40, 40), "u2")
    blosc, bitshuffle_lz4 = (32001, (0, 0, 0, 0, 5, 1, 0)), (32008, (0, 2))
    np.testing.assert_array_equal(
        read_volume(_low_level(tmp_path / "a.h5", values, [blosc, DEFLATE]), **UNIT)[:], values
    )
    with pytest.raises(ValueError, match=r"packed with several filters, one in another"):
        read_volume(_low_level(tmp_path / "b.h5", values, [bitshuffle_lz4, DEFLATE]), **UNIT)[:]
