"""OME-XML: which page of a TIFF is which plane, and the voxel size in any of OME's units of length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from tomostain.io.units import number_of, um_per_symbol
from tomostain.io.volumes.headers import VolumeError


@dataclass(frozen=True)
class OmePlanes:
    """The pages of an OME-TIFF in the order of z, and its voxel size (z, y, x) in um where it states one."""

    order: tuple[int, ...]
    spacing_um: tuple[float, float, float] | None


def planes_of(xml: str | None, name: str, pages: int, samples: int = 1) -> OmePlanes:
    """Which pages, of so many samples a pixel, are the planes of an OME-TIFF's image.

    Raises
    ------
    VolumeError
        The metadata is broken, or tells of several images, channels, time points or files, or of pages that are not
        there.
    """
    try:
        root = ElementTree.fromstring(xml or "")
    except ElementTree.ParseError as error:
        raise VolumeError(f"{name} has broken OME metadata ({error}); export it again") from None
    elsewhere = next((e.get("MetadataFile") for e in root.iter() if _tag(e) == "BinaryOnly"), None)
    if elsewhere is not None:
        raise VolumeError(f"{name} is one file of several, described in {elsewhere}; export the volume as one file")
    images = [element for element in root if _tag(element) == "Image"]
    if len(images) != 1:
        raise VolumeError(f"{name} holds {len(images)} images; export the one to be read as a file of its own")
    pixels = next((element for element in images[0] if _tag(element) == "Pixels"), None)
    if pixels is None:
        raise VolumeError(f"{name} has broken OME metadata: no pixels are described; export it again")
    sizes = {axis: _whole(pixels.get(f"Size{axis}"), name) for axis in "ZCT"}
    if sizes["C"] > samples or sizes["T"] > 1:
        raise VolumeError(
            f"{name} holds {sizes['C']} channels and {sizes['T']} time points; export the one to be read as a file of "
            "its own"
        )
    if sizes["Z"] > pages:
        raise VolumeError(
            f"{name} declares {sizes['Z']} planes but holds {pages} pages; it is truncated, or one of several"
        )
    return OmePlanes(_order(pixels, sizes["Z"], pages, name), _spacing(pixels))


def _order(pixels: Any, depth: int, pages: int, name: str) -> tuple[int, ...]:
    order: dict[int, int] = {}
    blocks = [element for element in pixels if _tag(element) == "TiffData"]
    files = {u.get("FileName") for block in blocks for u in block if _tag(u) == "UUID" and u.get("FileName")}
    if len(files) > 1:
        raise VolumeError(f"{name} is one file of several ({', '.join(sorted(files)[:3])}, ...); export it as one file")
    for block in blocks:
        start, first = _whole(block.get("IFD", "0"), name, 0), _whole(block.get("FirstZ", "0"), name, 0)
        count = _whole(block.get("PlaneCount", "1" if "IFD" in block.attrib else str(depth)), name, 0)
        for i in range(min(count, depth)):
            order[first + i] = start + i
    if not blocks:
        order = {z: z for z in range(depth)}
    if sorted(order) != list(range(depth)) or max(order.values()) >= pages:
        raise VolumeError(f"{name} does not say where each of its {depth} planes is; export it again")
    return tuple(order[z] for z in range(depth))


def _spacing(pixels: Any) -> tuple[float, float, float] | None:
    edges = []
    for axis in "ZYX":
        edge = number_of(pixels.get(f"PhysicalSize{axis}"))
        unit = um_per_symbol(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        if edge is None or unit is None:
            return None
        edges.append(edge * unit)
    z, y, x = edges
    return (z, y, x) if all(math.isfinite(edge) and edge > 0 for edge in edges) else None


def _whole(text: str | None, name: str, least: int = 1) -> int:
    if text is None or not text.strip().isdigit() or len(text) > 12 or int(text) < least:
        raise VolumeError(f"{name} has broken OME metadata: {text!r} is no number of planes; export it again")
    return int(text)


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]
