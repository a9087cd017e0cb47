"""From smooth fields and hashed objects to tissue: the one place that says which tissue lies where."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tomostain.phantom.architecture import Architecture
from tomostain.phantom.fields import Float64, noise_at
from tomostain.phantom.objects import (
    Bools,
    Objects,
    Raster,
    draw_ellipsoids,
    draw_tubes,
    frames,
    pack_spheres,
    population,
)
from tomostain.phantom.osteons import CANAL, CEMENT
from tomostain.phantom.recipe import AnatomyRecipe
from tomostain.phantom.sampling import Fields
from tomostain.phantom.tissues import Tissue

Labels = npt.NDArray[np.uint8]

_LACUNA_UM = 36.0
_WOVEN_LACUNA_UM = 27.0
"""Distance of osteocyte lacunae: 21 000 per mm3 in lamellar bone, as Hannah et al. (2010) count in human cortex, and
50 000 in woven bone, which holds more of them (Hernandez et al. 2004)."""

_ADIPOCYTE_UM = 43.0
_VESSEL_UM = 190.0
_VOLKMANN_UM = 420.0
_GAS_UM = 170.0
_REVERSAL_UM = 2.5
"""Width of the line between old and new bone."""

_PACKET_UM = 1.3
"""Half-width of the cement lines between packets of trabecular bone."""

_SKIN_UM = 1.0
"""Bone left between a lacuna and the surface."""

_MUD_UM = 2.0
"""Half-width of drying cracks in the degradation layer."""


def label_tissue(architecture: Architecture, recipe: AnatomyRecipe, raster: Raster, fields: Fields) -> Labels:
    """Tissue of every point of a raster: uint8 of ``Tissue``, the raster's shape."""
    labels = np.full(raster.shape, Tissue.MARROW, dtype=np.uint8)
    if fields.bounds("metal")[1] < 0:
        labels[:] = Tissue.METAL
        return labels
    if fields.bounds("outside")[0] > 0 and fields.bounds("layer")[0] > 100:
        labels[:] = Tissue.RESIN
        return _cracked(labels, recipe, fields)
    _bone(labels, architecture, recipe, fields)
    _cells_in_bone(labels, architecture, recipe, raster, fields)
    _marrow(labels, architecture, recipe, raster)
    _interface(labels, architecture, recipe, raster, fields)
    return _cracked(labels, recipe, fields)


def _some(fields: Fields, name: str) -> bool:
    """Whether the field can be positive here."""
    return fields.bounds(name)[1] > 0


def _put(labels: Labels, where: Bools, tissue: Tissue) -> None:
    np.copyto(labels, np.uint8(tissue), where=where)


def _bone(labels: Labels, architecture: Architecture, recipe: AnatomyRecipe, fields: Fields) -> None:
    """Resin, woven bone with its osteoid, and old bone with osteons and cement lines."""
    if _some(fields, "osteoid"):
        _put(labels, (fields["woven"] <= 0) & (fields["woven"] > -fields["osteoid"]), Tissue.OSTEOID)
    if _some(fields, "woven"):
        _put(labels, fields["woven"] > 0, Tissue.WOVEN)
    if _some(fields, "old"):
        old = fields["old"] > 0
        _put(labels, old, Tissue.LAMELLAR)
        if recipe.cement_lines:
            packets = (np.abs(fields["packet"]) < _PACKET_UM) & (fields["old"] > 2 * _REVERSAL_UM)
            reversal = old & (fields["old"] < _REVERSAL_UM) & (fields["woven"] > 0)
            _put(labels, packets | reversal, Tissue.CEMENT)
        if recipe.cortex and fields.bounds("p")[1] > architecture.inner_um:
            inside, place = architecture.osteons.index(fields["p"], fields["q"])
            inside &= old
            kind = np.where(inside, architecture.osteons.kind.ravel()[place], 0)
            owned = inside & (architecture.osteons.owner.ravel()[place] >= 0)
            _put(labels, owned & (labels == Tissue.CEMENT) & (fields["old"] > _REVERSAL_UM), Tissue.LAMELLAR)
            _put(labels, kind == CEMENT, Tissue.CEMENT)
            _put(labels, kind == CANAL, Tissue.CANAL)
    if _some(fields, "outside"):
        _put(labels, fields["outside"] > 0, Tissue.RESIN)


