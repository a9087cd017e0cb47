"""OME-XML as slides and volumes read it: its elements, and the size of a pixel in any of OME's units of length."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from tomostain.io.units import number_of, um_per_symbol


def root_of(xml: str | None) -> Any:
    """The root element.

    Raises
    ------
    ValueError
        It is not XML; the message says where.
    """
    try:
        return ElementTree.fromstring(xml or "")
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None


def named(parent: Any, name: str, *, below: bool = False) -> list[Any]:
    """The elements of a name directly in another, or anywhere below it; whatever their namespace is."""
    return [element for element in (parent.iter() if below else parent) if element.tag.rpartition("}")[2] == name]


def edge_um(pixels: Any, axis: str) -> float | None:
    """PhysicalSizeX, Y or Z of a Pixels element in um, where it is a positive length (without a unit it is in um)."""
    number = number_of(pixels.get(f"PhysicalSize{axis}"))
    unit = um_per_symbol(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    return number * unit if number and unit and number > 0 else None


def whole_number(text: str | None, least: int = 1) -> int:
    """A number of planes, channels or pages.

    Raises
    ------
    ValueError
        It is none, or smaller than ``least``.
    """
    if text is None or not re.fullmatch(r"\s*\d{1,12}\s*", text, re.ASCII) or int(text) < least:
        raise ValueError(f"has broken OME metadata: {text!r} is not a number of planes; export it again")
    return int(text)


def pages_along(pixels: Any, axis: str, count: int) -> tuple[int, ...]:
    """The page of each of ``count`` planes along Z or C, by a Pixels element's TiffData; in order where it has none.

    Raises
    ------
    ValueError
        They lie in several files, or their places are not stated.
    """
    blocks = named(pixels, "TiffData")
    files = {u.get("FileName") for block in blocks for u in named(block, "UUID") if u.get("FileName")}
    if len(files) > 1:
        raise ValueError(f"is one file of several ({', '.join(sorted(files)[:3])}, ...); export it as one file")
    found = {} if blocks else {plane: plane for plane in range(count)}
    for block in blocks:
        page, first = whole_number(block.get("IFD", "0"), 0), whole_number(block.get(f"First{axis}", "0"), 0)
        planes = whole_number(block.get("PlaneCount", "1" if "IFD" in block.attrib else str(count)), 0)
        found.update({first + i: page + i for i in range(min(planes, count))})
    if sorted(found) != list(range(count)):
        raise ValueError(f"does not say where each of its {count} planes is; export it again")
    return tuple(found[plane] for plane in range(count))
