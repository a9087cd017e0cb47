"""A folder of slices, one picture a plane: TIFF, or PNG, BMP and JPEG; in natural order, whole, all alike."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from tomostain.images.geometry import Grid, Vector
from tomostain.images.image import Volume
from tomostain.io.first_bytes import png_bits, png_samples
from tomostain.io.inside import inside_folder
from tomostain.io.orientation import ORIENTATION_TAG
from tomostain.io.tiff_window import window_of
from tomostain.io.volumes import skyscan
from tomostain.io.volumes.arrays import Array, Box, Flat, Windowed, upright
from tomostain.io.volumes.calibration import AS_STORED, Calibration, calibration_of
from tomostain.io.volumes.dicom import SUFFIXES as DICOM_SUFFIXES
from tomostain.io.volumes.dicom import dicom_in, read_dicom
from tomostain.io.volumes.grey import check_grey, one_channel
from tomostain.io.volumes.headers import Hints, VolumeError, check_size, dtype_of, reported, spacing_of
from tomostain.io.volumes.series import check_series, natural
from tomostain.io.volumes.tiff import PageFacts, count_pages, facts_of, imagej_spacing, open_tiff

TIFF_SUFFIXES = (".tif", ".tiff")
PICTURE_SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg")
_KINDS = dict.fromkeys(TIFF_SUFFIXES, ".tif") | {".png": ".png", ".bmp": ".bmp", ".jpg": ".jpg", ".jpeg": ".jpg"}
_MODES: dict[str, tuple[str, int]] = {
    "L": ("u1", 1), "I;16": ("u2", 1), "I;16B": ("u2", 1), "I;16L": ("u2", 1), "I": ("i4", 1), "F": ("f4", 1),
    "LA": ("u1", 2), "RGB": ("u1", 3), "RGBA": ("u1", 4),
}  # fmt: skip
"""Type and samples of Pillow's modes."""
_TRIED, _QUICK_SECONDS = 16, 2e-3
"""Slices that are opened one by one before it is decided whether the disk is slow, and how long one may take."""


@dataclass(frozen=True)
class Slice:
    """What a slice's file says before its values are read."""

    plane: PageFacts
    values: Calibration = AS_STORED
    spacing_um: Vector | None = None
    """Voxel size (z, y, x), where ImageJ wrote it."""


class Slices:
    """A folder's slices as (z, y, x); only the needed files, strips and tiles are read."""

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
        with reported(file.name, "a slice"):
            if begin is not None:
                flat = Flat(file, (1, *self._plane.shape), self._plane.dtype, begin)
                return np.squeeze(flat.read(((0, 1), rows, columns)), axis=0)
            if file.suffix.lower() not in TIFF_SUFFIXES:
                self._check(file, _picture_facts(file))
                return one_channel(_picture(file)[slice(*rows), slice(*columns)], file.name)
            with open_tiff(file) as tiff:
                page = tiff.pages.first
                self._check(file, facts_of(page, file.name))
                return one_channel(window_of(page, rows, columns), file.name)

    def _check(self, file: Path, found: PageFacts) -> None:
        if not found.alike(self._plane):
            raise VolumeError(f"{file.name} has changed: it holds {found}, the other slices hold {self._plane}")


def read_folder(path: Path, hints: Hints) -> Volume:
    """Open a folder of slices (natural order of names), or what SkyScan's NRecon wrote, as a lazy Volume.

    Raises
    ------
    VolumeError
        No voxel size is stated or passed, files of several scans, slices that are missing or of mixed shape, type or
        calibration, or the values are colours; the first bad file is named.
    """
    log = skyscan.log_in(path)
    files = _pictures_in(path)
    dicom = dicom_in(path)
    if len(dicom) > len(files):
        return read_dicom(path, hints)
    hints.nothing_inside(path.name)
    if log is not None:
        files = skyscan.slices_of(files, log[0])
    if not files:
        known = ", ".join((*TIFF_SUFFIXES, *PICTURE_SUFFIXES, *DICOM_SUFFIXES))
        raise VolumeError(f"{path.name} holds no slices ({known})")
    check_series(path.name, files)
    slices = _look_at(files)
    _check_alike(files, slices)
    first = slices[0]
    stated = first.spacing_um if all(one.spacing_um == first.spacing_um for one in slices) else None
    found, about = "", {"format": "folder of slices"}
    if log is not None:
        stated, found = skyscan.spacing_in(log[1])
        about = {"format": "SkyScan folder"} | skyscan.words_of(log[1])
    values_at = tuple(one.plane.values_at if one.plane.dtype == first.plane.dtype else None for one in slices)
    source, turned = upright(Slices(tuple(files), first.plane, values_at), first.plane.orientation)
    grid = Grid(source.shape, spacing_of(path.name, stated, hints, found=found))
    array = Windowed(source, path.name, "slices")
    if first.plane.samples > 1:
        check_grey(array)
    about |= first.values.words() | turned
    return Volume(first.values.of(array), grid, name=path.name, about=about)


