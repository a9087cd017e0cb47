"""A volume in a Zarr folder: OME-Zarr 0.4 and 0.5 at any level, or a plain array of Zarr v2 or v3."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from tomostain.images.geometry import Grid, Vector
from tomostain.images.image import ColourLast, LazyArray, Volume
from tomostain.io.units import um_per
from tomostain.io.volumes.arrays import Array, Box, Chunked, Reopened, Source, Windowed
from tomostain.io.volumes.headers import (
    ALWAYS_ACCEPTED_BYTES,
    MOST_COMPRESSION,
    Hints,
    VolumeError,
    check_size,
    dtype_of,
    origin_of,
    reported,
    shape_of,
    spacing_of,
)
from tomostain.io.volumes.stated_spacing import agreed, of_attributes
from tomostain.io.volumes.stated_values import refuse_projections, stated_scale
from tomostain.io.volumes.zarr_chunks import capped, check_stored, warn_of_missing
from tomostain.io.volumes.zarr_groups import (
    METADATA,
    Choice,
    attributes_of_node,
    choose,
    is_array,
    metadata,
    multiscales,
    projections_at,
)

KIND = "Zarr"
MOST_CHUNK_BYTES = 2**29
"""A larger chunk cannot be read in part within the memory that a window may cost."""
_PIECE_BYTES = 2**25
"""Zarr holds a read's chunks twice and more while it decodes them; larger boxes are read in bands of rows."""
_BYTE_CODECS = ("bytes", "endian", "blosc", "gzip", "zlib", "zstd", "bz2", "lz4", "lzma", "sharding_indexed")
_CHECKSUMS = ("crc32c", "crc32", "fletcher32", "adler32", "crc32c_checksum", "jenkins_lookup3")
_NUMBER_CODECS = ("transpose", "delta", "shuffle", "bitround", "fixedscaleoffset", "quantize")
_CODECS = frozenset((*_BYTE_CODECS, *_CHECKSUMS, *_NUMBER_CODECS, "astype", "packbits"))
"""Codecs that turn bytes into numbers and do nothing else; those that make Python objects are refused."""


