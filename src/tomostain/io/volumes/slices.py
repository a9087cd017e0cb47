"""A folder of slices, one picture a plane: TIFF, or PNG, BMP and JPEG; in natural order, whole, all alike.

Beside a SkyScan / Bruker log the folder is what NRecon wrote: the log says the voxel size and which files are slices.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.io.inside import inside_folder
from tomostain.io.volumes.arrays import Array, Box, Flat, Windowed
from tomostain.io.volumes.given import Given, VolumeError, believable, dtype_of, one_line, spacing_of, told
from tomostain.io.volumes.tiff import PageFacts, count_pages, facts_of, open_tiff, page_window

TIFF_SUFFIXES = (".tif", ".tiff")
PICTURE_SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg")
_PILLOW_DTYPES = {"L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16, "I;16L": np.uint16, "I": np.int32}
_PILLOW_DTYPES |= {"F": np.float32}  # type: ignore[dict-item]
_LOG_BYTES = 2**20
_TRIED, _QUICK_SECONDS = 16, 2e-3
"""Slices that are opened one by one before it is decided whether the disk is slow, and how long one may take."""
_PIXEL_KEYS = ("pixel size (um)", "scaled image pixel size (um)", "image pixel size (um)")
_NO_SLICE = re.compile(r"(_spr|_preview|_ir|_arc|~spr)$", re.IGNORECASE)


class Slices:
    """A folder's slices as (z, y, x); only the files asked for are opened, only the strips and tiles read."""

    def __init__(self, files: tuple[Path, ...], plane: PageFacts, values_at: tuple[int | None, ...]) -> None:
        """``values_at`` is where each file's uncompressed values begin; None for those that must be decoded."""
        self.shape, self.dtype = (len(files), *plane.shape), plane.dtype
        self._files, self._plane, self._values_at = files, plane, values_at

    def read(self, box: Box) -> Array:
        (z0, z1), rows, columns = box
        if z1 - z0 == 1:
            return self._window(z0, rows, columns)[None]
        out = np.empty((z1 - z0, rows[1] - rows[0], columns[1] - columns[0]), self.dtype)
        for z in range(z0, z1):
            out[z - z0] = self._window(z, rows, columns)
        return out

    def _window(self, z: int, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
        file, begin = self._files[z], self._values_at[z]
        with told(file.name, "a slice"):
            if begin is not None:
                flat = Flat(file, (1, *self._plane.shape), self._plane.dtype, begin)
                return np.squeeze(flat.read(((0, 1), rows, columns)), axis=0)
            if file.suffix.lower() not in TIFF_SUFFIXES:
                values = _picture(file)
                self._check(file, PageFacts((values.shape[0], values.shape[1]), values.dtype, None))
                part: Array = values[slice(*rows), slice(*columns)]
                return part
            with open_tiff(file) as tiff:
                page = tiff.pages.first
                self._check(file, facts_of(page, file.name))
                return page_window(page, rows, columns)

    def _check(self, file: Path, found: PageFacts) -> None:
        if found.shape != self.shape[1:] or found.dtype.newbyteorder("=") != self.dtype.newbyteorder("="):
            raise VolumeError(f"{file.name} has changed: {_alike(found)}, the other slices hold {_alike(self._plane)}")


def read_folder(path: Path, given: Given) -> Volume:
    """Open a folder of slices (natural order of names), or what SkyScan's NRecon wrote, as a lazy Volume.

    Raises
    ------
    VolumeError
        No voxel size is stated or given, slices are missing or of mixed shape or type, or the values are colours; the
        first bad file is named.
    """
    given.nothing_inside(path.name)
    log = _skyscan_log(path)
    files = _pictures_in(path)
    if log is not None:
        files = _skyscan_slices(files, log[0])
    if not files:
        raise VolumeError(f"{path.name} holds no slices ({', '.join((*TIFF_SUFFIXES, *PICTURE_SUFFIXES))})")
    _check_whole(path, files)
    plane, values_at = _check_alike(files)
    stated, about = None, {"format": "folder of slices"}
    if log is not None:
        stated, about = _skyscan_spacing(path.name, log[1]), {"format": "SkyScan folder"} | _skyscan_words(log[1])
    grid = Grid((len(files), *plane.shape), spacing_of(path.name, stated, given))
    return Volume(
        Windowed(Slices(tuple(files), plane, values_at), path.name, "slices"), grid, name=path.name, about=about
    )


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key by which slice_2 comes before slice_10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name.lower())]


