"""Bone around an implant as functions of space: a recipe and a seed in, tissue labels on any raster or plane out.

Nothing is stored but smooth fields' hashes and lists of objects, so a field of view of any size streams block by block,
and a CT raster and an oblique section at 1 um see the same tissue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tomostain.images.geometry import Grid, Plane
from tomostain.phantom.architecture import Architecture, make_architecture
from tomostain.phantom.fields import Float64, Knots, make_knots
from tomostain.phantom.histology import Labels, label_tissue
from tomostain.phantom.objects import Raster
from tomostain.phantom.recipe import AnatomyRecipe, Material
from tomostain.phantom.sampling import BoxFields, PlaneFields
from tomostain.phantom.texture import texture

__all__ = ["Anatomy", "AnatomyRecipe", "Material", "make_anatomy"]

Cut = tuple[slice, slice, slice]
Part = TypeVar("Part")


_BLOCK = (64, 128, 256)
"""Points labelled at once (z, y, x): their fields stay in the second-level cache's reach, objects are rarely cut."""

_TILE = 384
"""Edge of the square tiles in which a plane is labelled, px."""

_MARGIN_UM = 20.0
"""Knots beyond the raster, for spline support and the snapping of axes."""


@dataclass(frozen=True)
class Anatomy:
    """One specimen. ``grid`` is the CT's; tissue continues beyond it without limit."""

    recipe: AnatomyRecipe
    grid: Grid
    seed: int
    architecture: Architecture = field(repr=False)

    def labels(self, grid: Grid, *, workers: int = 2) -> Labels:
        """Tissue at the pixel centres of any axis-aligned grid: (z, y, x) uint8 of ``Tissue``.

        A part of a grid gets exactly the labels it has in the whole.
        """
        axes = tuple(
            _snapped(origin + np.arange(n, dtype=np.float64) * step)
            for origin, n, step in zip(grid.origin_um, grid.shape, grid.spacing_um, strict=True)
        )
        whole = Raster((axes[0], axes[1], axes[2]), np.zeros(3), np.eye(3))
        labels = np.empty(whole.shape, dtype=np.uint8)
        for top in range(0, grid.shape[0], _BLOCK[0]):
            slab = whole.crop(slice(top, top + _BLOCK[0]), slice(None), slice(None))
            knots = self._knots(slab)
            cuts = [
                (slice(0, _BLOCK[0]), slice(y, y + _BLOCK[1]), slice(x, x + _BLOCK[2]))
                for y, x in product(range(0, grid.shape[1], _BLOCK[1]), range(0, grid.shape[2], _BLOCK[2]))
            ]
            labelled = _in_threads(partial(self._block, slab, knots), cuts, workers)
            for cut, block in zip(cuts, labelled, strict=True):
                labels[top : top + _BLOCK[0]][cut] = block
        return labels

    def labels_on_plane(self, plane: Plane, offsets_um: Sequence[float] = (0.0,), *, workers: int = 2) -> Labels:
        """Tissue on a flat cut, one layer for each offset along its normal: (n, y, x) uint8 of ``Tissue``.

        Objects are drawn exactly; smooth fields are taken at points 4 um apart in the plane and interpolated, which
        moves a surface by less than 0.5 um. ``offsets_um`` in any order.
        """
        offsets = np.asarray(offsets_um, dtype=np.float64)
        order = np.argsort(offsets, kind="stable")
        whole = plane_raster(plane, offsets[order])
        labels = np.empty(whole.shape, dtype=np.uint8)
        tiles = _tiles(plane.shape)
        for cut, part in zip(tiles, _in_threads(partial(self._tile, whole), tiles, workers), strict=True):
            labels[cut] = part
        placed = np.empty_like(labels)
        placed[order] = labels
        return placed

    def texture_on_plane(self, plane: Plane, *, workers: int = 2) -> dict[str, npt.NDArray[np.generic]]:
        """What colours a section below the scale of labels, on the plane itself: name -> (y, x).

        ``lamella`` float32 phase in [0, 1] of the lamellae around canals and along surfaces; ``dye`` float32 in
        [-1, 1], how each osteon and packet takes the dye; ``nuclei`` bool, nuclei in marrow, vessels and lacunae.
        """
        whole = plane_raster(plane, np.zeros(1))
        found: dict[str, npt.NDArray[np.generic]] = {
            "lamella": np.empty(plane.shape, dtype=np.float32),
            "dye": np.empty(plane.shape, dtype=np.float32),
            "nuclei": np.empty(plane.shape, dtype=bool),
        }
        tiles = _tiles(plane.shape)

        for cut, part in zip(tiles, _in_threads(partial(self._coloured, whole), tiles, workers), strict=True):
            for name, values in part.items():
                found[name][cut[1:]] = values
        return found

    def _knots(self, raster: Raster) -> Knots:
        return make_knots(self.architecture.knots, self.architecture.pitch_um, *raster.bounds_um(_MARGIN_UM))

    def _block(self, whole: Raster, knots: Knots, cut: Cut) -> Labels:
        raster = whole.crop(*cut)
        return label_tissue(self.architecture, self.recipe, raster, BoxFields(knots, raster))

    def _tile(self, whole: Raster, cut: Cut) -> Labels:
        raster = whole.crop(*cut)
        return label_tissue(self.architecture, self.recipe, raster, PlaneFields(self._knots(raster), raster))

    def _coloured(self, whole: Raster, cut: Cut) -> dict[str, npt.NDArray[np.generic]]:
        raster = whole.crop(*cut)
        fields = PlaneFields(self._knots(raster), raster)
        return texture(
            self.architecture, raster, fields, label_tissue(self.architecture, self.recipe, raster, fields)[0]
        )


