"""What a stained section shows below the scale of labels: lamellae, uneven dye, nuclei."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain.phantom.architecture import Architecture
from tomostain.phantom.histology import Labels, lacunae
from tomostain.phantom.objects import Bools, Objects, Raster, draw_ellipsoids, frames, population
from tomostain.phantom.sampling import Fields
from tomostain.phantom.tissues import Tissue

_LAMELLA_UM = 5.5
"""Thickness of a lamella; 3 to 7 um in human bone (Ascenzi and Bonucci 1967)."""

_NUCLEUS_UM = 12.5
"""Mean distance of nuclei in marrow."""


def texture(
    architecture: Architecture, raster: Raster, fields: Fields, labels: Labels
) -> dict[str, npt.NDArray[np.generic]]:
    """Lamella phase, dye and nuclei on a raster of one layer whose labels (y, x) are given: name -> (y, x)."""
    osteons = architecture.osteons
    p, q, old, tint = (fields[name][0] for name in ("p", "q", "old", "tint"))
    inside, place = osteons.index(p, q)
    owner = np.where(inside, osteons.owner.ravel()[place], -1)
    owned = (owner >= 0) & (old > 0)
    radius = ndimage.map_coordinates(
        osteons.radius_um,
        [p - np.float32(osteons.start_um) - 0.5, np.mod(q - 0.5, osteons.kind.shape[1])],
        order=1,
        mode="nearest",
        output=np.float32,
    )
    in_cortex = p > np.float32(architecture.inner_um)
    depth = np.where(owned, radius, np.where(in_cortex, p, old)) + 1.5 * tint
    thickness = np.float32(_LAMELLA_UM) * (1 + 0.25 * np.where(owned, osteons.tone[np.maximum(owner, 0)], 0))
    phase = depth / thickness
    packet = np.clip(fields["packet"][0] / 4, -1, 1)
    dye = np.where(owned, 0.75 * osteons.tone[np.maximum(owner, 0)], 0.45 * packet - 0.15) + 0.22 * tint
    return {
        "lamella": (phase - np.floor(phase)).astype(np.float32),
        "dye": np.clip(dye, -1, 1).astype(np.float32),
        "nuclei": _nuclei(architecture, raster, fields, labels),
    }


def _nuclei(architecture: Architecture, raster: Raster, fields: Fields, labels: Labels) -> Bools:
    """Nuclei in marrow, vessels and capsule, one in most lacunae, and rows of bone-lining cells beside osteoid."""
    seed = architecture.seed
    loose = (labels == Tissue.MARROW) | (labels == Tissue.VESSEL) | (labels == Tissue.FIBROUS)
    woven = fields["woven"][0]
    lining = (labels == Tissue.MARROW) & (woven > -22) & (woven < 0)
    found = np.zeros(raster.shape, dtype=bool)
    cells = population(raster, 4.2, _NUCLEUS_UM, seed, 31)
    found |= _blobs(raster, cells.where(cells.draw(0) < 0.75), 2.3, 1.7) & loose
    cells = population(raster, 4.2, 8.5, seed, 32)
    found |= _blobs(raster, cells, 2.6, 1.5) & lining
    for kind in (False, True):
        cells = lacunae(architecture, raster, woven=kind)
        cells = cells.where(cells.draw(50) < 0.8)
        found |= _blobs(raster, cells, 2.0, 1.0) & (labels == Tissue.LACUNA)
    nuclei: Bools = found[0]
    return nuclei


def _blobs(raster: Raster, cells: Objects, least_um: float, more_um: float) -> Bools:
    """Where small uneven ellipsoids, half-axes from least_um to least_um + more_um, are cut: bool, raster's shape."""
    mask = np.zeros(raster.shape, dtype=bool)
    half = least_um + more_um * np.stack([cells.draw(40 + k) for k in range(3)], axis=1)
    draw_ellipsoids(mask, raster, cells.centres_um, frames(cells.directions(0), cells.directions(12)), half, 4.2)
    return mask
