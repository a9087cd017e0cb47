"""Which formats a volume can be written in, what each keeps, and the one loop that fills them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tomostain.images.image import Volume
from tomostain.io.ome_zarr import VolumeWriter, create_volume
from tomostain.io.writers import flat, hdf5, tiff
from tomostain.io.writers.target import Block, Sink, Target, Window
from tomostain.runs import progress, whole

BLOCK_BYTES = 2**28
"""Most that is read and written at once, unless a single plane is larger."""
_COMPRESSED_SHARE = 0.5
"""Share of its plain size that a compressed file is expected to take at least half the time."""
_PYRAMID_SHARE = 8 / 7


@dataclass(frozen=True)
class Format:
    """One way to write a volume."""

    what: str
    suffixes: tuple[str, ...]
    """Endings that choose it; none for what ``--format`` alone chooses."""
    create: Callable[[Path, Target], AbstractContextManager[Sink]]
    keeps: frozenset[str]
    """Of ``spacing``, ``origin``, ``stain``, ``units``, ``simulated``: what comes back when the file is read."""
    colours: bool = False
    size: float = 1.0
    """Bytes on disk, at least, for a byte of values."""


@dataclass(frozen=True, eq=False)
class _ShardSink:
    """OME-Zarr takes whole shards."""

    writer: VolumeWriter

    @property
    def slab(self) -> tuple[int, int, int]:
        return self.writer.shard

    def __setitem__(self, window: Window, block: Block, /) -> None:
        _, y_px, x_px = self.writer.shard
        z, y, x = window
        for top in range(y.start, y.stop, y_px):
            for left in range(x.start, x.stop, x_px):
                bottom, right = min(top + y_px, y.stop), min(left + x_px, x.stop)
                part = block[:, top - y.start : bottom - y.start, left - x.start : right - x.start]
                self.writer[z, top:bottom, left:right] = part


@contextmanager
def ome_zarr(path: Path, target: Target) -> Iterator[Sink]:
    """OME-Zarr 0.5 with its pyramid."""
    settings: dict[str, Any] = {"dtype": target.dtype, "colours": target.colours, "stain": target.stain}
    settings["attributes"] = dict(target.facts)
    with create_volume(path, target.grid, name=target.name, **settings) as writer:
        yield _ShardSink(writer)


_PLACED = frozenset({"spacing", "origin"})
_SIZED = frozenset({"spacing"})
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "ome-zarr": Format(
            "OME-Zarr 0.5",
            (".zarr",),
            ome_zarr,
            _PLACED | {"stain", "units", "simulated"},
            True,
            _COMPRESSED_SHARE * _PYRAMID_SHARE,
        ),
        "ome-tiff": Format("OME-TIFF", (".ome.tif", ".ome.tiff"), tiff.ome_tiff, _SIZED, True),
        "tiff": Format("TIFF, as ImageJ reads it", (".tif", ".tiff"), tiff.tiff, _SIZED, True),
        "tiff-stack": Format("folder of TIFF slices", ("",), tiff.tiff_stack, _SIZED, True),
        "ome-tiff-planes": Format(
            "folder of pyramidal OME-TIFF planes", (), tiff.ome_planes, frozenset(), True, _COMPRESSED_SHARE
        ),
        "hdf5": Format("HDF5", (".h5", ".hdf5", ".nxs"), hdf5.hdf5, _PLACED, size=_COMPRESSED_SHARE),
        "nrrd": Format("NRRD", (".nrrd",), flat.nrrd, _PLACED),
        "mha": Format("MetaImage", (".mha",), flat.metaimage, _PLACED),
        "nifti": Format("NIfTI-1", (".nii",), flat.nifti, _SIZED),
        "nifti-gz": Format("NIfTI-1, gzip", (".nii.gz",), flat.nifti_gz, _SIZED, size=_COMPRESSED_SHARE),
        "npy": Format("NumPy array", (".npy",), flat.npy, frozenset(), True),
        "raw": Format("raw values", (".raw",), flat.raw, frozenset(), True),
    }
)
"""What ``tomostain convert`` writes, by the name of ``--format``."""
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")


def format_of(out: Path, name: str | None = None) -> str:
    """The format that ``name`` or else the ending of ``out`` chooses; the longest ending wins.

    Raises
    ------
    ValueError
        There is no such format.
    """
    known = ", ".join(f"{key} ({' '.join(f.suffixes)})" for key, f in FORMATS.items() if any(f.suffixes))
    if name is not None:
        if name not in FORMATS:
            raise ValueError(f"there is no format {name!r} to write; known: {', '.join(FORMATS)}")
        return name
    ending = Path(out).name.lower()
    fitting = [(len(end), key) for key, f in FORMATS.items() for end in f.suffixes if end and ending.endswith(end)]
    if fitting:
        return max(fitting)[1]
    if not Path(out).suffix:
        return "tiff-stack"
    raise ValueError(f"{Path(out).name}: volumes are written as {known}; or name one with --format")


def stem_of(out: Path, suffixes: tuple[str, ...]) -> str:
    """The name of ``out`` without the format's ending."""
    name = Path(out).name
    endings = (".ome.zarr", *sorted(suffixes, key=len, reverse=True))
    return next((name[: -len(end)] for end in endings if end and name.lower().endswith(end)), name)


