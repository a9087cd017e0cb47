"""What can be wrong with a file: a table of mutations, each drawn from a seed and the same for every format."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

MUCH = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, -1)
NUMBERS = ("0", "-1", "1", "2147483648", "1099511627776", "4611686018427387904", "1e300", "nan", "1.5", "")
DTYPES = {
    "uint16": ("float64", "int8", "complex128", "object", "string", "uint99", "r16", "bool"),
    "uint8": ("float64", "int16", "complex64", "object", "str", "float128", "bool"),
    "float32": ("float64", "int8", "complex64", "object", "uint16", "float16", "U8"),
    "<u2": (">u2", "<f8", "|O", "<U4", "|S2", "<c16", "<M8[ns]", "|V2", "<u3"),
    "|u1": ("|i1", "<f8", "|O", "<U4", "|b1", "<c16"),
    "<f4": (">f4", "<f8", "|O", "<U4", "<c8", "<i4"),
    "ushort": ("float", "block", "double", "uchar", "longlong", "quad", "string"),
    "unsigned short": ("float", "block", "double", "uchar", "long long", "quad", "string"),
    "MET_USHORT": ("MET_FLOAT", "MET_DOUBLE", "MET_STRING", "MET_UCHAR", "MET_OTHER", "MET_ULONG_LONG"),
    "little": ("big", "middle", ""),
}
FOREIGN = MappingProxyType(
    {
        "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(64),
        "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(64),
        "tiff": b"II*\0\x08\0\0\0" + bytes(64),
        "bigtiff": b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + bytes(64),
        "hdf5": b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0" + bytes(64),
        "zip": b"PK\x03\x04\x14\0" + bytes(64),
        "gzip": gzip.compress(bytes(512), mtime=0),
        "nrrd": b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n\n" + bytes(64),
        "mhd": b"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n",
        "nifti": b"\x5c\x01\0\0" + bytes(340) + b"n+1\0" + bytes(64),
        "isq": b"CTDATA-HEADER_V1" + bytes(512),
        "npy": b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (4,4,4), }" + b" " * 56 + b"\n",
        "json": b'{"multiscales": [], "format": "tomostain-pair"}',
        "text": "Schliffe, Kiefer links, 2026: 14 St\u00fcck\n".encode("latin-1") * 20,
        "elf": b"\x7fELF\x02\x01\x01" + bytes(64),
        "zeros": bytes(4096),
    }
)


class NotHere(Exception):
    """The mutation says nothing about this file."""


@dataclass
class Target:
    """A copy of a valid file that is about to be spoilt."""

    path: Path
    """What will be opened."""
    inside: Path
    """The folder that holds it and whatever belongs to it."""
    shape: tuple[int, ...]
    rng: np.random.Generator
    exact: bool = False
    """Whether nothing but the original values is a valid read: something was taken away, or lies outside."""

    def files(self) -> list[Path]:
        """Regular files of the target, in order."""
        found = [
            Path(here, name) for here, _, names in os.walk(self.inside) for name in names if not name.startswith(".~")
        ]
        return sorted(file for file in found if file.is_file() and not file.is_symlink())

    def file(self) -> Path:
        """One file: first a kind (by suffix) is drawn, then one of it, so that few small headers meet many chunks."""
        kinds: dict[str, list[Path]] = {}
        for file in self.files():
            kind = file.name if file.name.startswith((".z", "zarr.")) else file.suffix
            kinds.setdefault(kind if not kind[1:].isdigit() else "", []).append(file)
        return self.pick(kinds[self.pick(sorted(kinds))])

    def pick(self, among: Any) -> Any:
        among = list(among)
        if not among:
            raise NotHere("nothing to choose from")
        return among[int(self.rng.integers(len(among)))]

    def edit(self, change: Callable[[bytearray], bytearray | bytes | None], file: Path | None = None) -> None:
        """Change a file's bytes; half of the gzip files are changed inside their compression."""
        file = file or self.file()
        raw = file.read_bytes()
        within = raw[:2] == b"\x1f\x8b" and self.rng.random() < 0.5
        content = bytearray(gzip.decompress(raw) if within else raw)
        if not content:
            raise NotHere("the file is empty")
        changed = change(content)
        content = bytearray(content if changed is None else changed)
        file.write_bytes(gzip.compress(content, mtime=0) if within else content)


