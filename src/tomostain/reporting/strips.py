"""A stained volume and its CT as two pictures inside a page, through which a reader scrolls along three axes."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tomostain.images.image import Volume
from tomostain.images.resample import area_average
from tomostain.images.srgb import to_srgb
from tomostain.reporting.cuts import matching_ct
from tomostain.reporting.pictures import HATCH_GREY, grey

_MOST_PLANES, _MOST_SIDE_PX = 64, 192
_LOSSLESS_PX = 250_000
"""Pixels of a picture up to which it is kept exactly."""
_QUALITIES = (85, 65, 40)
"""Of lossy WebP; the first at which the page stays small enough to be sent is taken."""
_BLOCK_PX = 16
"""Lossy WebP codes blocks of this size: tiles of whole blocks do not run into each other."""
_MOST_BYTES = 900_000


@dataclass(frozen=True)
class Strips:
    """The planes of a volume as tiles of one picture, row by row: ``columns`` tiles in a row.

    ``shape`` (z, y, x) counts what is in the pictures, ``spacing_um`` apart from ``origin_um`` on; a tile begins every
    ``tile_px`` (rows, columns), which may be more than it has. ``stained`` and ``ct`` are data URIs of WebP, the CT's
    None where there is none.
    """

    shape: tuple[int, int, int]
    spacing_um: tuple[float, float, float]
    origin_um: tuple[float, float, float]
    columns: int
    tile_px: tuple[int, int]
    stained: str
    ct: str | None


def strips(stained: Volume, ct: Volume | None, *, window: tuple[float, float]) -> Strips:
    """A stained volume (z, y, x, 3) and its CT at the same places, thinned to 64 planes of 192 x 192 px at most.

    Colours are averaged over the pixels that one stands for, in linear light; every so many planes are taken. CT values
    are the nearest voxel's, between ``window`` as black and white; grey where there is no CT.
    """
    depth, rows, columns = stained.grid.shape
    step_z = -(-depth // _MOST_PLANES)
    step = max(1, -(-max(rows, columns) // _MOST_SIDE_PX))
    planes = range(step_z // 2, depth, step_z)
    colours = np.stack([_thinned(stained[z : z + 1][0], step) for z in planes])
    values = None
    if ct is not None:
        greys = [_greys(stained, ct, z, step, window) for z in planes]
        values = np.stack(greys)[:, : colours.shape[1], : colours.shape[2]]
    across = math.ceil(math.sqrt(len(planes) * colours.shape[1] / colours.shape[2]))
    origin, spacing = stained.grid.origin_um, stained.grid.spacing_um
    first = [origin[0] + planes.start * spacing[0], *(origin[i] + (step - 1) / 2 * spacing[i] for i in (1, 2))]
    sheets = [_sheet(stack, across) for stack in (colours, values) if stack is not None]
    encoded = _webp(sheets)
    return Strips(
        (colours.shape[0], colours.shape[1], colours.shape[2]),
        (spacing[0] * step_z, spacing[1] * step, spacing[2] * step),
        (first[0], first[1], first[2]),
        across,
        (_blocks(colours.shape[1]), _blocks(colours.shape[2])),
        encoded[0],
        encoded[1] if values is not None else None,
    )


def _thinned(plane: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.uint8]:
    if step == 1:
        return plane
    if min(plane.shape[:2]) < step:
        return plane[step // 2 :: step, step // 2 :: step]
    return to_srgb(area_average(plane, step))


def _greys(stained: Volume, ct: Volume, z: int, step: int, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    values, inside = matching_ct(stained, ct, 0, z, step=step)
    return np.where(inside, grey(values, *window), np.uint8(HATCH_GREY)).astype(np.uint8)


def _sheet(stack: npt.NDArray[np.uint8], across: int) -> npt.NDArray[np.uint8]:
    """Planes (z, y, x[, 3]) as tiles of one image, ``across`` in a row."""
    rows, columns = (_blocks(n) for n in stack.shape[1:3])
    more = ((0, 0), (0, rows - stack.shape[1]), (0, columns - stack.shape[2]), *((0, 0),) * (stack.ndim - 3))
    sheet = np.zeros((-(-len(stack) // across) * rows, across * columns, *stack.shape[3:]), np.uint8)
    for n, plane in enumerate(np.pad(stack, more, mode="edge")):
        top, left = n // across * rows, n % across * columns
        sheet[top : top + rows, left : left + columns] = plane
    return sheet


def _blocks(pixels: int) -> int:
    return -(-pixels // _BLOCK_PX) * _BLOCK_PX


def _webp(sheets: list[npt.NDArray[np.uint8]]) -> list[str]:
    files: list[bytes] = []
    tried: list[dict[str, Any]] = [{"quality": quality} for quality in _QUALITIES]
    if sheets[0].shape[0] * sheets[0].shape[1] <= _LOSSLESS_PX:
        tried = [{"lossless": True}, *tried]
    for settings in tried:
        files = [_file(sheet, settings) for sheet in sheets]
        if sum(map(len, files)) <= _MOST_BYTES:
            break
    return [f"data:image/webp;base64,{base64.b64encode(file).decode('ascii')}" for file in files]


def _file(sheet: npt.NDArray[np.uint8], settings: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", method=3, **settings)
    return file.getvalue()
