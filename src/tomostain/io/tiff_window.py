"""A window of a TIFF page: only the strips and tiles that it touches are read and decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Span = tuple[int, int]


def window_of(page: Any, rows: Span, columns: Span, *, missing: int | None = None) -> Array:
    """The values of some rows and columns (first, last + 1) of a page, (y, x, sample), as they are stored.

    ``missing`` stands where a strip or tile is not stored.

    Raises
    ------
    ValueError
        Strips or tiles hold values of another type than the page's tags say.
    """
    height, width, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    if missing is None and rows == (0, height) and columns == (0, width):
        values = page.asarray(squeeze=False)  # (separate sample, depth, y, x, contiguous sample)
        return np.moveaxis(values[:, 0, :, :, 0], 0, -1) if page.planarconfig == 2 else values[0, 0]
    out = np.full((rows[1] - rows[0], columns[1] - columns[0], samples), missing or 0, page.dtype)
    tall, wide = segment_shape(page)
    down, across = -(-height // tall), -(-width // wide)
    touched = [
        row * across + column
        for row in range(rows[0] // tall, -(-rows[1] // tall))
        for column in range(columns[0] // wide, -(-columns[1] // wide))
    ]
    separate = samples if page.planarconfig == 2 else 1
    indices = [sample * down * across + index for sample in range(separate) for index in touched]
    tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in (6, 7) else {}
    segments = page.parent.filehandle.read_segments(
        [page.dataoffsets[i] for i in indices], [page.databytecounts[i] for i in indices], indices=indices
    )
    for data, index in segments:
        segment, at, _ = page.decode(data, index, **tables)
        if segment is not None:
            if segment.dtype.kind != out.dtype.kind or segment.dtype.itemsize != out.dtype.itemsize:
                raise ValueError(f"its tags say {out.dtype} values, but its strips or tiles hold {segment.dtype}")
            target = out[..., at[0] : at[0] + 1] if separate > 1 else out
            _paste(target, segment[0], (int(at[2]), int(at[3])), (rows, columns))
    return out


def segment_shape(page: Any) -> tuple[int, int]:
    """Rows and columns of a page's tiles or strips."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip or page.imagelength), int(page.imagelength)), int(page.imagewidth)


def _paste(out: Array, segment: Array, corner: tuple[int, int], spans: tuple[Span, Span]) -> None:
    """Copy what a segment, whose first value lies at ``corner``, holds of the window ``spans``."""
    first = [max(at, span[0]) for at, span in zip(corner, spans, strict=True)]
    last = [min(at + n, span[1]) for at, n, span in zip(corner, segment.shape, spans, strict=False)]
    here = tuple(slice(a - span[0], b - span[0]) for a, b, span in zip(first, last, spans, strict=True))
    there = tuple(slice(a - at, b - at) for a, b, at in zip(first, last, corner, strict=True))
    out[here] = segment[there]
