"""HDF5 chunks are what they claim: none unfolds to more than its place holds, none that is lost passes for zeros."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from tomostain.images.readers.given import VolumeError
from tomostain.images.readers.zarr_bounds import refuse_bomb

_ALLOWED_BYTES = 2**28
"""What a chunk may unfold to beyond its own size; HDF5's deflate filter takes up to three times as much at once."""
_KINDS = {1: "zlib", 32001: "blosc", 32004: "big-endian size", 32008: "big-endian size", 32015: "zstd"}


def check_chunks(data: Any, window: tuple[slice, ...], name: str) -> int:
    """Look at the chunks that a window (slices with ends) is read from; how many are not stored.

    Raises
    ------
    VolumeError
        One lies beyond the file's end, or unfolds to far more than a chunk holds.
    """
    size = data.file.id.get_filesize()
    plist = data.id.get_create_plist()
    kinds = [
        _KINDS[code] for code in (int(plist.get_filter(i)[0]) for i in range(plist.get_nfilters())) if code in _KINDS
    ]
    allowed = math.prod(data.chunks) * data.dtype.itemsize + _ALLOWED_BYTES
    spans = [range(part.start // n, -(-part.stop // n)) for part, n in zip(window, data.chunks, strict=True)]
    missing = 0
    for place in itertools.product(*spans):
        corner = tuple(int(i) * n for i, n in zip(place, data.chunks, strict=True))
        stored = data.id.get_chunk_info_by_coord(corner)
        if stored.byte_offset is None:
            missing += 1
            continue
        if stored.byte_offset + stored.size > size:
            raise VolumeError(f"{name} is truncated: its chunk at {corner} lies beyond the file's end; copy it again")
        if kinds:
            raw = data.id.read_direct_chunk(corner)[1] if _suspicious(kinds, stored.size, allowed) else b""
            for kind in kinds:
                _refuse(kind, raw, allowed, f"{name}: at {corner}")
    return missing


def _suspicious(kinds: list[str], stored_bytes: int, allowed: int) -> bool:
    """Whether the stored bytes must be looked at: deflate cannot burst if they are few."""
    return any(kind != "zlib" for kind in kinds) or stored_bytes * 1032 > allowed


def _refuse(kind: str, raw: bytes, allowed: int, where: str) -> None:
    if kind == "big-endian size":
        if len(raw) >= 8 and int.from_bytes(raw[:8], "big") > allowed:
            raise VolumeError(f"{where} a chunk would unfold to far more than a chunk holds")
        return
    try:
        refuse_bomb(kind, np.frombuffer(raw, np.uint8), allowed)
    except VolumeError as error:
        raise VolumeError(f"{where} {error}") from None