def _pictures_in(folder: Path) -> list[Path]:
    """The files of the commonest picture suffix: .tif and .tiff count as one."""
    found = [file for file in folder.iterdir() if not file.name.startswith(".")]
    kinds = dict.fromkeys(TIFF_SUFFIXES, TIFF_SUFFIXES) | {
        ".jpg": (".jpg", ".jpeg"),
        ".jpeg": (".jpg", ".jpeg"),
    }
    tiffs = [file for file in found if file.suffix.lower() in TIFF_SUFFIXES]
    pictures = [file for file in found if file.suffix.lower() in PICTURE_SUFFIXES]
    chosen = tiffs if len(tiffs) >= len(pictures) else pictures
    if not chosen:
        return []
    commonest = Counter(kinds.get(file.suffix.lower(), (file.suffix.lower(),)) for file in chosen).most_common(1)[0][0]
    files = sorted((file for file in chosen if file.suffix.lower() in commonest), key=lambda file: natural(file.name))
    for file in files:
        if not file.is_file():
            raise VolumeError(f"{folder.name}: {file.name} is no file; remove it, or copy the slice again")
        if file.is_symlink():
            with told(folder.name, "slices"):
                inside_folder(folder, file.name, f"{folder.name}: {file.name}")
    return files


def _check_whole(folder: Path, files: Sequence[Path]) -> None:
    """Refuse a series with a gap: where the last number in the names jumps by more than it does at first."""
    numbers = [re.findall(r"\d+", file.stem) for file in files]
    if not all(numbers) or len(files) < 3:
        return
    last = [int(found[-1]) for found in numbers]
    steps = [after - before for before, after in pairwise(last)]
    usual = max(1, Counter(steps).most_common(1)[0][0])
    for step, file in zip(steps, files[1:], strict=True):
        if step > usual:
            raise VolumeError(f"{folder.name}: slices are missing before {file.name}; add them or rename the rest")


def _check_alike(files: Sequence[Path]) -> tuple[PageFacts, tuple[int | None, ...]]:
    """What all slices are, and where the uncompressed values of each begin."""
    begun = time.monotonic()
    facts = [_slice_facts(file) for file in files[:_TRIED]]
    if time.monotonic() - begun < _TRIED * _QUICK_SECONDS:
        facts += [_slice_facts(file) for file in files[_TRIED:]]
    else:  # threads wait for a slow disk together; on a quick one they are in each other's way
        with ThreadPoolExecutor(4) as pool:
            facts += pool.map(_slice_facts, files[_TRIED:])
    plane = facts[0]
    values_at = []
    for file, found in zip(files, facts, strict=True):
        if found.shape != plane.shape or found.dtype.newbyteorder("=") != plane.dtype.newbyteorder("="):
            raise VolumeError(f"{file.name} holds {_alike(found)}, but {files[0].name} holds {_alike(plane)}")
        values_at.append(found.values_at if found.dtype == plane.dtype else None)
    return plane, tuple(values_at)


def _slice_facts(file: Path) -> PageFacts:
    with told(file.name, "a slice"):
        if file.suffix.lower() not in TIFF_SUFFIXES:
            with Image.open(file) as picture:
                if picture.mode not in _PILLOW_DTYPES and not _is_grey_palette(picture):
                    raise VolumeError(
                        f"{file.name} holds colours ({picture.mode}); a CT slice has one grey value a pixel"
                    )
                dtype = np.dtype(_PILLOW_DTYPES.get(picture.mode, np.uint8))
                shape = (picture.height, picture.width)
                believable(file.name, shape, dtype, file.stat().st_size)
                return PageFacts(shape, dtype, None)
        pages = count_pages(file)
        if pages > 1:
            raise VolumeError(f"{file.name} holds {pages} pages; a folder of slices has one page a file")
        with open_tiff(file) as tiff:
            return facts_of(tiff.pages.first, file.name)


