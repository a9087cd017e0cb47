"""Slides in TIFF: plain or tiled, pyramids of pages or of SubIFDs, Aperio SVS, OME-TIFF; 8-bit RGB by the window."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from tomostain.images.simulated import SIMULATED
from tomostain.io.contained import pixel_size, planes
from tomostain.io.first_bytes import too_deep
from tomostain.io.orientation import ORIENTATION_TAG
from tomostain.io.tiff_window import segment_shape, window_of

MOST_PAGES = 256
MOST_SEGMENT_BYTES = 2**29
_GREY, _RGB, _YCBCR, _JPEG_FAMILY = 1, 2, 6, (6, 7, 22610, 33003, 33005, 34712, 34892, 50001, 50002)
_COLOURED = (_RGB, 5, _YCBCR, 8, 9, 10)
"""RGB, CMYK, YCbCr and the forms of Lab: refused or not, a picture in colours."""
_OTHERS_TIFF = {"Philips": "Philips", "MedScan": "Trestle", "leica-microsystems.com/scn": "Leica", "iScan": "Ventana"}
"""Words in the software, description or XMP of makers whose TIFFs need OpenSlide: tiles that overlap, padded levels."""
_NDPI_TAG, _XMP_TAG = 65420, 700
_NEEDED = {256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 282, 283, 284, 296, 317, 322, 323, 324, 325, 338, 339}
_NEEDED |= {330, 347, 530, 532, 32997, 34675}
"""Tags that say how pixels lie and what they mean."""
_OFFSET_TAGS, _COUNT_TAGS = {273, 324}, {279, 325}


class TiffSlide:
    """The finest image of a TIFF and the pages that show the same at lower resolution."""

    def __init__(self, path: str) -> None:
        self._tiff = tifffile.TiffFile(path)
        first: Any = self._tiff.pages.first
        description = str(first.description or "")
        maker = _maker(first, description)
        if maker:
            if first.is_tiled:
                _check_pieces(first)  # OpenSlide shows tiles that no table lists as background
            self.about: dict[str, Any] = {"maker": maker}
            return
        self.orientation, self.icc = first.tags.valueof(ORIENTATION_TAG, default=1), first.iccprofile
        further = self._further(first)
        self._levels = self._planes(description) or [(page,) for page in (first, *_coarser(first, further))]
        for page in self._levels[0]:
            _check(page)
        shapes = [(int(pages[0].imagelength), int(pages[0].imagewidth)) for pages in self._levels]
        alike = _alike(first, further)
        if len(self._levels[0]) * int(first.samplesperpixel) == 1 and alike:
            raise ValueError(
                f"it holds {alike + 1} grey planes of one size; a slide is one picture: save it as RGB, or name three "
                "planes of an OME-TIFF Red, Green and Blue"
            )
        used = {page.index for pages in self._levels for page in pages}
        others = min(len(self._tiff.pages), MOST_PAGES) - len(used & set(range(len(self._tiff.pages))))
        notes = []
        if len(self._levels[0]) == 3:
            notes.append("its red, green and blue are three grey planes of these names")
        if others > 0 and not description.startswith("Aperio"):
            notes.append(f"{others} further page(s) are left out")
        self.about = {
            "format": self._format(description),
            "levels": [[*shape, *_downsample(shapes[0], shape)] for shape in shapes],
            "pixels_um": [s for s in _statements(first, self._tiff, description) if s],
            "grey": len(self._levels[0]) * int(first.samplesperpixel) == 1,
            "notes": notes,
            "simulated": SIMULATED if SIMULATED in description else None,
            "warnings": [d for d in [pixel_size.warning_of_ome(description, shapes[0])] if d]
            if self._tiff.is_ome
            else [],
        }

    def read(self, level: int, window: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
        """A window of one level, alpha composed on white; what the scanner left out is white."""
        read = [self._read(page, window) for page in self._levels[level]]
        return read[0] if len(read) == 1 else np.concatenate([plane[..., :1] for plane in read], axis=2)

    def _read(self, page: Any, window: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
        """A window of one page as RGB, grey as three equal colours."""
        top, bottom, left, right = window
        if page.is_memmappable and not page.is_tiled and page.planarconfig == 1:
            shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
            rows = self._tiff.filehandle.memmap_array(page.dtype, shape, offset=page.dataoffsets[0])
            values = np.array(rows[top:bottom, left:right])
        else:
            values = window_of(page, (top, bottom), (left, right), missing=255)
        return np.repeat(values, 3, axis=2) if page.samplesperpixel == 1 else _opaque(values, _alpha(page))

    def _planes(self, description: str) -> list[tuple[Any, ...]] | None:
        """Pages of red, green and blue, level by level, where colours are stored as three grey planes named so."""
        tiff = self._tiff
        order = planes.ome_planes(description) if tiff.is_ome else planes.imagej_planes(tiff.imagej_metadata)
        if order is None or max(order) >= min(len(tiff.pages), MOST_PAGES):
            return None
        tiff.pages.useframes = False
        found: list[Any] = [tiff.pages[i] for i in order]
        shape = (found[0].imagelength, found[0].imagewidth)
        if any((p.imagelength, p.imagewidth, p.samplesperpixel) != (*shape, 1) for p in found):
            return None
        finer = [_coarser(page, list(page.pages[:MOST_PAGES]) if page.pages else []) for page in found]
        coarser = [
            pages
            for pages in zip(*finer, strict=False)
            if len({(page.imagelength, page.imagewidth) for page in pages}) == 1
        ]
        return [tuple(found), *coarser]

    def _further(self, first: Any) -> list[Any]:
        """SubIFDs of the first page, and the pages after it."""
        pages = self._tiff.pages
        pages.useframes = False
        found: list[Any] = list(first.pages[:MOST_PAGES]) if first.pages else []
        for i in range(1, min(len(pages), MOST_PAGES)):
            found.append(pages[i])
        return found

    def _format(self, description: str) -> str:
        if description.startswith("Aperio"):
            return "Aperio SVS"
        if self._tiff.is_ome:
            return "OME-TIFF"
        tiled = "tiled TIFF" if self._levels[0][0].is_tiled else "TIFF"
        return f"pyramidal {tiled}" if len(self._levels) > 1 else tiled


class TiffKind:
    """Whether a TIFF is one coloured picture, readable or not, and so a slide and no volume."""

    def __init__(self, path: str) -> None:
        with tifffile.TiffFile(path) as tiff:
            first: Any = tiff.pages.first
            description = str(first.description or "")
            planar = tiff.is_ome and planes.has_three_planes(description)
            planar = planar or planes.imagej_planes(tiff.imagej_metadata) is not None
            coloured = first.photometric in _COLOURED or first.samplesperpixel in (3, 4)
            further = [tiff.pages[i] for i in range(1, min(len(tiff.pages), MOST_PAGES))]
            one_picture = coloured and not _alike(first, further)
            self.about: dict[str, Any] = {"slide": bool(planar or one_picture or _maker(first, description))}

    def read(self, level: int, window: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
        raise ValueError("it was only inspected")


def _alike(first: Any, further: list[Any]) -> int:
    """How many further pages have the size of the first."""
    shape = (first.imagelength, first.imagewidth)
    return sum((page.imagelength, page.imagewidth) == shape for page in further)


def _coarser(first: Any, further: list[Any]) -> list[Any]:
    """The pages among ``further`` that show the first one smaller, finest first."""
    shape, kept = (first.imagelength, first.imagewidth), []
    for page in further:
        alike = (page.is_tiled, page.samplesperpixel, page.dtype, page.photometric) == (
            first.is_tiled,
            first.samplesperpixel,
            first.dtype,
            first.photometric,
        )
        if alike and page.imagewidth < first.imagewidth and _is_reduced(shape, (page.imagelength, page.imagewidth)):
            _check(page)
            kept.append(page)
    kept.sort(key=lambda page: -int(page.imagewidth))
    return kept


def _maker(page: Any, description: str) -> str | None:
    """The scanner's maker, where only OpenSlide knows how its tiles lie."""
    if _NDPI_TAG in page.tags:
        return "Hamamatsu"
    xmp = page.tags.valueof(_XMP_TAG, default=b"")
    words = f"{page.software} {description} {xmp.decode(errors='ignore') if isinstance(xmp, bytes) else xmp}"
    return next((maker for word, maker in _OTHERS_TIFF.items() if word in words), None)


