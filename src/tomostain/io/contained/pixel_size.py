"""Pixel size of slides as files state it: TIFF tags, ImageJ, OME, Aperio, PNG and JPEG density.

A statement is ``(y, x, from)``: edge lengths in um, and the field of the file that states them.
"""

from __future__ import annotations

import math
import re
from typing import Any

from tomostain.io.ome_xml import edge_um, named, root_of
from tomostain.io.units import UM_PER_CM, UM_PER_INCH, number_of, um_per

Statement = tuple[float, float, str]

SCREEN_DPI = (72.0, 96.0, 150.0, 300.0)
"""Densities that programs write by default; they are not those of a microscope."""


def of_ome(xml: str, shape: tuple[int, int]) -> Statement | None:
    """PhysicalSizeY and X of the image of this shape (else of the first) in OME-XML, None where it states none."""
    found = _pixels(xml)
    fitting = [about for about in found if (about.get("SizeY"), about.get("SizeX")) == (str(shape[0]), str(shape[1]))]
    for about in fitting or found[:1]:
        y, x = edge_um(about, "Y"), edge_um(about, "X")
        if "PhysicalSizeY" not in about.attrib:
            y = x
        return _statement(y or 0.0, x or 0.0, "OME PhysicalSizeX and Y")
    return None


def _pixels(xml: str) -> list[Any]:
    try:
        return named(root_of(xml), "Pixels", below=True)
    except ValueError:
        return []


def warning_of_ome(xml: str, shape: tuple[int, int]) -> str | None:
    """A warning if no image of an OME-XML has the size of the page that is read."""
    found = _pixels(xml)
    stated = [(about.get("SizeY", ""), about.get("SizeX", "")) for about in found]
    if not stated or (str(shape[0]), str(shape[1])) in stated:
        return None
    return f"states in its OME-XML that it is {' x '.join(stated[0])} px, but its page is {shape[0]} x {shape[1]}"


def of_aperio(description: str) -> Statement | None:
    """MPP in Aperio's image description, ``|MPP = 0.4990|``."""
    found = re.search(r"\bMPP\s*=\s*([^|\s]+)", description)
    edge = (number_of(found.group(1)) or 0.0) if found else 0.0
    return _statement(edge, edge, "aperio.MPP")


def of_imagej(description: str, y: float, x: float) -> Statement | None:
    """ImageJ's ``unit=`` beside the resolution tags, which then count pixels per that unit."""
    found = re.search(r"^unit=(.+)$", description, flags=re.MULTILINE)
    if not description.startswith("ImageJ=") or not found or not (y > 0 and x > 0):
        return None
    unit = um_per(found.group(1))
    return _statement(unit / y, unit / x, f"ImageJ unit {found.group(1).strip()} and resolution") if unit else None


def of_tags(unit: int, y: float, x: float) -> Statement | None:
    """TIFF resolution tags: pixels per inch (2) or centimetre (3); without a unit they are only a shape."""
    um = {2: UM_PER_INCH, 3: UM_PER_CM}.get(unit)
    if um is None or not (y > 0 and x > 0):
        return None
    return _statement(um / y, um / x, "TIFF resolution tags")


def of_density(per_inch: tuple[float, float] | None, what: str) -> Statement | None:
    """Dots per inch (y, x) of a PNG (pHYs) or a JPEG (JFIF)."""
    if per_inch is None or not min(per_inch) > 0:
        return None
    return _statement(UM_PER_INCH / per_inch[0], UM_PER_INCH / per_inch[1], what)


def screen_dpi(statement: Statement) -> float | None:
    """The density in dots per inch, where it is one that programs write unasked."""
    for density in SCREEN_DPI:
        if all(abs(UM_PER_INCH / edge - density) < 0.05 for edge in statement[:2]):
            return density
    return None


def _statement(y: float, x: float, source: str) -> Statement | None:
    return (y, x, source) if y > 0 and x > 0 and math.isfinite(y * x) else None
