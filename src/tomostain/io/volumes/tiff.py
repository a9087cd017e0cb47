"""A volume in one TIFF file: plain, BigTIFF, ImageJ stack or OME-TIFF, read by the strips and tiles asked for."""

from __future__ import annotations

import logging
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.io.units import um_per
from tomostain.io.volumes.arrays import Array, Box, Flat, Held, Source, Windowed
from tomostain.io.volumes.given import Given, VolumeError, believable, dtype_of, spacing_of, told
from tomostain.io.volumes.ome_xml import OmePlanes, planes_of

KIND = "TIFF"

logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class PageFacts:
    """What is known of a TIFF page: (y, x), type with its byte order, and where its values lie if they do plainly."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    values_at: int | None
    """Where uncompressed values begin, in bytes; None where strips or tiles must be decoded."""


class Pages:
    """Compressed TIFF pages of one file; only the strips and tiles that a box touches are decoded."""

    def __init__(self, path: Path, pages: tuple[int, ...], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = (len(pages), *shape), dtype.newbyteorder("=")
        self._path, self._pages = path, pages
        self._file: Held[tifffile.TiffFile] = Held(open_tiff, path)

    def read(self, box: Box) -> Array:
        (z0, z1), rows, columns = box
        with self._file.lock:
            tiff = self._file.get()
            if z1 - z0 == 1:
                return page_window(tiff.pages[self._pages[z0]], rows, columns)[None]
            out = np.empty((z1 - z0, rows[1] - rows[0], columns[1] - columns[0]), self.dtype)
            for i, z in enumerate(range(z0, z1)):
                out[i] = page_window(tiff.pages[self._pages[z]], rows, columns)
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        return (Pages, (self._path, self._pages, self.shape[1:], self.dtype))


def read_tiff(path: Path, given: Given) -> Volume:
    """Open a multi-page TIFF (plain, BigTIFF, ImageJ, OME) as a lazy Volume.

    The voxel size is that of ImageJ's or OME's metadata. Reduced copies of a page (pyramids) are passed over.

    Raises
    ------
    VolumeError
        No voxel size is stated or given, the values are colours, there are several channels or time points, or pages
        differ.
    """
    given.nothing_inside(path.name)
    with told(path.name, KIND):
        chain = count_pages(path)
        with open_tiff(path) as tiff:
            pages: Any = tiff.pages
            found_full = ((i, page) for i in range(chain) for page in (pages[i],) if not page.is_reduced)
            known = [(i, facts_of(page, path.name)) for i, page in found_full]
            if not known:
                raise VolumeError(f"{path.name} holds no full page, only reduced ones")
            full, facts = [i for i, _ in known], [fact for _, fact in known]
            for i, (page, found) in enumerate(zip(full, facts, strict=True)):
                if found.shape != facts[0].shape or found.dtype != facts[0].dtype:
                    raise VolumeError(
                        f"{path.name}: page {page} holds {found.dtype.newbyteorder('=')} {found.shape}, but page "
                        f"{full[0]} holds {facts[0].dtype.newbyteorder('=')} {facts[0].shape}; "
                        f"save one stack alone (page {i} of {len(full)} is the first that differs)"
                    )
            ome = planes_of(tiff.ome_metadata, path.name, len(full)) if tiff.is_ome else None
            depth = _declared_depth(tiff, path.name) if ome is None else len(ome.order)
            stated = ome.spacing_um if ome else _imagej_spacing(tiff, tiff.pages.first)
        source = _source(path, full, facts, depth, ome)
        grid = Grid(source.shape, spacing_of(path.name, stated, given))
        form = "OME-TIFF" if ome else "ImageJ TIFF" if stated else "TIFF"
        return Volume(Windowed(source, path.name, KIND), grid, name=path.name, about={"format": form})


def open_tiff(path: Path) -> tifffile.TiffFile:
    """A TIFF file that follows no reference to other files."""
    return tifffile.TiffFile(path, _multifile=False)


def count_pages(path: Path) -> int:
    """The number of pages in a TIFF's chain of directories.

    Raises
    ------
    VolumeError
        It is no TIFF, or the chain leads back into itself or out of the file.
    """
    with path.open("rb") as file:
        order = {b"II": "<", b"MM": ">"}.get(file.read(2))
        version = struct.unpack(f"{order or '<'}H", file.read(2).ljust(2, b"\0"))[0]
        if order is None or version not in (42, 43):
            raise VolumeError(f"{path.name} cannot be read as TIFF: it does not begin as one")
        big = version == 43
        count_format, link_format, entry_bytes = (
            (f"{order}Q", f"{order}Q", 20) if big else (f"{order}H", f"{order}I", 12)
        )
        file.seek(8 if big else 4)
        seen: set[int] = set()
        at = _number(file, link_format)
        while at:
            if at in seen:
                raise VolumeError(f"{path.name}: page {len(seen)} leads back to an earlier one; the file is damaged")
            seen.add(at)
            file.seek(at)
            entries = _number(file, count_format)
            file.seek(at + struct.calcsize(count_format) + entries * entry_bytes)
            at = _number(file, link_format)
        return len(seen)


def _number(file: BinaryIO | Any, form: str) -> int:
    """An unsigned number at the file's position."""
    raw = file.read(struct.calcsize(form))
    if len(raw) < struct.calcsize(form):
        name = Path(file.name).name
        raise VolumeError(f"{name} cannot be read as TIFF: its chain of pages leads beyond its end; copy it again")
    return int(struct.unpack(form, raw)[0])