def _pictures_in(folder: Path) -> list[Path]:
    """The files of the commonest kind of picture, in natural order."""
    found: dict[str, list[Path]] = {}
    for file in folder.iterdir():
        if not file.name.startswith(".") and file.suffix.lower() in _KINDS:
            found.setdefault(_KINDS[file.suffix.lower()], []).append(file)
    if not found:
        return []
    kind, count = Counter({kind: len(files) for kind, files in sorted(found.items())}).most_common(1)[0]
    rivals = [other for other, files in found.items() if len(files) == count and count > 1 and other != kind]
    if rivals:
        raise VolumeError(f"{folder.name} holds {count} files each of {kind} and {rivals[0]}; keep one kind a folder")
    files = sorted(found[kind], key=lambda file: natural(file.name))
    for file in files:
        if not file.is_file():
            raise VolumeError(f"{folder.name}: {file.name} is not a file; remove it, or copy the slice again")
        if file.is_symlink():
            with reported(folder.name, "slices"):
                inside_folder(folder, file.name, f"{folder.name}: {file.name}")
    return files


def _look_at(files: Sequence[Path]) -> list[Slice]:
    """What every slice's file says."""
    begun = time.monotonic()
    slices = [_slice_of(file) for file in files[:_TRIED]]
    if time.monotonic() - begun < _TRIED * _QUICK_SECONDS:
        return slices + [_slice_of(file) for file in files[_TRIED:]]
    with ThreadPoolExecutor(4) as pool:  # threads wait for a slow disk together; on a quick one they hinder each other
        return slices + list(pool.map(_slice_of, files[_TRIED:]))


def _check_alike(files: Sequence[Path], slices: Sequence[Slice]) -> None:
    first = slices[0]
    for file, one in zip(files, slices, strict=True):
        if not one.plane.alike(first.plane):
            raise VolumeError(f"{file.name} holds {one.plane}, but {files[0].name} holds {first.plane}")
        if one.values != first.values:
            raise VolumeError(
                f"{file.name} is calibrated by {one.values.slope:g} x + {one.values.intercept:g}, but {files[0].name} "
                f"by {first.values.slope:g} x + {first.values.intercept:g}; save them as one stack with one calibration"
            )


def _slice_of(file: Path) -> Slice:
    with reported(file.name, "a slice"):
        if file.suffix.lower() not in TIFF_SUFFIXES:
            return Slice(_picture_facts(file))
        pages = count_pages(file)
        if pages > 1:
            raise VolumeError(f"{file.name} holds {pages} pages; a folder of slices has one page a file")
        with open_tiff(file) as tiff:
            page = tiff.pages.first
            facts = facts_of(page, file.name)
            return Slice(facts, calibration_of(tiff, page, file.name), imagej_spacing(tiff, page))


def _picture_facts(file: Path) -> PageFacts:
    """What the header of a PNG, BMP or JPEG says."""
    deep = _deep_png(file)
    with Image.open(file) as picture:
        shape, orientation = (picture.height, picture.width), int(picture.getexif().get(ORIENTATION_TAG, 0))
        if picture.mode not in _MODES and not _is_grey_palette(picture):
            raise VolumeError(
                f"{file.name} holds colours ({picture.mode}); a CT slice has one grey value a pixel, save it as grey"
            )
        code, samples = ("u2", deep) if deep else _MODES.get(picture.mode, ("u1", 1))
    check_size(file.name, (*shape, samples), np.dtype(code), file.stat().st_size)
    return PageFacts(shape, np.dtype(code), None, samples, orientation)


def _picture(file: Path) -> Array:
    """The values (y, x, samples) of a PNG, BMP or JPEG."""
    with Image.open(file) as picture:
        if picture.format == "PNG":
            picture.verify()  # Pillow shows a PNG whose checksums are wrong as if nothing was
    if _deep_png(file):
        values: Array = imagecodecs.png_decode(file.read_bytes())
    else:
        with Image.open(file) as picture:
            values = np.asarray(picture.convert("L") if picture.mode == "P" else picture)
    dtype_of(file.name, values.dtype)
    return values.reshape(*values.shape[:2], -1)


def _deep_png(file: Path) -> int:
    """The samples of a PNG of 16 bits and more than one sample, which Pillow would cut to 8 bits; else 0."""
    samples = png_samples(str(file))
    return samples if samples > 1 and png_bits(str(file)) == 16 else 0


def _is_grey_palette(picture: Image.Image) -> bool:
    """Whether a palette is the plain ramp of greys that 8-bit BMP slices carry."""
    if picture.mode != "P":
        return False
    entries = picture.getpalette("RGB") or []
    return entries == [level for grey in range(len(entries) // 3) for level in (grey,) * 3]