def write_volume(out: Path, volume: Volume, kind: str) -> list[str]:
    """Write a volume in one of ``FORMATS``, piece by piece, whole or not at all; return what the format cannot keep.

    Raises
    ------
    ValueError
        The format cannot hold these values, or there is not enough room on the disk.
    """
    target, out = check_writable(out, volume, kind), Path(out)
    with whole(out) as part, FORMATS[kind].create(part, target) as sink:
        pieces = list(windows(target, sink.slab))
        for window in progress(pieces, desc=out.name, unit="block"):
            sink[window] = np.asarray(volume[window])
    return lost(volume, kind)


def check_writable(out: Path, volume: Volume, kind: str) -> Target:
    """Make sure that a format can store a volume and the disk has space before it is written; returns the target.

    Raises
    ------
    ValueError
        It cannot, or has not.
    """
    form, dtype = FORMATS[kind], np.dtype(volume.dtype).newbyteorder("=")
    if dtype.name not in DTYPES:
        raise ValueError(f"{volume.name} holds {dtype.name} values, which {form.what} has no type for")
    if volume.is_colour and not form.colours:
        able = ", ".join(key for key, one in FORMATS.items() if one.colours)
        raise ValueError(f"{volume.name} holds colours, {form.what} here takes grey values; choose one of {able}")
    colours = 3 if volume.is_colour else None
    facts = {key: volume.about[key] for key in ("units", "simulated") if volume.about.get(key)}
    target = Target(stem_of(out, form.suffixes), volume.grid, dtype, colours, volume.stain, facts)
    check_room(out, target.nbytes * form.size)
    return target


def lost(volume: Volume, kind: str) -> list[str]:
    """What of a volume does not come back from a format, in words."""
    keeps, losses = FORMATS[kind].keeps, []
    if kind == "ome-tiff-planes" or (kind == "tiff-stack" and not tiff.stack_keeps_z(np.dtype(volume.dtype))):
        losses.append(f"the distance of the planes, {volume.grid.spacing_um[0]:g} um")
    elif "spacing" not in keeps:
        losses.append(f"the voxel size {_text(volume.grid.spacing_um)} um (z y x)")
    if "origin" not in keeps and any(volume.grid.origin_um):
        losses.append(f"the origin {_text(volume.grid.origin_um)} um (z y x)")
    if "stain" not in keeps and volume.stain:
        losses.append(f"the stain's name, {volume.stain}")
    units = volume.about.get("units")
    if "units" not in keeps and units:
        losses.append(f"the unit of the values, {units}")
    if "simulated" not in keeps and volume.simulated:
        losses.append(f"that it is simulated ({volume.simulated})")
    return losses


def windows(target: Target, slab: tuple[int, int, int]) -> Iterator[Window]:
    """Pieces of a volume in the order of z: multiples of ``slab``, as large as ``BLOCK_BYTES`` lets them be."""
    depth, rows, columns = target.grid.shape
    z_px, y_px, x_px = slab[0], slab[1] or rows, slab[2] or columns
    voxel = target.dtype.itemsize * (target.colours or 1)

    def most(step: int, length: int, others: int) -> int:
        return min(length, step * max(1, BLOCK_BYTES // (others * voxel * step)))

    x_px = most(x_px, columns, z_px * y_px)
    y_px = most(y_px, rows, z_px * x_px) if x_px == columns else y_px
    z_px = most(z_px, depth, y_px * x_px) if y_px == rows and x_px == columns else z_px
    for z in range(0, depth, z_px):
        for y in range(0, rows, y_px):
            for x in range(0, columns, x_px):
                yield (
                    slice(z, min(z + z_px, depth)),
                    slice(y, min(y + y_px, rows)),
                    slice(x, min(x + x_px, columns)),
                )


def check_room(out: Path, needed: float) -> None:
    """Make sure that the disk has room for ``needed`` bytes before anything is written.

    Raises
    ------
    ValueError
        It has not.
    """
    folder = Path(out).resolve().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{Path(out).name} will take about {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free; "
            "make room or choose another disk"
        )


def _text(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
