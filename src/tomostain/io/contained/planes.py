"""Colours stored as three grey planes: which pages of a TIFF are red, green and blue by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tomostain.io.ome_xml import named, pages_along, root_of

_NAMES = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2}
_COLOURS: dict[int | None, int] = {0xFF0000: 0, 0x00FF00: 1, 0x0000FF: 2}
_FLUORESCENCE = ("Fluor", "EmissionWavelength", "ExcitationWavelength")
"""Attributes of an OME channel that no plane of a brightfield image has."""


def ome_planes(xml: str) -> tuple[int, int, int] | None:
    """Pages of red, green and blue of an OME-TIFF with three channels of one sample, None where it does not name them.

    A channel is known by its ``Name``; where no channel has one, by its ``Color``.
    """
    pixels = _only_pixels(xml)
    if pixels is None or [pixels.get(f"Size{axis}", "1") for axis in "ZCT"] != ["1", "3", "1"]:
        return None
    channels = named(pixels, "Channel")
    if len(channels) != 3 or any(one.get("SamplesPerPixel", "1") != "1" for one in channels):
        return None
    if any(word in one.attrib for one in channels for word in _FLUORESCENCE):
        return None
    names = [one.get("Name", "") for one in channels]
    order = _order([_colour(name) for name in names])
    if order is None and not any(re.sub(r"(?i)channel|ch|[\W_\dc]", "", name) for name in names):
        order = _order([_COLOURS.get(_packed(one.get("Color"))) for one in channels])
    if order is None:
        return None
    try:
        pages = pages_along(pixels, "C", 3)
    except ValueError:
        return None
    red, green, blue = (pages[channel] for channel in order)
    return red, green, blue


def imagej_planes(about: dict[str, Any] | None) -> tuple[int, int, int] | None:
    """Pages of red, green and blue of an ImageJ stack whose slices are labelled so (Image > Type > RGB Stack)."""
    labels = (about or {}).get("Labels")
    if not isinstance(labels, list) or len(labels) != 3:
        return None
    return _order([_colour(str(label)) for label in labels])


def has_three_planes(xml: str) -> bool:
    """Whether an OME-XML describes one image of three channels and nothing more: probably colours."""
    pixels = _only_pixels(xml)
    return pixels is not None and [pixels.get(f"Size{axis}", "1") for axis in "ZCT"] == ["1", "3", "1"]


def _only_pixels(xml: str) -> Any:
    """The Pixels element of an OME-XML's first image (others are labels, thumbnails and levels)."""
    try:
        return next(iter(named(root_of(xml), "Pixels", below=True)), None)
    except ValueError:
        return None


def _colour(name: str) -> int | None:
    """Which of the three a name means, if it names one: ``Red``, ``B``, ``Channel:0:1 green``."""
    found = {_NAMES[word] for word in re.split(r"[\W_\d]+", name.lower()) if word in _NAMES}
    return found.pop() if len(found) == 1 else None


def _order(colours: Sequence[int | None]) -> tuple[int, int, int] | None:
    """The places of red, green and blue, where each is there once."""
    if sorted(-1 if colour is None else colour for colour in colours) != [0, 1, 2]:
        return None
    return colours.index(0), colours.index(1), colours.index(2)


def _packed(text: str | None) -> int | None:
    """A Color, red, green, blue and alpha in one signed number of 32 bits, without its alpha."""
    return (int(text) >> 8) & 0xFFFFFF if text and re.fullmatch(r"-?\d{1,10}", text.strip(), re.ASCII) else None
