"""Smooth fields on a raster: knots and a raster in, one dense array for each requested field out."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tomostain.phantom.fields import Float32, Float64, Knots
from tomostain.phantom.objects import Raster

_STEP_UM = 4.0
"""Distance of the points of a plane at which fields are evaluated; linear in between: a surface that bends with a
radius of 20 um moves by 0.1 um."""


class Fields(Protocol):
    """The smooth fields of a specimen on one raster."""

    def bounds(self, name: str) -> tuple[float, float]:
        """Values that the field cannot leave on this raster."""
        ...

    def __getitem__(self, name: str) -> Float32:
        """The field on the whole raster: float32 of the raster's shape."""
        ...


class BoxFields:
    """Fields on an axis-aligned raster, straight from the knots' splines."""

    def __init__(self, knots: Knots, raster: Raster) -> None:
        self._knots, self._raster = knots, raster
        self._found: dict[str, Float32] = {}

    def bounds(self, name: str) -> tuple[float, float]:
        """Values that the field cannot leave on this raster."""
        return self._knots.bounds(name, self._raster.axes_um)

    def __getitem__(self, name: str) -> Float32:
        """The field on the whole raster: float32 of the raster's shape."""
        if name not in self._found:
            self._found[name] = self._knots.on_axes(name, self._raster.axes_um)
        return self._found[name]


class PlaneFields:
    """Fields on layers of an oblique plane: splines at points a few um apart, linear between them within the layer."""

    def __init__(self, knots: Knots, raster: Raster) -> None:
        self._raster = raster
        coarse = tuple(_coarse(axis) for axis in raster.axes_um[1:])
        points = Raster((raster.axes_um[0], coarse[0], coarse[1]), raster.corner_um, raster.frame)
        self._axes, self._shape = coarse, points.shape
        self._values = knots.at(tuple(knots.values), points.points_um())
        self._found: dict[str, Float32] = {}

    def bounds(self, name: str) -> tuple[float, float]:
        """Values that the field cannot leave on this raster."""
        values = self._values[name]
        return float(values.min()), float(values.max())

    def __getitem__(self, name: str) -> Float32:
        """The field on the whole raster: float32 of the raster's shape."""
        if name not in self._found:
            values = self._values[name].reshape(self._shape)
            for axis in (1, 2):
                values = _between(values, self._axes[axis - 1], self._raster.axes_um[axis], axis)
            self._found[name] = values
        return self._found[name]


def _coarse(axis_um: Float64) -> Float64:
    """Multiples of the step that reach around an axis; the axis itself where that is coarser."""
    first, last = np.floor(axis_um[0] / _STEP_UM), np.floor(axis_um[-1] / _STEP_UM) + 2
    around: Float64 = np.arange(first, last) * _STEP_UM
    return around if len(around) < len(axis_um) else axis_um


def _between(values: Float32, coarse_um: Float64, fine_um: Float64, axis: int) -> Float32:
    if coarse_um is fine_um:
        return values
    place = (fine_um - coarse_um[0]) / _STEP_UM
    left = np.floor(place).astype(np.int64)
    part = (place - left).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(3)])
    start = values.take(left, axis=axis)
    between: Float32 = start + (values.take(left + 1, axis=axis) - start) * part
    return between
