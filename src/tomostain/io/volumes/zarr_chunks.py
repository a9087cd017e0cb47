"""Zarr chunks that are what they claim: none unpacks to more than its place holds, none missing passes for zeros."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import stat
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import zarr
from numcodecs.abc import Codec as Numcodec
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, GzipCodec, ShardingCodec, ZstdCodec
from zarr.codecs.numcodecs import BZ2, LZ4, LZMA, Blosc, GZip, Zlib, Zstd
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer
from zarr.core.metadata import ArrayV2Metadata

from tomostain.io.inside import inside_folder
from tomostain.io.volumes.headers import VolumeError
from tomostain.io.volumes.unpacking import unpacked

_SPARE_BYTES = 2**16
"""What a packed chunk may hold beyond its values: checksums and codecs' own headers."""
_WIDEST = 8
"""Times by which a filter may widen values: bytes stored as 64-bit numbers."""
_MOST_FILE = (2, 2**24)
"""A chunk's file is at most twice as large as its values, and 16 MiB: no codec makes more of them."""
_V2_KINDS = ("zstd", "blosc", "lz4", "gzip", "zlib", "bz2", "lzma")
_V3_KINDS: Mapping[type, str] = MappingProxyType(
    {BloscCodec: "blosc", GzipCodec: "gzip", ZstdCodec: "zstd"}
    | {BZ2: "bz2", LZ4: "lz4", LZMA: "lzma", Blosc: "blosc", GZip: "gzip", Zlib: "zlib", Zstd: "zstd"}
)


def capped(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The same array, whose chunks are unpacked into buffers of fixed size.

    numcodecs allocates whatever a zstd, Blosc or LZ4 header claims, and unpacks deflate, bzip2 and LZMA without limit.
    """
    about = array.metadata
    new: Any
    if isinstance(about, ArrayV2Metadata):
        most = math.prod(array.chunks) * array.dtype.itemsize * (_WIDEST if about.filters else 1) + _SPARE_BYTES
        filters = tuple(_capped_v2(codec, most) for codec in about.filters or ())
        new = replace(about, compressor=_capped_v2(about.compressor, most), filters=filters or None)
    else:
        new = replace(about, codecs=tuple(_capped_v3(codec) for codec in about.codecs))
    return zarr.Array(zarr.AsyncArray(new, array.store_path))


def check_stored(
    array: zarr.Array[Any], root: Path, where: str, box: tuple[tuple[int, int], ...], name: str, *, whole: bool
) -> int:
    """Make sure that the files that a box (first, last + 1 of each axis) is read from are there; how many are not.

    ``root`` is the store and ``where`` the array's folder in it. ``whole``: the writer of the array stored every
    chunk, so that one that is missing was lost.

    Raises
    ------
    VolumeError
        One is empty, far too large, a folder, a pipe or a link out of the store, or is missing from an array that was
        stored whole.
    """
    missing, folders = 0, set()
    extent = array.shards or array.chunks
    most = _MOST_FILE[0] * math.prod(extent) * array.dtype.itemsize + _MOST_FILE[1]
    for key in _keys(array, extent, box):
        file = root / where / key
        try:
            about = file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            if whole:
                raise VolumeError(f"{name} lacks the chunk {key}, which was written; copy it again") from None
            missing += 1
            continue
        if file.parent not in folders:
            folders.add(file.parent)
            inside_folder(root, os.path.relpath(file.parent, root), name)
        if stat.S_ISLNK(about.st_mode):
            target = inside_folder(root, os.path.relpath(file, root), name)
            if not target.exists():
                raise VolumeError(f"{name} lacks the chunk {key}, which is a link to nowhere; copy it again")
            about = target.stat()
        if not stat.S_ISREG(about.st_mode):
            raise VolumeError(f"{name}: its chunk {key} is not a file; copy it again")
        if about.st_size == 0:  # Zarr takes an empty shard for one that was never written
            raise VolumeError(f"{name}: its chunk {key} is empty; copy it again")
        if about.st_size > most:
            raise VolumeError(f"{name}: its chunk {key} is larger than its values can be; copy it again")
    return missing


def warn_of_missing(name: str, fill_value: Any) -> None:
    """Warn that chunks are not stored and read as the fill value."""
    warnings.warn(
        f"{name} does not store all of its chunks; what is not stored reads as {fill_value}. "
        "That is right where nothing was written, and wrong where files were lost",
        stacklevel=2,
    )


def _keys(array: zarr.Array[Any], extent: tuple[int, ...], box: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """The names of the files below an array's folder that hold a box."""
    spans = [range(a // n, -(-b // n)) for (a, b), n in zip(box, extent, strict=True)]
    about: Any = array.metadata
    for place in itertools.product(*spans):
        yield str(about.encode_chunk_key(place))


def _capped_v2(codec: Any, most: int) -> Any:
    return _CappedV2(codec, most) if getattr(codec, "codec_id", None) in _V2_KINDS else codec


class _CappedV2(Numcodec):  # type: ignore[misc]
    """A Zarr v2 compressor that unpacks at most ``most`` bytes."""

    codec_id = "capped"

    def __init__(self, codec: Any, most: int) -> None:
        self.codec, self.most = codec, most

    def encode(self, buf: Any) -> Any:
        return self.codec.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        return unpacked(self.codec.codec_id, buf, self.most)

    def get_config(self) -> Any:
        return self.codec.get_config()


@dataclass(frozen=True)
class _CappedV3(BytesBytesCodec):
    """A Zarr v3 compressor that unpacks no more than a chunk holds."""

    codec: Any
    kind: str
    is_fixed_size = False

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> _CappedV3:
        return _CappedV3(self.codec.evolve_from_array_spec(array_spec), self.kind)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        return int(self.codec.compute_encoded_size(input_byte_length, chunk_spec))

    def to_dict(self) -> Any:
        return self.codec.to_dict()

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        most = math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize + _SPARE_BYTES
        values = await asyncio.to_thread(unpacked, self.kind, chunk_data.as_numpy_array(), most)
        plain: Buffer = chunk_spec.prototype.buffer.from_array_like(values)
        return plain


def _capped_v3(codec: Any) -> Any:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(_capped_v3(inner) for inner in codec.codecs))
    kind = _V3_KINDS.get(type(codec))
    return codec if kind is None else _CappedV3(codec, kind)
