"""A volume in an HDF5 or NeXus file: finds the data set, follows links inside the file's folder, reads windows."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tomostain.images.geometry import Grid, Vector
from tomostain.images.image import Volume
from tomostain.io.inside import inside_folder
from tomostain.io.volumes.arrays import Chunked, Flat, Source, Windowed
from tomostain.io.volumes.hdf5_links import Node, candidates, find, nexus_default, scale_of, why_projections
from tomostain.io.volumes.hdf5_values import DataSet, Virtual, parts_of
from tomostain.io.volumes.headers import Hints, VolumeError, check_size, dtype_of, reported, shape_of, spacing_of
from tomostain.io.volumes.stated_spacing import agreed, of_attributes, of_axes, of_siblings
from tomostain.io.volumes.stated_values import refuse_projections

KIND = "HDF5"
MOST_CHUNK_BYTES = 2**29
"""A larger chunk cannot be read in part within the memory that a window may cost."""
_CLEARLY_LARGER = 2
_FILTERS = {
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32026: "blosc2",
}


def read_hdf5(path: Path, hints: Hints) -> Volume:
    """Open a data set of an HDF5 or NeXus file as a lazy Volume.

    Without ``::`` it is NeXus' default signal, else the only three-dimensional data set, else the one that is at least
    twice as large as any other. Further axes of length one are left out. The voxel size is that of NeXus axes, or of
    attributes or data sets beside the data, where they name a unit.

    Raises
    ------
    VolumeError
        Nothing to be read, several to choose from, a filter that is not installed, a link that leads out of the folder
        or in a circle, no voxel size.
    """
    with reported(path.name, KIND):
        node = _chosen(path, hints.inside)
        name = f"{path.name}::{hints.inside}" if hints.inside else path.name
        with node.open() as data:
            if not isinstance(data, h5py.Dataset) or data.shape is None:
                raise VolumeError(f"{name} is not a data set; choose one with {path.name}::/group/data")
            refuse_projections(name, why_projections(node, data))
            axes = _axes_of(name, data)
            _check(name, data, node, path)
            stated, seen = (None, "") if hints.spacing_um else _stated_spacing(data, node, axes)
            source = _source(name, data, node, axes, path)
            scale = scale_of(name, node, data)
        grid = Grid(source.shape, spacing_of(name, stated, hints, found=seen))
        array, units = scale.applied(Windowed(source, name, KIND))
        return Volume(array, grid, name=name, about={"format": "HDF5", "data": node.path} | units)


def _source(name: str, data: h5py.Dataset, node: Node, axes: slice, root: Path) -> Source:
    """Values that lie in one piece are read where they lie, all others by their chunks or through HDF5."""
    shape, dtype = tuple(int(n) for n in data.shape), np.dtype(data.dtype)
    if data.is_virtual:
        sources = [(mapping, *_part(name, mapping, node, root)) for mapping in data.virtual_sources()]
        return Virtual(name, shape[axes], dtype, axes.start, parts_of(name, sources), data.fillvalue)
    at, plain = data.id.get_offset(), data.id.get_type() == h5py.h5t.py_create(dtype)
    if at is not None and plain and data.id.get_storage_size() == math.prod(shape) * dtype.itemsize:
        z, y, x = shape[axes]
        return Flat(node.file, (z, y, x), dtype, int(at))
    source: Source = DataSet(name, node.file, node.path, axes, shape, dtype)
    return Chunked(source, tuple(data.chunks[axes])) if data.chunks else source


def _part(name: str, mapping: Any, node: Node, root: Path) -> tuple[Path, str]:
    """The file and path that a part of a virtual data set comes from."""
    file = node.file
    if mapping.file_name != ".":
        file = inside_folder(root.parent, mapping.file_name, name, beside=node.file.parent)
    if not file.is_file():
        raise VolumeError(f"{name} takes its values from {mapping.file_name}, which is not there; copy it here")
    found = find(file, mapping.dset_name)
    inside_folder(root.parent, found.file, name)
    return found.file, found.path


def _chosen(path: Path, inside: str) -> Node:
    if inside:
        node = find(path, inside)
        with node.open() as opened:
            if not isinstance(opened, h5py.Group):
                return node
    else:
        default = nexus_default(path)
        if default is not None:
            return default
    found = candidates(path, inside or "/")
    if not found:
        raise VolumeError(f"{path.name} holds no three-dimensional data set of numbers; is it the right file?")
    found = [one for one in found if not one.projections] or found[:1]
    signals = [one for one in found if one.is_signal]
    if len(signals) == 1:
        return signals[0].node
    if len(found) > 1 and found[0].voxels < _CLEARLY_LARGER * found[1].voxels:
        names = ", ".join(f"{path.name}::{one.name}" for one in found[:8])
        raise VolumeError(f"{path.name} holds several volumes; choose one of {names}")
    return found[0].node


def _axes_of(name: str, data: h5py.Dataset) -> slice:
    """Where z, y, x stand among the axes; ilastik's axis tags are heeded, and must name them in this order."""
    shape = tuple(int(n) for n in data.shape)
    before = 0
    while len(shape) - before > 3 and shape[before] == 1:
        before += 1
    tags = _axis_tags(data)
    if len(tags) == len(shape) and set("zyx") <= set(tags):
        before = tags.index("z")
        if tags[before : before + 3] != ["z", "y", "x"]:
            raise VolumeError(f"{name} has axes {' '.join(tags)}; save it with the axes in the order z y x")
    others = shape[:before] + shape[before + 3 :]
    if len(shape) < 3 or any(n != 1 for n in others):
        raise VolumeError(f"{name} has a shape of {shape}; a volume has three axes z y x: save the one to be read")
    shape_of(name, shape[before : before + 3])
    return slice(before, before + 3)


