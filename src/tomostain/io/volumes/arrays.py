"""Lazy arrays under every reader: windows of a source that reads boxes, files kept open, chunks kept for reuse."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tomostain.io.orientation import STORED, is_transposed, stated_orientation, stored_window, turned
from tomostain.io.volumes.headers import VolumeError, reported

Array = npt.NDArray[Any]
Span = tuple[int, int]
Box = tuple[Span, ...]
Handle = TypeVar("Handle")

CACHE_BYTES = 2**27
"""Most that is kept of chunks that span several planes."""


class Source(Protocol):
    """What a format knows how to do: read one box, a (first, last + 1) for each axis."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def read(self, box: Box) -> Array: ...


@dataclass(frozen=True, eq=False)
class Windowed:
    """A source seen as a lazy array: indexed as NumPy's are, by integers, slices and an ellipsis.

    Values come in the machine's own byte order. What a library throws while reading is reported in one sentence. Planes
    that a step along the first axis leaves out are not read.
    """

    source: Source
    name: str
    kind: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.source.dtype).newbyteorder("=")

    def __getitem__(self, window: Any, /) -> Array:
        spans, picks = spans_of(window, self.shape)
        with reported(self.name, self.kind):
            first = picks[0]
            if isinstance(first, slice) and first.step not in (None, 1):
                planes = range(*spans[0])[first]
                read = [self._read(((z, z + 1), *spans[1:]))[0] for z in planes]
                values = np.stack(read) if read else np.empty((0, *(b - a for a, b in spans[1:])), self.dtype)
                picks = (slice(None), *picks[1:])
            else:
                values = self._read(spans)
        part: Array = values[picks]
        return part if part.base is None or part.size == values.size else part.copy()

    def _read(self, box: Box) -> Array:
        if any(a >= b for a, b in box):
            return np.empty(tuple(max(b - a, 0) for a, b in box), self.dtype)
        return self.source.read(box).astype(self.dtype, copy=False)


def spans_of(window: Any, shape: tuple[int, ...]) -> tuple[Box, tuple[int | slice, ...]]:
    """A window as the smallest box that holds it, and how to index that box to get the window.

    Raises
    ------
    IndexError, TypeError
        The window does not fit the shape, or is neither an integer nor a slice along some axis.
    """
    parts = list(window) if isinstance(window, tuple) else [window]
    if sum(part is Ellipsis for part in parts) > 1 or len([p for p in parts if p is not Ellipsis]) > len(shape):
        raise IndexError(f"too many indices for a volume of shape {shape}")
    if Ellipsis in [part for part in parts if part is Ellipsis]:
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    parts += [slice(None)] * (len(shape) - len(parts))
    spans: list[Span] = []
    picks: list[int | slice] = []
    for part, size in zip(parts, shape, strict=True):
        if isinstance(part, slice):
            wanted = range(*part.indices(size))
            low, high = (min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1]) + 1) if wanted else (0, 0)
            spans.append((low, high))
            stop = wanted[-1] - low + (1 if wanted.step > 0 else -1) if wanted else 0
            picks.append(slice(wanted[0] - low, stop if stop >= 0 else None, wanted.step) if wanted else slice(0, 0))
        elif isinstance(part, (int, np.integer)) and not isinstance(part, bool):
            index = range(size)[int(part)]
            spans.append((index, index + 1))
            picks.append(0)
        else:
            raise TypeError(f"a volume is indexed with integers and slices, not with {type(part).__name__}")
    return tuple(spans), tuple(picks)


class Reopened(Generic[Handle]):
    """A file that stays open between reads, and is opened anew wherever it is carried: fork, spawn, pickle."""

    def __init__(self, opener: Callable[..., Handle], *arguments: Any) -> None:
        self._opener, self._arguments = opener, arguments
        self._handle: tuple[int, Handle] | None = None
        self.lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Reopened, (self._opener, *self._arguments))

    def get(self) -> Handle:
        """The open file of this process."""
        with self.lock:
            if self._handle is None or self._handle[0] != os.getpid():
                handle = self._opener(*self._arguments)
                self._handle = (os.getpid(), handle)
                closing = getattr(handle, "close", None)
                if closing is not None:
                    weakref.finalize(self, closing)
            return self._handle[1]


@dataclass(frozen=True)
class Descriptor:
    """A file descriptor that reads at positions, so that threads need no lock."""

    number: int

    @classmethod
    def open(cls, path: Path) -> Descriptor:
        return cls(os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)))

    def close(self) -> None:
        os.close(self.number)

    def read_into(self, values: Array, position: int, name: str) -> None:
        """Fill a contiguous array with the bytes at a position.

        Raises
        ------
        VolumeError
            The file ends before.
        """
        todo = values.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(todo):
            got = os.preadv(self.number, [todo[done : done + 2**30]], position + done)
            if got == 0:
                raise VolumeError(f"{name} ends {len(todo) - done} bytes too early; copy or export it again")
            done += got


