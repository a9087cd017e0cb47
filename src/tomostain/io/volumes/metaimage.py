"""MetaImage volumes: .mha, or .mhd with its values in a file beside it; plain or zlib-compressed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tomostain.images.geometry import Grid, Vector
from tomostain.images.image import Volume
from tomostain.io.inside import inside_folder
from tomostain.io.units import UM_PER_MM, number_of, um_per
from tomostain.io.volumes.arrays import Flat, Source, Windowed
from tomostain.io.volumes.headers import Hints, VolumeError, origin_of, reported, shape_of, spacing_of
from tomostain.io.volumes.spool import Spooled, inflated
from tomostain.io.volumes.stated_values import stated_scale

KIND = "MetaImage"
_HEADER_BYTES = 2**16
_SCALE = {"ElementToIntensityFunctionSlope": "slope", "ElementToIntensityFunctionOffset": "intercept"}
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read_metaimage(path: Path, hints: Hints) -> Volume:
    """Open a MetaImage file as a lazy Volume; a two-dimensional one is a volume of one plane.

    Lengths are millimetres, as in ITK, whose format it is, or in its DistanceUnits. Where the axes point is reported,
    not applied.

    Raises
    ------
    VolumeError
        Several values a voxel, values in several files or outside the header's folder, truncated, no voxel size.
    """
    hints.nothing_inside(path.name)
    with reported(path.name, KIND):
        fields, end = _fields(path)
        n = _whole(fields, "NDims", path.name)
        sizes = _sizes(fields, n, path.name)
        if n < 2 or any(size != 1 for size in sizes[3:]):
            raise VolumeError(f"{path.name} has a shape of {tuple(sizes)}; save one volume of it")
        shape = shape_of(path.name, [*sizes[:3], 1][:3][::-1])
        if _whole(fields, "ElementNumberOfChannels", path.name, 1) != 1:
            raise VolumeError(f"{path.name} holds several values a voxel; a CT volume has one grey value")
        kind = fields.get("ElementType", "").upper()
        if kind not in _TYPES:
            raise VolumeError(
                f"{path.name} holds values of type {kind or 'unknown'}; save it as MET_SHORT or MET_FLOAT"
            )
        big = _true(fields, "BinaryDataByteOrderMSB") or _true(fields, "ElementByteOrderMSB")
        dtype = np.dtype((">" if big else "<") + _TYPES[kind])
        if fields.get("BinaryData", "True").lower() == "false":
            raise VolumeError(f"{path.name} stores its values as text; save it as binary")
        file, begin = _values_file(path, fields, end)
        wanted = math.prod(shape) * dtype.itemsize
        source: Source
        if _true(fields, "CompressedData"):
            source = Spooled(file, shape, dtype, lambda: inflated(file, offset=begin))
        else:
            if fields.get("HeaderSize") == "-1":
                begin = file.stat().st_size - wanted
            missing = begin + wanted - file.stat().st_size
            if missing > 0 or begin < 0:
                raise VolumeError(f"{file.name} ends {max(missing, -begin)} bytes too early; copy or export it again")
            source = Flat(file, shape, dtype, begin)
        edges, words = _stated(fields, n)
        grid = Grid(shape, spacing_of(path.name, edges, hints, found=words), origin_of(_origin(fields, n)))
        scale = stated_scale(path.name, {new: fields[key] for key, new in _SCALE.items() if key in fields})
        array, units = scale.applied(Windowed(source, path.name, KIND))
        about = {"format": "MetaImage", "orientation": _orientation(fields, n)} | units
        return Volume(array, grid, name=path.name, about=about)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's ``Key = Value`` lines, and where they end: with the line that says where the values are."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while file.tell() < _HEADER_BYTES:
            line = file.readline(_HEADER_BYTES).decode("latin-1")
            key, mark, value = line.partition("=")
            if not mark:
                break
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                return fields, file.tell()
    raise VolumeError(f"{path.name} cannot be read as {KIND}: its header does not end with ElementDataFile")


def _values_file(path: Path, fields: Mapping[str, str], end: int) -> tuple[Path, int]:
    named = fields["ElementDataFile"]
    skip = max(_whole(fields, "HeaderSize", path.name, 0), 0)
    if named.upper() == "LOCAL":
        return path, end + skip
    if named.upper().startswith("LIST") or "%" in named:
        raise VolumeError(f"{path.name} takes its values from several files ({named}); save it as one .mha file")
    file = inside_folder(path.parent, named, path.name)
    if not file.is_file():
        raise VolumeError(f"{path.name} takes its values from {named}, which is not there; copy it beside the header")
    return file, skip


def _stated(fields: Mapping[str, str], n: int) -> tuple[Vector | None, str]:
    """The voxel size (z, y, x) in um, or in words why what is stated is none."""
    key = next((key for key in ("ElementSpacing", "ElementSize") if key in fields), None)
    edges = _numbers(fields, key, n)
    if key is None or edges is None:
        return None, f"it states {key} = {fields[key]}" if key else ""
    x, y, z = edges[:3] if n > 2 else (*edges, max(edges))  # one plane is as thick as its longer edge
    unit = um_per(fields.get("DistanceUnits", "")) or UM_PER_MM
    return (z * unit, y * unit, x * unit), ""


def _matrix(fields: Mapping[str, str], n: int) -> list[float] | None:
    key = next((key for key in ("TransformMatrix", "Orientation", "Rotation") if key in fields), None)
    return _numbers(fields, key, n * n)


def _origin(fields: Mapping[str, str], n: int) -> Vector:
    """Centre of the first voxel (z, y, x) in um; zero where the axes are not the world's own."""
    key = next((key for key in ("Offset", "Position", "Origin") if key in fields), None)
    origin, identity = _numbers(fields, key, 3), [float(i == j) for i in range(n) for j in range(n)]
    if origin is None or n != 3 or (_matrix(fields, n) or identity) != identity:
        return 0.0, 0.0, 0.0
    unit = um_per(fields.get("DistanceUnits", "")) or UM_PER_MM
    return origin[2] * unit, origin[1] * unit, origin[0] * unit


