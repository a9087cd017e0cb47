"""HDF5 and NeXus volumes; written and strictly read by h5py alone."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from fuzz.bombs import blosc_bomb, zlib_bomb, zstd_bomb
from fuzz.formats.common import SHAPE, SPACING_UM, grey, volume
from fuzz.judge import Format, Look, look
from fuzz.mutations import NotHere, Target


def write_plain(folder: Path) -> Path:
    with h5py.File(folder / "ct.h5", "w") as file:
        data = file.create_dataset("exchange/data", data=grey())
        data.attrs["element_size_um"] = SPACING_UM
    return folder / "ct.h5"


def write_chunked(folder: Path) -> Path:
    with h5py.File(folder / "ct.h5", "w") as file:
        settings = {"chunks": (4, 16, 24), "compression": "gzip", "shuffle": True}
        data = file.create_dataset("volume", data=grey(), **settings)
        data.attrs["element_size_um"] = SPACING_UM
    return folder / "ct.h5"


def write_packed(folder: Path, **settings: Any) -> Path:
    with h5py.File(folder / "ct.h5", "w") as file:
        data = file.create_dataset("volume", data=grey(), chunks=(4, 16, 24), **settings)
        data.attrs["element_size_um"] = SPACING_UM
    return folder / "ct.h5"


def write_summed(folder: Path) -> Path:
    with h5py.File(folder / "ct.h5", "w", libver="latest") as file:
        data = file.create_dataset("volume", data=grey("float32"), chunks=(4, 16, 24), fletcher32=True)
        data.attrs["element_size_um"] = SPACING_UM
    return folder / "ct.h5"


def write_scaled(folder: Path) -> Path:
    path = write_plain(folder)
    with h5py.File(path, "r+") as file:
        file["exchange/data"].attrs.update({"scaling_factor": 0.25, "offset": -8.0})
    return path


def strict_scaled(path: Path) -> Look:
    """NeXus adds the offset before it scales."""
    seen = dict(strict_hdf5(path))
    with h5py.File(path, "r") as file:
        about = {name.lower(): float(np.ravel(value)[0]) for name, value in file["exchange/data"].attrs.items()}
    scale, offset = about.get("scaling_factor", 1.0), about.get("offset", 0.0)
    if not (np.isfinite(scale) and np.isfinite(offset) and scale):
        raise ValueError("no scale")
    for name in ("whole", "first", "last", "box"):
        if name in seen and (scale, offset) != (1.0, 0.0):
            seen[name] = seen[name].astype(np.float32) * np.float32(scale) + np.float32(scale * offset)
            seen["dtype"] = np.dtype(np.float32).str
    return seen


def write_nexus(folder: Path) -> Path:
    with h5py.File(folder / "ct_data.h5", "w") as file:
        file.create_dataset("raw", data=grey(), chunks=(4, 37, 43), compression="gzip")
    with h5py.File(folder / "ct.nxs", "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "data"})
        group = entry.create_group("data")
        group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["z", "y", "x"]})
        group["data"] = h5py.ExternalLink("ct_data.h5", "/raw")
        for name, n, edge in zip("zyx", SHAPE, SPACING_UM, strict=True):
            group[name] = np.arange(n) * edge
            group[name].attrs["units"] = "um"
    return folder / "ct.nxs"


def strict_hdf5(path: Path) -> Look:
    """The data set where it was written, and the voxel size beside it."""
    with h5py.File(path, "r") as file:
        if path.suffix == ".nxs":
            group = file["entry/data"]
            if group.attrs["signal"] != "data" or file["entry"].attrs["default"] != "data":
                raise ValueError("another signal")
            data = group["data"]
            values: Any = data[()]
            steps = [np.diff(group[name][()]) for name in group.attrs["axes"]]
            if any(np.ptp(step) > 1e-6 * abs(step).max() for step in steps):
                raise ValueError("uneven axes")
            if any(group[name].attrs["units"] != "um" for name in "zyx"):
                raise ValueError("other units")
            spacing = [abs(step.mean()) for step in steps]
        else:
            data = file["exchange/data"] if "exchange" in file else file["volume"]
            values, spacing = data[()], data.attrs["element_size_um"]
        if data.chunks and data.id.get_num_chunks() < np.prod(
            [-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True)]
        ):
            raise ValueError("chunks are missing")
        if not data.chunks and data.id.get_offset() is None:
            raise ValueError("no values are stored")
    return look(values, spacing)


def _path_of_values(file: h5py.File) -> str:
    return next(name for name in ("exchange/data", "volume", "entry/data/data") if name in file)


def link(t: Target) -> None:
    """The data are behind a link: out of the folder, in a circle, to nothing, to a device, or to the file itself."""
    t.exact = True
    other = t.inside.parent / "secret.h5"
    with h5py.File(other, "w") as file:
        file["raw"] = np.full(SHAPE, 0x5555, np.uint16)
    with h5py.File(t.inside / "loop.h5", "w") as file:
        file["raw"] = h5py.ExternalLink(t.path.name, "/onward")
    with h5py.File(t.path, "r+") as file:
        place = _path_of_values(file)
        del file[place]
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
        file["onward"] = h5py.ExternalLink("loop.h5", "/raw")
        file["again"] = h5py.SoftLink("/again/again/again")
        file[place] = t.pick(
            (
                h5py.ExternalLink("../secret.h5", "/raw"),
                h5py.ExternalLink(str(other), "/raw"),
                h5py.ExternalLink("loop.h5", "/raw"),
                h5py.ExternalLink("/dev/zero", "/raw"),
                h5py.ExternalLink("nowhere.h5", "/raw"),
                h5py.SoftLink("/a"),
                h5py.SoftLink("/again"),
                h5py.SoftLink("/nowhere"),
                h5py.SoftLink("/"),
                h5py.SoftLink("."),
            )
        )


def elsewhere(t: Target) -> None:
    """The data set keeps its values in a file outside: external storage, or a virtual data set's source."""
    t.exact = True
    (t.inside.parent / "secret.raw").write_bytes(b"\x55" * (2 * int(np.prod(SHAPE))))
    with h5py.File(t.inside.parent / "secret.h5", "w") as file:
        file["raw"] = np.full(SHAPE, 0x5555, np.uint16)
    with h5py.File(t.path, "r+", libver="latest") as file:
        place = _path_of_values(file)
        about = dict(file[place].attrs)
        del file[place]
        if t.rng.random() < 0.5:
            named = t.pick(("../secret.raw", str(t.inside.parent / "secret.raw"), "/dev/zero", "nowhere.raw"))
            made = file.create_dataset(place, SHAPE, "u2", external=[(named, 0, 2 * int(np.prod(SHAPE)))])
        else:
            layout = h5py.VirtualLayout(SHAPE, "u2")
            named = t.pick(("../secret.h5", str(t.inside.parent / "secret.h5"), "nowhere.h5", "..", t.path.name))
            layout[...] = h5py.VirtualSource(named, "/raw", SHAPE)
            made = file.create_virtual_dataset(place, layout)
        made.attrs.update(about)


