"""Slides in Zeiss CZI through pylibCZIrw: the whole mosaic of the first channel, plane and time, finest level only."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from pylibCZIrw import czi

from tomostain.io.contained.pixel_size import Statement
from tomostain.io.units import number_of


class ZeissSlide:
    """A brightfield mosaic; what lies between its scenes is white."""

    orientation, icc = 1, None

    def __init__(self, path: str) -> None:
        self._file: Any = czi.CziReader(path)
        box = self._file.total_bounding_rectangle_no_pyramid
        kind = self._file.get_channel_pixel_type(0)
        if kind != "Bgr24":
            raise ValueError(f"its first channel is {kind}; a slide is 8-bit RGB (Bgr24): export it so")
        if min(box.w, box.h) < 1:
            raise ValueError(f"it is {box.h} x {box.w} px large, which is not an image")
        self._corner = (box.y, box.x)
        spans = self._file.total_bounding_box
        notes = [f"of {spans[axis][1]} along {axis} the first is taken" for axis in "CZT" if spans[axis][1] > 1]
        self.about = {
            "format": "Zeiss CZI",
            "levels": [[box.h, box.w, 1.0, 1.0]],
            "pixels_um": [s for s in [_scaling(self._file.raw_metadata)] if s],
            "notes": notes,
            "warnings": [text for text in [_warning(self._file.raw_metadata, (box.h, box.w))] if text],
        }

    def read(self, level: int, window: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
        """A window of the mosaic, RGB."""
        top, bottom, left, right = window
        roi = (self._corner[1] + left, self._corner[0] + top, right - left, bottom - top)
        values = self._file.read(roi=roi, pixel_type="Bgr24", background_pixel=(1.0, 1.0, 1.0))
        return np.asarray(values)[..., ::-1]


def _scaling(xml: str) -> Statement | None:
    """Metadata/Scaling/Items/Distance, in metres."""
    edges = {}
    for element in ElementTree.fromstring(xml).iter("Distance"):
        edges[element.get("Id")] = 1e6 * (number_of(element.findtext("Value")) or 0.0)
    y, x = edges.get("Y", 0.0), edges.get("X", 0.0)
    return (y, x, "CZI Scaling") if y > 0 and x > 0 else None


def _warning(xml: str, shape: tuple[int, int]) -> str | None:
    """A warning if the metadata state another size than the tiles of the mosaic cover."""
    image = ElementTree.fromstring(xml).find("./Metadata/Information/Image")
    if image is None:
        return None
    stated = tuple(int(image.findtext(f"Size{axis}") or n) for axis, n in zip("YX", shape, strict=True))
    if stated == shape:
        return None
    return (
        f"states a size of {stated[0]} x {stated[1]} px, but its tiles cover {shape[0]} x {shape[1]}; is it complete?"
    )
