"""True histomorphometry of a label volume, slab by slab: labels in, volume and surface fractions out.

Terms after Dempster et al. 2013 (J Bone Miner Res 28:2-17). Surfaces are counted as voxel faces, 6-neighbourhood; faces
on the border of the volume are not surfaces.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from tomostain.images.geometry import Grid
from tomostain.phantom.tissues import BONE, IMPLANT, Tissue

Labels = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float32]

_OTHER, _BONE, _OSTEOID, _CRACK, _DEGRADED, _METAL = range(6)
_MOST_QUERIES = 200_000
"""Points of the corrosion front whose depth is measured; evenly picked where there are more."""


def _kinds() -> npt.NDArray[np.uint8]:
    table = np.full(256, _OTHER, dtype=np.uint8)
    table[[int(t) for t in BONE]] = _BONE
    table[Tissue.OSTEOID], table[Tissue.CRACK] = _OSTEOID, _CRACK
    table[Tissue.DEGRADATION], table[Tissue.METAL] = _DEGRADED, _METAL
    return table


_KIND = _kinds()


@dataclass(eq=False)
class Morphometer:
    """Takes the slabs of one label volume in order of z, then says what is true of the whole."""

    grid: Grid
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    contacts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(6, dtype=np.int64))
    _last: Labels | None = None
    _next_z: int = 0
    _outer: list[Points] = field(default_factory=list)
    _front: list[Points] = field(default_factory=list)

    def add(self, labels: Labels) -> None:
        """Take the next slab, (z, y, x) uint8."""
        for plane in labels:
            self.counts += np.bincount(plane.ravel(), minlength=256)
        kinds = _KIND[labels]
        first = self._next_z
        if self._last is not None:
            self._surfaces(np.stack([self._last, kinds[0]]), 0, first - 1)
        for axis in range(3):
            self._surfaces(kinds, axis, first)
        self._last = kinds[-1]
        self._next_z += len(labels)

    def result(self) -> dict[str, Any]:
        """Everything measured.

        ``bv_tv``: mineralised bone (matrix, lacunae and cement lines; ``bv_old_tv`` lamellar with cement lines,
        ``bv_new_tv`` woven) over tissue volume, which is all but resin, gas, implant and its degradation layer.
        ``bic``: share of the surface of the implant with its degradation layer that touches mineralised bone.
        ``degradation_depth_um``: distance of the remaining metal's surface from that outer surface; zero where the
        metal itself is the surface. ``volume_fractions``: share of the whole volume, per tissue.

        Raises
        ------
        ValueError
            Not every plane of the grid has been added.
        """
        if self._next_z != self.grid.shape[0]:
            raise ValueError(f"{self._next_z} of {self.grid.shape[0]} planes were measured")
        count = {tissue: int(self.counts[tissue]) for tissue in Tissue}
        total = int(self.counts.sum())
        tissue_volume = total - sum(count[t] for t in (Tissue.RESIN, Tissue.GAS, *IMPLANT))
        surface = int(self.contacts.sum())
        depth_um = self._depths_um()

        def per_tissue(*tissues: Tissue) -> float:
            return sum(count[t] for t in tissues) / tissue_volume if tissue_volume else 0.0

        return {
            "voxels": total,
            "volume_mm3": total * float(np.prod(self.grid.spacing_um)) * 1e-9,
            "volume_fractions": {tissue.name.lower(): count[tissue] / total for tissue in Tissue},
            "bv_tv": per_tissue(*BONE),
            "bv_old_tv": per_tissue(Tissue.LAMELLAR, Tissue.CEMENT),
            "bv_new_tv": per_tissue(Tissue.WOVEN),
            "osteoid_tv": per_tissue(Tissue.OSTEOID),
            "bic": float(self.contacts[_BONE]) / surface if surface else None,
            "osteoid_implant_contact": float(self.contacts[_OSTEOID]) / surface if surface else None,
            "implant_surface_faces": surface,
            "degradation_depth_um": {
                "mean": float(depth_um.mean()) if len(depth_um) else 0.0,
                "max": float(depth_um.max()) if len(depth_um) else 0.0,
            },
        }

    def _surfaces(self, kinds: Labels, axis: int, first_z: int) -> None:
        """Count the implant's faces between neighbours along an axis, and keep where they and the metal's are."""
        behind = kinds[tuple(slice(None, -1) if k == axis else slice(None) for k in range(3))]
        ahead = kinds[tuple(slice(1, None) if k == axis else slice(None) for k in range(3))]
        outer = (behind >= _DEGRADED) != (ahead >= _DEGRADED)
        where = np.nonzero(outer)
        beside = np.minimum(behind[where], ahead[where])
        self.contacts += np.bincount(beside, minlength=6)
        intact = beside != _CRACK
        self._outer.append(self._centres([index[intact] for index in where], axis, first_z))
        front = np.nonzero((behind == _METAL) != (ahead == _METAL))
        self._front.append(self._centres(list(front), axis, first_z))

    def _centres(self, index: list[npt.NDArray[np.intp]], axis: int, first_z: int) -> Points:
        """Centres of faces in um, (n, 3), from the indices of the voxels behind them."""
        points = np.stack(index, axis=1).astype(np.float32)
        points[:, 0] += first_z
        points[:, axis] += 0.5
        return points * np.asarray(self.grid.spacing_um, dtype=np.float32)

    def _depths_um(self) -> npt.NDArray[np.float64]:
        outer, front = np.concatenate(self._outer), np.concatenate(self._front)
        if not self.counts[Tissue.DEGRADATION] or not len(outer) or not len(front):
            return np.zeros(0)
        picked = front[:: -(-len(front) // _MOST_QUERIES)]
        tree = cKDTree(outer, balanced_tree=False, compact_nodes=False)
        return np.asarray(tree.query(picked)[0], dtype=np.float64)