def chunk_bomb(t: Target) -> None:
    """A chunk unfolds to 5 GiB, or claims to."""
    t.exact = True
    path = t.inside / "ct_data.h5" if t.path.suffix == ".nxs" else t.path
    with h5py.File(path, "r+") as file:
        data = next(file[name] for name in ("exchange/data", "volume", "raw") if name in file)
        plist = data.id.get_create_plist()
        codes = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        bombs = [_BOMBS[code] for code in codes if code in _BOMBS]
        if not bombs:
            raise NotHere("nothing is compressed")
        data.id.write_direct_chunk((0, 0, 0), bombs[0](t))


def small_chunk(t: Target) -> None:
    """A chunk unfolds to less than a chunk holds, or the header says that chunks or values are larger than they are."""
    t.exact = True
    if t.path.suffix == ".nxs":
        raise NotHere("another file holds the chunks")
    with h5py.File(t.path, "r+") as file:
        place = _path_of_values(file)
        old = file[place]
        if old.chunks is None:
            raise NotHere("no chunks")
        about, corners = (
            dict(old.attrs),
            [old.id.get_chunk_info(i).chunk_offset for i in range(old.id.get_num_chunks())],
        )
        pieces = {corner: old.id.read_direct_chunk(corner) for corner in corners}
        deeper, kind = t.pick(((2, old.dtype), (1, np.dtype("f8")), (3, np.dtype("u4"))))
        shape = (SHAPE[0] * deeper, *SHAPE[1:])
        chunks = (old.chunks[0] * deeper, *old.chunks[1:])
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(chunks)
        filters = old.id.get_create_plist()
        for i in range(filters.get_nfilters()):
            code, flags, values, _ = filters.get_filter(i)
            plist.set_filter(code, flags, values[:1] if code < 32000 else ())
        del file[place]
        space = h5py.h5s.create_simple(shape)
        made = h5py.Dataset(h5py.h5d.create(file.id, place.encode(), h5py.h5t.py_create(kind), space, plist))
        for (z, *rest), (mask, raw) in pieces.items():
            made.id.write_direct_chunk((z * deeper, *rest), raw, mask)
        made.attrs.update(about)