def facts_of(page: Any, name: str) -> PageFacts:
    """Check a page's tags against its file, before anything is allocated.

    Raises
    ------
    VolumeError
        Colours, an unknown type, or values that lie outside the file or could not be so many.
    """
    _check_tags(page, name)
    shape = tuple(int(n) for n in page.shape)
    if len(shape) != 2:
        raise VolumeError(f"{name} holds colours or several samples {shape}; a CT volume has one grey value a voxel")
    if page.photometric == 3:
        raise VolumeError(f"{name} holds palette colours; save it as grey values")
    if int(page.photometric) not in set(tifffile.PHOTOMETRIC):
        raise VolumeError(f"{name} is damaged: page {page.index} has colours of kind {int(page.photometric)}, not grey")
    dtype = dtype_of(name, page.dtype if page.dtype is not None else np.dtype("V1"))
    end = page.parent.filehandle.size
    offsets, counts = page.dataoffsets, page.databytecounts
    if not offsets or len(offsets) != len(counts) or any(o + n > end for o, n in zip(offsets, counts, strict=True)):
        raise VolumeError(f"{name} is truncated: page {page.index} lies beyond the file's end; copy it again")
    tile = (page.tilelength, page.tilewidth) if page.is_tiled else shape
    blocks = math.prod(-(-n // t) for n, t in zip(shape, tile, strict=True)) if page.is_tiled else 1
    believable(name, (blocks, *tile), dtype, sum(counts))
    strips = blocks if page.is_tiled else -(-shape[0] // min(page.rowsperstrip or shape[0], shape[0]))
    listed = max(
        (int(page.tags[tag].count) for tag in (273, 324) if hasattr(page, "tags") and tag in page.tags), default=0
    )
    if listed > strips:  # tifffile leaves out what the stated size does not take
        raise VolumeError(f"{name} is damaged: page {page.index} lists {listed} strips or tiles where {strips} make it")
    if len(offsets) < strips or not all(offsets) or not all(counts):
        raise VolumeError(
            f"{name} lacks values: page {page.index} has strips or tiles that are not stored; copy it again"
        )
    plain = bool(page.is_final) and not page.is_tiled
    if plain and offsets[0] + math.prod(shape) * dtype.itemsize > end:
        raise VolumeError(f"{name} is truncated: page {page.index} lies beyond the file's end; copy it again")
    stored = dtype.newbyteorder(page.parent.byteorder)
    return PageFacts((shape[0], shape[1]), stored, int(offsets[0]) if plain else None)


def _check_tags(page: Any, name: str) -> None:
    """Refuse a page of which tifffile could not read every tag: what it leaves out would be replaced by a default."""
    if not hasattr(page, "tags"):
        return
    tiff = page.parent
    with tiff.filehandle.lock:
        tiff.filehandle.seek(page.offset)
        entries = _number(tiff.filehandle, tiff.byteorder + ("Q" if tiff.is_bigtiff else "H"))
    if len(list(page.tags)) < entries:
        raise VolumeError(f"{name} is damaged: a tag of page {page.index} cannot be read; copy it again")


def page_window(page: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
    """The values of some rows and columns (first, last + 1) of a page; decodes the strips and tiles they lie in."""
    height, width = page.shape
    if rows == (0, height) and columns == (0, width):
        whole: Array = page.asarray()
        return whole
    out = np.zeros((rows[1] - rows[0], columns[1] - columns[0]), page.dtype)
    if page.is_tiled:
        tall, wide = page.tilelength, page.tilewidth
    else:
        tall, wide = min(page.rowsperstrip, height), width
    across = -(-width // wide)
    wanted = [
        row * across + column
        for row in range(rows[0] // tall, -(-rows[1] // tall))
        for column in range(columns[0] // wide, -(-columns[1] // wide))
    ]
    tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in (6, 7) else {}
    blocks = page.parent.filehandle.read_segments(
        [page.dataoffsets[i] for i in wanted], [page.databytecounts[i] for i in wanted], indices=wanted
    )
    for data, index in blocks:
        segment, at, _ = page.decode(data, index, **tables)
        if segment is not None:
            _paste(out, segment[0, :, :, 0], (int(at[2]), int(at[3])), rows, columns)
    return out


def _paste(
    out: Array, segment: Array, corner: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    first = [max(at, span[0]) for at, span in zip(corner, (rows, columns), strict=True)]
    last = [min(at + n, s[1]) for at, n, s in zip(corner, segment.shape, (rows, columns), strict=True)]
    here = tuple(slice(a - span[0], b - span[0]) for a, b, span in zip(first, last, (rows, columns), strict=True))
    there = tuple(slice(a - at, b - at) for a, b, at in zip(first, last, corner, strict=True))
    out[here] = segment[there]


def _source(path: Path, full: list[int], facts: list[PageFacts], depth: int, ome: OmePlanes | None) -> Source:
    """The pages in the order of z; one page that declares more holds them all, one after another."""
    first = facts[0]
    order = ome.order if ome else tuple(range(len(full)))
    if len(full) == 1 and depth > 1:
        if first.values_at is None:
            raise VolumeError(f"{path.name} declares {depth} planes but holds one page; save it again")
        end = first.values_at + depth * math.prod(first.shape) * first.dtype.itemsize
        if end > path.stat().st_size:
            raise VolumeError(f"{path.name} is truncated: it declares {depth} planes; copy it again")
        return Flat(path, (depth, *first.shape), first.dtype, first.values_at)
    starts = [facts[i].values_at for i in order]
    known = [at for at in starts if at is not None]
    if len(known) == len(starts):
        return Flat(path, (len(order), *first.shape), first.dtype, np.asarray(known, dtype=np.int64))
    return Pages(path, tuple(full[i] for i in order), first.shape, first.dtype)


def _declared_depth(tiff: tifffile.TiffFile, name: str) -> int:
    """How many planes ImageJ or tifffile say that a file holds; 1 where they say nothing.

    Raises
    ------
    VolumeError
        They say that there are several channels, time points or volumes.
    """
    about: dict[str, Any] = tiff.imagej_metadata or {}
    channels, frames = int(about.get("channels", 1)), int(about.get("frames", 1))
    if channels > 1 or frames > 1:
        raise VolumeError(
            f"{name} holds {channels} channels and {frames} time points; save the one to be read as a stack of its own "
            "(ImageJ: Image > Duplicate; if its time points are slices, Image > Properties)"
        )
    if about:
        return max(int(about.get("slices", 1)), int(about.get("images", 1)))
    shaped = tiff.shaped_metadata or ()
    if len(shaped) == 1:
        stack = [int(n) for n in shaped[0].get("shape", ())[:-2] if int(n) != 1]
        if len(stack) > 1:
            raise VolumeError(f"{name} holds a stack of {tuple(shaped[0]['shape'])}; save one volume z y x of it")
        return stack[0] if stack else 1
    return 1


def _imagej_spacing(tiff: tifffile.TiffFile, page: Any) -> tuple[float, float, float] | None:
    """Voxel size (z, y, x) in um of an ImageJ stack that states all three, else None."""
    about: dict[str, Any] = tiff.imagej_metadata or {}
    unit = um_per(about.get("unit", ""))
    per_unit = [page.tags.valueof(tag) for tag in ("YResolution", "XResolution")]
    if unit is None or "spacing" not in about or None in per_unit:
        return None
    y, x = (den / num * unit if num else 0.0 for num, den in per_unit)
    z = abs(float(about["spacing"])) * unit
    return (z, y, x) if min(z, y, x) > 0 else None
