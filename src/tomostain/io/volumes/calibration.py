"""What a TIFF's grey values mean: the straight line and unit that ImageJ (Fiji) or GDAL state in its metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from tomostain.images.image import Calibrated, LazyArray
from tomostain.io.units import number_of
from tomostain.io.volumes.headers import VolumeError

_GDAL_METADATA = 42112
_STRAIGHT_LINE, _NONE, _CUSTOM = 0, 20, 22
_FUNCTIONS = (
    "straight line", "2nd degree polynomial", "3rd degree polynomial", "4th degree polynomial", "exponential", "power",
    "log", "Rodbard", "gamma variate", "y = a+b*ln(x-c)", "Rodbard (NIH Image)", "exponential with offset", "Gaussian",
    "exponential recovery",
)  # fmt: skip
"""ImageJ's calibration functions, in the order of their numbers (ij.measure.Calibration)."""
_SIGN = 32768
"""ImageJ keeps signed 16-bit values as unsigned ones, greater by this, and undoes it by the straight line c0 + c1 x."""
_UNSAID = ("gray value", "grey value")
"""What ImageJ writes as the unit where there is none."""


@dataclass(frozen=True)
class Calibration:
    """Value = ``slope`` x stored value + ``intercept``, in ``units`` where they are stated."""

    slope: float = 1.0
    intercept: float = 0.0
    units: str | None = None

    def of(self, array: LazyArray) -> LazyArray:
        """An array of stored values, seen in calibrated ones."""
        plain = (self.slope, self.intercept) == (1.0, 0.0)
        return array if plain else Calibrated(array, self.slope, self.intercept)

    def words(self) -> dict[str, str]:
        """What a Volume says about its values."""
        return {"units": self.units} if self.units else {}


AS_STORED = Calibration()


def calibration_of(tiff: Any, page: Any, name: str) -> Calibration:
    """What ImageJ's description or GDAL's metadata say of the values of a TIFF; as stored where they say nothing.

    Raises
    ------
    VolumeError
        ImageJ's calibration is not a straight line, or one that has no slope.
    """
    about: dict[str, Any] = tiff.imagej_metadata or {}
    if about:
        return _of_imagej(about, np.dtype(page.dtype), name)
    return _of_gdal(page.tags.valueof(_GDAL_METADATA), name)


def _of_imagej(about: dict[str, Any], dtype: np.dtype[Any], name: str) -> Calibration:
    units = str(about.get("vunit", "")).strip()
    found = Calibration(units=None if units.lower() in ("", *_UNSAID) else units)
    if dtype.kind == "f" or "cf" not in about:
        return found  # ImageJ, too, leaves 32-bit values as they are
    function = number_of(about["cf"])
    if function == _NONE or (function == _STRAIGHT_LINE and "c0" not in about):
        return found
    if function != _STRAIGHT_LINE or str(about.get("zeroclip", "")).lower() == "true":
        kind = f"number {about['cf']}"
        if function is not None and function == int(function) and 0 <= function < len(_FUNCTIONS):
            kind = _FUNCTIONS[int(function)] + (", clipped at zero" if function == _STRAIGHT_LINE else "")
        raise VolumeError(
            f"{name} is calibrated in ImageJ by a function that is not read here ({kind}); in Fiji, apply it with "
            "Image > Type > 32-bit, or drop it with Analyze > Calibrate > None, and save the stack again"
        )
    intercept, slope = number_of(about["c0"]), number_of(about.get("c1", ""))
    if intercept is None or not slope:
        raise VolumeError(
            f"{name} is calibrated in ImageJ by c0 = {about['c0']}, c1 = {about.get('c1')}, which is not a "
            "straight line; in Fiji, drop it with Analyze > Calibrate > None and save the stack again"
        )
    if dtype == np.int16:  # stored with its sign, but calibrated as ImageJ shows it in memory
        intercept += slope * _SIGN
    return Calibration(slope, intercept, found.units)


def _of_gdal(xml: Any, name: str) -> Calibration:
    """``<Item name="SCALE" role="scale">`` and ``OFFSET`` of GDAL's metadata."""
    if not isinstance(xml, str) or "<Item" not in xml:
        return Calibration()
    try:
        items = ElementTree.fromstring(xml.strip("\0 \n"))
    except ElementTree.ParseError as error:
        raise VolumeError(f"{name} has broken GDAL metadata ({error}); export it again") from None
    found = {item.get("role", ""): item.text for item in items.iter("Item")}
    slope, intercept = number_of(found.get("scale", "1")), number_of(found.get("offset", "0"))
    if not slope or intercept is None:
        raise VolumeError(
            f"{name} states a scale of {found.get('scale', '1')} and an offset of {found.get('offset', '0')} "
            "(GDAL metadata), which is not a straight line; export it again"
        )
    return Calibration(slope, intercept, found.get("unittype"))
