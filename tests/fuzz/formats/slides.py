"""Slides: tiled pyramidal TIFF as scanners write them, PNG and JPEG; strictly read by tifffile and Pillow."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from fuzz.formats.common import PIXEL_UM, colours, slide
from fuzz.formats.tiffs import _OWN, no_doubts, whole_page
from fuzz.judge import Format, Look, look
from fuzz.mutations import Target


def write_tiled(path: Path, compression: str, **settings: Any) -> Path:
    per_cm = 10_000 / PIXEL_UM
    with tifffile.TiffWriter(path) as out:
        for scale in (1, 2):
            out.write(
                colours()[::scale, ::scale],
                photometric="rgb",
                tile=(128, 128),
                compression=compression,
                resolution=(per_cm / scale, per_cm / scale),
                resolutionunit="CENTIMETER",
                subfiletype=int(scale > 1),
                software=False,
                metadata=None,
                **settings,
            )
    return path


def write_strips(folder: Path) -> Path:
    per_inch = 25_400 / PIXEL_UM
    tifffile.imwrite(
        folder / "scan.tif",
        colours(),
        photometric="rgb",
        rowsperstrip=40,
        resolution=(per_inch, per_inch),
        resolutionunit="INCH",
        software=False,
        metadata=None,
    )
    return folder / "scan.tif"


def write_svs(folder: Path) -> Path:
    about = "Aperio Image Library v12.0.15\n331x293 [0,0 331x293] (128x128) JPEG/RGB Q=70|AppMag = 5|MPP = 2.0"
    return write_tiled(folder / "scan.svs", "jpeg", description=about)


def strict_slide(path: Path) -> Look:
    with no_doubts(), tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        unit = {2: 25_400.0, 3: 10_000.0}[int(page.tags["ResolutionUnit"].value)]
        y, x = (unit * den / num for num, den in (page.tags.valueof(tag) for tag in ("YResolution", "XResolution")))
        values = whole_page(tiff, page)
    if values.dtype != np.uint8 or values.ndim != 3:
        raise ValueError("not RGB")
    return look(values[..., :3], (y, x))


def write_picture(path: Path, **settings: Any) -> Path:
    Image.fromarray(colours()).save(path, **settings)
    return path


def strict_picture(path: Path) -> Look:
    with Image.open(path) as check:
        if check.format == "PNG":
            check.verify()
    with Image.open(path) as picture:
        return look(np.asarray(picture.convert("RGB")), (PIXEL_UM, PIXEL_UM))


def png_bomb(t: Target) -> None:
    """A PNG of a few MB whose header states a picture of many GB."""
    t.exact = True
    size = t.pick((20_000, 60_000, 2**31 - 1))
    row = bytes(1 + 3 * min(size, 60_000))
    data = zlib.compress(row * 200, 9)
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0), b"IDAT" + data, b"IEND")
    body = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    t.path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


SLIDES = {
    "slide-tiff-deflate": Format(lambda folder: write_tiled(folder / "slide.tif", "zlib"), slide(), strict_slide, _OWN),
    "slide-tiff-jpeg": Format(lambda folder: write_tiled(folder / "slide.tif", "jpeg"), slide(), strict_slide, _OWN),
    "slide-tiff-strips": Format(write_strips, slide(), strict_slide, _OWN),
    "slide-svs": Format(write_svs, slide(PIXEL_UM), strict_slide, _OWN),
    "slide-png": Format(
        lambda folder: write_picture(folder / "slide.png"), slide(PIXEL_UM), strict_picture, {"png-bomb": png_bomb}
    ),
    "slide-jpeg": Format(
        lambda folder: write_picture(folder / "slide.jpg", quality=90), slide(PIXEL_UM), strict_picture
    ),
}
