"""Zarr chunks that are what they claim: none unfolds to more than its place holds, none missing passes for zeros."""

from __future__ import annotations

import bz2
import itertools
import lzma
import math
import stat
import struct
import warnings
import zlib
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

from tomostain.io.volumes.given import VolumeError

SPARE_BYTES = 2**26
"""What a chunk may unfold to beyond its own size: checksums, padding, a codec's own header."""
DEFLATE_RATIO = 1032
"""No deflate stream unfolds to more (zlib's technical notes)."""
_STEP_BYTES = 2**22
_V3_KINDS: Mapping[type, str] = MappingProxyType(
    {BloscCodec: "blosc", GzipCodec: "gzip", ZstdCodec: "zstd"}
    | {BZ2: "bz2", LZ4: "lz4", LZMA: "lzma", Blosc: "blosc", GZip: "gzip", Zlib: "zlib", Zstd: "zstd"}
)


def bounded(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The same array, whose compressors refuse a chunk that would unfold to far more than a chunk holds.

    numcodecs allocates whatever a zstd, Blosc or LZ4 header claims, and unfolds deflate, bzip2 and LZMA without limit.
    """
    about = array.metadata
    chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
    new: Any
    if isinstance(about, ArrayV2Metadata):
        wrapped = [_BoundedV2(codec, chunk_bytes) for codec in (about.compressor,) if codec is not None]
        filters = tuple(_BoundedV2(codec, chunk_bytes) for codec in about.filters or ())
        new = replace(about, compressor=wrapped[0] if wrapped else None, filters=filters or None)
    else:
        new = replace(about, codecs=tuple(_bounded_v3(codec) for codec in about.codecs))
    return zarr.Array(zarr.AsyncArray(new, array.store_path))


def check_stored(
    array: zarr.Array[Any], folder: Path, box: tuple[tuple[int, int], ...], name: str, *, whole: bool
) -> int:
    """Make sure that the files that a box (first, last + 1 of each axis) is read from are there; how many are not.

    ``whole``: whoever wrote the array stored every chunk, so that one that is missing was lost.

    Raises
    ------
    VolumeError
        One is empty, a folder, a pipe or a link to nowhere, or is missing from an array that was stored whole.
    """
    missing = 0
    for key in _keys(array, box):
        file = folder / key
        try:
            about = file.stat()
        except FileNotFoundError:
            if whole or file.is_symlink():
                raise VolumeError(f"{name} lacks the chunk {key}, which was written; copy it again") from None
            missing += 1
            continue
        if not stat.S_ISREG(about.st_mode):
            raise VolumeError(f"{name}: its chunk {key} is no file; copy it again")
        if about.st_size == 0:  # Zarr takes an empty shard for one that was never written
            raise VolumeError(f"{name}: its chunk {key} is empty; copy it again")
    return missing


def warn_of_missing(name: str, fill_value: Any) -> None:
    """Tell that chunks are not stored and read as the fill value."""
    warnings.warn(
        f"{name} does not store all of its chunks; what is not stored reads as {fill_value}. "
        "That is right where nothing was written, and wrong where files were lost",
        stacklevel=2,
    )


def refuse_bomb(kind: str, packed: Any, allowed: int) -> None:
    """Refuse a compressed chunk that unfolds to more than ``allowed`` bytes, or claims to, before it is unfolded.

    Blosc reads on behind a chunk that was cut off, and takes what lies there in memory for values: that is refused too.

    Raises
    ------
    ValueError
        It does; the reader adds the name of the file.
    """
    raw = memoryview(packed).cast("B")
    claimed = 0
    if kind == "zstd":
        claimed = _zstd_bytes(raw)
    elif kind == "blosc":
        claimed, packed_bytes = blosc_bytes(raw)
        if packed_bytes > len(raw):
            raise ValueError(f"a blosc chunk holds {len(raw)} of its {packed_bytes} bytes; copy it again")
    elif kind == "lz4" and len(raw) >= 4:
        claimed = int(struct.unpack_from("<I", raw)[0])
    elif kind in ("gzip", "zlib") and len(raw) * DEFLATE_RATIO > allowed:
        claimed = _unfolded(lambda: zlib.decompressobj(wbits=47), raw, allowed)
    elif kind == "bz2":
        claimed = _unfolded(bz2.BZ2Decompressor, raw, allowed)
    elif kind == "lzma":
        claimed = _unfolded(lzma.LZMADecompressor, raw, allowed)
    if claimed > allowed:
        raise ValueError(f"a {kind} chunk of {len(raw)} bytes would unfold to far more than a chunk holds")


def _keys(array: zarr.Array[Any], box: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """The names of the files below an array's folder that hold a box."""
    extent = array.shards or array.chunks
    spans = [range(a // n, -(-b // n)) for (a, b), n in zip(box, extent, strict=True)]
    about: Any = array.metadata
    for place in itertools.product(*spans):
        yield str(about.encode_chunk_key(place))


class _BoundedV2(Numcodec):  # type: ignore[misc]
    """A Zarr v2 compressor or filter that looks before it unfolds."""

    codec_id = "bounded"

    def __init__(self, codec: Any, chunk_bytes: int) -> None:
        self.codec, self.chunk_bytes = codec, chunk_bytes

    def encode(self, buf: Any) -> Any:
        return self.codec.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        refuse_bomb(self.codec.codec_id, buf, self.chunk_bytes + SPARE_BYTES)
        return self.codec.decode(buf, out)

    def get_config(self) -> Any:
        return self.codec.get_config()


@dataclass(frozen=True)
class _BoundedV3(BytesBytesCodec):
    """A Zarr v3 compressor that looks before it unfolds."""

    codec: Any
    kind: str
    is_fixed_size = False

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> _BoundedV3:
        return _BoundedV3(self.codec.evolve_from_array_spec(array_spec), self.kind)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        return int(self.codec.compute_encoded_size(input_byte_length, chunk_spec))

    def to_dict(self) -> Any:
        return self.codec.to_dict()

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        itemsize = chunk_spec.dtype.to_native_dtype().itemsize
        refuse_bomb(self.kind, chunk_data.as_numpy_array(), math.prod(chunk_spec.shape) * itemsize + SPARE_BYTES)
        unfolded: Buffer = await self.codec._decode_single(chunk_data, chunk_spec)
        return unfolded


def _bounded_v3(codec: Any) -> Any:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(_bounded_v3(inner) for inner in codec.codecs))
    kind = _V3_KINDS.get(type(codec))
    return codec if kind is None else _BoundedV3(codec, kind)


def blosc_bytes(raw: memoryview) -> tuple[int, int]:
    """The bytes that a Blosc chunk claims to unfold to, and to take itself."""
    if len(raw) < 16:
        return 0, 16
    unfolded, _, packed = struct.unpack_from("<3I", raw, 4)
    return int(unfolded), int(packed)


def _zstd_bytes(raw: memoryview) -> int:
    """The bytes that a zstd frame claims, or at most can hold where it claims nothing (RFC 8878, 3.1.1)."""
    if len(raw) < 6 or bytes(raw[:4]) != b"\x28\xb5\x2f\xfd":
        return 0
    flags = raw[4]
    single = bool(flags & 0x20)
    place = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    size = (1 if single else 0, 2, 4, 8)[flags >> 6]
    if size and len(raw) >= place + size:
        return int.from_bytes(raw[place : place + size], "little") + (256 if size == 2 else 0)
    blocks, last = 0, False
    while not last and place + 3 <= len(raw):
        header = int.from_bytes(raw[place : place + 3], "little")
        last, kind, length = bool(header & 1), header >> 1 & 3, header >> 3
        place += 3 + (1 if kind == 1 else length)
        blocks += 1
    return blocks * 2**17


def _unfolded(machine: Any, raw: memoryview, allowed: int) -> int:
    """How many bytes a stream, or streams one after another, unfold to; counting stops above ``allowed``."""
    total, pending = 0, bytes(raw)
    while pending and total <= allowed:
        one = machine()
        while not one.eof and total <= allowed:
            try:
                total += len(one.decompress(pending, _STEP_BYTES))
            except (zlib.error, OSError, lzma.LZMAError):
                return total
            left = getattr(one, "unconsumed_tail", b"")
            if not left and not one.eof and getattr(one, "needs_input", True):
                return total
            pending = left
        pending = one.unused_data
    return total