def _check(page: Any) -> None:
    """Refuse what is not 8-bit RGB or grey, and sizes that do not match the file's own tables."""
    _check_tags(page)
    rows, columns, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    bits = int(np.max(page.bitspersample))
    subsampled = page.photometric == _YCBCR and page.compression not in _JPEG_FAMILY
    if page.photometric not in (_GREY, _RGB, _YCBCR) or subsampled:
        kind = getattr(page.photometric, "name", str(page.photometric)).lower()
        raise ValueError(f"its colours are {kind}, a slide is RGB; save it as RGB")
    if bits != 8 or page.dtype != np.uint8:
        raise ValueError(too_deep(bits))
    if samples not in ((1,) if page.photometric == _GREY else (3, 4)):
        raise ValueError(f"it has {samples} samples a pixel; a slide has three colours")
    if min(rows, columns) < 1 or int(page.imagedepth) != 1:
        raise ValueError(f"it is {rows} x {columns} x {page.imagedepth} px large, which is not an image")
    _check_pieces(page)
    height, width = segment_shape(page)
    if not page.is_memmappable and min(height, rows) * width * samples > MOST_SEGMENT_BYTES:
        raise ValueError("it is compressed as one block too large to be read in part; save it tiled")


def _check_tags(page: Any) -> None:
    """Refuse a page of which tifffile could not read a tag that matters: it continues with a default."""
    tiff, file = page.parent, page.parent.filehandle
    count, entry, order = (8, 20, tiff.byteorder) if tiff.is_bigtiff else (2, 12, tiff.byteorder)
    with file.lock:
        file.seek(page.offset)
        entries = int.from_bytes(file.read(count), "little" if order == "<" else "big")
        raw = file.read(entries * entry)
    stored = {int(code) for code in np.ndarray(len(raw) // entry, f"{order}u2", raw, strides=(entry,))}
    unread = (stored & _NEEDED) - {int(tag.code) for tag in page.tags}
    if unread:
        raise ValueError(f"its TIFF tag {min(unread)} cannot be read; the file is damaged, copy it again")


def _check_pieces(page: Any) -> None:
    """Refuse a size that does not match the tables of tiles or strips, and pieces beyond the file's end."""
    rows, columns, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    if page.planarconfig not in (1, 2):
        raise ValueError(
            f"its samples lie in the order {page.planarconfig!r}, which does not exist; the file is damaged"
        )
    height, width = segment_shape(page)
    if min(height, width) < 1:
        raise ValueError("its tiles have size zero")
    separate = samples if page.planarconfig == 2 else 1
    expected = separate * math.ceil(rows / height) * math.ceil(columns / width)
    # tifffile cuts its lists to what the size takes
    listed = {len(page.dataoffsets), len(page.databytecounts)} | {
        int(page.tags[code].count) for code in (_OFFSET_TAGS | _COUNT_TAGS) if code in page.tags
    }
    if listed != {expected}:
        found = max(listed - {expected})
        raise ValueError(
            f"it states a size of {rows} x {columns} px but lists {found} tiles or strips where {expected} are needed"
        )
    ends = np.asarray(page.dataoffsets, dtype=np.float64) + np.asarray(page.databytecounts, dtype=np.float64)
    if ends.max(initial=0) > page.parent.filehandle.size:
        raise ValueError("it is cut off: it ends before its pixels do; copy it again")


def _statements(page: Any, tiff: Any, description: str) -> list[pixel_size.Statement | None]:
    y, x = (_ratio(page.tags.valueof(tag)) for tag in ("YResolution", "XResolution"))
    unit = page.tags.valueof("ResolutionUnit", default=1)
    return [
        pixel_size.of_ome(description, (page.imagelength, page.imagewidth)) if tiff.is_ome else None,
        pixel_size.of_aperio(description),
        pixel_size.of_imagej(description, y, x),
        pixel_size.of_tags(int(unit), y, x),
    ]


def _ratio(value: Any) -> float:
    try:
        numerator, denominator = value
        return float(numerator) / float(denominator) if denominator else 0.0
    except (TypeError, ValueError):
        return 0.0


def _alpha(page: Any) -> int:
    """TIFF 6.0 ExtraSamples of the fourth sample: 0 none, 1 premultiplied alpha, 2 alpha."""
    extra = tuple(page.extrasamples or ())
    return int(extra[0]) if page.samplesperpixel == 4 and extra else 0


def _opaque(values: npt.NDArray[np.uint8], alpha: int) -> npt.NDArray[np.uint8]:
    if not alpha:
        return values[..., :3]
    share = values[..., 3:].astype(np.float32) / 255
    colour = values[..., :3] * (share if alpha == 2 else 1.0)
    return np.floor(np.clip(colour + 255 * (1 - share), 0, 255) + 0.5).astype(np.uint8)


def _is_reduced(full: tuple[int, int], small: tuple[int, int]) -> bool:
    """Whether an image of this shape can be the other one at lower resolution: one factor, up to a pixel's rounding."""
    factor = full[1] / small[1]
    return abs(full[0] / factor - small[0]) <= 1 + small[0] / small[1]


def _downsample(full: tuple[int, int], small: tuple[int, int]) -> list[float]:
    """Slide pixels per level pixel (y, x): whole where the level's size is a whole fraction, rounded either way."""
    whole = round(full[1] / small[1])
    if all(abs(n / whole - m) < 1 for n, m in zip(full, small, strict=True)):
        return [float(whole)] * 2
    return [n / m for n, m in zip(full, small, strict=True)]
