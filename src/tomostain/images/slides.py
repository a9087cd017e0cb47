"""Stained slides in and out: tiled pyramidal TIFF with its pixel size inside, PNG and JPEG with the size given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from tomostain.images.geometry import Grid
from tomostain.images.image import LazyArray, Slide
from tomostain.images.resample import area_average, to_srgb

TILE_PX = 256
_UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}  # TIFF 6.0: inch, centimetre
PLAUSIBLE_PIXEL_UM = (0.05, 100.0)


def read_slide(path: Path, *, pixel_um: float | None = None) -> Slide:
    """Open a stained slide lazily.

    Parameters
    ----------
    path
        A TIFF (tiled, pyramidal or plain; its finest level is taken), PNG or JPEG file.
    pixel_um
        Edge length of a pixel in um, for files that do not state it; overrides what the file says.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not a readable RGB image, or no believable pixel size.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no slide {path}")
    if path.suffix.lower() in (".tif", ".tiff", ".svs"):
        array, stated = _open_tiff(path)
    else:
        array, stated = _open_picture(path), None
    pixel = (pixel_um, pixel_um) if pixel_um is not None else stated
    if pixel is None:
        raise ValueError(f"{path.name} does not state its pixel size; pass --slide-um")
    low, high = PLAUSIBLE_PIXEL_UM
    if pixel_um is None and not all(low <= edge <= high for edge in pixel):
        raise ValueError(f"{path.name} states a pixel size of {pixel[0]:g} um, which cannot be; pass --slide-um")
    shape = (int(array.shape[0]), int(array.shape[1]))
    return Slide(array, Grid(shape, pixel), name=path.name)


def write_slide(path: Path, rgb: npt.NDArray[np.uint8], *, pixel_um: float, jpeg_quality: int | None = None) -> Path:
    """Write a slide as scanners do: tiled TIFF, pyramid of area-averaged levels, resolution in the tags.

    ``rgb`` is (y, x, 3) uint8 sRGB. Lossless unless ``jpeg_quality`` (1-100) is given. OpenSlide reads it as generic
    tiled TIFF.
    """
    path = Path(path)
    per_cm = 10000.0 / pixel_um
    level, scale = rgb, 1
    with tifffile.TiffWriter(path, bigtiff=rgb.nbytes > 2**31) as tiff:
        while True:
            tiff.write(
                level,
                photometric="rgb",
                tile=(TILE_PX, TILE_PX),
                compression="jpeg" if jpeg_quality else "zlib",
                compressionargs={"level": jpeg_quality} if jpeg_quality else {"level": 6},
                resolution=(per_cm / scale, per_cm / scale),
                resolutionunit="CENTIMETER",
                subfiletype=0 if scale == 1 else 1,
                software=False,
                metadata=None,
            )
            if max(level.shape[:2]) <= TILE_PX:
                return path
            level, scale = to_srgb(area_average(level, 2)), scale * 2


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """A mask picture as (y, x) uint8, non-zero where set (the strongest channel of a coloured one).

    Raises
    ------
    ValueError
        The file is not a picture.
    """
    picture = _open_picture(Path(path), as_rgb=False)
    return picture if picture.ndim == 2 else picture[..., :3].max(axis=-1)


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """A whole PNG, JPEG or plain TIFF picture as (y, x, 3) uint8 RGB."""
    return _open_picture(Path(path))


