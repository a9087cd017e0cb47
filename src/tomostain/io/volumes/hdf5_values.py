"""Windows of an HDF5 data set, and of a virtual one, whose parts are read from their own data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tomostain.io.volumes.arrays import Array, Box, Reopened, Source
from tomostain.io.volumes.hdf5_chunks import read_chunks
from tomostain.io.volumes.headers import VolumeError
from tomostain.io.volumes.zarr_chunks import warn_of_missing


class DataSet:
    """Some axes of a data set in an HDF5 file that is kept open, the others of length one; by the chunks touched."""

    def __init__(
        self, name: str, file: Path, path: str, axes: slice, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self.shape, self.dtype = shape[axes], dtype
        self._where = (name, file, path, axes, shape, dtype)
        self._name, self._warned = name, False
        self._before, self._after = axes.start, len(shape) - axes.stop
        self._data: Reopened[h5py.Dataset] = Reopened(_open_dataset, file, path)

    def read(self, box: Box) -> Array:
        where = (*(slice(0, 1),) * self._before, *(slice(a, b) for a, b in box), *(slice(0, 1),) * self._after)
        data = self._data.get()
        if not data.chunks:
            plain: Array = data[where]
            return plain.reshape(tuple(b - a for a, b in box))
        values = np.empty(tuple(part.stop - part.start for part in where), self.dtype)
        if read_chunks(data, where, values, self._name) and not self._warned:
            self._warned = True
            warn_of_missing(self._name, data.fillvalue)
        return values.reshape(tuple(b - a for a, b in box))

    def __reduce__(self) -> tuple[Any, ...]:
        return (DataSet, self._where)


@dataclass(frozen=True)
class Part:
    """A box of a virtual data set, and the box of another data set that it comes from."""

    into: Box
    source: Source
    out_of: Box


@dataclass(frozen=True, eq=False)
class Virtual:
    """Some axes of a virtual data set, the others of length one. HDF5 would unpack its parts without checking them."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    before: int
    """Axes of length one before those that are seen."""
    parts: Sequence[Part]
    fill: Any

    def read(self, box: Box) -> Array:
        ends = len(self.parts[0].into) - self.before - len(self.shape) if self.parts else 0
        whole = (*((0, 1),) * self.before, *box, *((0, 1),) * ends)
        out = np.full(tuple(b - a for a, b in whole), self.fill, self.dtype)
        missing = out.size
        for part in self.parts:
            common = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(whole, part.into, strict=True)]
            if any(a >= b for a, b in common):
                continue
            wanted = iter((a - c, b - c) for (a, b), (c, d) in zip(common, part.into, strict=True) if d - c > 1)
            source = tuple((a + low, a + high) for a, b in part.out_of for low, high in [_next(wanted, b - a)])
            values = part.source.read(source)
            place = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(common, whole, strict=True))
            out[place] = values.reshape(out[place].shape)
            missing -= values.size
        if missing > 0:
            warn_of_missing(self.name, self.fill)
        return out.reshape(tuple(b - a for a, b in box))


def parts_of(name: str, sources: Sequence[tuple[Any, Path, str]]) -> list[Part]:
    """The boxes that a virtual data set is made of; ``sources`` are its mappings, with the file and path of each.

    Raises
    ------
    VolumeError
        A part is not a box, or does not fit the data set that it comes from.
    """
    parts = []
    for mapping, file, path in sources:
        with h5py.File(file, "r") as opened:
            shape, dtype = tuple(int(n) for n in opened[path].shape), np.dtype(opened[path].dtype)
        into, out_of = _box(mapping.vspace), _box(mapping.src_space, shape)
        long = [[b - a for a, b in box if b - a > 1] for box in (into or (), out_of or ())]
        if into is None or out_of is None or long[0] != long[1]:
            raise VolumeError(f"{name} is a virtual data set of parts that are not boxes; save its values in one")
        if len(shape) != len(out_of) or any(b > n for (_, b), n in zip(out_of, shape, strict=True)):
            raise VolumeError(f"{name} takes more from {mapping.file_name} than it holds; copy that file again")
        source = DataSet(f"{name}, {file.name}", file, path, slice(0, len(shape)), shape, dtype)
        parts.append(Part(into, source, out_of))
    return parts


def _next(wanted: Any, length: int) -> tuple[int, int]:
    return next(wanted) if length > 1 else (0, 1)


def _box(space: Any, shape: tuple[int, ...] = ()) -> Box | None:
    """A selection as a box, all of a ``shape`` among them; None where it is none, or has no end."""
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return tuple((0, n) for n in shape or space.get_simple_extent_dims())
    try:
        low, high = space.get_select_bounds()
    except ValueError:
        return None
    box = tuple((int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    return box if int(np.prod([b - a for a, b in box])) == space.get_select_npoints() else None


def _open_dataset(file: Path, path: str) -> h5py.Dataset:
    return h5py.File(file, "r")[path]