class Flat:
    """Uncompressed values in planes one after another: read in place, only the requested rows."""

    def __init__(
        self, path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], planes_at: int | npt.NDArray[np.int64]
    ) -> None:
        """``planes_at`` is where the first plane begins, or where each of them does, in bytes."""
        self.path, self.shape, self.dtype = path, shape, dtype
        self._file: Reopened[Descriptor] = Reopened(Descriptor.open, path)
        self._planes_at = planes_at

    def read(self, box: Box) -> Array:
        (z0, z1), (y0, y1), (x0, x1) = box
        _, height, width = self.shape
        file, row = self._file.get(), self.shape[2] * self.dtype.itemsize
        out = np.empty((z1 - z0, y1 - y0, x1 - x0), self.dtype)
        if (y0, y1, x0, x1) == (0, height, 0, width) and isinstance(self._planes_at, int):
            file.read_into(out, self._planes_at + z0 * height * row, self.path.name)
            return out
        whole_rows = (x0, x1) == (0, width)
        band = np.empty((y1 - y0, width), self.dtype)
        for i, z in enumerate(range(z0, z1)):
            plane = self._planes_at + z * height * row if isinstance(self._planes_at, int) else int(self._planes_at[z])
            file.read_into(out[i] if whole_rows else band, plane + y0 * row, self.path.name)
            if not whole_rows:
                out[i] = band[:, x0:x1]
        return out


@dataclass(frozen=True, eq=False)
class AxesReversed:
    """A source whose axes run x, y, z, seen as z, y, x (Fortran order on disk)."""

    source: Source

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape[::-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def read(self, box: Box) -> Array:
        return np.ascontiguousarray(self.source.read(box[::-1]).T)


@dataclass(frozen=True, eq=False)
class Upright:
    """Planes turned as their orientation tag says."""

    source: Source
    orientation: int

    @property
    def shape(self) -> tuple[int, ...]:
        depth, *plane = self.source.shape
        return (depth, *(plane[::-1] if is_transposed(self.orientation) else plane))

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def read(self, box: Box) -> Array:
        planes, rows, columns = box
        _, height, width = self.shape
        top, bottom, left, right = stored_window((*rows, *columns), (height, width), self.orientation)
        values = self.source.read((planes, (top, bottom), (left, right)))
        return np.ascontiguousarray(turned(values, self.orientation, axis=1))


def upright(source: Source, tag: int) -> tuple[Source, dict[str, str]]:
    """A source as its orientation tag says it is to be seen, and what a Volume says about it."""
    orientation, notes = stated_orientation(tag)
    about = {"orientation": f"planes {notes[0]}"} if notes else {}
    return (source, about) if orientation == STORED else (Upright(source, orientation), about)


class Chunked:
    """A source stored in chunks that span several planes: the last ones read are kept, so none is decoded per plane.

    At most ``CACHE_BYTES`` are kept: all planes of the chunks in a window where they fit, else as many as do.
    """

    def __init__(self, source: Source, chunks: tuple[int, ...]) -> None:
        self.source, self.chunks = source, chunks
        self._kept: tuple[Box, Array] | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Chunked, (self.source, self.chunks))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def read(self, box: Box) -> Array:
        kept_box = self._worth_keeping(box)
        if kept_box is None:
            return self.source.read(box)
        with self._lock:
            if self._kept is None or not _holds(self._kept[0], box):
                self._kept = None
                self._kept = (kept_box, self.source.read(kept_box))
            around, values = self._kept
        return values[tuple(slice(a - o, b - o) for (a, b), (o, _) in zip(box, around, strict=True))].copy()

    def _worth_keeping(self, box: Box) -> Box | None:
        """The chunks around a box, cut to as many planes as may be kept; None where keeping them gains nothing."""
        (z0, z1), depth = box[0], self.chunks[0]
        across = tuple(
            (a // chunk * chunk, min(-(-b // chunk) * chunk, size))
            for (a, b), chunk, size in zip(box[1:], self.chunks[1:], self.shape[1:], strict=True)
        )
        plane_bytes = math.prod(b - a for a, b in across) * self.dtype.itemsize
        planes = min(depth, CACHE_BYTES // plane_bytes)
        if planes < 2 or z1 - z0 >= planes:
            return None
        chunk_start = z0 // depth * depth
        start = chunk_start + (z0 - chunk_start) // planes * planes
        stop = min(start + planes, chunk_start + depth, self.shape[0])
        return None if z1 > stop else ((start, stop), *across)


def _holds(outer: Box, inner: Box) -> bool:
    return all(o <= a and b <= e for (a, b), (o, e) in zip(inner, outer, strict=True))
