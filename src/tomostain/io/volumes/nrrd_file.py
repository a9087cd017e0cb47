"""NRRD volumes: .nrrd, or .nhdr with its values in a file beside it; raw, gzip or bzip2."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from tomostain.images.geometry import Grid, Vector
from tomostain.images.image import Volume
from tomostain.io.inside import inside_folder
from tomostain.io.units import UM_PER_MM, um_per
from tomostain.io.volumes.arrays import Flat, Source, Windowed
from tomostain.io.volumes.given import Given, VolumeError, dtype_of, shape_of, spacing_of, told
from tomostain.io.volumes.spool import Spooled, inflated

KIND = "NRRD"
_HEADER_BYTES = 2**20
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


def read_nrrd(path: Path, given: Given) -> Volume:
    """Open a NRRD file as a lazy Volume; its first axis, the fastest, is x.

    Lengths without a unit are millimetres, as programs that write NRRD take them. Where the axes point is told, not
    applied.

    Raises
    ------
    VolumeError
        Not three axes, values in several files, outside the header's folder or as text, more or fewer values than the
        header says, no voxel size.
    """
    given.nothing_inside(path.name)
    with told(path.name, KIND):
        header, end = _header(path)
        header = _with_depth(header)
        sizes = [int(n) for n in header["sizes"]]
        if len(sizes) != 3:
            raise VolumeError(
                f"{path.name} has a shape of {tuple(sizes)}; a volume has one grey value a voxel and x y z"
            )
        shape = shape_of(path.name, sizes[::-1])
        dtype = _dtype(path.name, header)
        file, begin = _values_file(path, header, end)
        encoding = str(header.get("encoding", ""))
        skip = int(header.get("byte skip", header.get("byteskip", 0)))
        if int(header.get("line skip", header.get("lineskip", 0))) != 0:
            raise VolumeError(f"{path.name} skips lines before its values; save it without 'line skip'")
        wanted = math.prod(shape) * dtype.itemsize
        source: Source
        if encoding in _CODECS and skip >= 0:
            codec = _CODECS[encoding]
            source = Spooled(file, shape, dtype, lambda: inflated(file, offset=begin, skip=skip, codec=codec))
        elif encoding == "raw" and skip >= -1:
            size = file.stat().st_size
            start = size - wanted if skip == -1 else begin + skip
            if start < begin or start + wanted > size:
                missing = max(start + wanted - size, begin - start)
                raise VolumeError(f"{file.name} ends {missing} bytes too early; copy or export it again")
            if start + wanted < size:
                more = size - start - wanted
                raise VolumeError(f"{file.name} holds {more} bytes more than its header says; export it again")
            source = Flat(file, shape, dtype, start)
        else:
            raise VolumeError(f"{path.name} is encoded as {encoding!r} (byte skip {skip}); save it as raw or gzip")
        edges, origin, words = _geometry(header)
        grid = Grid(shape, spacing_of(path.name, edges, given), origin)
        about = {"format": "NRRD", "orientation": words}
        return Volume(Windowed(source, path.name, KIND), grid, name=path.name, about=about)


def _header(path: Path) -> tuple[Mapping[str, Any], int]:
    """Pynrrd's reading of the lines up to the first empty one, and where they end."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    ends = [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := head.find(mark)) >= 0]
    detached = path.name.lower().endswith(".nhdr")
    if not ends and not detached:
        raise VolumeError(f"{path.name} cannot be read as {KIND}: its header does not end")
    end = min(ends, default=len(head))
    header: Mapping[str, Any] = nrrd.read_header(io.BytesIO(head[:end]))
    return header, end


def _dtype(name: str, header: Mapping[str, Any]) -> np.dtype[Any]:
    kind = str(header["type"])
    if kind not in _DTYPES:
        raise VolumeError(f"{name} holds values of type {kind}; save it as short or float")
    order = {"big": ">", "little": "<"}.get(str(header.get("endian", "")))
    dtype = dtype_of(name, _DTYPES[kind])
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


def _geometry(header: Mapping[str, Any]) -> tuple[Vector | None, tuple[float, ...], str]:
    """Voxel size and origin (z, y, x) in um, and where the axes point, in words."""
    directions = header.get("space directions")
    units = header.get("space units" if directions is not None else "units")
    factors = [um_per(unit) for unit in units] if units is not None else [UM_PER_MM] * 3
    words = str(header.get("space", "not stated"))
    if len(factors) != 3 or None in factors:
        return None, (), words
    scale = np.asarray(factors, dtype=np.float64)
    if directions is not None:
        matrix = np.asarray(directions, dtype=np.float64)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            return None, (), words
        words += f", x y z along {' '.join(f'({a:g},{b:g},{c:g})' for a, b, c in matrix)}"
        edges = np.linalg.norm(matrix * scale, axis=1)
        origin = np.asarray(header.get("space origin", (math.nan,) * 3), dtype=np.float64) * scale
        straight = np.array_equal(matrix, np.diag(np.diag(matrix))) and (np.diag(matrix) > 0).all()
        placed = tuple(origin[::-1]) if straight and origin.shape == (3,) and np.isfinite(origin).all() else ()
    else:
        edges = np.asarray(header.get("spacings", (math.nan,) * 3), dtype=np.float64) * scale
        placed = ()
    if edges.shape != (3,) or not (np.isfinite(edges).all() and (edges > 0).all()):
        return None, placed, words
    x, y, z = (float(edge) for edge in edges)
    return (z, y, x), placed, words
