"""A compressed chunk in, its bytes out: every decoder writes into a buffer of fixed size; none can fill memory."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import imagecodecs as _imagecodecs
import numpy as np

from tomostain.io.volumes.arrays import Array

imagecodecs: Any = _imagecodecs  # its types leave out the arrays that it takes

_LZMA_MEMORY_BYTES = 2**27


def unpacked(kind: str, packed: Any, most: int) -> Array:
    """The bytes of a chunk that was packed with the codec ``kind``, at most ``most`` of them.

    Streams and frames that follow one another count as one, those that hold nothing among them.

    Raises
    ------
    ValueError
        It cannot be unpacked, or holds more; the reader adds the name of the file.
    """
    raw = memoryview(packed).cast("B")
    if kind == "blosc" and (whole := blosc_bytes(raw)[1]) > len(raw):  # Blosc reads on in the memory behind it
        raise ValueError(f"a blosc chunk holds {len(raw)} of its {whole} bytes; copy it again")
    try:
        return np.asarray(_DECODERS[kind](raw, np.empty(most, np.uint8)))
    except Exception as error:
        raise ValueError(
            f"a {kind} chunk of {len(raw)} bytes cannot be unpacked into the {most} bytes of its place; copy it again"
        ) from error


def blosc_bytes(raw: memoryview) -> tuple[int, int]:
    """The bytes that a Blosc chunk claims to unpack to, and to take itself."""
    if len(raw) < 16:
        return 0, 16
    plain, _, packed = struct.unpack_from("<3I", raw, 4)
    return int(plain), int(packed)


def _streams(machine: Callable[[], Any]) -> Callable[[memoryview, Array], Array]:
    """A decoder of streams that say nowhere how much they hold: it stops where the buffer is full."""

    def decode(raw: memoryview, out: Array) -> Array:
        pending, done = bytes(raw), 0
        while pending:
            stream = machine()
            while not stream.eof:
                block = stream.decompress(pending, out.size - done + 1)
                pending = getattr(stream, "unconsumed_tail", b"")
                if not block and not stream.eof and not pending:
                    raise ValueError("it was cut off")
                out[done : done + len(block)] = np.frombuffer(block, np.uint8)  # raises where there are too many
                done += len(block)
            pending = stream.unused_data
        return out[:done]

    return decode


_DECODERS: Mapping[str, Callable[[memoryview, Array], Any]] = MappingProxyType(
    {
        "zstd": lambda raw, out: imagecodecs.zstd_decode(raw, out=out),
        "blosc": lambda raw, out: imagecodecs.blosc_decode(raw, out=out),
        "lz4": lambda raw, out: imagecodecs.lz4_decode(raw, header=True, out=out),
        "gzip": _streams(lambda: zlib.decompressobj(wbits=47)),
        "zlib": _streams(lambda: zlib.decompressobj(wbits=47)),
        "bz2": _streams(bz2.BZ2Decompressor),
        "lzma": _streams(lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES)),
        "deflate": lambda raw, out: imagecodecs.deflate_decode(raw, out=out),
        "lzf": lambda raw, out: imagecodecs.lzf_decode(raw, out=out),
        "lz4h5": lambda raw, out: imagecodecs.lz4h5_decode(raw, out=out),
    }
)
"""Codecs of Zarr by numcodecs' names; ``deflate``, ``lzf`` and ``lz4h5`` as HDF5's filters write them."""