def _cells_in_bone(
    labels: Labels, architecture: Architecture, recipe: AnatomyRecipe, raster: Raster, fields: Fields
) -> None:
    """Osteocyte lacunae, flat along the lamellae of old bone and plump in woven bone, and Volkmann canals."""
    seed = architecture.seed
    lamellar, woven = labels == Tissue.LAMELLAR, labels == Tissue.WOVEN
    if recipe.canals and recipe.cortex and fields.bounds("p")[1] > architecture.inner_um and lamellar.any():
        canals = population(raster, 180, _VOLKMANN_UM, seed, 21)
        canals = canals.where(canals.draw(0) < 0.7)
        half = canals.directions(1)
        half -= (half @ architecture.canals)[:, None] * architecture.canals * 0.7
        half *= (70 + 70 * canals.draw(20))[:, None]
        mask = np.zeros(raster.shape, dtype=bool)
        draw_tubes(mask, raster, canals.centres_um - half, canals.centres_um + half, 10 + 7 * canals.draw(21))
        mask &= fields["p"] > architecture.inner_um + 20
        _put(labels, mask & (lamellar | (labels == Tissue.CEMENT)), Tissue.CANAL)
    if not recipe.lacunae:
        return
    if lamellar.any():
        cells = lacunae(architecture, raster, woven=False)
        mask = np.zeros(raster.shape, dtype=bool)
        normal = lamella_normal(architecture, cells)
        axes = frames(normal, np.broadcast_to(architecture.canals, normal.shape) + 0.5 * cells.directions(0))
        half = np.stack([2.3 + 1.2 * cells.draw(20), 6.0 + 2.0 * cells.draw(21), 3.6 + 1.4 * cells.draw(22)], axis=1)
        draw_ellipsoids(mask, raster, cells.centres_um, axes, half, 8.1)
        mask &= (labels == Tissue.LAMELLAR) | (labels == Tissue.CEMENT)
        _put(labels, mask & (fields["old"] > _SKIN_UM), Tissue.LACUNA)
    if woven.any():
        cells = lacunae(architecture, raster, woven=True)
        mask = np.zeros(raster.shape, dtype=bool)
        axes = frames(cells.directions(0), cells.directions(12))
        half = 4.2 + 3.0 * np.stack([cells.draw(40 + k) for k in range(3)], axis=1)
        draw_ellipsoids(mask, raster, cells.centres_um, axes, half, 7.3)
        _put(labels, mask & woven & (fields["woven"] > _SKIN_UM), Tissue.LACUNA)


def lacunae(architecture: Architecture, raster: Raster, *, woven: bool) -> Objects:
    """Osteocytes whose lacunae may reach the raster, were there only bone of the one kind."""
    if woven:
        return population(raster, 7.4, _WOVEN_LACUNA_UM, architecture.seed, 23, jitter=0.95)
    return population(raster, 8.2, _LACUNA_UM, architecture.seed, 22, jitter=0.9)


def lamella_normal(architecture: Architecture, cells: Objects) -> Float64:
    """Unit vectors (n, 3) across the lamellae at lacunae: out from the canal, else across the cortex or at random."""
    osteons = architecture.osteons
    p, q = architecture.map_at(cells.centres_um)
    inside, place = osteons.index(p.astype(np.float32), q.astype(np.float32))
    owned = inside & (osteons.owner.ravel()[place] >= 0)
    rows, columns = osteons.kind.shape
    row, column = place // columns, place % columns
    slope_p = (
        osteons.radius_um[np.minimum(row + 2, rows - 1), column] - osteons.radius_um[np.maximum(row - 2, 0), column]
    )
    slope_q = osteons.radius_um[row, (column + 2) % columns] - osteons.radius_um[row, (column - 2) % columns]
    radial = slope_p[:, None] * architecture.across + slope_q[:, None] * architecture.along
    flat = np.where((p > architecture.inner_um)[:, None], architecture.across, cells.directions(12))
    normal = np.where((owned & (np.abs(slope_p) + np.abs(slope_q) > 0.5))[:, None], radial, flat)
    unit: Float64 = normal / np.maximum(np.sqrt((normal * normal).sum(axis=1, keepdims=True)), 1e-9)
    return unit


