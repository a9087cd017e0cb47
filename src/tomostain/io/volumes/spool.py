"""Streams that can only be read front to back, laid out once in a temporary file that is deleted with its Volume."""

from __future__ import annotations

import bz2
import math
import os
import shutil
import tempfile
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tomostain.io.volumes.arrays import Array, Box, Flat
from tomostain.io.volumes.headers import VolumeError, check_size

_READ_BYTES = 2**20
_WRITE_BYTES = 2**22
_SPARE_BYTES = 2**26
MOST_SHRUNK = 250
"""No CT shrinks by more in one stream. Deflate can reach 1032 on zeros: a few MB that fill the disk."""


class Spooled:
    """The values of a compressed stream, spooled to a temporary file when first read and then read from there.

    ``stream`` yields the values' bytes in order. Pickled, it is the temporary file, which lives as long as the process
    that made it keeps the Volume.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], stream: Callable[[], Iterator[bytes]]
    ) -> None:
        check_size(path.name, shape, dtype, path.stat().st_size, most_shrunk=MOST_SHRUNK)
        self.path, self.shape, self.dtype = path, shape, dtype
        self._stream = stream
        self._flat: Flat | None = None
        self._lock = threading.Lock()

    def read(self, box: Box) -> Array:
        return self._spooled().read(box)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Flat, (self._spooled().path, self.shape, self.dtype, 0))

    def _spooled(self) -> Flat:
        with self._lock:
            if self._flat is None:
                expected = math.prod(self.shape) * self.dtype.itemsize
                file = spool(self._stream(), expected, self.path.name)
                weakref.finalize(self, _delete, file, os.getpid())
                self._flat = Flat(file, self.shape, self.dtype, 0)
            return self._flat


def spool(stream: Iterator[bytes], expected: int, name: str) -> Path:
    """Write exactly ``expected`` bytes of a stream to a new temporary file.

    Raises
    ------
    VolumeError
        The disk is too small, or the stream is shorter or longer than its header says.
    """
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if free < expected + _SPARE_BYTES:
        raise VolumeError(
            f"{name} needs {expected / 2**30:.3g} GiB of {folder} to be decompressed and {free / 2**30:.3g} GiB are "
            "free; set TMPDIR to a larger disk, or decompress the file yourself"
        )
    number, text = tempfile.mkstemp(prefix="tomostain-", suffix=".raw", dir=folder)
    file = Path(text)
    try:
        done = 0
        with os.fdopen(number, "wb") as out:
            for block in stream:
                done += len(block)
                if done > expected:
                    raise VolumeError(f"{name} holds more values than its header says; it is damaged, copy it again")
                out.write(block)
        if done < expected:
            raise VolumeError(f"{name} ends {expected - done} bytes too early; copy or export it again")
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return file


def inflated(
    path: Path, *, offset: int = 0, skip: int = 0, codec: str = "gzip", to_its_end: bool = False
) -> Iterator[bytes]:
    """The decompressed bytes of a gzip (or zlib) or bzip2 stream that begins at ``offset``, less the first ``skip``.

    Blocks are at most 4 MiB, whatever the stream expands to. Streams that follow one another count as one.
    ``to_its_end``: one that breaks off is refused, since its values are counted from there.
    """
    with path.open("rb") as file:
        file.seek(offset)
        for block in _blocks(file, codec, to_its_end):
            if skip >= len(block):
                skip -= len(block)
            else:
                yield block[skip:]
                skip = 0


def head_of(path: Path, length: int, *, codec: str = "gzip") -> bytes:
    """The first ``length`` decompressed bytes, or as many as there are."""
    head = b""
    for block in inflated(path, codec=codec):
        head += block
        if len(head) >= length:
            break
    return head[:length]


def _blocks(file: Any, codec: str, to_its_end: bool) -> Iterator[bytes]:
    """Decompressed blocks; a stream that breaks off yields what there is of it."""
    pending = file.read(_READ_BYTES)
    while pending.strip(b"\0"):
        machine: Any = bz2.BZ2Decompressor() if codec == "bzip2" else zlib.decompressobj(wbits=47)
        while not machine.eof:
            block = machine.decompress(pending, _WRITE_BYTES)
            pending = getattr(machine, "unconsumed_tail", b"")
            if block:
                yield block
            elif not machine.eof and not pending:
                pending = file.read(_READ_BYTES)
                if not pending and to_its_end:
                    raise VolumeError(f"{Path(file.name).name} is truncated; copy or export it again")
                if not pending:
                    return
        pending = machine.unused_data or file.read(_READ_BYTES)


def _delete(file: Path, owner: int) -> None:
    if os.getpid() == owner:
        file.unlink(missing_ok=True)
