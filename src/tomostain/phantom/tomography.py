"""Labels -> CT: attenuation and electron density of tissues, projected with noise, reconstructed slab by slab.

Every slice is projected and filtered back on its own (parallel beam, synchrotron-like); blur and phase contrast act
within the slice. The specimen is taken to sit in a round block of its resin, so the field's edges cast no shadow.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tomostain._settings import Within, check_numbers
from tomostain.images.geometry import Grid
from tomostain.phantom.anatomy import Anatomy
from tomostain.phantom.attenuation import attenuation, electron_density
from tomostain.phantom.fields import Float32, Float64
from tomostain.phantom.projection import Complex, Projector, projector
from tomostain.phantom.recipe import Material
from tomostain.phantom.tissues import Tissue

Labels = npt.NDArray[np.uint8]
Stored = npt.NDArray[np.float32] | npt.NDArray[np.uint16] | npt.NDArray[np.uint8]

_DRIFT_SLICES = 24
"""Slices over which a detector pixel's gain error changes: rings come and go along the axis."""

_FEWEST_PHOTONS = 0.5
"""Counts are floored here before the logarithm, as reconstruction codes do."""


@dataclass(frozen=True)
class TomographyRecipe:
    """How a specimen is scanned and what its reconstruction is stored as."""

    energy_kev: Annotated[float, Within(5, 200)] = 38.0
    """Photon energy, keV."""
    photons: Annotated[float, Within(0, 1e12)] = 4e5
    """Photons on a detector pixel in each projection, without a specimen; 0 for a scan without noise."""
    projections: Annotated[int | None, Within(1, 1e6)] = None
    """Projections over 180 degrees; None for as many as the field has pixels across (at least 180)."""
    phase_contrast: Annotated[float, Within(-100, 100)] = 0.12
    """Edge enhancement by in-line phase contrast: 1/cm taken off for each unit of the Laplacian (per px^2) of the
    electron density relative to water. 0 switches it off."""
    gain_error: Annotated[float, Within(0, 1)] = 0.0004
    """Spread of the detector's gain left after flat-field correction; makes rings. 0 switches it off."""
    beam_hardening: Annotated[float, Within(0, 1)] = 0.0
    """For a laboratory source: the part b of the measured line integral p (1 - b p), capped at its summit. 0 to 0.1."""
    psf_sigma_px: Annotated[float, Within(0, 100)] = 0.6
    """Gaussian blur of the detector, px."""
    axis_offset_px: Annotated[float, Within(-1e4, 1e4)] = 0.0
    """How far the axis of rotation is from where the reconstruction assumes it, px."""
    circular_mask: bool = False
    """Zeros outside the circle that the detector has seen at every angle, as many reconstructions have."""
    scaling: Literal["float32", "uint16", "uint8"] = "float32"
    """Stored numbers: 1/cm as they are, or integers that ``window_per_cm`` is mapped to."""
    window_per_cm: Annotated[tuple[float, float] | None, Within(-1e6, 1e6)] = None
    """Lowest and highest attenuation that integers hold, 1/cm; None for a window around the specimen's own."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.scaling not in ("float32", "uint16", "uint8"):
            raise ValueError(f"scaling {self.scaling!r} is unknown; choose float32, uint16 or uint8")
        if self.window_per_cm is not None and not self.window_per_cm[0] < self.window_per_cm[1]:
            raise ValueError(f"window_per_cm must rise, not go from {self.window_per_cm[0]} to {self.window_per_cm[1]}")


class Slab(NamedTuple):
    """Slices z0 .. of a scanned specimen: ``ct`` and ``labels`` (z, y, x) at the CT's voxel size."""

    z0: int
    ct: Stored
    labels: Labels


