"""Arrays as pictures inside a page: greys, colours, error maps, hatched masks, scale bars."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image

RGB = npt.NDArray[np.uint8]
ERROR_COLOURS = "inferno"
HATCH_GREY, HATCH_LINE = 176, 128


@dataclass(frozen=True)
class Picture:
    """A picture as the page shows it: the file as a data URI, its size, what is in it, and its scale bar.

    ``width`` and ``height`` are pixels of the file, ``aspect`` is the true width over height; the bar is ``bar_share``
    of the width long and stands for ``bar_um`` um.
    """

    uri: str
    width: int
    height: int
    aspect: float
    alt: str
    bar_share: float = 0.0
    bar_um: float = 0.0
    lines: tuple[tuple[str, float], ...] = ()
    """Cut lines drawn over the picture: ("row" or "column", share of the height or width)."""

    @property
    def bar_label(self) -> str:
        """The bar's length in the unit a reader expects."""
        return f"{self.bar_um / 1000:g} mm" if self.bar_um >= 1000 else f"{self.bar_um:g} µm"


def picture(
    image: npt.NDArray[np.uint8],
    alt: str,
    *,
    spacing_um: tuple[float, float],
    lossless: bool = True,
    lines: tuple[tuple[str, float], ...] = (),
) -> Picture:
    """Embed an image (y, x) or (y, x, 3) uint8 whose pixels are ``spacing_um`` (y, x) large."""
    height, width = image.shape[:2]
    width_um = width * spacing_um[1]
    bar_um = nice_length(0.3 * width_um)
    aspect = width_um / (height * spacing_um[0])
    return Picture(data_uri(image, lossless=lossless), width, height, aspect, alt, bar_um / width_um, bar_um, lines)


def data_uri(image: npt.NDArray[np.uint8], *, lossless: bool = True) -> str:
    """An image (y, x) or (y, x, 3) uint8 as PNG, or as JPEG of quality 90 with full colour resolution."""
    file = io.BytesIO()
    if lossless:
        Image.fromarray(image).save(file, "PNG", optimize=True)
    else:
        Image.fromarray(image).save(file, "JPEG", quality=90, subsampling=0)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def nice_length(at_most: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above ``at_most``."""
    power = 10.0 ** np.floor(np.log10(at_most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= at_most * (1 + 1e-9)))


def grey(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """CT values (y, x) as uint8 greys: ``low`` and below black, ``high`` and above white, not-a-number black."""
    share = (np.nan_to_num(np.asarray(values, dtype=np.float64), nan=low) - low) / max(high - low, 1e-12)
    return np.floor(np.clip(share, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def error_map(error: npt.NDArray[np.floating[Any]], mask: npt.NDArray[np.bool_], *, top: float) -> RGB:
    """Colour differences (y, x) from 0 (dark) to ``top`` (bright) as (y, x, 3) uint8, hatched where masked out."""
    table = np.floor(mpl.colormaps[ERROR_COLOURS](np.arange(256))[:, :3] * 255 + 0.5).astype(np.uint8)
    colours: RGB = table[np.clip(np.nan_to_num(error) / top * 255, 0, 255).astype(np.uint8)]
    return hatched(colours, mask, opaque=True)


def hatched(
    image: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_] | None, *, opaque: bool = False
) -> npt.NDArray[np.uint8]:
    """The image, (y, x) or (y, x, 3), with grey hatching where ``mask`` (y, x) is False; the same where there is none.

    Beneath the hatching the image is washed out, or gone if opaque.
    """
    if mask is None or mask.all():
        return image
    image = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    rows, columns = np.indices(mask.shape)
    period = max(6, min(mask.shape) // 40)
    line = (rows + columns) % period < max(1, period // 6)
    beneath = np.full_like(image, HATCH_GREY) if opaque else (image // 2 + HATCH_GREY // 2).astype(np.uint8)
    covered = np.where(line[..., None], np.uint8(HATCH_LINE), beneath)
    return np.where(mask[..., None], image, covered).astype(np.uint8)


def scale_colours(steps: int = 12) -> list[str]:
    """The error map's colours from 0 to the top, as CSS colours."""
    return [mpl.colors.to_hex(mpl.colormaps[ERROR_COLOURS](i / (steps - 1))) for i in range(steps)]
