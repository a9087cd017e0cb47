"""HDF5 chunks are what they claim: each unpacks to just what its place holds, none that is lost passes for zeros.

HDF5 itself takes a chunk that unpacks to less and leaves memory as it was behind it.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import h5py
import imagecodecs
import numpy as np

from tomostain.io.volumes.arrays import Array
from tomostain.io.volumes.headers import VolumeError
from tomostain.io.volumes.unpacking import unpacked

_DEFLATE, _SHUFFLE, _FLETCHER32, _SZIP = 1, 2, 3, 4
_LZF, _BLOSC, _LZ4, _BITSHUFFLE, _ZSTD, _BLOSC2 = 32000, 32001, 32004, 32008, 32015, 32026
_SUM_BYTES = 4
_DECODERS: Mapping[int, str] = MappingProxyType(
    {_DEFLATE: "deflate", _LZF: "lzf", _BLOSC: "blosc", _LZ4: "lz4h5", _ZSTD: "zstd"}
)
"""Filters that are undone here: how much deflate and LZF unpack to is only known afterwards, HDF5's zstd filter takes a
stream that cannot be unpacked for one that can, and Blosc reads on behind a chunk that was cut off."""
_CLAIMS = {_SZIP: (0, "<I"), _BLOSC2: (30, ">Q"), _BITSHUFFLE: (0, ">Q")}
"""Where a chunk of other filters says how much it unpacks to, and in which form; their decoders hold to it."""
Filters = list[tuple[int, tuple[int, ...]]]


def read_chunks(data: Any, window: tuple[slice, ...], out: Array, name: str) -> int:
    """Read a window (slices with ends) of a chunked data set into ``out``; how many of its chunks are not stored.

    Raises
    ------
    VolumeError
        A chunk lies beyond the file's end, cannot be unpacked, or unpacks to less or more than a chunk holds.
    """
    filters = _filters(data)
    codes = {code for code, _ in filters}
    here = codes & set(_DECODERS) and codes <= {_SHUFFLE, _FLETCHER32, *_DECODERS}
    here = here and data.id.get_type() == h5py.h5t.py_create(data.dtype)
    size = data.file.id.get_filesize()
    spans = [range(part.start // n, -(-part.stop // n)) for part, n in zip(window, data.chunks, strict=True)]
    missing = 0
    for place in itertools.product(*spans):
        corner = tuple(int(i) * n for i, n in zip(place, data.chunks, strict=True))
        stored = data.id.get_chunk_info_by_coord(corner)
        into, part = _overlap(corner, data.chunks, window)
        if stored.byte_offset is None:
            missing += 1
            if here:
                out[into] = data.fillvalue
            continue
        if stored.byte_offset + stored.size > size:
            raise VolumeError(f"{name} is truncated: its chunk at {corner} lies beyond the file's end; copy it again")
        used = [item for i, item in enumerate(filters) if not stored.filter_mask >> i & 1]
        where = f"{name}: its chunk at {corner}"
        if here:
            raw = data.id.read_direct_chunk(corner)[1]
            out[into] = _undone(raw, used, data, where)[part]
        else:
            _check(data, corner, stored.size, used, where)
    if not here:
        data.read_direct(out, window)
    return missing


def _filters(data: Any) -> Filters:
    """The codes and settings of a data set's filters, in the order in which they were applied."""
    plist = data.id.get_create_plist()
    found = (plist.get_filter(i) for i in range(plist.get_nfilters()))
    return [(int(code), tuple(int(value) for value in values)) for code, _, values, _ in found]


