"""HDF5 and NeXus volumes; written and strictly read by h5py alone."""

from __future__ import annotations

import struct
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

from fuzz.bombs import zlib_bomb
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


def write_summed(folder: Path) -> Path:
    with h5py.File(folder / "ct.h5", "w", libver="latest") as file:
        data = file.create_dataset("volume", data=grey("float32"), chunks=(4, 16, 24), fletcher32=True)
        data.attrs["element_size_um"] = SPACING_UM
    return folder / "ct.h5"


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
    """A chunk unfolds to 5 GiB."""
    t.exact = True
    path = t.inside / "ct_data.h5" if t.path.suffix == ".nxs" else t.path
    with h5py.File(path, "r+") as file:
        data = next(file[name] for name in ("exchange/data", "volume", "raw") if name in file)
        if data.compression != "gzip":
            raise NotHere("no deflate")
        data.id.write_direct_chunk((0, 0, 0), zlib_bomb())


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


_OWN = MappingProxyType(
    {"link": link, "elsewhere": elsewhere, "chunk-bomb": chunk_bomb, "no-values": no_values, "address": address}
)

HDF5 = {
    "hdf5": Format(write_plain, volume(), strict_hdf5, _OWN),
    "hdf5-gzip": Format(write_chunked, volume(), strict_hdf5, _OWN),
    "hdf5-fletcher": Format(write_summed, volume(), strict_hdf5, _OWN),
    "nexus": Format(write_nexus, volume(), strict_hdf5, _OWN),
}
