"""Small streams that unfold to 5 GiB of zeros, or claim to: what a decoder must refuse before it fills the memory."""

from __future__ import annotations

import functools
import gzip
import struct
import zlib

BLOCK = 2**26
BLOCKS = 80
SIZE = BLOCK * BLOCKS


@functools.cache
def _deflated() -> bytes:
    """One block of zeros as deflate data that ends on a byte and refers to nothing before it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)


@functools.cache
def zlib_bomb() -> bytes:
    """A valid zlib stream of 5 MiB that holds 5 GiB."""
    adler = (SIZE % 65521) << 16 | 1
    return b"\x78\xda" + _deflated() * BLOCKS + b"\x03\0" + struct.pack(">I", adler)


@functools.cache
def gzip_bomb() -> bytes:
    """A valid gzip file of 80 members and 5 MiB that holds 5 GiB."""
    return gzip.compress(bytes(BLOCK), mtime=0) * BLOCKS


def zstd_bomb(*, claimed: int | None = None) -> bytes:
    """A zstd frame of run-length blocks that holds 5 GiB (RFC 8878), or that only claims ``claimed`` bytes."""
    if claimed is not None:
        return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", claimed) + struct.pack("<I", (8 << 3) | 1)[:3] + bytes(8)
    block = 2**17
    count = SIZE // block
    run = struct.pack("<I", (block << 3) | (1 << 1))[:3] + b"\0"
    last = struct.pack("<I", (block << 3) | (1 << 1) | 1)[:3] + b"\0"
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", SIZE) + run * (count - 1) + last


def behind_a_frame(bomb: bytes, *, skipped: bool) -> bytes:
    """A zstd bomb behind a frame that decoders skip, or behind a small one of its own."""
    first = struct.pack("<II", 0x184D2A50, 8) + bytes(8) if skipped else b"\x28\xb5\x2f\xfd\x20\x04\x21\0\0abcd"
    return first + bomb


def blosc_bomb() -> bytes:
    """A Blosc 1 header that claims 2^31 - 1 bytes, with next to nothing behind it."""
    return struct.pack("<BBBBIII", 2, 1, 1, 2, 2**31 - 1, 2**20, 64) + bytes(48)