def _overlap(
    corner: Sequence[int], chunks: Sequence[int], window: tuple[slice, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a chunk lies within a window, and which part of the chunk that is."""
    into, part = [], []
    for first, size, wanted in zip(corner, chunks, window, strict=True):
        low, high = max(first, wanted.start), min(first + size, wanted.stop)
        into.append(slice(low - wanted.start, high - wanted.start))
        part.append(slice(low - first, high - first))
    return tuple(into), tuple(part)


def _plain_bytes(data: Any) -> int:
    return int(math.prod(data.chunks) * data.dtype.itemsize)


def _undone(raw: bytes, used: Filters, data: Any, where: str) -> Array:
    """A chunk's values, with its filters undone one after the other."""
    content: Any = np.frombuffer(raw, np.uint8)
    plain = _plain_bytes(data)
    for i, (code, settings) in reversed(list(enumerate(used))):
        before = plain + _SUM_BYTES * sum(code == _FLETCHER32 for code, _ in used[:i])
        if code in _DECODERS:
            content = _unpacked(code, content, before, where)
        elif code == _FLETCHER32:
            content = _summed(content, where)
        else:
            content = _unshuffled(content, settings[0] if settings else data.dtype.itemsize)
    if content.size != plain:
        raise VolumeError(f"{where} holds {content.size} bytes, not {plain}; copy or export it again")
    values: Array = content.view(data.dtype).reshape(data.chunks)
    return values


def _summed(content: Array, where: str) -> Array:
    """A chunk without the checksum behind it, which must be right (either byte order within words: HDF5 wrote both)."""
    if content.size < _SUM_BYTES:
        raise VolumeError(f"{where} is too short to hold its checksum; copy it again")
    content, stored = content[:-_SUM_BYTES], content[-_SUM_BYTES:].tobytes()
    right = int(imagecodecs.h5checksum_fletcher32(content.tobytes()))
    swapped = (right & 0xFF00FF) << 8 | right >> 8 & 0xFF00FF
    if struct.unpack("<I", stored)[0] not in (right, swapped):
        raise VolumeError(f"{where} is damaged: its checksum is wrong; copy it again")
    return content


def _unshuffled(content: Array, itemsize: int) -> Array:
    """Bytes of each value together again; those that make no whole value stay behind, as HDF5 leaves them."""
    if itemsize < 2:
        return content
    whole = content.size // itemsize * itemsize
    parts = content[:whole].reshape(itemsize, -1)
    if itemsize in (2, 4, 8):  # shifted together: three times as fast as bytes set one by one
        kind = np.dtype(f"<u{itemsize}")
        joined = parts[0].astype(kind)
        for i in range(1, itemsize):
            joined |= parts[i].astype(kind) << kind.type(8 * i)
        return joined.view(np.uint8) if whole == content.size else np.append(joined.view(np.uint8), content[whole:])
    out = np.empty_like(content)
    out[:whole].reshape(-1, itemsize)[:] = parts.T
    out[whole:] = content[whole:]
    return out


def _check(data: Any, corner: tuple[int, ...], stored_bytes: int, used: Filters, where: str) -> None:
    """Make sure that a chunk that HDF5 is about to unpack fills its place, as far as its stored bytes show."""
    plain = _plain_bytes(data)
    sums = sum(code == _FLETCHER32 for code, _ in used)
    packed = [i for i, (code, settings) in enumerate(used) if not _keeps_size(code, settings)]
    if not packed:
        if stored_bytes != plain + _SUM_BYTES * sums:
            raise VolumeError(f"{where} holds {stored_bytes - _SUM_BYTES * sums} bytes, not {plain}; copy it again")
        return
    if len(packed) > 1:
        raise VolumeError(f"{where} is packed with several filters, one in another; save it with one (h5repack)")
    code = used[packed[0]][0]
    raw = data.id.read_direct_chunk(corner)[1]
    before = plain + _SUM_BYTES * sum(code == _FLETCHER32 for code, _ in used[: packed[0]])
    size = _unpacked(code, raw, before, where).size if code in _DECODERS else None
    least, most = _claimed(code, raw) if size is None else (size, size)
    if before < least or before > most:
        raise VolumeError(f"{where} does not unpack to the {before} bytes of a chunk; copy or export it again")


def _unpacked(code: int, packed: Any, most: int, where: str) -> Array:
    try:
        return unpacked(_DECODERS[code], packed, most)
    except ValueError as error:
        raise VolumeError(f"{where}, {error}") from error


def _claimed(code: int, raw: bytes) -> tuple[float, float]:
    """Least and most bytes that a chunk says, by its first ones, that it unpacks to."""
    place, kind = _CLAIMS.get(code, (0, ""))
    if not kind:
        return 0, math.inf
    if code == _BLOSC2 and raw[2:9] != b"b2frame":
        return math.inf, math.inf
    claimed = struct.unpack_from(kind, raw, place)[0] if len(raw) >= place + struct.calcsize(kind) else 0
    return claimed, claimed


def _keeps_size(code: int, settings: tuple[int, ...]) -> bool:
    """Whether a filter only moves bytes or adds a checksum; bitshuffle may do no more, by its fifth setting."""
    return code in (_SHUFFLE, _FLETCHER32) or (code == _BITSHUFFLE and not any(settings[4:5]))
