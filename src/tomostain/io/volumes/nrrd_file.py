"""NRRD volumes: .nrrd, or .nhdr with its values in a file beside it; raw, gzip, bzip2 or text."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import numpy.typing as npt

from tomostain.images.geometry import Grid, Vector
from tomostain.images.image import Volume
from tomostain.io.inside import inside_folder
from tomostain.io.units import UM_PER_MM, number_of, um_per
from tomostain.io.volumes.arrays import Flat, Source, Windowed
from tomostain.io.volumes.headers import Hints, VolumeError, dtype_of, origin_of, reported, shape_of, spacing_of
from tomostain.io.volumes.spool import Spooled, inflated

KIND = "NRRD"
_HEADER_BYTES = 2**20
_MOST_LINES = 10_000
_LONGEST_NUMBER = 400
_NUMBER_LISTS = ("spacings", "axis mins", "axismins", "axis maxs", "axismaxs", "thicknesses")
_LENGTHS = (*_NUMBER_LISTS, "space directions", "space origin", "space units", "units", "measurement frame")
_UNREAD = "tomostain: unread"
_DATA_FILE = ("data file", "datafile")
_TEXT = ("ascii", "text", "txt")
_CODECS = {"gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_TYPES = {
    "int8": "i1 signed char|int8|int8_t",
    "uint8": "u1 uchar|unsigned char|uint8|uint8_t",
    "int16": "i2 short|short int|signed short|signed short int|int16|int16_t",
    "uint16": "u2 ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "int32": "i4 int|signed int|int32|int32_t",
    "uint32": "u4 uint|unsigned int|uint32|uint32_t",
    "int64": "i8 longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "uint64": "u8 ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "float32": "f4 float",
    "float64": "f8 double",
}
_DTYPES = {word: text[:2] for text in _TYPES.values() for word in text[3:].split("|")}


def read_nrrd(path: Path, hints: Hints) -> Volume:
    """Open a NRRD file as a lazy Volume; its first axis, the fastest, is x.

    Further axes of length one are left out; two axes are one plane. Lengths without a unit are millimetres, as programs
    that write NRRD take them. Where the axes point is reported, not applied.

    Raises
    ------
    VolumeError
        Not three axes, values in several files or outside the header's folder, in an encoding other than raw, gzip,
        bzip2 and ascii, more or fewer values than the header says, no voxel size.
    """
    hints.nothing_inside(path.name)
    with reported(path.name, KIND):
        header, end = _header(path)
        sizes = [int(n) for n in header["sizes"]]
        kept = _space_axes(path.name, sizes, header)
        shape = shape_of(path.name, [1, 1, *(sizes[axis] for axis in reversed(kept))][-3:])
        file, begin = _values_file(path, header, end)
        source = _source(path.name, header, shape, file, begin)
        edges, origin, words = _geometry(header, kept)
        grid = Grid(shape, spacing_of(path.name, edges, hints, found=str(header.get(_UNREAD, ""))), origin_of(origin))
        about = {"format": "NRRD", "orientation": words}
        if header.get("sample units"):
            about["units"] = str(header["sample units"])[:40]
        return Volume(Windowed(source, path.name, KIND), grid, name=path.name, about=about)


def _header(path: Path) -> tuple[Mapping[str, Any], int]:
    """Pynrrd's reading of the lines up to the first empty one, and where they end.

    Lengths that cannot be read are left out, since a user can say them.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    ends = [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := head.find(mark)) >= 0]
    detached = path.name.lower().endswith(".nhdr")
    if not ends and not detached:
        raise VolumeError(f"{path.name} cannot be read as {KIND}: its header does not end")
    end = min(ends, default=len(head))
    lines = [_decimal_points(line) for line in head[:end].splitlines(keepends=True)]
    names_follow = (at for at, line in enumerate(lines, 1) if _key(line) in _DATA_FILE and b"LIST" in line.upper())
    lines = lines[: next(names_follow, len(lines))]
    try:
        return nrrd.read_header(io.BytesIO(b"".join(lines))), end
    except (ValueError, nrrd.NRRDError):
        others = [line for line in lines if _key(line) not in _LENGTHS]
        header = dict(nrrd.read_header(io.BytesIO(b"".join(others))))
        return header | {_UNREAD: "what it states of lengths cannot be read"}, end


def _key(line: bytes) -> str:
    return line.partition(b":")[0].decode("latin-1").strip().lower()


def _decimal_points(line: bytes) -> bytes:
    """A header's line with its list of numbers written with decimal points; vectors keep their commas."""
    if _key(line) not in _NUMBER_LISTS:
        return line
    key, _, words = line.decode("latin-1").partition(":")
    numbers = [number_of(word) for word in words.split()]
    end = line[len(line.rstrip(b"\r\n")) :].decode()
    return line if None in numbers else f"{key}: {' '.join(str(n) for n in numbers)}{end}".encode("latin-1")


