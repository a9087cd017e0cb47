"""Whole pictures: PNG, JPEG and whatever else Pillow opens, and plain TIFF; as RGB, or in their own values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from tomostain.io.contained.pixel_size import of_density

MOST_PX = 2**27
"""Pictures are decoded whole; larger ones belong in a tiled TIFF."""
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
Image.MAX_IMAGE_PIXELS = None  # MOST_PX is the limit, below


class Picture:
    """A picture as RGB, alpha composed on white."""

    def __init__(self, path: str) -> None:
        self._path = path
        with Image.open(path) as picture:
            _check(picture.height, picture.width)
            if picture.mode.startswith(("I", "F")):
                raise ValueError("it holds 16-bit or float grey values; a slide is 8-bit RGB")
            shape, kind, mode = (picture.height, picture.width), str(picture.format), picture.mode
            density = picture.info.get("dpi")
            # Pillow makes up 72 dpi for a JPEG whose JFIF header gives only an aspect ratio
            stated = not (kind == "JPEG" and picture.info.get("jfif_unit", 0) == 0 and "exif" not in picture.info)
        what = {"PNG": "PNG pHYs", "JPEG": "JPEG density"}.get(kind, f"{kind} density")
        per_inch = (float(density[1]), float(density[0])) if density and stated else None
        self.about = {
            "format": kind,
            "grey": mode in ("1", "L", "LA"),
            "levels": [[*shape, 1.0, 1.0]],
            "pixels_um": [s for s in [of_density(per_inch, what)] if s],
            "notes": [],
        }
        self._rgb: npt.NDArray[np.uint8] | None = None

    def read(self, level: int, window: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
        """A window of the picture, which is decoded whole the first time."""
        if self._rgb is None:
            with Image.open(self._path) as picture:
                if picture.format == "PNG":
                    picture.verify()  # Pillow shows a PNG whose checksums are wrong as if nothing was
            with Image.open(self._path) as picture:
                self._rgb = _rgb(picture)
        top, bottom, left, right = window
        return self._rgb[top:bottom, left:right]


class Values:
    """A picture in its own values: (y, x) or (y, x, samples), any dtype; pages of a TIFF come first."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            tiff = file.read(4) in _TIFF_MARKS
        self._values = _tiff_values(path) if tiff else _picture_values(path)
        shape = self._values.shape
        self.about: dict[str, Any] = {"format": "picture", "shape": list(shape), "dtype": self._values.dtype.str}

    def read(self, level: int, window: tuple[int, int, int, int]) -> npt.NDArray[Any]:
        """The whole picture."""
        return self._values


def _check(rows: int, columns: int) -> None:
    if rows * columns > MOST_PX:
        raise ValueError(
            f"it is {rows} x {columns} px and can only be decoded whole, which ends at {MOST_PX / 1e6:.0f} megapixels; "
            "save it as a tiled TIFF"
        )


def _rgb(picture: Any) -> npt.NDArray[np.uint8]:
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        on = Image.new("RGB", seen.size, (255, 255, 255))
        on.paste(seen, mask=seen.getchannel("A"))
        return np.asarray(on)
    return np.asarray(picture.convert("RGB"), dtype=np.uint8)


def _picture_values(path: str) -> npt.NDArray[Any]:
    with Image.open(path) as picture:
        _check(picture.height, picture.width)
        return np.asarray(picture.convert("L" if picture.mode == "1" else "RGB") if picture.mode in "1P" else picture)


def _tiff_values(path: str) -> npt.NDArray[Any]:
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages.first
        _check(int(page.imagelength), int(page.imagewidth) * max(1, len(tiff.pages)))
        return np.asarray(tiff.asarray()).squeeze()