@dataclass(frozen=True)
class Tomograph:
    """A scan being made: ``grid`` is the CT's (z, y, x), ``material`` the implant's."""

    recipe: TomographyRecipe
    grid: Grid
    seed: int
    material: Material

    @property
    def dtype(self) -> str:
        """Type of the stored numbers."""
        return self.recipe.scaling

    @property
    def attributes(self) -> dict[str, float | str]:
        """How to get 1/cm back from stored numbers, to be written beside them: value = number * slope + intercept."""
        slope, intercept = self.slope_intercept
        return {"units": "1/cm", "slope": slope, "intercept": intercept, "energy_kev": self.recipe.energy_kev}

    @property
    def geometry(self) -> Projector:
        """Projections of one slice; the image is square and holds the slice in its middle."""
        size = max(self.grid.shape[1:])
        return projector(size, self.recipe.projections or max(180, size))

    @property
    def window_per_cm(self) -> tuple[float, float]:
        """Attenuation that the lowest and the highest integer stand for, 1/cm."""
        if self.recipe.window_per_cm is not None:
            return self.recipe.window_per_cm
        table = attenuation(self.material, self.recipe.energy_kev)
        top = float(max(table[Tissue.METAL], table[Tissue.CEMENT]))
        return -0.25 * top, 1.35 * top

    @property
    def slope_intercept(self) -> tuple[float, float]:
        """Stored number -> 1/cm: value = number * slope + intercept."""
        if self.recipe.scaling == "float32":
            return 1.0, 0.0
        low, high = self.window_per_cm
        return (high - low) / float(np.iinfo(self.recipe.scaling).max), low

    def stored(self, values_per_cm: Float32) -> Stored:
        """Attenuation (any shape, 1/cm) in the recipe's numbers: clipped to the window and rounded half to even."""
        if self.recipe.scaling == "float32":
            return values_per_cm
        slope, intercept = self.slope_intercept
        numbers = np.rint((values_per_cm - np.float32(intercept)) / np.float32(slope))
        top = np.iinfo(self.recipe.scaling).max
        whole: Stored = np.clip(numbers, 0, top).astype(self.recipe.scaling)
        return whole

    def scan(self, fine_labels: Labels, z0: int, *, workers: int = 2) -> Stored:
        """Scan a slab: labels at half the voxel size (2z, 2y, 2x) -> CT (z, y, x) in the recipe's numbers.

        ``z0`` is the slab's first slice in the CT; it seeds the noise, so slabs of any even depth give the same CT.

        Raises
        ------
        ValueError
            The slab does not fit the grid, or starts at an odd slice.
        """
        depth, rows, columns = (n // 2 for n in fine_labels.shape)
        if fine_labels.shape != (2 * depth, 2 * self.grid.shape[1], 2 * self.grid.shape[2]):
            raise ValueError(
                f"labels at half the voxel size of {self.grid.shape[1:]} slices have shape "
                f"(2 z, {2 * self.grid.shape[1]}, {2 * self.grid.shape[2]}), not {fine_labels.shape}"
            )
        if z0 % 2:
            raise ValueError(f"slices are scanned in pairs; a slab starts at an even slice, not at {z0}")
        ct = np.empty((depth, rows, columns), dtype=self.recipe.scaling)

        def pair(first: int) -> None:
            both = [self._slice_maps(fine_labels[2 * z : 2 * z + 2]) for z in range(first, min(first + 2, depth))]
            both += [np.zeros_like(both[0])] * (2 - len(both))
            for z, image in enumerate(self._scanned(both[0], both[1], z0 + first)[: depth - first]):
                ct[first + z] = self.stored(image)

        _ = self.geometry
        with ThreadPoolExecutor(max(1, workers)) as pool:
            list(pool.map(pair, range(0, depth, 2)))
        return ct

    def _slice_maps(self, fine: Labels) -> Float32:
        """Attenuation less the resin's, phase contrast added, averaged from eight labels a voxel: (y, x) 1/cm."""
        table = attenuation(self.material, self.recipe.energy_kev)
        found = _averaged(table - table[Tissue.RESIN], fine)
        if self.recipe.phase_contrast:
            density = electron_density(self.material)
            found -= np.float32(self.recipe.phase_contrast) * _laplacian(_averaged(density, fine))
        return found

    def _scanned(self, first: Float32, second: Float32, z: int) -> list[Float32]:
        """Two slices z and z + 1, projected, measured and reconstructed: [(y, x) 1/cm] * 2."""
        geometry = self.geometry
        rows, columns = first.shape
        top, left = (geometry.size - rows) // 2, (geometry.size - columns) // 2
        inner = slice(top, top + rows), slice(left, left + columns)
        image = np.zeros((geometry.size, geometry.size), dtype=np.complex64)
        image[inner] = first + 1j * second
        sinogram = geometry.project(image, self._transfer())
        pixel_cm = self.grid.spacing_um[2] * 1e-4
        table = attenuation(self.material, self.recipe.energy_kev)
        radius = geometry.size / np.sqrt(2.0)
        chord = 2 * np.sqrt(np.maximum(radius**2 - geometry.places_px**2, 0)) * float(table[Tissue.RESIN]) * pixel_cm
        real = self._measured(sinogram.real * np.float32(pixel_cm) + chord.astype(np.float32), z) - chord
        imaginary = self._measured(sinogram.imag * np.float32(pixel_cm) + chord.astype(np.float32), z + 1) - chord
        measured = np.empty_like(sinogram)
        measured.real, measured.imag = real, imaginary
        back = geometry.reconstruct(measured)[inner] / np.float32(pixel_cm)
        images = [part + table[Tissue.RESIN] for part in (back.real, back.imag)]
        if self.recipe.circular_mask:
            outside = _outside_circle(rows, columns)
            for part in images:
                part[outside] = 0
        return images

    def _transfer(self) -> Complex:
        """What happens to the spectrum of a projection on its way: blur and the shift of the axis."""
        frequency = self.geometry.frequency
        blur = np.exp(-2 * (np.pi * self.recipe.psf_sigma_px * frequency) ** 2)
        return np.asarray(blur * np.exp(-2j * np.pi * self.recipe.axis_offset_px * frequency), dtype=np.complex64)

    def _measured(self, integrals: Float32, z: int) -> Float64:
        """Line integrals (angles, detector) as a detector counts them and a logarithm gives them back."""
        recipe = self.recipe
        bend = recipe.beam_hardening
        hardened = np.minimum(integrals, 1 / (2 * bend)) if bend else integrals
        passed = np.exp(-(hardened * (1 - bend * hardened)).astype(np.float64))
        if recipe.gain_error:
            passed *= 1 + recipe.gain_error * self._gain(z)
        if not recipe.photons:
            return -np.log(passed)
        counts = np.random.default_rng([self.seed, 6, z]).poisson(recipe.photons * passed)
        return -np.log(np.maximum(counts, _FEWEST_PHOTONS) / recipe.photons)

    def _gain(self, z: int) -> Float64:
        """Gain error of each detector pixel, unit variance at the nodes, drifting slowly along z: (detector,)."""
        node, part = divmod(z, _DRIFT_SLICES)
        ends = [
            np.random.default_rng([self.seed, 5, node + k]).standard_normal(self.geometry.detector) for k in range(2)
        ]
        part_of_node = part / _DRIFT_SLICES
        return ends[0] * (1 - part_of_node) + ends[1] * part_of_node


def slabs(anatomy: Anatomy, grid: Grid, depth: int = 32) -> Iterator[tuple[int, Labels]]:
    """Labels at half the voxel size of ``grid``, in slabs of ``depth`` slices: (z0, (2z, 2y, 2x) uint8).

    The eight fine voxels of a voxel fill it exactly. The last slab is as thin as it must be.
    """
    if depth < 2 or depth % 2:
        raise ValueError(f"a slab holds an even number of slices, 2 or more, not {depth}")
    half = tuple(step / 2 for step in grid.spacing_um)
    for z0 in range(0, grid.shape[0], depth):
        count = min(depth, grid.shape[0] - z0)
        start = (grid.origin_um[0] + z0 * grid.spacing_um[0], *grid.origin_um[1:])
        corner = tuple(place - step / 2 for place, step in zip(start, half, strict=True))
        yield z0, anatomy.labels(Grid((2 * count, 2 * grid.shape[1], 2 * grid.shape[2]), half, corner))


def simulate(anatomy: Anatomy, recipe: TomographyRecipe, grid: Grid, seed: int, *, depth: int = 32) -> Iterator[Slab]:
    """Scan a specimen slab by slab; memory is that of one slab, so any number of slices streams."""
    scanner = Tomograph(recipe, grid, seed, anatomy.recipe.material)
    for z0, fine in slabs(anatomy, grid, depth):
        yield Slab(z0, scanner.scan(fine, z0), majority(fine))


def majority(fine_labels: Labels) -> Labels:
    """The label that most of a voxel's eight fine voxels have: (2z, 2y, 2x) -> (z, y, x) uint8.

    A tie goes to the first fine voxel's label if that is among the tied, else to the least value: no tissue gains.
    """
    parts = [np.ascontiguousarray(fine_labels[k >> 2 :: 2, k >> 1 & 1 :: 2, k & 1 :: 2]) for k in range(8)]
    mixed = np.zeros(parts[0].shape, dtype=bool)
    for part in parts[1:]:
        mixed |= part != parts[0]
    eight = np.stack([part[mixed] for part in parts])
    chosen = np.zeros(eight.shape[1], dtype=np.uint8)
    best = np.zeros(eight.shape[1], dtype=np.uint8)
    for label in np.flatnonzero(np.bincount(eight.ravel(), minlength=256)):
        here = eight == label
        votes = 2 * here.sum(axis=0, dtype=np.uint8) + here[0]
        better = votes > best
        np.copyto(best, votes, where=better)
        np.copyto(chosen, np.uint8(label), where=better)
    found = parts[0]
    found[mixed] = chosen
    return found


def _averaged(table: Float32, fine: Labels) -> Float32:
    """Mean over the fine voxels of each voxel: table (256,), labels (2, 2y, 2x) -> (y, x)."""
    values = table[fine]
    plane = values[0] + values[1]
    rows = plane[0::2] + plane[1::2]
    mean: Float32 = (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.125)
    return mean


def _laplacian(image: Float32) -> Float32:
    """Five-point Laplacian per px^2, edges repeated: (y, x) -> (y, x)."""
    wide = np.pad(image, 1, mode="edge")
    around: Float32 = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] - 4 * image
    return around


def _outside_circle(rows: int, columns: int) -> npt.NDArray[np.bool_]:
    y, x = np.ogrid[:rows, :columns]
    away = (y - (rows - 1) / 2) ** 2 + (x - (columns - 1) / 2) ** 2
    outside: npt.NDArray[np.bool_] = away > (min(rows, columns) / 2) ** 2
    return outside
