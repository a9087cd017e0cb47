"""Open a slide of any scanner: which decoder, which pixel size, which levels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from tomostain._imports import require
from tomostain.images.geometry import Grid
from tomostain.images.image import Level, Slide
from tomostain.io.contained.client import DecodeError, look, read
from tomostain.io.contained.pixel_size import Statement, screen_dpi
from tomostain.io.slides.sections import SectionColours, is_volume_format, read_section
from tomostain.io.units import PLAUSIBLE_PIXEL_UM, is_length
from tomostain.io.volumes import READERS
from tomostain.io.volumes.dicom_header import is_microscopy

SUFFIXES: Mapping[str, str] = MappingProxyType(
    dict.fromkeys((".tif", ".tiff", ".svs", ".btf", ".tf8"), "tiff")
    | dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp"), "picture")
    | dict.fromkeys((".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm"), "openslide")
    | {".czi": "czi"}
)
"""How a slide is opened, by suffix; a TIFF whose maker needs OpenSlide is opened with it."""
_NEEDS = {"openslide": ("openslide", "slides"), "czi": ("pylibCZIrw", "czi")}
SQUARE_WITHIN = 1.1
"""Largest ratio of a pixel's edges that is accepted; scanners' pixels are square to a per cent."""
AGREE_WITHIN = 1.05
_GREY = "it is grey, and its values are read as three equal colours"


def read_slide(path: Path, *, pixel_um: float | None = None) -> Slide:
    """Open a stained slide lazily.

    Files are decoded in a process of their own; a file that crashes it, hangs it or exhausts its memory is an error.
    Alpha is composed on the scanner's background colour, else on white; what the scanner left out
    (``openslide.bounds-*``) is cropped away, so that slide pixel (0, 0) is the first that was scanned.

    Parameters
    ----------
    path
        What a scanner wrote (see ``SUFFIXES``), a TIFF, OME-TIFF, CZI, PNG or JPEG; one plane in a volume's format.
        8-bit RGB; 8-bit grey is read as three equal colours. Orientation tags are applied, and colour
        profiles turned into sRGB.
    pixel_um
        Edge length of a pixel in um, for files that do not state it; overrides what the file says.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not a readable RGB image, or no plausible pixel size.
    ModuleNotFoundError
        The format needs an optional package; the message holds the command that installs it.
    """
    path = Path(path)
    if is_volume_format(path) and not is_slide(path):
        return _section(path, pixel_um)
    if not path.is_file():
        raise FileNotFoundError(f"there is no slide {path}")
    kind, about = _open(path)
    sizes = [(int(rows), int(columns)) for rows, columns, _, _ in about["levels"]]
    levels = tuple(
        Level(DecodedLevel(path, kind, i, (*size, 3)), (float(down), float(right)))
        for i, (size, (_, _, down, right)) in enumerate(zip(sizes, about["levels"], strict=True))
    )
    statements: list[Statement] = [(float(y), float(x), str(source)) for y, x, source in about["pixels_um"]]
    pixel, source = _pixel_size(path.name, statements, pixel_um)
    for text in about.get("warnings", ()):
        warnings.warn(f"{path.name} {text}", stacklevel=2)
    if pixel_um is not None:
        _warn_if_implausible(path.name, pixel_um, statements)
    notes = [*about["notes"], *_disagreement(statements)]
    if about.get("grey"):
        notes.append(_GREY)
    found = {"format": about["format"], "pixel_from": source, "colours": about["colours"], "notes": notes}
    if about.get("simulated"):
        found["simulated"] = str(about["simulated"])
    return Slide(levels[0].array, Grid(sizes[0], pixel), name=path.name, levels=levels, about=found)


def is_slide(path: Path) -> bool:
    """Whether a file is one coloured picture, readable or not, and so a slide and no volume.

    Its ending says so; where volumes share it (TIFF, DICOM), what lies in the file.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None or not path.is_file():
        return False
    if not any(path.name.lower().endswith(ending) for ending in READERS):
        return True
    if kind != "tiff":
        return is_microscopy(path)
    try:
        return bool(look("tiff kind", str(path))["slide"])
    except DecodeError:
        return False


