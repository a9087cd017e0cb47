"""Slides of scanners through OpenSlide: NDPI, MRXS, SCN, BIF, VMS, Philips, Sakura, Trestle, DICOM and the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide
import tifffile
from PIL import Image

from tomostain.io.contained.pixel_size import Statement, of_aperio
from tomostain.io.first_bytes import is_tiff
from tomostain.io.inside import inside_folder
from tomostain.io.orientation import ORIENTATION_TAG
from tomostain.io.units import number_of

_LIST_BYTES = 2**22


class ScannerSlide:
    """What OpenSlide opens, cropped to what was scanned (``openslide.bounds-*``), on the slide's background."""

    def __init__(self, path: str) -> None:
        _check_named_files(Path(path))
        self._slide: Any = openslide.OpenSlide(path)
        properties = {str(key): str(value) for key, value in self._slide.properties.items()}
        width, height = self._slide.dimensions
        x, y, columns, rows = (
            int(properties.get(f"openslide.bounds-{key}", usual))
            for key, usual in (("x", 0), ("y", 0), ("width", width), ("height", height))
        )
        columns, rows = min(columns, width - x), min(rows, height - y)
        if min(columns, rows) < 1 or min(x, y) < 0:
            raise ValueError(
                f"it states that {rows} x {columns} px at {y}, {x} were scanned, but has only {height} x {width}"
            )
        self._corner = (y, x)
        profile = getattr(self._slide, "color_profile", None)
        self.icc = profile.tobytes() if profile is not None else None
        self.orientation = _orientation(path)
        code = properties.get("openslide.background-color", "FFFFFF")
        self._background = tuple(bytes.fromhex(code))
        self._downsamples = [_whole(float(factor)) for factor in self._slide.level_downsamples]
        shapes = [(max(1, int(rows / factor)), max(1, int(columns / factor))) for factor in self._downsamples]
        notes = (
            []
            if (y, x) == (0, 0) and (rows, columns) == (height, width)
            else [f"cropped to what was scanned: from {y}, {x} px"]
        )
        self.about = {
            "format": f"{properties.get('openslide.vendor', 'scanner')} slide, by OpenSlide",
            "levels": [[*shape, factor, factor] for shape, factor in zip(shapes, self._downsamples, strict=True)],
            "pixels_um": [s for s in _statements(properties) if s],
            "notes": notes,
        }

    def read(self, level: int, window: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
        """A window of one level, composed on the background."""
        top, bottom, left, right = window
        factor = self._downsamples[level]
        corner = (round(self._corner[1] + left * factor), round(self._corner[0] + top * factor))
        region = self._slide.read_region(corner, level, (right - left, bottom - top))
        on = Image.new("RGB", region.size, self._background)
        on.paste(region, mask=region.getchannel("A"))
        return np.asarray(on)


_DECODED_AS_STORED = (7, 33003, 33005)
"""Compressions (JPEG, JPEG 2000) that OpenSlide decodes itself; others it leaves to libtiff's RGBA interface."""


def _orientation(path: str) -> Any:
    """The tag of a TIFF's first page, which OpenSlide passes over; 1 where it is not a TIFF or has none."""
    if not is_tiff(path):
        return 1
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages.first
        tag = page.tags.valueof(ORIENTATION_TAG, default=1)
        if tag in range(2, 9) and page.compression not in _DECODED_AS_STORED:
            raise ValueError(
                f"its orientation tag {tag} turns each of its tiles by itself in OpenSlide; save it as a plain TIFF"
            )
    return tag


def _statements(properties: dict[str, str]) -> list[Statement | None]:
    edges = [number_of(properties.get(f"openslide.mpp-{axis}")) or 0.0 for axis in "yx"]
    stated: Statement | None = (edges[0], edges[1], "openslide.mpp-x and y") if min(edges) > 0 else None
    return [stated, of_aperio(f"MPP = {properties.get('aperio.MPP', '')}")]


def _whole(factor: float) -> float:
    """A downsample without the rounding of the level's size: OpenSlide divides sizes, scanners halve."""
    return float(round(factor)) if abs(factor - round(factor)) < 0.005 * factor else factor


def _check_named_files(file: Path) -> None:
    """Refuse a slide whose list of files leads out of its folder: OpenSlide opens whatever stands there."""
    lists = {".vms": file, ".vmu": file, ".mrxs": file.with_suffix("") / "Slidedat.ini"}
    index = lists.get(file.suffix.lower())
    if index is None or not index.is_file():
        return
    text = inside_folder(file.parent, index.relative_to(file.parent), file.name) if index != file else index
    with text.open("rb") as opened:
        lines = opened.read(_LIST_BYTES).decode("latin-1").splitlines()
    for line in lines:
        key, mark, value = line.partition("=")
        if mark and value.strip() and ("file" in key.lower() or "image" in key.lower()):
            inside_folder(file.parent, value.strip(), file.name, beside=index.parent)
