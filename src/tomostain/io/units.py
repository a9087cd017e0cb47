"""Lengths and numbers as files write them: one table of units, one parser of decimal numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tomostain._settings import PIXEL_UM

UM_PER_INCH, UM_PER_CM, UM_PER_MM = 25400.0, 1e4, 1e3

PLAUSIBLE_VOXEL_UM = (PIXEL_UM.low, PIXEL_UM.high)
"""Edges of voxels outside this, 1 nm to 2 cm, are slips of a unit."""
PLAUSIBLE_PIXEL_UM = (0.05, 100.0)
"""Edges of a slide's pixels outside this in a file are slips of a unit."""

_PREFIXES = {
    "Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1, "": 0, "d": -1, "c": -2,
    "m": -3, "u": -6, "µ": -6, "μ": -6, "n": -9, "p": -12, "f": -15, "a": -18, "z": -21, "y": -24,
}  # fmt: skip
UM_PER_SYMBOL: Mapping[str, float] = MappingProxyType(
    {f"{prefix}m": float(f"1e{power + 6}") for prefix, power in _PREFIXES.items()}
    | {
        "Å": 1e-4,
        "thou": UM_PER_INCH / 1000,
        "li": UM_PER_INCH / 12,
        "in": UM_PER_INCH,
        "ft": 12 * UM_PER_INCH,
        "yd": 36 * UM_PER_INCH,
        "mi": 63360 * UM_PER_INCH,
        "pt": UM_PER_INCH / 72,
        "ua": 149597870700e6,
        "ly": 9460730472580800e6,
        "pc": 3.0856775814913673e22,
    }
)
"""Micrometres in the symbols of OME's UnitsLength (schema 2016-06), where capitals count: Mm is not mm."""

_SAME = ("pm", "nm", "mm", "cm", "dm", "m", "in", "ft", "yd", "thou", "li", "pt")
_SYMBOL_OF = {
    "angstrom": "Å", "ångström": "Å", "å": "Å", "a": "Å", "picometer": "pm", "nanometer": "nm", "micrometer": "um",
    "micron": "um", "um": "um", "µm": "um", "μm": "um", "millimeter": "mm", "centimeter": "cm", "decimeter": "dm",
    "meter": "m", "inch": "in", "inche": "in", "foot": "ft", "feet": "ft", "yard": "yd", "mil": "thou", "point": "pt",
}  # fmt: skip
_SYMBOL_OF |= dict(zip(_SAME, _SAME, strict=True))
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d{1,3})?")


def um_per(unit: Any) -> float | None:
    """Micrometres in one of a unit, named in full or in short, singular or plural, in any case; None if unknown.

    >>> um_per("Microns"), um_per("mm"), um_per("pixel")
    (1.0, 1000.0, None)
    """
    if isinstance(unit, bytes):
        unit = unit.decode("utf-8", "replace")
    word = str(unit).strip().strip('"').replace("\\u00b5", "µ").replace("\\u00B5", "µ").lower().rstrip(".")
    word = re.sub(r"metre(s?)$", r"meter\1", word.replace("âµ", "µ"))  # UTF-8 read as Latin-1
    symbol = _SYMBOL_OF.get(word) or _SYMBOL_OF.get(word.removesuffix("s"))
    return UM_PER_SYMBOL[symbol] if symbol else None


def um_per_symbol(unit: str) -> float | None:
    """Micrometres in one of OME's symbols of length; where it is none of them, in what the word usually means.

    >>> um_per_symbol("Mm"), um_per_symbol("micron"), um_per_symbol("reference frame")
    (1000000000000.0, 1.0, None)
    """
    return UM_PER_SYMBOL.get(unit) or um_per(unit)


def is_length(um: float, *, within: tuple[float, float] = (0.0, math.inf)) -> bool:
    """Whether a number that was read or typed is a length: positive, finite, and within these bounds.

    >>> is_length(0.5), is_length(0.0), is_length(math.nan), is_length(200.0, within=(0.05, 100.0))
    (True, False, False, False)
    """
    return math.isfinite(um) and um > 0 and within[0] <= um <= within[1]


def number_of(text: Any) -> float | None:
    """The finite number that a text header states, its decimal sign a point or a comma; None if it is not one number.

    Programs that follow the system's language write ``1,996``. A text with both signs, or with one of them twice
    (thousands), is ambiguous and not read.

    >>> number_of("1,996"), number_of("2.5e-3"), number_of("1,234.5")
    (1.996, 0.0025, None)
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if isinstance(text, str):
        match = _NUMBER.fullmatch(text.strip()) if len(text) < 100 else None
        value = float(match[0].replace(",", ".")) if match else math.nan
    else:
        try:
            value = float(text)
        except (TypeError, ValueError, OverflowError):
            return None
    return value if math.isfinite(value) else None