def _orientation(fields: Mapping[str, str], n: int) -> str:
    """Where the axes point: the anatomical letters and the matrix, as the header has them."""
    matrix = _matrix(fields, n)
    words = [f"x y z to {fields['AnatomicalOrientation']}"] if "AnatomicalOrientation" in fields else []
    words += [f"matrix {' '.join(f'{number:g}' for number in matrix)}"] if matrix else []
    return ", ".join(words) or "not stated"


def _numbers(fields: Mapping[str, str], key: str | None, count: int) -> list[float] | None:
    """So many numbers of a field; None where they are not there or cannot be read."""
    numbers = [number_of(text) for text in fields.get(key or "", "").split()]
    known = [number for number in numbers if number is not None]
    return known if len(known) == len(numbers) == count else None


def _sizes(fields: Mapping[str, str], n: int, name: str) -> list[int]:
    words = fields.get("DimSize", "").split()
    if len(words) != n or not all(word.isdigit() and len(word) < 18 for word in words):
        raise VolumeError(f"{name} needs {n} numbers as DimSize, not {fields.get('DimSize', 'none')!r}; it is damaged")
    return [int(word) for word in words]


def _whole(fields: Mapping[str, str], key: str, name: str, default: int | None = None) -> int:
    text = fields.get(key)
    if text is None and default is not None:
        return default
    if text is None or not text.lstrip("-").isdigit() or len(text) > 18 or (key == "NDims" and not 0 < int(text) < 10):
        raise VolumeError(f"{name} needs a whole number as {key}, not {text!r}; it is damaged")
    return int(text)


def _true(fields: Mapping[str, str], key: str) -> bool:
    return fields.get(key, "False").lower().startswith(("t", "1"))