def _picture(file: Path) -> Array:
    with Image.open(file) as picture:
        if picture.format == "PNG":
            picture.verify()  # Pillow shows a PNG whose checksums are wrong as if nothing was
    with Image.open(file) as picture:
        believable(file.name, (picture.height, picture.width), np.dtype(np.uint8), file.stat().st_size)
        values = np.asarray(picture.convert("L") if picture.mode == "P" else picture)
    dtype_of(file.name, values.dtype)
    return values


def _is_grey_palette(picture: Image.Image) -> bool:
    """Whether a palette is the plain ramp of greys that 8-bit BMP slices carry."""
    if picture.mode != "P":
        return False
    entries = picture.getpalette("RGB") or []
    return entries == [level for grey in range(len(entries) // 3) for level in (grey,) * 3]


def _alike(plane: PageFacts) -> str:
    return f"{plane.dtype.newbyteorder('=')} {plane.shape}"


def _skyscan_log(folder: Path) -> tuple[Path, dict[str, str]] | None:
    """The log of a SkyScan folder and its entries, those of the reconstruction before those of the acquisition."""
    logs = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".log" and file.is_file())
    found = []
    for log in logs:
        entries = _log_entries(log)
        if any(key in entries for key in _PIXEL_KEYS):
            found.append((log, entries))
    if len(found) > 1:
        reconstructed = [pair for pair in found if pair[0].stem.lower().endswith("_rec")]
        found = reconstructed if len(reconstructed) == 1 else found
    if len(found) > 1:
        names = ", ".join(log.name for log, _ in found[:3])
        raise VolumeError(f"{folder.name} holds several SkyScan logs ({names}); keep one reconstruction a folder")
    return found[0] if found else None


def _log_entries(log: Path) -> dict[str, str]:
    """The ``key=value`` lines of a log; a last line without its end was cut off."""
    with log.open("rb") as file:
        text = file.read(_LOG_BYTES).decode("latin-1")
    entries: dict[str, str] = {}
    for line in text.splitlines(keepends=True):
        key, mark, value = line.partition("=")
        if mark and line.endswith(("\n", "\r")):
            entries[key.strip().lower()] = value.strip()
    return entries


def _skyscan_slices(files: Sequence[Path], log: Path) -> list[Path]:
    """The slices among a SkyScan folder's pictures: numbered, named as the log is where any are; no previews."""
    numbered = [file for file in files if re.search(r"\d$", file.stem) and not _NO_SLICE.search(file.stem)]
    named = [file for file in numbered if re.fullmatch(re.escape(log.stem) + r"_?\d+", file.stem, re.IGNORECASE)]
    if named:
        return named
    series = Counter(re.sub(r"\d+$", "", file.stem) for file in numbered).most_common(1)
    return [file for file in numbered if series and re.sub(r"\d+$", "", file.stem) == series[0][0]]


def _skyscan_spacing(name: str, entries: dict[str, str]) -> tuple[float, float, float]:
    """Voxel size in um: the reconstruction's pixel size, and as many of it as there are sections between slices."""
    key = next(key for key in _PIXEL_KEYS if key in entries)
    try:
        edge = float(entries[key])
        step = int(entries.get("section to section step", "1"))
    except ValueError as error:
        raise VolumeError(f"{name}: its SkyScan log is damaged ({one_line(error)}); pass --spacing-um z y x") from None
    if not (math.isfinite(edge) and edge > 0 and step > 0):
        raise VolumeError(f"{name}: its SkyScan log states a pixel of {edge:g} um; pass --spacing-um z y x")
    return edge * step, edge, edge


def _skyscan_words(entries: dict[str, str]) -> dict[str, str]:
    """How NRecon scaled attenuation to grey values, where the log says it."""
    low, high = (entries.get(f"{end} for cs to image conversion") for end in ("minimum", "maximum"))
    return {"units": f"grey values over attenuation {low} to {high} (NRecon)"} if low and high else {}