def truncate(t: Target) -> None:
    """The copy was interrupted."""
    t.exact = True
    t.edit(lambda raw: raw[: int(t.rng.integers(len(raw)))])


def truncate_at_structure(t: Target) -> None:
    """The copy was interrupted where something begins or ends: headers, powers of two, whatever a pointer points at."""
    t.exact = True

    def cut(raw: bytearray) -> bytearray:
        n = len(raw)
        places = {1, 2, 4, 8, 16, 64, 128, 348, 352, 512, 1024, 2048, 4096, n - 1, n - 2, n - 4, n - 8, n - 64}
        places |= {n * i // 8 for i in range(8)}
        for end in (raw[:4096], raw[-4096:]):
            for kind in ("<u4", ">u4", "<u8"):
                step = np.dtype(kind).itemsize
                numbers = np.frombuffer(bytes(end[: len(end) // step * step]), kind)
                places |= {int(v) for v in numbers[(numbers > 0) & (numbers < n)]}
        places |= {i for i, byte in enumerate(raw[:1024]) if byte == 10}
        return raw[: t.pick(sorted(place for place in places if 0 < place < n))]

    t.edit(cut)


def empty(t: Target) -> None:
    """A file of no bytes."""
    t.exact = True
    t.file().write_bytes(b"")


def flip(t: Target) -> None:
    """One to eight bits are other than they were, anywhere."""

    def change(raw: bytearray) -> None:
        for place in t.rng.integers(len(raw), size=int(t.rng.integers(1, 9))):
            raw[place] ^= 1 << int(t.rng.integers(8))

    t.edit(change)


def flip_header(t: Target) -> None:
    """One to four bits near the beginning or the end are other than they were."""

    def change(raw: bytearray) -> None:
        reach = min(int(t.pick((16, 64, 512))), len(raw))
        for place in t.rng.integers(reach, size=int(t.rng.integers(1, 5))):
            raw[place if t.rng.random() < 0.7 else -1 - place] ^= 1 << int(t.rng.integers(8))

    t.edit(change)


def _run(t: Target, fill: Callable[[int], bytes]) -> None:
    def change(raw: bytearray) -> None:
        length = min(int(2 ** t.rng.uniform(0, 12)), len(raw))
        start = int(t.rng.integers(len(raw) - length + 1)) if t.rng.random() < 0.6 else 0
        raw[start : start + length] = fill(length)

    t.edit(change)


def zeros(t: Target) -> None:
    """A run of bytes is 00: a hole that a file system left."""
    _run(t, bytes)


def ones(t: Target) -> None:
    """A run of bytes is ff."""
    _run(t, lambda n: b"\xff" * n)


def noise(t: Target) -> None:
    """A run of bytes is anything."""
    _run(t, t.rng.bytes)


def shift(t: Target) -> None:
    """Bytes are inserted or left out."""

    def change(raw: bytearray) -> None:
        place, length = int(t.rng.integers(len(raw))), int(t.rng.integers(1, 33))
        if t.rng.random() < 0.5:
            del raw[place : place + length]
        else:
            raw[place:place] = t.rng.bytes(length)

    t.edit(change)


def lie_about_size(t: Target) -> None:
    """A dimension, wherever the file states it (as text or as a binary number), is zero, multiplied or 2^40."""

    def change(raw: bytearray) -> bytearray:
        found: list[tuple[int, int, str]] = []
        size = t.pick(t.shape)
        for match in re.finditer(rb"(?<![\d.])%d(?![\d.])" % size, raw[:65536]):
            found.append((match.start(), match.end(), "text"))
        for reach in (slice(0, 8192), slice(max(0, len(raw) - 4096), len(raw))):
            for kind in ("<u2", ">u2", "<u4", ">u4", "<u8"):
                pattern = np.asarray(size, kind).tobytes()
                where = raw.find(pattern, reach.start, reach.stop)
                while where >= 0:
                    found.append((where, where + len(pattern), kind))
                    where = raw.find(pattern, where + 1, reach.stop)
        start, stop, kind = t.pick(found)
        lie = t.pick((*MUCH, size * 2, size * 1000, size + 1, size - 1))
        text = (
            str(lie).encode()
            if kind == "text"
            else (lie % 256 ** (stop - start)).to_bytes(stop - start, "big" if kind[0] == ">" else "little")
        )
        return raw[:start] + text + raw[stop:]

    t.edit(change)


def lie_in_number(t: Target) -> None:
    """Any number written as text is another one."""

    def change(raw: bytearray) -> bytearray:
        head = bytes(raw[:65536])
        where = t.pick(re.finditer(rb"(?<![\w.])-?\d+(\.\d+)?([eE][+-]?\d+)?(?![\w.])", head))
        return raw[: where.start()] + t.pick(NUMBERS).encode() + raw[where.end() :]

    t.edit(change)


def lie_about_dtype(t: Target) -> None:
    """The type of the values, where it is written as text, is another or none."""

    def change(raw: bytearray) -> bytearray:
        head = bytes(raw[:65536])
        found = [m for word in DTYPES for m in re.finditer(rb"(?<![\w])%s(?![\w])" % re.escape(word).encode(), head)]
        where = t.pick(found)
        lie = t.pick(DTYPES[where.group().decode()])
        return raw[: where.start()] + lie.encode() + raw[where.end() :]

    t.edit(change)


def lie_in_json(t: Target) -> None:
    """One value of a JSON file is of another kind, absurd, or gone."""
    file = t.pick(file for file in t.files() if file.suffix == ".json" or file.name.startswith(".z"))
    text = json.loads(file.read_text())
    places: list[tuple[Any, Any]] = []
    waiting = [text]
    while waiting:
        node = waiting.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                waiting.append(node[key])
    node, key = t.pick(places)
    lies: tuple[Any, ...] = (
        *(None, -1, 0, 2**40, 2**70, 1e308, float("nan"), True, "", "x", "../../outside", "/", "\0", "a" * 5000),
        *([], {}, [0], [2**40] * 3, {"a": {}}, [[[]]], node[key], "gone"),
    )
    lie = t.pick(lies)
    if lie == "gone":
        del node[key]
    elif lie is node[key] and isinstance(node[key], list | dict):
        node[key] = [lie] * 3
    else:
        node[key] = lie
    file.write_text(json.dumps(text))


def deep_json(t: Target) -> None:
    """A JSON file nests deeper than a parser's stack."""
    t.exact = True
    file = t.pick(file for file in t.files() if file.suffix == ".json" or file.name.startswith(".z"))
    depth = int(t.pick((1_000, 100_000)))
    file.write_text(t.pick(("[" * depth, '{"a":' * depth, "[" * depth + "]" * depth)))


def foreign(t: Target) -> None:
    """A file of another format under this name."""
    t.exact = True
    t.file().write_bytes(FOREIGN[t.pick(FOREIGN)])


def missing(t: Target) -> None:
    """A file is not there."""
    t.file().unlink()


def folder_for_file(t: Target) -> None:
    """A folder where a file should be."""
    t.exact = True
    file = t.file()
    file.unlink()
    file.mkdir()


def pipe(t: Target) -> None:
    """What is opened is a named pipe that nobody writes to: reading it waits for ever."""
    t.exact = True
    file = t.path if t.path.is_file() else t.file()
    file.unlink()
    os.mkfifo(file)


def cycle(t: Target) -> None:
    """A link that leads to itself, or to the folder that holds it."""
    t.exact = True
    file = t.path if t.rng.random() < 0.3 else t.file()
    if file.is_dir():
        shutil.rmtree(file)
    else:
        file.unlink()
    file.symlink_to(t.pick((file.name, ".", "..")))


def swapped(t: Target) -> None:
    """Two files of the target have each other's contents."""
    a, b = t.file(), t.file()
    if a == b or a.read_bytes() == b.read_bytes():
        raise NotHere("the same file twice")
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)


MUTATIONS: MappingProxyType[str, Callable[[Target], None]] = MappingProxyType(
    {
        function.__name__.replace("_", "-"): function
        for function in (
            *(truncate, truncate_at_structure, empty, flip, flip_header, zeros, ones, noise, shift),
            *(lie_about_size, lie_in_number, lie_about_dtype, lie_in_json, deep_json),
            *(foreign, missing, folder_for_file, pipe, cycle, swapped),
        )
    }
)


def names_for(own: Any, without: Any) -> list[str]:
    """The mutations that a format is given, in order."""
    return [name for name in (*MUTATIONS, *own) if name not in without]