def read_grey(path: Path) -> npt.NDArray[Any]:
    """A whole grey picture (8, 16 or 32 bit TIFF; 8 or 16 bit PNG) as (y, x) in its own values.

    Raises
    ------
    ValueError
        The file is not a picture, or holds colours that are not grey.
    """
    path = Path(path)
    if path.suffix.lower() in (".tif", ".tiff"):
        try:
            values = np.asarray(tifffile.imread(path)).squeeze()
        except (tifffile.TiffFileError, OSError, ValueError) as error:
            raise ValueError(f"{path.name} cannot be read as a picture: {error}") from None
    else:
        try:
            with Image.open(path) as picture:
                values = np.asarray(picture.convert("L") if picture.mode in ("P", "1") else picture)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path.name} cannot be read as a picture: {error}") from None
    if values.ndim == 3 and (values[..., :3] == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2:
        raise ValueError(f"{path.name} is {values.shape}, not one grey plane")
    return values


def _open_picture(path: Path, *, as_rgb: bool = True) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            mode = "RGB" if as_rgb else ("L" if picture.mode in ("1", "L", "I;16", "I", "P") else "RGB")
            return np.asarray(picture.convert(mode), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path.name} cannot be read as a picture: {error}") from None


def _open_tiff(path: Path) -> tuple[LazyArray, tuple[float, float] | None]:
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            if page.ndim != 3 or page.shape[-1] not in (3, 4) or page.dtype != np.uint8:
                raise ValueError(f"it holds {page.dtype} {page.shape}, not 8-bit RGB")
            array = TiffPage(path, (page.shape[0], page.shape[1], 3))
            return array, _tiff_pixel_um(page)
    except (tifffile.TiffFileError, OSError, ValueError, IndexError) as error:
        raise ValueError(f"{path.name} cannot be read as a slide: {error}") from None


def _tiff_pixel_um(page: Any) -> tuple[float, float] | None:
    """Pixel size (y, x) from the resolution tags, None where they say nothing."""
    unit = _UM_PER_RESOLUTION_UNIT.get(int(page.tags.valueof("ResolutionUnit", default=1)))
    per_unit = [page.tags.valueof(tag) for tag in ("YResolution", "XResolution")]
    if unit is None or None in per_unit:
        return None
    y, x = (num / den if den else 0.0 for num, den in per_unit)
    return (unit / y, unit / x) if y > 0 and x > 0 and math.isfinite(x * y) else None


@dataclass(frozen=True)
class TiffPage:
    """The first page of a TIFF, read by the window: only the tiles or strips that it touches are decoded."""

    path: Path
    shape: tuple[int, int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def __getitem__(self, window: Any, /) -> npt.NDArray[np.uint8]:
        where = window if isinstance(window, tuple) else (window,)
        if not all(isinstance(part, slice) and part.step in (None, 1) for part in where):
            raise TypeError("a slide is read by slices of rows and columns")
        rows, columns = (
            slice(*part.indices(n)) for part, n in zip((*where, slice(None))[:2], self.shape, strict=False)
        )
        rest = where[2:]
        out = np.zeros((max(rows.stop - rows.start, 0), max(columns.stop - columns.start, 0), 3), dtype=np.uint8)
        with tifffile.TiffFile(self.path) as tiff:
            page: Any = tiff.pages.first
            wanted = [i for i in range(len(page.dataoffsets)) if _touches(page, i, rows, columns)]
            blocks = tiff.filehandle.read_segments(
                [page.dataoffsets[i] for i in wanted], [page.databytecounts[i] for i in wanted], indices=wanted
            )
            for data, index in blocks:
                segment, at, shape = page.decode(data, index, jpegtables=page.jpegtables)
                if segment is not None:
                    _paste(out, segment[0], at[2:4], shape[1:3], rows, columns)
        return out[(slice(None), slice(None), *rest)]


def _segment_corner(page: Any, index: int) -> tuple[int, int, int, int]:
    """First row, first column, rows and columns of a tile or strip."""
    if not page.is_tiled:
        return index * page.rowsperstrip, 0, page.rowsperstrip, page.imagewidth
    across = -(-page.imagewidth // page.tilewidth)
    row, column = divmod(index, across)
    return row * page.tilelength, column * page.tilewidth, page.tilelength, page.tilewidth


def _touches(page: Any, index: int, rows: slice, columns: slice) -> bool:
    top, left, height, width = _segment_corner(page, index)
    return bool(top < rows.stop and top + height > rows.start and left < columns.stop and left + width > columns.start)


def _paste(
    out: npt.NDArray[np.uint8],
    segment: npt.NDArray[np.uint8],
    at: tuple[int, int],
    shape: tuple[int, int],
    rows: slice,
    columns: slice,
) -> None:
    top, left = int(at[0]), int(at[1])
    first_row, last_row = max(top, rows.start), min(top + shape[0], rows.stop)
    first_column, last_column = max(left, columns.start), min(left + shape[1], columns.stop)
    if first_row >= last_row or first_column >= last_column:
        return
    piece = segment[first_row - top : last_row - top, first_column - left : last_column - left, :3]
    out[first_row - rows.start : last_row - rows.start, first_column - columns.start : last_column - columns.start] = (
        piece
    )