def _space_axes(name: str, sizes: Sequence[int], header: Mapping[str, Any]) -> list[int]:
    """The axes that are x, y (and z): those of length one are left out, first those without a direction in space."""
    matrix = _numbers(header.get("space directions"))
    nowhere = [] if matrix.ndim != 2 else [i for i, row in enumerate(matrix) if np.isnan(row).any()]
    kept = list(range(len(sizes)))
    for axis in (*nowhere, *reversed(range(len(sizes)))):
        if len(kept) > 3 and axis in kept and sizes[axis] == 1:
            kept.remove(axis)
    if not 2 <= len(kept) <= 3:
        raise VolumeError(f"{name} has a shape of {tuple(sizes)}; a volume has one grey value a voxel and x y z")
    return kept


def _source(name: str, header: Mapping[str, Any], shape: tuple[int, int, int], file: Path, begin: int) -> Source:
    """The values where they lie, or as a stream of them."""
    encoding = str(header.get("encoding", "")).lower()
    text = encoding in _TEXT
    dtype = _dtype(name, header, text=text)
    begin += _lines_bytes(name, file, begin, int(header.get("line skip", header.get("lineskip", 0))))
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    wanted, size = math.prod(shape) * dtype.itemsize, file.stat().st_size
    if encoding in _CODECS and skip >= -1:
        codec = _CODECS[encoding]
        return Spooled(file, shape, dtype, lambda: _unpacked(name, file, begin, skip, codec, wanted))
    if text and skip >= 0:
        return Spooled(file, shape, dtype, lambda: _parsed(name, file, begin + skip, dtype))
    if encoding != "raw" or skip < -1:
        raise VolumeError(f"{name} is encoded as {encoding!r} (byte skip {skip}); save it as raw or gzip")
    start = size - wanted if skip == -1 else begin + skip
    if start < begin or start + wanted > size:
        missing = max(start + wanted - size, begin - start)
        raise VolumeError(f"{file.name} ends {missing} bytes too early; copy or export it again")
    if start + wanted < size:
        more = size - start - wanted
        raise VolumeError(f"{file.name} holds {more} bytes more than its header says; export it again")
    return Flat(file, shape, dtype, start)


def _lines_bytes(name: str, file: Path, begin: int, lines: int) -> int:
    """The bytes of so many lines of another header before the values."""
    if not 0 <= lines <= _MOST_LINES:
        raise VolumeError(f"{name} skips {lines} lines before its values; it is damaged")
    with file.open("rb") as opened:
        opened.seek(begin)
        return sum(len(opened.readline(_HEADER_BYTES)) for _ in range(lines))


def _unpacked(name: str, file: Path, begin: int, skip: int, codec: str, wanted: int) -> Iterator[bytes]:
    """The bytes of a compressed stream, less those skipped before the values (-1: all but the last ones)."""
    if skip < 0:
        total = 0
        for block in inflated(file, offset=begin, codec=codec, to_its_end=True):
            total += len(block)
            if total > wanted + _HEADER_BYTES:
                raise VolumeError(f"{name} holds more values than its header says; it is damaged, copy it again")
        skip = max(total - wanted, 0)
    return inflated(file, offset=begin, skip=skip, codec=codec)


def _parsed(name: str, file: Path, begin: int, dtype: np.dtype[Any]) -> Iterator[bytes]:
    """Numbers written as text, as bytes; a block of text at a time."""
    with file.open("rb") as opened:
        opened.seek(begin)
        rest = b""
        while block := opened.read(_HEADER_BYTES):
            words = (rest + block).split()
            unfinished = words and not block[-1:].isspace()
            rest = words.pop() if unfinished else b""
            if len(rest) > _LONGEST_NUMBER:
                raise VolumeError(f"{name} does not hold numbers as text; it is damaged")
            yield _as_type(name, words, dtype)
        yield _as_type(name, [rest] if rest else [], dtype)


def _as_type(name: str, words: list[bytes], dtype: np.dtype[Any]) -> bytes:
    wide = np.float64 if dtype.kind == "f" else np.dtype(f"{dtype.kind}8")
    values = np.array(words or np.empty(0), dtype="S" if words else wide).astype(wide)
    if dtype.kind in "iu" and values.size and not np.array_equal(values.astype(dtype), values):
        raise VolumeError(f"{name} holds values beyond the range of its type {dtype}; export it again")
    return values.astype(dtype).tobytes()


