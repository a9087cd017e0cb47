"""OME-XML as slides and volumes read it: its elements, and the size of a pixel in any of OME's units of length."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from tomostain.io.units import number_of, um_per_symbol


def root_of(xml: str | None) -> Any:
    """The root element.

    Raises
    ------
    ValueError
        It is no XML; the message says where.
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
