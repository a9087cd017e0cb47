"""Cut a stained section out of an anatomy: a Placement in, the light that passes through the section out.

A section is worked out on a fine raster of its plane first, in the volume's frame, layer by layer through it;
then slide pixel by slide pixel through the Placement, which therefore is the truth and not an estimate of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain.images.geometry import Grid, Placement, Plane, Vector
from tomostain.images.srgb import to_srgb
from tomostain.phantom.colours import Stain, densities, dye_share, seen, to_linear_density
from tomostain.phantom.recipe import Material
from tomostain.phantom.tissues import BONE, Tissue, is_any

Labels = npt.NDArray[np.uint8]
Linear = npt.NDArray[np.float32]
Light = npt.NDArray[np.float16]

_LAYER_UM = 4.0
"""Distance of the layers that are averaged through a section; less than a CT voxel, so that no steps are seen."""
_PIXELS_AT_ONCE = 1 << 20
_BLACK = 3.0
"""Density past which nothing is seen."""
_LAMELLA_CONTRAST = 0.32
"""Relative density between light and dark lamellae; 0.2-0.4 in the measured picture."""
_DYE_CONTRAST = 0.14
"""Relative density between well and badly dyed places of one tissue."""
_OPTICS_UM = 0.55
"""Gaussian width of the objective's image of a point; an aperture of 0.4 in green light."""
_GRAIN = (0.08, 0.05)
"""Spread of the density from grain to grain of the dye (about 1 um) and from fibre bundle to bundle (about 4 um)."""
_GRAIN_UM = (0.8, 3.0)
"""Gaussian widths of the two in um."""
_EMPTY_LACUNA = 0.35
"""Density in the middle of a lacuna that has lost its cell, over that of its wall."""
_RIM_UM = 5.0
"""Width of the dark rim of a bone surface."""

_OSTEOID_AND_BONE = BONE | {Tissue.OSTEOID}
_LAMELLATED = frozenset({Tissue.LAMELLAR, Tissue.CEMENT, Tissue.LACUNA})
_FINE = frozenset({Tissue.LACUNA, Tissue.CEMENT})
_OPEN = frozenset({Tissue.CANAL, Tissue.MARROW, Tissue.ADIPOCYTE, Tissue.VESSEL, Tissue.RESIN})
_CELLULAR = frozenset({Tissue.MARROW, Tissue.FIBROUS, Tissue.VESSEL, Tissue.CANAL, Tissue.WOVEN, Tissue.OSTEOID})


class Sectionable(Protocol):
    """What a section can be cut from."""

    def labels_on_plane(self, plane: Plane, offsets_um: Sequence[float], /) -> Labels:
        """Labels on parallel planes, ``offsets_um`` along the normal: (n, y, x) uint8."""
        ...

    def texture_on_plane(self, plane: Plane, /) -> Mapping[str, npt.NDArray[Any]]:
        """Texture finer than labels, each (y, x): lamella [0, 1], dye [-1, 1] float32, nuclei bool."""
        ...


