"""Whole pictures: PNG, JPEG, BMP as RGB; these and plain TIFF in their own values."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, UnidentifiedImageError

from tomostain.io.contained.pixel_size import of_density
from tomostain.io.first_bytes import is_tiff, png_bits, png_chunks, too_deep
from tomostain.io.orientation import ORIENTATION_TAG, stated_orientation, turned

MOST_PX = 2**27
"""Pictures are decoded whole; larger ones belong in a tiled TIFF."""
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP")
"""What Pillow decodes without a change to its values; of others it silently makes 8 bits."""
_JPEG = ("JPEG", "MPO")
_RESOLUTION_TAG = 282
_SAME_GAMMA = 0.02
"""Share by which a PNG's gamma may differ from 1 / 2.2, which means sRGB."""
_PALETTE, _WHITE_IS_ZERO = 3, 0
Image.MAX_IMAGE_PIXELS = None  # MOST_PX is the limit, below


class Picture:
    """A picture as RGB, alpha composed on white."""

    def __init__(self, path: str) -> None:
        self._path = path
        bits = png_bits(path)
        with _opened(path) as picture:
            _check(picture.height, picture.width)
            if bits > 8:
                raise ValueError(too_deep(bits))
            if picture.mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"):
                raise ValueError(f"its colours are {picture.mode}, a slide is RGB; save it as RGB")
            shape, kind, mode = (picture.height, picture.width), str(picture.format), picture.mode
            density = picture.info.get("dpi")
            # Pillow makes up 72 dpi for a JPEG whose JFIF header gives only an aspect ratio and whose EXIF gives none
            own = picture.info.get("jfif_unit", 0) > 0 or (kind in _JPEG and _RESOLUTION_TAG in picture.getexif())
            stated = own or kind not in _JPEG
            self.orientation = _orientation(picture, path)
            self.icc = picture.info.get("icc_profile")
            gamma = None if self.icc else picture.info.get("gamma")
        what = {"PNG": "PNG pHYs"}.get(kind, "JPEG density" if kind in _JPEG else f"{kind} density")
        per_inch = (float(density[1]), float(density[0])) if density and stated else None
        self.about = {
            "format": kind,
            "grey": mode in ("1", "L", "LA", "La"),
            "levels": [[*shape, 1.0, 1.0]],
            "pixels_um": [s for s in [of_density(per_inch, what)] if s],
            "notes": [],
            "warnings": [_other_gamma(gamma)] if gamma and abs(gamma * 2.2 - 1) > _SAME_GAMMA else [],
        }
        self._rgb: npt.NDArray[np.uint8] | None = None

    def read(self, level: int, window: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
        """A window of the picture, which is decoded whole the first time."""
        if self._rgb is None:
            with _opened(self._path) as picture:
                if picture.format == "PNG":
                    picture.verify()  # Pillow shows a PNG whose checksums are wrong as if nothing was
            with _opened(self._path) as picture:
                self._rgb = _rgb(picture)
        top, bottom, left, right = window
        return self._rgb[top:bottom, left:right]


class Values:
    """A picture upright and in its own values: (y, x) or (y, x, samples), any dtype."""

    def __init__(self, path: str) -> None:
        values, orientation = _tiff_values(path) if is_tiff(path) else _picture_values(path)
        self._values = turned(values, stated_orientation(orientation)[0])
        shape = self._values.shape
        self.about: dict[str, Any] = {"format": "picture", "shape": list(shape), "dtype": self._values.dtype.str}

    def read(self, level: int, window: tuple[int, int, int, int]) -> npt.NDArray[Any]:
        """The whole picture."""
        return self._values


def _opened(path: str) -> Any:
    try:
        return Image.open(path, formats=_FORMATS)
    except UnidentifiedImageError:
        raise ValueError(
            "it is not a PNG, JPEG or BMP that can be decoded (12-bit JPEG cannot be); save it as 8-bit PNG"
        ) from None


def _other_gamma(gamma: float) -> str:
    return f"states a gamma of {gamma:.3g} (PNG gAMA), which is not applied; its colours are taken as sRGB"


def _orientation(picture: Any, path: str) -> Any:
    """The tag in EXIF or XMP; Pillow decodes a whole PNG to look for one that may stand behind its pixels."""
    if picture.format == "PNG" and b"eXIf" not in png_chunks(path):
        return Image.Image.getexif(picture).get(ORIENTATION_TAG, 1)
    return picture.getexif().get(ORIENTATION_TAG, 1)


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


def _picture_values(path: str) -> tuple[npt.NDArray[Any], Any]:
    """Values of a picture, and its orientation tag; palettes are looked up."""
    bits = png_bits(path)
    with _opened(path) as picture:
        _check(picture.height, picture.width)
        orientation, mode = _orientation(picture, path), str(picture.mode)
        if bits > 8:
            with open(path, "rb") as file:
                return np.asarray(imagecodecs.png_decode(file.read())), orientation
        if mode == "CMYK":
            raise ValueError("its colours are CMYK; save it as grey or RGB")
        if mode in ("P", "PA"):
            picture = picture.convert("RGBA" if "transparency" in picture.info or mode == "PA" else "RGB")
        values = np.asarray(picture.convert("L") if mode == "1" else picture)
    fewer = mode in ("1", "L") and (mode == "1" or bits < 8)
    return values // (255 // (2 ** (1 if mode == "1" else bits) - 1)) if fewer else values, orientation


def _tiff_values(path: str) -> tuple[npt.NDArray[Any], Any]:
    """Values of a TIFF's first image, samples last, and its orientation tag; palettes are looked up."""
    with tifffile.TiffFile(path, _multifile=False) as tiff:
        page: Any = tiff.pages.first
        _check(int(page.imagelength), int(page.imagewidth) * max(1, len(tiff.pages)))
        series = tiff.series[0]
        values = np.asarray(series.asarray())
        axes = "".join(axis for axis, n in zip(series.axes, values.shape, strict=True) if n > 1 or axis in "YX")
        values = values.reshape([n for axis, n in zip(series.axes, values.shape, strict=True) if n > 1 or axis in "YX"])
        if axes == "SYX":
            values, axes = np.moveaxis(values, 0, -1), "YXS"
        if axes not in ("YX", "YXS"):
            raise ValueError(f"it holds {' x '.join(map(str, values.shape))} values along {axes}, not one plane")
        if axes == "YX" and not tiff.is_imagej:  # ImageJ's colours of display leave the values as they are
            if page.photometric == _PALETTE:
                values = (np.moveaxis(page.colormap[:, values], 0, -1) >> 8).astype(np.uint8)
            elif page.photometric == _WHITE_IS_ZERO and page.bitspersample == 1:
                values = 1 - values.astype(np.uint8)
        return values, page.tags.valueof(ORIENTATION_TAG, default=1)