def _axis_tags(data: h5py.Dataset) -> list[str]:
    try:
        return [str(axis["key"]) for axis in json.loads(data.attrs["axistags"])["axes"]]
    except (KeyError, TypeError, ValueError):
        return []


def _check(name: str, data: h5py.Dataset, node: Node, root: Path, *, part_of_another: bool = False) -> None:
    """Check a data set before any of it is read: its type, where its bytes lie and how many, chunks and filters.

    The data sets that a virtual one is made of are checked too.
    """
    dtype_of(name, data.dtype)
    plist = data.id.get_create_plist()
    external = [plist.get_external(i) for i in range(plist.get_external_count())]
    sources = data.virtual_sources() if data.is_virtual else []
    for named, offset, size in external:
        file = inside_folder(root.parent, _text(named), name, beside=node.file.parent)
        if not file.is_file() or file.stat().st_size < offset + size:
            raise VolumeError(f"{name} takes its values from {_text(named)}, which is not there whole; copy it here")
    for source in sources:
        if part_of_another:
            raise VolumeError(f"{name} is a virtual data set made of virtual ones; save its values in one data set")
        part = Node(*_part(name, source, node, root))
        with part.open() as values:
            _check(f"{source.file_name}::{source.dset_name}", values, part, root, part_of_another=True)
    if not external and not sources:
        stored = node.file.stat().st_size
        check_size(name, data.shape, data.dtype, stored)
        if data.id.get_storage_size() == 0:
            raise VolumeError(f"{name} holds no values: it was created and never written; export it again")
        at = data.id.get_offset()
        if data.chunks is None and at is not None and at + data.id.get_storage_size() > stored:
            raise VolumeError(f"{name} is truncated: its values lie beyond the file's end; copy it again")
    if data.chunks and math.prod(data.chunks) * data.dtype.itemsize > MOST_CHUNK_BYTES:
        raise VolumeError(f"{name} has chunks of {data.chunks}, too large to be read in part; rechunk it (h5repack)")
    for i in range(plist.get_nfilters()):
        code = int(plist.get_filter(i)[0])
        if not h5py.h5z.filter_avail(code):
            with contextlib.suppress(ImportError):
                importlib.import_module("hdf5plugin")
        if not h5py.h5z.filter_avail(code):
            raise VolumeError(
                f"{name} is compressed with {_FILTERS.get(code, 'a filter')} (HDF5 filter {code}), which is not "
                "installed; pip install 'tomostain[formats]', or save it with gzip (h5repack)"
            )


def _text(named: bytes | str) -> str:
    return named.decode("utf-8", "replace") if isinstance(named, bytes) else named


def _stated_spacing(data: h5py.Dataset, node: Node, axes: slice) -> tuple[Vector | None, str]:
    """The voxel size that stands with the data, in its group, or at the file's root."""
    stated, seen = of_attributes(data.attrs)
    if node.beside is not None:
        with node.beside.open() as group:
            steps = of_axes(group, tuple(data.shape), axes.start)
            if steps is not None:
                stated["axes"] = steps
            for more, also in (of_siblings(group), of_attributes(group.attrs)):
                stated, seen = stated | more, seen + also
    more, also = of_attributes(data.file.attrs)
    return agreed(stated | more, seen + also)