@dataclass(frozen=True)
class DecodedLevel:
    """One level of a slide's file, decoded elsewhere by the window: ``level[top:bottom, left:right]``."""

    path: Path
    kind: str
    index: int
    shape: tuple[int, int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def __getitem__(self, window: Any, /) -> npt.NDArray[np.uint8]:
        where = window if isinstance(window, tuple) else (window,)
        if not all(isinstance(part, slice) and part.step in (None, 1) for part in where[:2]):
            raise TypeError("a slide is indexed by slices of rows and columns")
        rows, columns = (part.indices(n) for part, n in zip((*where, slice(None))[:2], self.shape, strict=False))
        top, bottom, left, right = rows[0], max(rows[:2]), columns[0], max(columns[:2])
        if bottom == top or right == left:
            return np.zeros((bottom - top, right - left, 3), dtype=np.uint8)[(slice(None), slice(None), *where[2:])]
        try:
            values = read(self.kind, str(self.path), self.index, (top, bottom, left, right))
        except DecodeError as error:
            raise ValueError(f"{self.path.name} cannot be read at {top}, {left} px: {error}") from None
        return values[(slice(None), slice(None), *where[2:])]


def _open(path: Path) -> tuple[str, dict[str, Any]]:
    """The decoder that opens a file, and the metadata that it reads."""
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(
            f"{path.name}: slides are read from {', '.join(SUFFIXES)}, one plane also from {', '.join(READERS)}; "
            "convert it to one of these"
        )
    while True:
        if kind in _NEEDS:
            package, extra = _NEEDS[kind]
            require(package, extra=extra)
        try:
            about = look(kind, str(path))
        except DecodeError as error:
            raise ValueError(f"{path.name} cannot be read as a slide: {error}") from None
        if not about.get("maker"):
            break
        kind = "openslide"
    return kind, about


def _section(path: Path, pixel_um: float | None) -> Slide:
    """One plane in a volume's format as a slide."""
    volume = read_section(path, pixel_um)
    y, x = volume.grid.spacing_um[1:]
    pixel, source = _pixel_size(path.name, [(y, x, "its header")], pixel_um)
    array = SectionColours(volume)
    notes = [] if volume.is_colour else [_GREY]
    found = {"format": volume.about.get("format"), "pixel_from": source, "colours": "taken as sRGB", "notes": notes}
    if volume.simulated:
        found["simulated"] = volume.simulated
    return Slide(array, Grid(array.shape[:2], pixel), name=volume.name, about=found)


def _pixel_size(name: str, statements: list[Statement], user_um: float | None) -> tuple[tuple[float, float], str]:
    """Pixel size (y, x) in um and where it is from; refuses what is not possible."""
    if user_um is not None:
        if not is_length(user_um):
            raise ValueError(f"--slide-um must be a positive number for {name}, got {user_um:g}")
        return (user_um, user_um), "--slide-um"
    if not statements:
        raise ValueError(f"{name} does not state its pixel size; pass --slide-um")
    y, x, source = statements[0]
    density = screen_dpi(statements[0])
    if density is not None:
        raise ValueError(
            f"{name} states {density:g} dots per inch ({source}), a setting for screens and print, not a pixel size; "
            "pass --slide-um"
        )
    if not all(is_length(edge, within=PLAUSIBLE_PIXEL_UM) for edge in (y, x)):
        raise ValueError(
            f"{name} states a pixel size of {y:g} x {x:g} um ({source}), which is not possible; pass --slide-um"
        )
    if max(y, x) > SQUARE_WITHIN * min(y, x):
        raise ValueError(
            f"{name} states pixels of {y:g} x {x:g} um ({source}), far from square; pass --slide-um if they are square"
        )
    return (y, x), source


def _warn_if_implausible(name: str, user_um: float, statements: list[Statement]) -> None:
    """Warn if the user's pixel size is hardly possible, or differs from the file's."""
    low, high = PLAUSIBLE_PIXEL_UM
    if not is_length(user_um, within=PLAUSIBLE_PIXEL_UM):
        warnings.warn(
            f"{name}: --slide-um {user_um:g} is used, but slides have pixels of {low:g} to {high:g} um; "
            "is it in micrometres?",
            stacklevel=3,
        )
        return
    for y, x, source in statements[:1]:
        square = max(y, x) <= SQUARE_WITHIN * min(y, x)
        plausible = square and screen_dpi((y, x, source)) is None and low <= min(y, x) <= max(y, x) <= high
        if plausible and not all(1 / AGREE_WITHIN < edge / user_um < AGREE_WITHIN for edge in (y, x)):
            warnings.warn(
                f"{name} states pixels of {y:g} x {x:g} um ({source}); --slide-um {user_um:g} is used instead",
                stacklevel=3,
            )


def _disagreement(statements: list[Statement]) -> list[str]:
    """Other statements of the file that differ from the one used."""
    return [
        f"{source}: {y:g} x {x:g} um instead"
        for y, x, source in statements[1:]
        if screen_dpi((y, x, source)) is None
        and any(max(a, b) > AGREE_WITHIN * min(a, b) for a, b in zip((y, x), statements[0][:2], strict=True))
    ]
