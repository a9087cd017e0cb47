"""Volumes in TIFF: a folder of slices or one multi-page file, read slice by slice, 8/16/32 bit and float."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume

SUFFIXES = (".tif", ".tiff")
_UM = {
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "nm": 1e-3,
    "cm": 1e4,
}


@dataclass(frozen=True)
class Slices:
    """A lazy (z, y, x) volume whose every z is one TIFF page; only the pages asked for are read."""

    files: tuple[Path, ...]
    """One file per slice, or the single file that holds them all."""
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def __getitem__(self, window: Any, /) -> npt.NDArray[Any]:
        where = window if isinstance(window, tuple) else (window,)
        first, rest = where[0], where[1:]
        if isinstance(first, slice):
            wanted = range(*first.indices(self.shape[0]))
            pages = [page[rest] for page in self._pages(wanted)]
            return np.stack(pages) if pages else np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
        index = range(self.shape[0])[int(first)]
        return self._pages([index])[0][rest]

    def _pages(self, wanted: Sequence[int]) -> list[npt.NDArray[Any]]:
        if len(self.files) == 1:
            with tifffile.TiffFile(self.files[0]) as tiff:
                return [self._checked(self.files[0], tiff.pages[i].asarray()) for i in wanted]
        return [self._checked(self.files[i], tifffile.imread(self.files[i])) for i in wanted]

    def _checked(self, file: Path, page: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if page.shape != self.shape[1:] or page.dtype != self.dtype:
            raise ValueError(
                f"{file} holds {page.dtype} {page.shape}, the volume's other slices {self.dtype} {self.shape[1:]}"
            )
        return page


def read_tiff(path: Path, *, spacing_um: tuple[float, ...] | None = None) -> Volume:
    """Open a folder of TIFF slices (natural order of names) or a multi-page TIFF as a lazy Volume.

    Raises
    ------
    ValueError
        No voxel size is stated or given, slices are missing or of mixed shape, or the values are colours.
    """
    path = Path(path)
    files = _slices_in(path) if path.is_dir() else [path]
    try:
        with tifffile.TiffFile(files[0]) as tiff:
            page: Any = tiff.pages.first
            count = len(tiff.pages)
            stated = None if path.is_dir() else _stated_spacing(tiff, page)
            shape, dtype = tuple(page.shape), np.dtype(page.dtype)
    except (tifffile.TiffFileError, OSError, IndexError) as error:
        raise ValueError(f"{files[0]} cannot be read as TIFF: {error}") from None
    if len(shape) != 2:
        raise ValueError(
            f"{files[0].name} holds colours or several samples {shape}; a CT volume has one grey value a voxel"
        )
    if path.is_dir():
        if count > 1:
            raise ValueError(f"{files[0].name} holds {count} pages; a folder of slices has one page a file")
        _check_alike(files, shape, dtype)
    spacing = spacing_um or stated
    if spacing is None:
        raise ValueError(f"{path.name} has no voxel size; pass --spacing-um z y x")
    depth = len(files) if path.is_dir() else count
    volume_shape = (depth, int(shape[0]), int(shape[1]))
    return Volume(Slices(tuple(files), volume_shape, dtype), Grid(volume_shape, spacing), name=path.name)


def _slices_in(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    if not files:
        raise ValueError(f"{folder} holds no TIFF slices")
    files.sort(
        key=lambda file: [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", file.name)]
    )
    numbers = [re.findall(r"\d+", file.stem) for file in files]
    if all(numbers):
        last = [int(found[-1]) for found in numbers]
        for before, after, file in zip(last[:-1], last[1:], files[1:], strict=True):
            if after - before > max(1, last[1] - last[0]):
                raise ValueError(f"{folder.name}: slices are missing before {file.name}; add them or rename the rest")
    return files


def _check_alike(files: Sequence[Path], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    for file in files:
        try:
            with tifffile.TiffFile(file) as tiff:
                page: Any = tiff.pages.first
                found, kind = tuple(page.shape), np.dtype(page.dtype)
        except (tifffile.TiffFileError, OSError, IndexError) as error:
            raise ValueError(f"{file} cannot be read as TIFF: {error}") from None
        if found != shape or kind != dtype:
            raise ValueError(f"{file.name} holds {kind} {found}, but {files[0].name} holds {dtype} {shape}")


def _stated_spacing(tiff: tifffile.TiffFile, page: Any) -> tuple[float, float, float] | None:
    """Voxel size (z, y, x) in um of an ImageJ stack that states all three, else None."""
    about = tiff.imagej_metadata or {}
    unit = _UM.get(str(about.get("unit", "")).lower().replace("\\u00b5", "µ"))
    per_unit = [page.tags.valueof(tag) for tag in ("YResolution", "XResolution")]
    if unit is None or "spacing" not in about or None in per_unit:
        return None
    y, x = (den / num * unit if num else 0.0 for num, den in per_unit)
    z = float(about["spacing"]) * unit
    return (z, y, x) if min(z, y, x) > 0 else None
