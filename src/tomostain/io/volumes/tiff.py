"""A volume in one TIFF file: plain, BigTIFF, ImageJ stack or OME-TIFF, read by strips and tiles."""

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
from tomostain.io.orientation import ORIENTATION_TAG
from tomostain.io.tiff_window import window_of
from tomostain.io.units import number_of, um_per
from tomostain.io.volumes.arrays import Array, Box, Flat, Reopened, Source, Windowed, upright
from tomostain.io.volumes.calibration import calibration_of
from tomostain.io.volumes.grey import check_grey, one_channel
from tomostain.io.volumes.headers import Hints, VolumeError, check_size, dtype_of, reported, spacing_of
from tomostain.io.volumes.ome_planes import OmePlanes, planes_of

KIND = "TIFF"

logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class PageFacts:
    """What is known of a TIFF page: (y, x), type with its byte order, and where its values lie if they do plainly."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    values_at: int | None
    """Where uncompressed values begin, in bytes; None where strips or tiles must be decoded."""
    samples: int = 1
    """Values a pixel: 1, or 2 to 4 where grey values may be saved with alpha or as colours."""
    orientation: int = 0
    """TIFF's and EXIF's number for where the first row and column are shown: 1 for upper left, 0 for not stated."""

    def alike(self, other: PageFacts) -> bool:
        """Whether this can be a plane of the volume of which the other is the first; no orientation is the other's."""
        same = (self.shape, self.samples) == (other.shape, other.samples)
        same = same and self.orientation in (0, other.orientation or 1)
        return same and self.dtype.newbyteorder("=") == other.dtype.newbyteorder("=")

    def __str__(self) -> str:
        colours = {1: "", 2: " with alpha", 3: " RGB", 4: " RGBA"}[self.samples]
        turned = f", orientation {self.orientation}" if self.orientation > 1 else ""
        return f"{self.dtype.newbyteorder('=')}{colours} {self.shape}{turned}"


