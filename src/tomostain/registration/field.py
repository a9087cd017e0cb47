"""An elastic field within a slide's plane: cubic B-splines, and how stiff they are taken to be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage, sparse
from scipy.interpolate import NdBSpline

from tomostain.registration.modality import Float64

_STRAIN_SPREAD, _CURVATURE_SPREAD = 0.2, 0.5
"""Spreads of an elastic field's strain, and of its second derivative times the slide's diagonal, at softness 1."""


@dataclass(frozen=True, eq=False)
class Field:
    """An elastic displacement in the plane: cubic B-spline coefficients (rows, columns, 2), um along the unit steps.

    The lattice is ``step_um`` slide um apart and starts one step before the slide's first corner.
    """

    coefficients: Float64
    step_um: float
    first_um: tuple[float, float]

    @classmethod
    def flat(cls, extent_um: tuple[float, float], step_um: float) -> Field:
        """No displacement, on a lattice that covers a slide of this size."""
        nodes = [int(np.ceil(e / step_um)) + 3 for e in extent_um]
        first = tuple(-(n - 1) / 2 * step_um for n in nodes)
        return cls(np.zeros((*nodes, 2)), step_um, (first[0], first[1]))

    def basis(self, points_um: Float64) -> sparse.csr_array:
        """Weights of all coefficients at points (n, 2): sparse (n, nodes)."""
        knots = tuple(
            first + (np.arange(count + 4) - 2) * self.step_um
            for first, count in zip(self.first_um, self.coefficients.shape[:2], strict=True)
        )
        found = NdBSpline.design_matrix(points_um, knots, 3, extrapolate=True)
        nodes = self.coefficients[..., 0].size  # SciPy leaves out the last columns where no point touches them
        return sparse.csr_array((found.data, found.indices, found.indptr), shape=(len(points_um), nodes))

    def at(self, points_um: Float64) -> Float64:
        """Displacement at points (..., 2): (..., 2) um along the unit steps."""
        flat = points_um.reshape(-1, 2)
        moved = self.basis(flat) @ self.coefficients.reshape(-1, 2)
        return np.asarray(moved).reshape(points_um.shape)

    def refined(self, extent_um: tuple[float, float], step_um: float) -> Field:
        """About the same displacement on a lattice of another step."""
        new = Field.flat(extent_um, step_um)
        rows, columns = new.coefficients.shape[:2]
        axes = [new.first_um[i] + np.arange(n) * step_um for i, n in enumerate((rows, columns))]
        limits = [
            (self.first_um[i] + self.step_um, self.first_um[i] + (n - 2) * self.step_um)
            for i, n in enumerate(self.coefficients.shape[:2])
        ]
        points = np.stack(
            np.meshgrid(*(np.clip(a, *lim) for a, lim in zip(axes, limits, strict=True)), indexing="ij"), -1
        )
        values = self.at(points)
        return replace(new, coefficients=np.stack([_coefficients(values[..., i]) for i in range(2)], axis=-1))


def _coefficients(values: Float64) -> Float64:
    return np.asarray(ndimage.spline_filter(values, order=3, mode="nearest"))


def bending(field: Field, diagonal_um: float, softness: float) -> Float64:
    """Precision matrix of a field's coefficients: curvature and strain have spreads that go with ``softness``.

    What is affine in the field is the pose's affair, so that the strain's part draws the field towards an affine map
    where nothing is seen.

    A patch of a thirteenth of the diagonal, squared, counts as one place where they are drawn anew.
    """
    rows, columns = field.coefficients.shape[:2]

    def differences(n: int, order: int) -> Any:
        return sparse.csr_array(np.diff(np.eye(n), order, axis=0))

    eye = [sparse.eye_array(n, format="csr") for n in (rows, columns)]
    step = field.step_um
    worth = (13 * step / diagonal_um) ** 2
    curved = worth * (diagonal_um / step**2 / (_CURVATURE_SPREAD * softness)) ** 2
    strained = worth / (step * _STRAIN_SPREAD * softness) ** 2
    down, across = differences(rows, 1), differences(columns, 1)
    parts = [
        (curved, sparse.kron(differences(rows, 2), eye[1])),
        (curved, sparse.kron(eye[0], differences(columns, 2))),
        (2 * curved, sparse.kron(down, across)),
        (strained, sparse.kron(down, eye[1])),
        (strained, sparse.kron(eye[0], across)),
    ]
    total = sum(weight * (part.T @ part) for weight, part in parts)
    return np.asarray(total.todense())
