"""The large forms of a specimen: where cortex, trabeculae, new bone, resin, implant and its corrosion are.

A recipe, a field of view and a seed give an Architecture; it turns axes into the smooth fields at knots that everything
else interpolates. Distances are in um, positive inside what the field is named after unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tomostain.images.geometry import Grid
from tomostain.phantom.fields import Float32, Float64, distance_um, noise, noise_at
from tomostain.phantom.implants import Implant, place_implant
from tomostain.phantom.osteons import Osteons, make_osteons
from tomostain.phantom.recipe import AnatomyRecipe

_WARP_UM, _WARP_CELL_UM = 55.0, 520.0
"""How far, and over what length, canals and cortical surfaces wander."""

_TRABECULA_CELL_UM = 300.0
"""Noise cell of the trabecular network; gives plates and rods 90-180 um thick, 300-500 um apart."""

_WOVEN_CELL_UM = 62.0
"""Noise cell of woven bone; gives struts 30-80 um thick."""

_GAP_UM = 40.0
"""Mean width left between old bone and the bore, filled by new bone or marrow."""

_NEVER = np.float32(-1e4)
"""A thickness or depth that is nowhere positive."""

Maker = Callable[[float, int], Float32]
"""Unit-variance noise of a cell size (um) and a channel on these axes."""


@dataclass(frozen=True, eq=False)
class Architecture:
    """Frames and sizes of one specimen; ``across``, ``along`` and ``canals`` are unit vectors (z, y, x)."""

    recipe: AnatomyRecipe
    seed: int
    pitch_um: float
    centre_um: Float64
    across: Float64
    along: Float64
    canals: Float64
    inner_um: float
    outer_um: float
    bend_um: float
    implant: Implant
    degradation_um: float
    crack_um: Float64
    crack: Float64
    osteons: Osteons

    def map_at(self, points_um: Float64) -> tuple[Float64, Float64]:
        """Place of single points on the map of osteons: (n, 3) um -> p across the cortex, q along it, um each."""
        away = points_um - self.centre_um
        warps = [noise_at(points_um, _WARP_CELL_UM, self.seed, 1 + k) * _WARP_UM for k in range(2)]
        return self._bent(away[:, 0], away[:, 1], away[:, 2], warps[0], warps[1])

    def knots(self, axes_um: tuple[Float64, Float64, Float64]) -> dict[str, Float32]:
        """All smooth fields on the raster of three axes: name -> (z, y, x) float32.

        ``p``, ``q`` map of osteons; ``outside`` beyond the bone's outer surface; ``old`` lamellar bone; ``woven`` woven
        bone; ``osteoid`` and ``fibrous`` thickness of seam and capsule; ``packet`` borders of bone packets (zero set);
        ``layer`` and ``metal`` signed distance, negative inside, to the surfaces of implant with and without its
        degradation layer; ``sheet``, ``mud`` cracks (zero sets); ``opening`` half-width of cracks; ``tint`` unit noise.
        """
        recipe = self.recipe

        def made(cell_um: float, channel: int) -> Float32:
            return noise(axes_um, cell_um, self.seed, channel)

        points = np.stack(np.meshgrid(*axes_um, indexing="ij"), axis=-1)
        implant = self.implant.distance_um(points).astype(np.float32)
        bore = self.implant.bore_um(points).astype(np.float32)
        away = points - self.centre_um
        warp = [made(_WARP_CELL_UM, 1 + k).astype(np.float64) * _WARP_UM for k in range(2)]
        p, q = self._bent(away[..., 0], away[..., 1], away[..., 2], warp[0], warp[1])
        sheet = sum((points[..., k] - self.crack_um[k]) * self.crack[k] for k in range(3))
        del points, away, warp
        across = p.astype(np.float32)

        outside = (
            across - np.float32(self.outer_um) + 10 * made(140, 3) if recipe.resin else np.full_like(across, _NEVER)
        )
        bone = self._trabeculae(made)
        if recipe.cortex:
            bone = np.maximum(bone, across - np.float32(self.inner_um) + 28 * made(170, 4))
        old = _round_minimum(bone, bore - _GAP_UM * np.maximum(0.15, 1 + 0.7 * made(150, 5)))
        old = np.minimum(old, -outside)
        woven, osteoid = self._new_bone(old, outside, implant, bore, made)
        fibrous = np.full_like(old, _NEVER)
        if recipe.fibrous_fraction > 0:
            fibrous = 9 + 16 * (made(190, 11) - np.float32(_level(recipe.fibrous_fraction)) - 0.5)
        layer, metal = self._corrosion(implant, made)
        opening = np.minimum(4.0 * (made(240, 14) - 0.35), 4.5) if recipe.cracks else np.full_like(old, _NEVER)
        fields = {
            "p": across,
            "q": q.astype(np.float32),
            "outside": outside,
            "old": old,
            "woven": woven,
            "osteoid": osteoid,
            "fibrous": fibrous,
            "packet": distance_um(made(150, 12), 150),
            "layer": layer,
            "metal": metal,
            "sheet": sheet.astype(np.float32) + 22 * made(180, 13),
            "mud": distance_um(made(75, 15), 75),
            "opening": opening,
            "tint": made(45, 16),
        }
        return {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in fields.items()}

    def _bent(self, z: Float64, y: Float64, x: Float64, warp_p: Float64, warp_q: Float64) -> tuple[Float64, Float64]:
        p, q = (z * axis[0] + y * axis[1] + x * axis[2] for axis in (self.across, self.along))
        return p + q * q / (2 * self.bend_um) + warp_p, q + warp_q

    def _trabeculae(self, made: Maker) -> Float32:
        fraction = self.recipe.trabecular_fraction
        if fraction <= 0:
            return np.zeros_like(made(400, 6)) + _NEVER
        half = np.float32(NormalDist().inv_cdf(0.5 + min(fraction, 0.98) / 2))
        plates = half * (1 + 0.55 * made(360, 6)) - np.abs(made(_TRABECULA_CELL_UM, 7))
        return distance_um(plates, _TRABECULA_CELL_UM)

    def _new_bone(
        self, old: Float32, outside: Float32, implant: Float32, bore: Float32, made: Maker
    ) -> tuple[Float32, Float32]:
        """Woven bone and the thickness of osteoid on it: a network from the implant, a shell on old bone near it."""
        recipe = self.recipe
        healed = 1 - 0.5 ** (recipe.weeks / 4)
        fraction = recipe.woven_fraction * (0.5 + 0.5 * healed)
        if recipe.woven_um * healed < 1 or fraction <= 0:
            never = np.full_like(old, _NEVER)
            return never, never
        front = np.float32(recipe.woven_um * healed) * (0.72 + 0.42 * made(210, 8))
        network = distance_um(made(_WOVEN_CELL_UM, 9) - np.float32(_level(fraction)), _WOVEN_CELL_UM)
        shell = old + 14 * (0.6 + made(90, 17)) * np.float32(fraction)
        woven = np.maximum(_round_minimum(network, front - bore), np.minimum(shell, 1.5 * front - bore))
        woven = np.minimum(np.minimum(woven, -outside - 6), implant + 60)
        seam = np.float32(recipe.osteoid_um) * np.minimum(0.15 + 0.75 * made(120, 10), 1)
        return woven, np.where(bore < 1.7 * front, seam, _NEVER) if recipe.osteoid_um > 0 else np.full_like(old, _NEVER)

    def _corrosion(self, implant: Float32, made: Maker) -> tuple[Float32, Float32]:
        """Outer surface of the degradation layer, a little swollen, and its pitted front in the metal."""
        if not self.recipe.degrades:
            return implant, implant
        mean = np.float32(self.degradation_um)
        even = np.maximum(0.3, 0.85 + 0.35 * made(160, 18))
        pits = np.maximum(0, made(70, 19) - 0.8) + np.maximum(0, made(130, 20) - 1.1)
        swollen = implant - 5 * np.maximum(0, made(80, 21))
        return swollen, implant + np.minimum(mean * (even + 0.9 * pits), 300)


def make_architecture(recipe: AnatomyRecipe, grid: Grid, seed: int) -> Architecture:
    """Lay out a field of view: resin in one corner, cortex, then trabeculae and marrow, and the implant."""
    generator = np.random.default_rng([seed, 11])
    lengths = np.asarray(grid.extent_um)
    centre = np.asarray(grid.origin_um) + (lengths - np.asarray(grid.spacing_um)) / 2
    turn = generator.normal(size=3) * (0.35, 1, 1)
    across = turn / np.sqrt((turn * turn).sum())
    side = np.cross(across, generator.normal(size=3))
    along = side / np.sqrt((side * side).sum())
    unit = (np.arange(20) + 0.5) / 20 - 0.5
    probes = np.stack(np.meshgrid(*[unit * length for length in lengths], indexing="ij"), axis=-1).reshape(-1, 3)
    bend = generator.uniform(3500, 8000)
    places = probes @ across + (probes @ along) ** 2 / (2 * bend)
    low, outer = np.quantile(places, [generator.uniform(0.5, 0.62), generator.uniform(0.92, 0.96)])
    # rounded, so that another machine's last bit does not move a table
    outer = round(float(outer) * 64) / 64
    inner = max(round(float(low) * 64) / 64, outer - 1500.0)
    implant, depth = place_implant(recipe.implant, grid, across, generator)
    degradation = min(20.0 + 10.0 * recipe.weeks * generator.uniform(0.8, 1.2), 300.0, 0.3 * depth)
    tilt = generator.normal(size=3)
    reach = float(np.sqrt((lengths * lengths).sum()))
    osteons = make_osteons(
        inner,
        max(outer, inner + 1) if recipe.cortex else inner + 1,
        reach,
        seed,
        canals=recipe.canals,
        cement=recipe.cement_lines,
    )
    return Architecture(
        recipe=recipe,
        seed=seed,
        pitch_um=max(10.0, 2.0 * min(grid.spacing_um)),
        centre_um=centre,
        across=across,
        along=along,
        canals=np.cross(across, along),
        inner_um=inner,
        outer_um=outer,
        bend_um=bend,
        implant=implant,
        degradation_um=degradation,
        crack_um=centre + generator.uniform(-0.3, 0.3, size=3) * lengths,
        crack=tilt / np.sqrt((tilt * tilt).sum()),
        osteons=osteons,
    )


def _round_minimum(first: Float32, second: Float32) -> Float32:
    """The lesser of two distances, its edge rounded over 24 um (polynomial smooth minimum)."""
    near = np.maximum(1 - np.abs(first - second) / np.float32(24), 0)
    rounded: Float32 = np.minimum(first, second) - near * near * np.float32(6)
    return rounded


def _level(fraction: float) -> float:
    """The level that unit noise exceeds in this part of space."""
    return NormalDist().inv_cdf(1 - min(max(fraction, 1e-3), 1 - 1e-3))