@dataclass(frozen=True, eq=False)
class Section:
    """An undamaged, undeformed, nominally dyed section in the volume's frame.

    ``transmittance`` is linear light in [0, 1], (y, x, 3) float16, on ``fine``; each pixel of ``coarse`` is the block
    of ``factor`` x ``factor`` fine pixels around it.
    """

    coarse: Plane
    fine: Plane
    factor: int
    transmittance: Light

    def registered(self) -> npt.NDArray[np.uint8]:
        """The section area-averaged in linear light onto ``coarse``: (y, x, 3) uint8 sRGB, as a scanner sees it."""
        rows, columns = self.coarse.shape
        out = np.empty((rows, columns, 3), dtype=np.uint8)
        band = max(1, _PIXELS_AT_ONCE // (columns * self.factor**2))
        for start in range(0, rows, band):
            stop = min(start + band, rows)
            block = self.transmittance[start * self.factor : stop * self.factor].astype(np.float32)
            mean = block.reshape(stop - start, self.factor, columns, self.factor, 3).mean(axis=(1, 3))
            out[start:stop] = to_srgb(seen(mean))
        return out


def cut_section(
    anatomy: Sectionable,
    volume: Grid,
    placement: Placement,
    *,
    voxel_um: float,
    pixel_um: float,
    stain: Stain,
    material: Material,
    seed: Sequence[int] = (0,),
) -> Section:
    """Render the section of ``anatomy`` that ``placement`` shows; what lies outside ``volume`` is empty glass.

    The coarse raster is the placement's own at ``voxel_um`` with a margin of one voxel; the fine one divides it so that
    its pixels are about ``pixel_um`` wide. ``seed`` is that of the dye's grain. Memory: 6 bytes per fine pixel, and two
    bands of rows beyond that.
    """
    coarse = placement.plane(voxel_um, margin_um=voxel_um)
    factor = max(1, round(voxel_um / pixel_um))
    fine = finer(coarse, factor)
    light = np.empty((*fine.shape, 3), dtype=np.float16)
    pad = int(np.ceil(2 * _RIM_UM / fine.spacing_um))
    band = max(4 * pad, _PIXELS_AT_ONCE // fine.shape[1])

    def render(start: int) -> None:
        stop = min(start + band, fine.shape[0])
        top, bottom = max(start - pad, 0), min(stop + pad, fine.shape[0])
        strip = rows_of(fine, top, bottom)
        density = section_density(anatomy, strip, placement.thickness_um, stain, material)
        density *= _grain(np.random.default_rng([*seed, start]), strip)[..., None]
        density[~inside(volume, strip)] = 0.0
        passed = np.exp(density * np.float32(-np.log(10.0)))
        sigma = _OPTICS_UM / fine.spacing_um
        passed = ndimage.gaussian_filter(passed, (sigma, sigma, 0), mode="nearest", truncate=3.0)
        light[start:stop] = passed[start - top : stop - top]

    _in_bands(render, fine.shape[0], band)
    return Section(coarse, fine, factor, light)


def section_density(
    anatomy: Sectionable, plane: Plane, thickness_um: float, stain: Stain, material: Material
) -> Linear:
    """Optical density (log10 of linear light) of a nominally dyed section around ``plane``: (y, x, 3) float32.

    Beer-Lambert: densities add up through the layers. What is finer than a section belongs to the middle plane, on
    which the microscope is focused: there lacunae and cement lines show in full, lamellae and uneven dye scale the
    density, and nuclei and rims add to it.
    """
    offsets_um = layer_offsets(thickness_um)
    whole = densities(stain, material, thickness_um)
    table = whole / np.float32(len(offsets_um))
    labels = anatomy.labels_on_plane(plane, offsets_um)
    density = np.zeros((*plane.shape, 3), dtype=np.float32)
    for layer in labels:
        density += table[layer]
    middle = labels[len(offsets_um) // 2]
    texture = anatomy.texture_on_plane(plane)
    focused = is_any(middle, _FINE) & (density[..., 1] < _BLACK)
    density[focused] = whole[middle[focused]]
    nuclei = texture["nuclei"].astype(bool)
    hollow = _inner(middle == Tissue.LACUNA, 2.5, plane.spacing_um) & focused & ~nuclei
    density[hollow] *= np.float32(_EMPTY_LACUNA)
    scale = 1.0 + np.float32(_DYE_CONTRAST) * texture["dye"]
    waves = np.cos(texture["lamella"] * np.float32(2 * np.pi)) * is_any(middle, _LAMELLATED)
    scale -= np.float32(_LAMELLA_CONTRAST / 2) * waves
    density *= scale[..., None]
    dye = dye_share(thickness_um)
    bone = is_any(middle, _OSTEOID_AND_BONE)
    nuclei &= is_any(middle, _CELLULAR)
    density[nuclei] += (to_linear_density(stain.nucleus) * dye).astype(np.float32)
    rim = _rim(bone, is_any(middle, _OPEN), plane.spacing_um)
    density += rim[..., None] * (to_linear_density(stain.rim) * dye).astype(np.float32)
    return density


def on_slide(section: Section, placement: Placement) -> Linear:
    """The section as the placement lays it on the glass: transmittance (y, x, 3) float32 in slide pixels (linear)."""
    rows, columns = placement.slide_shape
    out = np.empty((rows, columns, 3), dtype=np.float32)
    across = np.stack([section.fine.down, section.fine.right], axis=1) / section.fine.spacing_um
    band = max(1, _PIXELS_AT_ONCE // columns)

    def warp(start: int) -> None:
        stop = min(start + band, rows)
        pixels = np.stack(np.meshgrid(np.arange(float(start), stop), np.arange(float(columns)), indexing="ij"), axis=-1)
        nodes = (placement.slide_to_volume_um(pixels) - np.asarray(section.fine.corner_um)) @ across
        first = np.maximum(np.floor(nodes.min(axis=(0, 1))).astype(int) - 1, 0)
        last = np.ceil(nodes.max(axis=(0, 1))).astype(int) + 2
        window = section.transmittance[first[0] : last[0], first[1] : last[1]].astype(np.float32)
        at = np.moveaxis(nodes - first, -1, 0)
        for channel in range(3):
            out[start:stop, :, channel] = ndimage.map_coordinates(window[..., channel], at, order=1, mode="nearest")

    _in_bands(warp, rows, band)
    return out


def layer_offsets(thickness_um: float) -> list[float]:
    """Depths of a section's layers along its normal, an odd number of equal layers about the middle, in um."""
    count = 2 * round(thickness_um / (2 * _LAYER_UM)) + 1
    return [((i + 0.5) / count - 0.5) * thickness_um for i in range(count)]


def finer(plane: Plane, factor: int) -> Plane:
    """The raster whose ``factor`` x ``factor`` blocks are the pixels of ``plane``."""
    spacing_um = plane.spacing_um / factor
    back = (np.asarray(plane.down) + np.asarray(plane.right)) * (factor - 1) / 2 * spacing_um
    corner = _vector(np.asarray(plane.corner_um) - back)
    return Plane((plane.shape[0] * factor, plane.shape[1] * factor), spacing_um, corner, plane.down, plane.right)


def rows_of(plane: Plane, start: int, stop: int) -> Plane:
    """Rows ``start`` to ``stop`` (exclusive) of a plane."""
    corner = _vector(np.asarray(plane.corner_um) + start * plane.spacing_um * np.asarray(plane.down))
    return Plane((stop - start, plane.shape[1]), plane.spacing_um, corner, plane.down, plane.right)


def inside(volume: Grid, plane: Plane) -> npt.NDArray[np.bool_]:
    """Which pixels of a plane lie in the box that the volume's voxels fill: (y, x) bool."""
    rows = np.arange(plane.shape[0])[:, None] * plane.spacing_um
    columns = np.arange(plane.shape[1])[None, :] * plane.spacing_um
    within = np.ones(plane.shape, dtype=bool)
    for axis in range(3):
        low = volume.origin_um[axis] - volume.spacing_um[axis] / 2
        along = plane.corner_um[axis] + rows * plane.down[axis] + columns * plane.right[axis]
        within &= (along >= low) & (along <= low + volume.extent_um[axis])
    return within


def _in_bands(work: Callable[[int], None], rows: int, band: int) -> None:
    """Call ``work`` with the first row of each band, two at a time: numpy and scipy leave the other core free."""
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, start) for start in range(0, rows, band)]:
            done.result()


def _grain(rng: np.random.Generator, plane: Plane) -> Linear:
    """Factor on the density of each pixel that the grain of dye and fibres makes: (y, x), mean 1."""
    factor = np.ones(plane.shape, dtype=np.float32)
    for spread, width_um in zip(_GRAIN, _GRAIN_UM, strict=True):
        sigma = width_um / plane.spacing_um
        grain = ndimage.gaussian_filter(rng.standard_normal(plane.shape, dtype=np.float32), sigma, truncate=3.0)
        factor += grain * np.float32(spread * 2 * np.sqrt(np.pi) * max(sigma, 0.3))
    return np.maximum(factor, np.float32(0.5))


def _inner(mask: npt.NDArray[np.bool_], depth_um: float, spacing_um: float) -> npt.NDArray[np.bool_]:
    """Where all pixels within about ``depth_um`` are set."""
    size = 2 * max(1, round(depth_um / spacing_um)) + 1
    return np.asarray(ndimage.minimum_filter(mask, size=size, mode="nearest"))


def _rim(bone: npt.NDArray[np.bool_], opening: npt.NDArray[np.bool_], spacing_um: float) -> Linear:
    """1 on bone surfaces that face an opening, fading to 0 within ``_RIM_UM`` into the bone: (y, x)."""
    size = max(3, 2 * round(_RIM_UM / spacing_um) + 1)
    near = ndimage.uniform_filter(opening.astype(np.float32), size=size, mode="nearest")
    return np.asarray(np.clip(near * np.float32(2.5), 0.0, 1.0) * bone, dtype=np.float32)


def _vector(values: npt.NDArray[np.float64]) -> Vector:
    z, y, x = (float(v) for v in values)
    return z, y, x