def _dtype(name: str, header: Mapping[str, Any], *, text: bool) -> np.dtype[Any]:
    kind = str(header["type"])
    if kind not in _DTYPES:
        raise VolumeError(f"{name} holds values of type {kind}; save it as short or float")
    order = {"big": ">", "little": "<"}.get(str(header.get("endian", "")))
    dtype = dtype_of(name, _DTYPES[kind])
    if text:
        return dtype
    if order is None and dtype.itemsize > 1:
        raise VolumeError(f"{name} does not say the byte order of its values (endian); save it again")
    return np.dtype((order or "=") + dtype.str[1:])


def _values_file(path: Path, header: Mapping[str, Any], end: int) -> tuple[Path, int]:
    named = header.get("data file", header.get("datafile"))
    if named is None:
        return path, end
    text = str(named)
    if text.upper().startswith("LIST") or "%" in text:
        raise VolumeError(f"{path.name} takes its values from several files ({text}); save it as one .nrrd file")
    file = inside_folder(path.parent, text, path.name)
    if not file.is_file():
        raise VolumeError(f"{path.name} takes its values from {text}, which is not there; copy it beside the header")
    return file, 0


def _with_depth(header: Mapping[str, Any]) -> Mapping[str, Any]:
    """The header of an image of two axes as that of a volume of one plane, as thick as its longer edge."""
    if len(header["sizes"]) != 2:
        return header
    deep = {**header, "sizes": [*header["sizes"], 1]}
    for key in ("units", "space units"):
        if key in header:
            deep[key] = [*header[key], *header[key][:1]]
    if "spacings" in header:
        deep["spacings"] = [*header["spacings"], max(header["spacings"])]
    if "space directions" in header:
        matrix = np.zeros((3, 3))
        matrix[:2, :2] = header["space directions"]
        matrix[2, 2] = np.linalg.norm(matrix[:2], axis=1).max()
        deep["space directions"] = matrix
        deep["space origin"] = [*header.get("space origin", (math.nan,) * 2), 0.0]
    return deep


def _geometry(header: Mapping[str, Any], kept: Sequence[int]) -> tuple[Vector | None, Sequence[float], str]:
    """Voxel size and origin (z, y, x) in um of the axes in space, and where they point, in words."""
    words, unplaced = str(header.get("space", "not stated")), (0.0, 0.0, 0.0)
    matrix = _numbers(header.get("space directions"))
    if matrix.ndim == 2 and matrix.shape[0] > max(kept):
        matrix = matrix[list(kept)]
        named = header.get("space units")
        scale = np.array(_factors(named if named is not None else header.get("units"), matrix.shape[1]))
        words += f", x y z along {' '.join('(' + ','.join(f'{n:g}' for n in row) + ')' for row in matrix)}"
        dimensions = int(header.get("space dimension", 4 if "time" in words else 3))
        if scale.shape != matrix.shape[1:] or dimensions != matrix.shape[1]:  # (0,01,0,0): decimal commas
            return None, unplaced, words
        edges = np.linalg.norm(matrix * scale, axis=1)
        origin = _numbers(header.get("space origin", (math.nan,) * 3))
        straight = matrix.shape == (3, 3) and np.array_equal(matrix, np.diag(np.diag(matrix)))
        placed = straight and (np.diag(matrix) > 0).all() and origin.shape == (3,)
        at = (origin * scale)[::-1] if placed else unplaced
    else:
        spacings = _numbers(header.get("spacings"))
        named = header.get("units")
        factors = _factors(None if named is None else [named[axis] for axis in kept if axis < len(named)], len(kept))
        if spacings.ndim != 1 or spacings.size <= max(kept) or len(factors) != len(kept):
            return None, unplaced, words
        edges, at = spacings[list(kept)] * factors, unplaced
    if not (np.isfinite(edges).all() and (edges > 0).all()):
        return None, at, words
    x, y, *deep = (float(edge) for edge in edges)
    return (deep[0] if deep else max(x, y), y, x), at, words  # one plane is as thick as its longer edge


def _factors(units: Any, count: int) -> list[float]:
    """Micrometres in the unit of each axis; [] where one is unknown, millimetres where none is named."""
    found = [um_per(unit) for unit in units] if units is not None else [UM_PER_MM] * count
    return [factor for factor in found if factor] if None not in found else []


def _numbers(value: Any) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(math.nan if value is None else value, dtype=np.float64)
    except (TypeError, ValueError):  # rows of different lengths, or None for an axis without a direction
        rows = [row for row in value if row is not None]
        blank = [math.nan] * (len(rows[0]) if rows else 1)
        return np.asarray([blank if row is None else row for row in value], dtype=np.float64)