def other_values(t: Target) -> None:
    """The data set holds no volume of numbers: text, records, references, nothing, a plane, 5 axes."""
    t.exact = True
    with h5py.File(t.path, "r+") as file:
        place = _path_of_values(file)
        about = dict(file[place].attrs)
        del file[place]
        kinds = ("S8", "c16", "V7", "?", h5py.string_dtype(), h5py.ref_dtype, h5py.vlen_dtype(np.int32), "f2", "u8")
        kinds = (*kinds, np.dtype([("a", "u2"), ("b", "f4")]), h5py.enum_dtype({"bone": 1}, "u1"), np.dtype(("u2", 3)))
        shapes = ((), (0,), (7,), (37, 43), (0, 37, 43), (11, 0, 43), (2, 2, 11, 5, 7), (0, 0, 0))
        if t.rng.random() < 0.6:
            made = file.create_dataset(place, SHAPE, t.pick(kinds))
        elif t.rng.random() < 0.2:
            made = file.create_dataset(place, data=h5py.Empty("u2"))
        else:
            made = file.create_dataset(place, t.pick(shapes), "u2")
        made.attrs.update(about)


def nexus_words(t: Target) -> None:
    """NeXus' attributes name what is not theirs: above the root, themselves, nothing, another type or number."""
    if t.path.suffix != ".nxs":
        raise NotHere("no NeXus")
    with h5py.File(t.path, "r+") as file:
        data = "entry/data"
        place, key = t.pick((("/", "default"), ("entry", "default"), (data, "signal"), (data, "axes")))
        words = ("..", "../../etc", "/", ".", "", "z", "data/data", "\x01", "a" * 60_000, "entry", "nowhere")
        lies = (
            *words,
            7,
            np.arange(3),
            ["z"],
            ["z", "y", "x", "w"],
            ["x", "y", "z"],
            ["z", "z", "z"],
            h5py.Empty("S1"),
        )
        file[place].attrs[key] = t.pick(lies)


def no_values(t: Target) -> None:
    """The data set was created and never written: all it has is its fill value."""
    t.exact = True
    with h5py.File(t.path, "r+") as file:
        place = _path_of_values(file)
        if isinstance(file.get(place, getlink=True), h5py.ExternalLink):
            raise NotHere("a link")
        about, chunks = dict(file[place].attrs), t.pick((None, (4, 16, 24)))
        del file[place]
        size = t.pick((SHAPE, (2**20, 2**20, 2**20) if chunks else SHAPE))
        file.create_dataset(place, size, "u2", chunks=chunks).attrs.update(about)


def address(t: Target) -> None:
    """A 64-bit address or length within the file is another."""

    def change(raw: bytearray) -> None:
        size = len(raw)
        found = [i for i in range(0, min(size, 6000) - 8, 8) if 0 < struct.unpack_from("<Q", raw, i)[0] <= size]
        place = t.pick(found)
        lies = (
            0,
            8,
            96,
            size - 1,
            size + 1,
            2**32,
            2**63,
            2**64 - 1,
            2**40,
            struct.unpack_from("<Q", raw, place)[0] + 8,
        )
        struct.pack_into("<Q", raw, place, t.pick(lies))

    t.edit(change)


_BOMBS: dict[int, Callable[[Target], bytes]] = {
    1: lambda t: zlib_bomb(),
    32001: lambda t: blosc_bomb(),
    32015: lambda t: zstd_bomb(claimed=t.pick((None, 2**40, 2**63, SHAPE[0] * 10**6))),
    32008: lambda t: struct.pack(">QI", t.pick((2**40, 2**63, 5 * 2**30)), 8192) + bytes(64),
    32004: lambda t: struct.pack(">QI", t.pick((2**40, 2**63, 5 * 2**30)), 2**31 - 1) + bytes(64),
}
_OWN = MappingProxyType(
    {
        function.__name__.replace("_", "-"): function
        for function in (link, elsewhere, chunk_bomb, small_chunk, no_values, other_values, address)
    }
)

HDF5 = {
    "hdf5": Format(write_plain, volume(), strict_hdf5, _OWN),
    "hdf5-chunks": Format(lambda folder: write_packed(folder, shuffle=True), volume(), strict_hdf5, _OWN),
    "hdf5-gzip": Format(write_chunked, volume(), strict_hdf5, _OWN),
    "hdf5-lzf": Format(lambda folder: write_packed(folder, compression="lzf"), volume(), strict_hdf5, _OWN),
    "hdf5-fletcher": Format(write_summed, volume(), strict_hdf5, _OWN),
    "hdf5-blosc": Format(
        lambda folder: write_packed(folder, **hdf5plugin.Blosc(cname="lz4")), volume(), strict_hdf5, _OWN
    ),
    "hdf5-zstd": Format(lambda folder: write_packed(folder, **hdf5plugin.Zstd()), volume(), strict_hdf5, _OWN),
    "hdf5-lz4": Format(lambda folder: write_packed(folder, **hdf5plugin.LZ4()), volume(), strict_hdf5, _OWN),
    "hdf5-bitshuffle": Format(
        lambda folder: write_packed(folder, **hdf5plugin.Bitshuffle()), volume(), strict_hdf5, _OWN
    ),
    "nexus-scaled": Format(write_scaled, volume(), strict_scaled, _OWN),
    "nexus": Format(write_nexus, volume(), strict_hdf5, {**_OWN, "nexus-words": nexus_words}),
}