class Stored:
    """The space axes of a Zarr array, first among which may be its colours; leading axes of length one are left out."""

    def __init__(
        self, name: str, folder: Path, path: str, lead: int, shape: tuple[int, ...], dtype: np.dtype[Any], whole: bool
    ) -> None:
        """``whole``: every chunk was written, so that none may be missing."""
        self.shape, self.dtype = shape, dtype
        self._where = (name, folder, path, lead, shape, dtype, whole)
        self._name, self._lead, self._whole = name, lead, whole
        self._folder, self._path = folder, path
        self._array: Reopened[zarr.Array[Any]] = Reopened(_open_array, folder, path)
        self._warned = False

    def read(self, box: Box) -> Array:
        array = self._array.get()
        stored = ((0, 1),) * self._lead + box
        if check_stored(array, self._folder, self._path, stored, self._name, whole=self._whole) and not self._warned:
            self._warned = True
            warn_of_missing(self._name, array.fill_value)
        top, bottom = box[-2]
        row_bytes = math.prod(b - a for a, b in (*box[:-2], box[-1])) * self.dtype.itemsize
        step = max(_PIECE_BYTES // row_bytes // array.chunks[-2], 1) * array.chunks[-2]
        if bottom - top <= step:
            return self._piece(array, box)
        out = np.empty(tuple(b - a for a, b in box), self.dtype)
        edges = [top, *range((top // step + 1) * step, bottom, step), bottom]
        for start, stop in pairwise(edges):
            out[..., start - top : stop - top, :] = self._piece(array, (*box[:-2], (start, stop), box[-1]))
        return out

    def _piece(self, array: zarr.Array[Any], box: Box) -> Array:
        where: Any = (*(0,) * self._lead, *(slice(a, b) for a, b in box))
        return np.asarray(array[where])

    def __reduce__(self) -> tuple[Any, ...]:
        return (Stored, self._where)


def read_zarr(path: Path, hints: Hints) -> Volume:
    """Open one level of an OME-Zarr image, or a plain Zarr array, as a lazy Volume.

    ``NAME.zarr::2`` is level 2 of an image (default: 0, the finest), ``NAME.zarr::/group/one`` an array.
    Volumes that tomostain calibrated come in their units.

    Raises
    ------
    VolumeError
        The folder holds no image or array, was not written to the end, has no voxel size, has axes other than (t) (c)
        z y x, or stores what could execute code or fill the memory.
    """
    with reported(path.name, KIND):
        inside = hints.inside.strip("/")
        name = f"{path.name}::{hints.inside}" if hints.inside else path.name
        chosen = choose(path, inside, name)
        if chosen.level is not None:
            return _image(path, chosen, name, hints)
        above = attributes_of_node(path.parent, "") if not inside and _has_metadata(path.parent) else {}
        if multiscales(above):  # the folder of a level was named itself
            chosen = choose(path.parent, path.name, name)
            if chosen.level is not None:
                return _image(path.parent, chosen, name, hints)
        return _plain(path, chosen, name, hints)


def attributes_of(path: Path) -> dict[str, Any]:
    """The attributes of a Zarr group, {} where it has none.

    Raises
    ------
    VolumeError
        Its metadata are damaged.
    """
    with reported(path.name, KIND):
        return attributes_of_node(path, "")


def read_whole(path: Path, where: str, *, every_chunk: bool) -> Array:
    """All values of one array in a Zarr group; ``every_chunk``: it was written whole, so that none may be missing.

    Raises
    ------
    VolumeError
        It is not there, is damaged, or stores what could execute code or fill the memory.
    """
    with reported(path.name, KIND):
        array = _open_checked(path, where, path.name)
        box = tuple((0, int(n)) for n in array.shape)
        if check_stored(array, path, where, box, f"{path.name}/{where}", whole=every_chunk):
            warn_of_missing(f"{path.name}/{where}", array.fill_value)
        return np.asarray(array[...])


def _image(path: Path, chosen: Choice, name: str, hints: Hints) -> Volume:
    scales, level = multiscales(chosen.attributes)[0], chosen.level or 0
    declared = scales.get("axes") or [*"tczyx"]  # versions 0.1 and 0.2 name no axes
    axes = [str(axis["name"] if isinstance(axis, dict) else axis) for axis in declared]
    datasets = scales["datasets"]
    if not 0 <= level < len(datasets):
        raise VolumeError(
            f"{f'{path.name}::/{chosen.where}'.removesuffix('::/')} has levels 0 to {len(datasets) - 1}, not {level}"
        )
    if not set(axes) <= {"t", "c", "z", "y", "x"} or not {"z", "y", "x"} <= set(axes) or len(set(axes)) != len(axes):
        raise VolumeError(f"{name} has axes {axes}; a volume needs z, y, x and at most t and c beside them")
    space = [axes.index(letter) for letter in "zyx"]
    if space != sorted(space) or axes[-3:] != ["z", "y", "x"] or (axes[:2] == ["c", "t"]):
        raise VolumeError(f"{name} has axes {axes}; they must run in the order t, c, z, y, x")
    where = f"{chosen.where}/{datasets[level]['path']}".strip("/")
    array = _open_checked(path, where, name)
    if array.ndim != len(axes):
        raise VolumeError(f"{name} has axes {axes} but an array of shape {array.shape}; it is damaged")
    for axis, size in zip(axes, array.shape, strict=True):
        if (axis == "t" and size != 1) or (axis == "c" and size not in (1, 3)):
            raise VolumeError(f"{name} has {size} along {axis}; only one time point and 1 or 3 channels can be read")
    spacing, origin = _placed(name, scales, datasets[level], declared, hints)
    coloured = "c" in axes and array.shape[axes.index("c")] == 3
    ours = chosen.attributes.get("tomostain", {})
    volume: LazyArray = _lazy(path, array, name, len(axes) - 3 - coloured, whole=bool(ours.get("every_chunk")))
    version = chosen.attributes.get("ome", {}).get("version") or scales.get("version") or ""
    about = {"format": f"OME-Zarr {version}".strip()}
    if coloured:
        volume = ColourLast(volume)
    else:
        volume, units = stated_scale(name, ours or attributes_of_node(path, where)).applied(volume)
        about |= units
    if ours.get("simulated"):
        about["simulated"] = str(ours["simulated"])
    grid = Grid(tuple(volume.shape[:3]), spacing, origin)
    return Volume(volume, grid, name=name, stain=ours.get("stain"), about=about)


def _plain(path: Path, chosen: Choice, name: str, hints: Hints) -> Volume:
    array = _open_checked(path, chosen.where, name)
    refuse_projections(name, projections_at(path, chosen.where))
    lead = array.ndim - 3
    if lead < 0 or any(n != 1 for n in array.shape[:lead]):
        raise VolumeError(
            f"{name} has a shape of {array.shape}; a volume has three axes z y x: save the one to be read"
        )
    stated, seen = (None, "") if hints.spacing_um else agreed(*of_attributes(chosen.attributes))
    spacing = spacing_of(name, stated, hints, found=seen)
    grid = Grid(shape_of(name, array.shape[lead:]), spacing)
    about = {"format": f"Zarr v{array.metadata.zarr_format} array"}
    lazy = _lazy(path, array, name, lead, whole=False)
    volume, units = stated_scale(name, chosen.attributes).applied(lazy)
    return Volume(volume, grid, name=name, about=about | units)


def _lazy(path: Path, array: zarr.Array[Any], name: str, lead: int, *, whole: bool) -> Windowed:
    shape = tuple(int(n) for n in array.shape[lead:])
    source: Source = Stored(name, path, array.path, lead, shape, np.dtype(array.dtype), whole)
    if len(shape) == 3:
        source = Chunked(source, tuple(array.chunks[lead:]))
    return Windowed(source, name, KIND)


def _open_array(folder: Path, path: str) -> zarr.Array[Any]:
    return capped(zarr.open_array(folder, mode="r", path=path))


def _open_checked(path: Path, where: str, name: str) -> zarr.Array[Any]:
    """Open an array after checking that its path stays inside, its codecs are harmless and its size is plausible."""
    about = metadata(path, where)
    if not is_array(about):
        raise VolumeError(
            f"{name}: {where or 'the folder'} is not a Zarr array; it is damaged, or its writing did not finish"
        )
    _check_codecs(about, name)
    for file in (*METADATA, ".zattrs", ".zmetadata"):
        if (path / where / file).exists() and not (path / where / file).is_file():  # Zarr would wait for a pipe
            raise VolumeError(f"{name}: {where or path.name}/{file} is not a file; copy it again")
    array = _open_array(path, where)
    dtype = dtype_of(name, array.dtype)
    if not array.shape or any(n < 1 for n in array.shape):
        raise VolumeError(f"{name} states a shape of {array.shape}; a volume needs three positive sizes z y x")
    if math.prod(array.chunks) * dtype.itemsize > MOST_CHUNK_BYTES:
        raise VolumeError(f"{name} has chunks of {array.chunks}, too large to be read in part; rechunk it")
    claimed = math.prod(array.shape) * dtype.itemsize
    check_size(
        name, array.shape, dtype, _stored_bytes(path / where, enough=claimed // MOST_COMPRESSION, claimed=claimed)
    )
    return array


def _has_metadata(folder: Path) -> bool:
    return any((folder / file).is_file() for file in METADATA)


def _check_codecs(about: Mapping[str, Any], name: str) -> None:
    for codec in _codec_names(about):
        if codec.removeprefix("numcodecs.") not in _CODECS:
            raise VolumeError(f"{name} is stored with the codec {codec!r}, which is not read here; save it with zstd")


def _codec_names(about: Mapping[str, Any]) -> Iterator[str]:
    if about.get("zarr_format") == 3:
        for codec in about.get("codecs") or ():
            yield str(codec["name"] if isinstance(codec, dict) else codec)
            inner = codec.get("configuration") if isinstance(codec, dict) else None
            if isinstance(inner, dict):
                yield from _codec_names({"zarr_format": 3, "codecs": inner.get("codecs")})
                yield from _codec_names({"zarr_format": 3, "codecs": inner.get("index_codecs")})
    else:
        for codec in (about.get("compressor"), *(about.get("filters") or ())):
            if codec is not None:
                yield str(codec["id"])


def _stored_bytes(folder: Path, *, enough: int, claimed: int) -> int:
    """Bytes in a folder's files; counting stops when there are enough for the claimed size."""
    stored = 0
    if claimed <= ALWAYS_ACCEPTED_BYTES:
        return enough
    for root, _, files in os.walk(folder):
        for file in files:
            stored += os.stat(os.path.join(root, file)).st_size
            if stored > enough:
                return stored
    return stored


def _placed(
    name: str, scales: Mapping[str, Any], dataset: Mapping[str, Any], axes: Sequence[Any], hints: Hints
) -> tuple[Vector, Vector]:
    """Voxel size and centre of the first voxel (z, y, x) of a level in um; what the user says comes first."""
    units = [axis.get("unit") if isinstance(axis, dict) else None for axis in axes[-3:]]
    factors = [um_per(unit or "") for unit in units]
    try:
        scale, offset = _transform(scales, dataset, len(axes))
    except (TypeError, ValueError, KeyError, AttributeError):
        return spacing_of(name, None, hints, found="its coordinateTransformations cannot be read"), (0.0, 0.0, 0.0)
    stated = None
    if None not in factors and scale is not None:
        stated = [edge * (factor or 0.0) for edge, factor in zip(scale[-3:], factors, strict=True)]
    words = f"its axes have the units {units}" if scale is not None else "it states no scale"
    spacing = spacing_of(name, stated, hints, found=words)
    z, y, x = (o * (factor or 1.0) for o, factor in zip(offset[-3:], factors, strict=True))
    return spacing, origin_of((z, y, x))


def _transform(
    scales: Mapping[str, Any], dataset: Mapping[str, Any], n_axes: int
) -> tuple[list[float] | None, list[float]]:
    """Scale (None: not stated) and translation of a level, in axis units, the whole multiscale's applied last."""
    scale, offset, stated = [1.0] * n_axes, [0.0] * n_axes, False
    for step in (*(dataset.get("coordinateTransformations") or ()), *(scales.get("coordinateTransformations") or ())):
        if step["type"] == "scale":
            stated = True
            scale = [s * float(f) for s, f in zip(scale, step["scale"], strict=True)]
            offset = [o * float(f) for o, f in zip(offset, step["scale"], strict=True)]
        elif step["type"] == "translation":
            offset = [o + float(t) for o, t in zip(offset, step["translation"], strict=True)]
    return scale if stated else None, offset