def make_anatomy(recipe: AnatomyRecipe, grid: Grid, seed: int) -> Anatomy:
    """Lay out a specimen: where cortex, marrow, resin and implant lie in the field of view of ``grid`` (z, y, x).

    Raises
    ------
    ValueError
        The grid is not three-dimensional or its field of view is narrower than 60 um, less than any tissue.
    """
    if len(grid.shape) != 3:
        raise ValueError(f"an anatomy needs a grid of three axes (z, y, x), this one has shape {grid.shape}")
    if min(grid.extent_um) < 60:
        raise ValueError(
            f"a field of view of {min(grid.extent_um):g} um holds no tissue; make every edge 60 um or more"
        )
    return Anatomy(recipe, grid, seed, make_architecture(recipe, grid, seed))


def plane_raster(plane: Plane, offsets_um: Float64) -> Raster:
    """The raster of a plane's pixels at rising offsets along its normal; local axes are (normal, down, right)."""
    rows, columns = (np.arange(n, dtype=np.float64) * plane.spacing_um for n in plane.shape)
    frame = np.array([plane.normal, plane.down, plane.right], dtype=np.float64)
    return Raster((offsets_um, rows, columns), np.asarray(plane.corner_um, dtype=np.float64), frame)


def _in_threads(work: Callable[[Cut], Part], cuts: Sequence[Cut], workers: int) -> list[Part]:
    """What ``work`` makes of every cut, in order; numpy lets threads run side by side."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        return list(pool.map(work, cuts))


def _tiles(shape: tuple[int, int]) -> list[Cut]:
    return [
        (slice(None), slice(row, row + _TILE), slice(column, column + _TILE))
        for row, column in product(range(0, shape[0], _TILE), range(0, shape[1], _TILE))
    ]


def _snapped(axis_um: Float64) -> Float64:
    """Coordinates rounded to 2^-16 um, so that a part of a grid, with its own origin, has those of the whole."""
    snapped: Float64 = np.round(axis_um * 65536.0) / 65536.0
    return snapped
