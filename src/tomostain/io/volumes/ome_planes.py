"""Which page of an OME-TIFF is which plane of its volume, and the voxel size, by its OME-XML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tomostain.io.ome_xml import edge_um, named, pages_along, root_of, whole_number
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
        The metadata is damaged, or describes several images, channels, time points or files, or of pages that are not
        there.
    """
    try:
        root = root_of(xml)
    except ValueError as error:
        raise VolumeError(f"{name} has broken OME metadata ({error}); export it again") from None
    elsewhere = next((e.get("MetadataFile") for e in named(root, "BinaryOnly", below=True)), None)
    if elsewhere is not None:
        raise VolumeError(f"{name} is one file of several, described in {elsewhere}; export the volume as one file")
    images = named(root, "Image")
    if len(images) != 1:
        raise VolumeError(f"{name} holds {len(images)} images; export the one to be read as a file of its own")
    pixels = next(iter(named(images[0], "Pixels")), None)
    if pixels is None:
        raise VolumeError(f"{name} has broken OME metadata: no pixels are described; export it again")
    try:
        return _planes(pixels, name, pages, samples)
    except VolumeError:
        raise
    except ValueError as error:
        raise VolumeError(f"{name} {error}") from None


def _planes(pixels: Any, name: str, pages: int, samples: int) -> OmePlanes:
    sizes = {axis: whole_number(pixels.get(f"Size{axis}")) for axis in "ZCT"}
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
    order = pages_along(pixels, "Z", depth)
    if max(order) >= pages:
        raise VolumeError(f"{name} does not say where each of its {depth} planes is; export it again")
    return order


def _spacing(pixels: Any) -> tuple[float, float, float] | None:
    z, y, x = (edge_um(pixels, axis) for axis in "ZYX")
    return None if z is None or y is None or x is None else (z, y, x)