def _marrow(labels: Labels, architecture: Architecture, recipe: AnatomyRecipe, raster: Raster) -> None:
    """Vessels and packed fat cells where marrow was left."""
    seed = architecture.seed
    marrow = labels == Tissue.MARROW
    if not marrow.any():
        return
    if recipe.vessels:
        knots = population(raster, 330, _VESSEL_UM, seed, 24)
        mask = np.zeros(raster.shape, dtype=bool)
        half = knots.directions(0) * (60 + 70 * knots.draw(20))[:, None]
        bent = knots.directions(22) * (60 + 70 * knots.draw(40))[:, None]
        radius = 5 + 20 * knots.draw(41) ** 2
        draw_tubes(mask, raster, knots.centres_um, knots.centres_um + half, radius)
        draw_tubes(mask, raster, knots.centres_um, knots.centres_um + bent, radius)
        _put(labels, mask & marrow, Tissue.VESSEL)
        marrow &= ~mask
    if recipe.adipocyte_fraction > 0:
        cells = population(raster, 31, _ADIPOCYTE_UM, seed, 25, jitter=0.55)
        level = noise_at(cells.centres_um, 280.0, seed, 26)
        near = architecture.implant.bore_um(cells.centres_um)
        fatty = level + 1.2 * np.clip(near / 150 - 1, -1, 0) > _fat_level(recipe.adipocyte_fraction)
        cells = cells.where(fatty & (cells.draw(0) < 0.96))
        fat = pack_spheres(raster, cells.centres_um, 20 + 10 * cells.draw(1), 2.2)
        _put(labels, fat & marrow, Tissue.ADIPOCYTE)


def _fat_level(fraction: float) -> float:
    """Level of unit noise above which marrow is fatty; cubic fit to the normal quantile, good to 0.1."""
    away = 2 * fraction - 1
    return -(1.2 * away + 1.1 * away**3)


def _interface(
    labels: Labels, architecture: Architecture, recipe: AnatomyRecipe, raster: Raster, fields: Fields
) -> None:
    """Fibrous capsule, degradation layer, metal and gas."""
    low = fields.bounds("layer")[0]
    if recipe.gas and recipe.degrades and low < 260:
        bubbles = population(raster, 80, _GAS_UM, architecture.seed, 27)
        distance = architecture.implant.distance_um(bubbles.centres_um)
        chance = 0.5 * 2.0 ** (-recipe.weeks / 12)
        bubbles = bubbles.where((distance > -10) & (distance < 150) & (bubbles.draw(0) < chance))
        mask = np.zeros(raster.shape, dtype=bool)
        for number in range(len(bubbles)):
            one = bubbles.where(np.arange(len(bubbles)) == number)
            half = (18 + 55 * one.draw(1)[:, None] ** 2) * (
                0.65 + 0.35 * np.stack([one.draw(2 + k) for k in range(3)], axis=1)
            )
            draw_ellipsoids(mask, raster, one.centres_um, frames(one.directions(8), one.directions(20)), half, 75)
        _put(labels, mask & (labels != Tissue.RESIN), Tissue.GAS)
    if low >= 40:
        return
    layer = fields["layer"]
    if _some(fields, "fibrous"):
        capsule = (layer < fields["fibrous"]) & (labels != Tissue.RESIN) & (labels != Tissue.GAS)
        _put(labels, capsule, Tissue.FIBROUS)
    if low < 0:
        _put(labels, layer < 0, Tissue.DEGRADATION if recipe.degrades else Tissue.METAL)
        if recipe.degrades:
            _put(labels, fields["metal"] < 0, Tissue.METAL)


def _cracked(labels: Labels, recipe: AnatomyRecipe, fields: Fields) -> Labels:
    """Cracks: sheets through everything but metal, cells of fat and gas, and a network in the degradation layer."""
    if not recipe.cracks:
        return labels
    if recipe.degrades and fields.bounds("layer")[0] < 0:
        dried = (np.abs(fields["mud"]) < _MUD_UM) & (labels == Tissue.DEGRADATION) & (fields["tint"] > -0.3)
        _put(labels, dried, Tissue.CRACK)
    low, high = fields.bounds("sheet")
    if _some(fields, "opening") and low < 20 and high > -20:
        torn = np.abs(fields["sheet"]) < fields["opening"]
        torn &= (labels != Tissue.METAL) & (labels != Tissue.GAS)
        _put(labels, torn, Tissue.CRACK)
    return labels