class Pages:
    """Compressed TIFF pages of one file; only the strips and tiles that a box touches are decoded."""

    def __init__(self, path: Path, pages: tuple[int, ...], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = (len(pages), *shape), dtype.newbyteorder("=")
        self._path, self._pages = path, pages
        self._file: Reopened[tifffile.TiffFile] = Reopened(open_tiff, path)

    def read(self, box: Box) -> Array:
        (z0, z1), rows, columns = box
        with self._file.lock:
            tiff = self._file.get()
            if z1 - z0 == 1:
                return self._window(tiff, z0, rows, columns)[None]
            out = np.empty((z1 - z0, rows[1] - rows[0], columns[1] - columns[0]), self.dtype)
            for i, z in enumerate(range(z0, z1)):
                out[i] = self._window(tiff, z, rows, columns)
        return out

    def _window(self, tiff: tifffile.TiffFile, z: int, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
        index = self._pages[z]
        return one_channel(window_of(tiff.pages[index], rows, columns), f"{self._path.name}: page {index}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Pages, (self._path, self._pages, self.shape[1:], self.dtype))


def read_tiff(path: Path, hints: Hints) -> Volume:
    """Open a multi-page TIFF (plain, BigTIFF, ImageJ, OME) as a lazy Volume.

    The voxel size is that of ImageJ's or OME's metadata. Reduced copies of a page (pyramids) are passed over.

    Raises
    ------
    VolumeError
        No voxel size is stated or passed, the values are colours, there are several channels or time points, or pages
        differ.
    """
    hints.nothing_inside(path.name)
    with reported(path.name, KIND):
        chain = count_pages(path)
        with open_tiff(path) as tiff:
            pages: Any = tiff.pages
            found_full = ((i, page) for i in range(chain) for page in (pages[i],) if not page.is_reduced)
            known = [(i, facts_of(page, path.name)) for i, page in found_full]
            if not known:
                raise VolumeError(f"{path.name} holds no full page, only reduced ones")
            full, facts = [i for i, _ in known], [fact for _, fact in known]
            for i, (page, found) in enumerate(zip(full, facts, strict=True)):
                if not found.alike(facts[0]):
                    raise VolumeError(
                        f"{path.name}: page {page} holds {found}, but page {full[0]} holds {facts[0]}; "
                        f"save one stack alone (page {i} of {len(full)} is the first that differs)"
                    )
            ome = planes_of(tiff.ome_metadata, path.name, len(full), facts[0].samples) if tiff.is_ome else None
            depth = _declared_depth(tiff, path.name, facts[0].samples) if ome is None else len(ome.order)
            stated = ome.spacing_um if ome else imagej_spacing(tiff, tiff.pages.first)
            values = calibration_of(tiff, tiff.pages.first, path.name)
        source, turned = upright(_source(path, full, facts, depth, ome), facts[0].orientation)
        if stated is not None and facts[0].orientation >= 5:
            stated = (stated[0], stated[2], stated[1])
        grid = Grid(source.shape, spacing_of(path.name, stated, hints))
        form = "OME-TIFF" if ome else "ImageJ TIFF" if stated else "TIFF"
        array = Windowed(source, path.name, KIND)
        if facts[0].samples > 1:
            check_grey(array)
        about = {"format": form} | values.words() | turned
        return Volume(values.of(array), grid, name=path.name, about=about)


def open_tiff(path: Path) -> tifffile.TiffFile:
    """A TIFF file that follows no reference to other files."""
    return tifffile.TiffFile(path, _multifile=False)


def count_pages(path: Path) -> int:
    """The number of pages in a TIFF's chain of directories.

    Raises
    ------
    VolumeError
        It is not a TIFF, or the chain leads back into itself or out of the file.
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
    shape, samples = (int(page.imagelength), int(page.imagewidth)), _samples(page, name)
    if min(shape) < 1 or int(page.imagedepth) != 1:
        raise VolumeError(
            f"{name} is damaged: page {page.index} is {shape[0]} x {shape[1]} x {page.imagedepth} px large"
        )
    if page.photometric == 3:
        raise VolumeError(f"{name} holds palette colours; save it as grey values (Fiji: Image > Type > 8-bit)")
    if int(page.photometric) not in set(tifffile.PHOTOMETRIC):
        raise VolumeError(f"{name} is damaged: page {page.index} has colours of kind {int(page.photometric)}, not grey")
    dtype = dtype_of(name, page.dtype if page.dtype is not None else np.dtype("V1"))
    end = page.parent.filehandle.size
    offsets, counts = page.dataoffsets, page.databytecounts
    if not offsets or len(offsets) != len(counts) or any(o + n > end for o, n in zip(offsets, counts, strict=True)):
        raise VolumeError(f"{name} is truncated: page {page.index} lies beyond the file's end; copy it again")
    tile = (page.tilelength, page.tilewidth) if page.is_tiled else shape
    blocks = math.prod(-(-n // t) for n, t in zip(shape, tile, strict=True)) if page.is_tiled else 1
    check_size(name, (blocks, *tile, samples)[: 3 + (samples > 1)], dtype, sum(counts))
    strips = blocks if page.is_tiled else -(-shape[0] // min(page.rowsperstrip or shape[0], shape[0]))
    strips *= samples if page.planarconfig == 2 else 1
    listed = max(
        (int(page.tags[tag].count) for tag in (273, 324) if hasattr(page, "tags") and tag in page.tags), default=0
    )
    if listed > strips:  # tifffile leaves out what the stated size does not take
        raise VolumeError(f"{name} is damaged: page {page.index} lists {listed} strips or tiles where {strips} make it")
    if len(offsets) < strips or not all(offsets) or not all(counts):
        raise VolumeError(
            f"{name} lacks values: page {page.index} has strips or tiles that are not stored; copy it again"
        )
    plain = bool(page.is_final) and not page.is_tiled and samples == 1
    if plain and offsets[0] + math.prod(shape) * dtype.itemsize > end:
        raise VolumeError(f"{name} is truncated: page {page.index} lies beyond the file's end; copy it again")
    stored = dtype.newbyteorder(page.parent.byteorder)
    orientation = int(page.tags.valueof(ORIENTATION_TAG, 0)) if hasattr(page, "tags") else 0
    return PageFacts(shape, stored, int(offsets[0]) if plain else None, samples, orientation)


def _samples(page: Any, name: str) -> int:
    """Values a pixel of grey, grey with alpha, RGB or RGBA; refuses what is not a picture of one grey value."""
    samples, extra = int(page.samplesperpixel), len(page.extrasamples or ())
    colours = samples - extra
    alpha = extra == 0 or (extra == 1 and (colours == 3 or int(page.extrasamples[0]) in (1, 2)))
    if colours not in (1, 3) or not alpha or page.planarconfig not in (1, 2):
        raise VolumeError(f"{name} holds {samples} values a pixel; a CT volume has one grey value a voxel, save one")
    return samples


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


def _declared_depth(tiff: tifffile.TiffFile, name: str, samples: int) -> int:
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
        stack = [int(n) for n in shaped[0].get("shape", ())[: -2 if samples == 1 else -3] if int(n) != 1]
        if len(stack) > 1:
            raise VolumeError(f"{name} holds a stack of {tuple(shaped[0]['shape'])}; save one volume z y x of it")
        return stack[0] if stack else 1
    return 1


def imagej_spacing(tiff: tifffile.TiffFile, page: Any) -> tuple[float, float, float] | None:
    """Voxel size (z, y, x) in um of an ImageJ stack that states all three, else None."""
    about: dict[str, Any] = tiff.imagej_metadata or {}
    units = [um_per(about.get(f"{axis}unit", about.get("unit", ""))) for axis in "zyx"]
    per_unit = [_ratio(page.tags.valueof(tag)) for tag in ("YResolution", "XResolution")]
    z = number_of(about.get("spacing", ""))
    if z is None or None in units or not all(per_unit):
        return None
    edges = [n * (unit or 0.0) for n, unit in zip((abs(z), *(1 / n for n in per_unit)), units, strict=True)]
    return (edges[0], edges[1], edges[2]) if min(edges) > 0 else None


def _ratio(value: Any) -> float:
    try:
        numerator, denominator = (float(n) for n in value)
    except (TypeError, ValueError):
        return 0.0
    return numerator / denominator if denominator else 0.0
