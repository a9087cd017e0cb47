"""Write one image as scanners do: tiled TIFF or OME-TIFF with a pyramid, band by band, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import tifffile

from tomostain.images.image import LazyArray
from tomostain.images.pyramid import level_shapes, made_even
from tomostain.images.resample import area_average
from tomostain.images.srgb import to_srgb
from tomostain.runs import whole

TILE_PX = 256
_IN_MEMORY_BYTES = 2**28
_BIGTIFF_BYTES = 2**31


def write_slide(
    path: Path,
    image: LazyArray,
    *,
    pixel_um: float | tuple[float, float],
    jpeg_quality: int | None = None,
    ome: bool = False,
    description: str | None = None,
) -> Path:
    """Write an image as a tiled TIFF with a pyramid of area averages and its pixel size, and return ``path``.

    Parameters
    ----------
    image
        (y, x, 3) uint8 sRGB, averaged in linear light, or (y, x) grey values of any dtype. Read once, in bands.
    pixel_um
        Edge length of a pixel in um, or those along (y, x); kept in the resolution tags, in OME-TIFF also in its XML.
    jpeg_quality
        Lossy JPEG of this quality (1-100) for colours; None is lossless.
    ome
        Write OME-TIFF with its pyramid in SubIFDs; else a plain one with its pyramid in pages, as OpenSlide reads.
    description
        Words about the image, ASCII: the TIFF's description, or the Description in the XML of an OME-TIFF.
    """
    path, shape = Path(path), tuple(int(n) for n in image.shape)
    y_um, x_um = (pixel_um, pixel_um) if isinstance(pixel_um, int | float) else pixel_um
    levels = level_shapes(shape[:2], smallest=TILE_PX)
    compression: dict[str, Any] = (
        {"compression": "jpeg", "compressionargs": {"level": jpeg_quality}}
        if jpeg_quality
        else {"compression": "zlib", "compressionargs": {"level": 6}}
    )
    stored = int(np.prod(shape)) * np.dtype(image.dtype).itemsize
    with (
        whole(path) as part,
        tempfile.TemporaryFile(dir=path.parent) as spare,
        tifffile.TiffWriter(part, bigtiff=stored > _BIGTIFF_BYTES, ome=ome) as tiff,
    ):
        level: LazyArray = image
        for i, size in enumerate(levels):
            coarser = _spare(spare, (*levels[i + 1], *shape[2:]), image.dtype) if i + 1 < len(levels) else None
            tiff.write(
                _tiles(level, coarser),
                shape=(*size, *shape[2:]),
                dtype=image.dtype,
                photometric="rgb" if len(shape) == 3 else "minisblack",
                tile=(TILE_PX, TILE_PX),
                resolution=(1e4 / x_um / 2**i, 1e4 / y_um / 2**i),
                resolutionunit="CENTIMETER",
                subfiletype=1 if i else 0,
                subifds=len(levels) - 1 if ome and i == 0 else None,
                software=False,
                description=None if ome or i else description,
                metadata=_ome(shape, y_um, x_um, description) if ome and i == 0 else None,
                **compression,
            )
            if coarser is not None:
                level = coarser
    return path


def halved(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Means over 2 x 2 pixels: colours in linear light, grey values as they are (integers rounded half up).

    As in a volume's pyramid, an odd last row or column is repeated.
    """
    image = made_even(image, (0, 1))
    if image.ndim == 3:
        return to_srgb(area_average(image, 2))
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    pairs = image.astype(np.float64).reshape(rows, 2, columns, 2)
    mean = pairs.mean(axis=(1, 3))
    whole_numbers = np.issubdtype(image.dtype, np.integer)
    return np.asarray(np.floor(mean + 0.5) if whole_numbers else mean).astype(image.dtype)


def _tiles(level: LazyArray, coarser: npt.NDArray[Any] | None) -> Iterator[npt.NDArray[Any]]:
    """Tiles of a level, row by row; the next level is filled on the way."""
    rows, columns = int(level.shape[0]), int(level.shape[1])
    for top in range(0, rows, TILE_PX):
        band = np.asarray(level[top : min(top + TILE_PX, rows), 0:columns])
        if coarser is not None:
            small = halved(band)
            coarser[top // 2 : top // 2 + small.shape[0]] = small
        for left in range(0, columns, TILE_PX):
            tile = band[:, left : left + TILE_PX]
            short = [(0, TILE_PX - tile.shape[0]), (0, TILE_PX - tile.shape[1]), (0, 0)]
            yield np.ascontiguousarray(np.pad(tile, short[: tile.ndim], mode="edge"))


def _spare(file: IO[bytes], shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """An array for the next level: in memory, or in a temporary file if it is large."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size <= _IN_MEMORY_BYTES:
        return np.empty(shape, dtype=dtype)
    start = file.seek(0, 2)
    file.truncate(start + size)
    return np.memmap(file, dtype=dtype, mode="r+", offset=start, shape=shape)


def _ome(shape: tuple[int, ...], y_um: float, x_um: float, description: str | None) -> dict[str, Any]:
    words = {"Description": description} if description else {}
    return words | {
        "axes": "YXS" if len(shape) == 3 else "YX",
        "PhysicalSizeX": x_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": y_um,
        "PhysicalSizeYUnit": "µm",
    }
