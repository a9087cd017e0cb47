"""A volume in a Zarr folder: OME-Zarr 0.4 and 0.5 at any level, or a plain array of Zarr v2 or v3."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from tomostain.images.geometry import Grid
from tomostain.images.image import Calibrated, ColourLast, LazyArray, Volume
from tomostain.io.inside import inside_folder
from tomostain.io.units import um_per
from tomostain.io.volumes.arrays import Array, Box, Chunked, Held, Source, Windowed
from tomostain.io.volumes.given import (
    BOMB_FREE_BYTES,
    BOMB_RATIO,
    Given,
    VolumeError,
    believable,
    dtype_of,
    shape_of,
    spacing_of,
    told,
)
from tomostain.io.volumes.stated_spacing import agreed, of_attributes
from tomostain.io.volumes.zarr_bounds import bounded, check_stored, warn_of_missing

KIND = "Zarr"
METADATA = ("zarr.json", ".zarray", ".zgroup")
MOST_CHUNK_BYTES = 2**29
"""A larger chunk cannot be read in part within the memory that a window may cost."""
_METADATA_BYTES = 2**24
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
        self._array: Held[zarr.Array[Any]] = Held(_open_array, folder, path)
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


def read_zarr(path: Path, given: Given) -> Volume:
    """Open one level of an OME-Zarr image, or a plain Zarr array, as a lazy Volume.

    ``NAME.zarr::2`` is level 2 of an image (0, the finest, where nothing is said), ``NAME.zarr::/group/one`` an array.
    Volumes that tomostain calibrated come in their units.

    Raises
    ------
    VolumeError
        The folder holds no image or array, was not written to the end, has no voxel size, has axes other than (t) (c)
        z y x, or stores what could execute code or burst.
    """
    with told(path.name, KIND):
        inside = given.inside.strip("/")
        level = int(inside) if inside.isdecimal() else None
        where = "" if level is not None else inside
        about = _metadata(path, where)
        attributes = _attributes(path, where, about)
        name = f"{path.name}::{given.inside}" if given.inside else path.name
        ome = attributes.get("ome", attributes)
        if isinstance(ome, dict) and "multiscales" in ome:
            return _image(path, where, name, attributes, ome, level or 0, given)
        if _is_array(about):
            return _plain(path, where, name, attributes, given)
        if level is not None and (path / inside).is_dir():
            return _plain(path, inside, name, _attributes(path, inside, _metadata(path, inside)), given)
        return _only_array(path, where, name, given)


def attributes_of(path: Path) -> dict[str, Any]:
    """The attributes of a Zarr group, {} where it has none.

    Raises
    ------
    VolumeError
        Its metadata are damaged.
    """
    with told(path.name, KIND):
        return _attributes(path, "", _metadata(path, ""))


def read_whole(path: Path, where: str, *, every_chunk: bool) -> Array:
    """All values of one array in a Zarr group; ``every_chunk``: it was written whole, so that none may be missing.

    Raises
    ------
    VolumeError
        It is not there, is damaged, or stores what could execute code or burst.
    """
    with told(path.name, KIND):
        array = _open_checked(path, where, path.name)
        box = tuple((0, int(n)) for n in array.shape)
        if check_stored(array, path, where, box, f"{path.name}/{where}", whole=every_chunk):
            warn_of_missing(f"{path.name}/{where}", array.fill_value)
        return np.asarray(array[...])


def _image(
    path: Path,
    where: str,
    name: str,
    attributes: Mapping[str, Any],
    ome: Mapping[str, Any],
    level: int,
    given: Given,
) -> Volume:
    scales = ome["multiscales"][0]
    axes = [axis["name"] for axis in scales["axes"]]
    datasets = scales["datasets"]
    if not 0 <= level < len(datasets):
        raise VolumeError(f"{path.name} has levels 0 to {len(datasets) - 1}, not {level}")
    if not set(axes) <= {"t", "c", "z", "y", "x"} or not {"z", "y", "x"} <= set(axes) or len(set(axes)) != len(axes):
        raise VolumeError(f"{name} has axes {axes}; a volume needs z, y, x and at most t and c beside them")
    space = [axes.index(letter) for letter in "zyx"]
    if space != sorted(space) or axes[-3:] != ["z", "y", "x"] or (axes[:2] == ["c", "t"]):
        raise VolumeError(f"{name} has axes {axes}; they must run in the order t, c, z, y, x")
    array = _open_checked(path, f"{where}/{datasets[level]['path']}".strip("/"), name)
    if array.ndim != len(axes):
        raise VolumeError(f"{name} has axes {axes} but an array of shape {array.shape}; it is damaged")
    for axis, size in zip(axes, array.shape, strict=True):
        if (axis == "t" and size != 1) or (axis == "c" and size not in (1, 3)):
            raise VolumeError(f"{name} has {size} along {axis}; only one time point and 1 or 3 channels can be read")
    scale, offset = _transform(scales, datasets[level], len(axes))
    units = [scales["axes"][i].get("unit") for i in space]
    factors = [um_per(unit or "") for unit in units]
    stated = None
    if None not in factors:
        stated = [scale[i] * (factor or 0.0) for i, factor in zip(space, factors, strict=True)]
    spacing = spacing_of(name, stated, given, found=f"its axes have the units {units}")
    origin = tuple(offset[i] * (factor or 1.0) for i, factor in zip(space, factors, strict=True))
    coloured = "c" in axes and array.shape[axes.index("c")] == 3
    ours = attributes.get("tomostain", {})
    volume: LazyArray = _lazy(path, array, name, len(axes) - 3 - coloured, whole=bool(ours.get("every_chunk")))
    about = {"format": f"OME-Zarr {ome.get('version') or scales.get('version') or ''}".strip()}
    if coloured:
        volume = ColourLast(volume)
    elif "slope" in ours:
        volume = Calibrated(volume, float(ours["slope"]), float(ours.get("intercept", 0.0)))
    for fact in ("units", "simulated"):
        if ours.get(fact):
            about[fact] = str(ours[fact])
    grid = Grid(tuple(volume.shape[:3]), spacing, origin)
    return Volume(volume, grid, name=name, stain=ours.get("stain"), about=about)


def _plain(path: Path, where: str, name: str, attributes: Mapping[str, Any], given: Given) -> Volume:
    array = _open_checked(path, where, name)
    lead = array.ndim - 3
    if lead < 0 or any(n != 1 for n in array.shape[:lead]):
        raise VolumeError(
            f"{name} has a shape of {array.shape}; a volume has three axes z y x: save the one to be read"
        )
    stated, seen = agreed(*of_attributes(attributes))
    spacing = spacing_of(name, stated, given, found=seen)
    grid = Grid(shape_of(name, array.shape[lead:]), spacing)
    about = {"format": f"Zarr v{array.metadata.zarr_format} array"}
    return Volume(_lazy(path, array, name, lead, whole=False), grid, name=name, about=about)


def _only_array(path: Path, where: str, name: str, given: Given) -> Volume:
    """The one array of a group, or a list of what there is to choose from."""
    group = path / where
    found = sorted(
        folder.relative_to(path).as_posix()
        for folder in group.iterdir()
        if folder.is_dir() and any((folder / file).is_file() for file in METADATA)
    )
    arrays = [one for one in found if _is_array(_metadata(path, one))]
    ours = all(one.isdecimal() for one in arrays)
    if len(found) == 1 and len(arrays) == 1 and not ours:
        return _plain(path, arrays[0], name, _attributes(path, arrays[0], _metadata(path, arrays[0])), given)
    choice = f"choose one of {', '.join(f'{path.name}::/{one}' for one in found[:8])}" if found else "it holds nothing"
    raise VolumeError(
        f"{name} has no OME-Zarr metadata; {choice}, or, if it was being written, the writing did not finish"
    )


def _lazy(path: Path, array: zarr.Array[Any], name: str, lead: int, *, whole: bool) -> Windowed:
    shape = tuple(int(n) for n in array.shape[lead:])
    source: Source = Stored(name, path, array.path, lead, shape, np.dtype(array.dtype), whole)
    if len(shape) == 3:
        source = Chunked(source, tuple(array.chunks[lead:]))
    return Windowed(source, name, KIND)


def _open_array(folder: Path, path: str) -> zarr.Array[Any]:
    return bounded(zarr.open_array(folder, mode="r", path=path))


def _open_checked(path: Path, where: str, name: str) -> zarr.Array[Any]:
    """Open an array after checking that its path stays inside, its codecs are harmless and its size can be believed."""
    about = _metadata(path, where)
    if not _is_array(about):
        raise VolumeError(f"{name}: {where or 'the folder'} is no Zarr array; it is damaged or unfinished")
    _check_codecs(about, name)
    for file in (*METADATA, ".zattrs", ".zmetadata"):
        if (path / where / file).exists() and not (path / where / file).is_file():  # Zarr would wait for a pipe
            raise VolumeError(f"{name}: {where or path.name}/{file} is no file; copy it again")
    array = _open_array(path, where)
    dtype = dtype_of(name, array.dtype)
    if not array.shape or any(n < 1 for n in array.shape):
        raise VolumeError(f"{name} states a shape of {array.shape}; a volume needs three positive sizes z y x")
    if math.prod(array.chunks) * dtype.itemsize > MOST_CHUNK_BYTES:
        raise VolumeError(f"{name} has chunks of {array.chunks}, too large to be read in part; rechunk it")
    claimed = math.prod(array.shape) * dtype.itemsize
    believable(name, array.shape, dtype, _stored_bytes(path / where, enough=claimed // BOMB_RATIO, claimed=claimed))
    return array


def _metadata(path: Path, where: str) -> dict[str, Any]:
    """The metadata document of a group or array, {} where there is none."""
    for file in METADATA:
        found = _json(path, where, file)
        if found is not None:
            return found
    return {}


def _attributes(path: Path, where: str, about: Mapping[str, Any]) -> dict[str, Any]:
    found = about.get("attributes") if about.get("zarr_format") == 3 else _json(path, where, ".zattrs")
    return dict(found or {})


def _json(path: Path, where: str, file: str) -> dict[str, Any] | None:
    if any(part in ("..", "") for part in where.split("/")[:-1]) or where.endswith("..") or "\\" in where:
        raise VolumeError(f"{path.name} names {where!r}, which leads out of its own folder; it is not safe to read")
    at = inside_folder(path, f"{where}/{file}".lstrip("/"), path.name)
    if not at.is_file():
        return None
    if at.stat().st_size > _METADATA_BYTES:
        raise VolumeError(f"{path.name} has {at.stat().st_size} bytes of metadata in {file}; it is damaged")
    found = json.loads(at.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise VolumeError(f"{path.name} has no metadata in {file}; it is damaged")
    return found


def _is_array(about: Mapping[str, Any]) -> bool:
    return about.get("node_type") == "array" or ("shape" in about and "node_type" not in about)


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
    """Bytes in a folder's files; counting stops when there are enough to believe the claim."""
    stored = 0
    if claimed <= BOMB_FREE_BYTES:
        return enough
    for root, _, files in os.walk(folder):
        for file in files:
            stored += os.stat(os.path.join(root, file)).st_size
            if stored > enough:
                return stored
    return stored


def _transform(scales: Mapping[str, Any], dataset: Mapping[str, Any], n_axes: int) -> tuple[list[float], list[float]]:
    """Scale and translation of a level, in axis units, with those of the whole multiscale applied after them."""
    scale, offset = [1.0] * n_axes, [0.0] * n_axes
    for step in (*dataset.get("coordinateTransformations", ()), *(scales.get("coordinateTransformations") or ())):
        if step["type"] == "scale":
            scale = [s * float(f) for s, f in zip(scale, step["scale"], strict=True)]
            offset = [o * float(f) for o, f in zip(offset, step["scale"], strict=True)]
        elif step["type"] == "translation":
            offset = [o + float(t) for o, t in zip(offset, step["translation"], strict=True)]
    return scale, offset
