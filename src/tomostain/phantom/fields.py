"""Seeded smooth fields: hashed lattices in, values anywhere in the world out, the same for every block and thread.

All randomness is an integer hash of (seed, channel, lattice cell), so nothing has to be stored and any part of an
unbounded field can be made alone. A field is *defined* as the quadratic B-spline of its values at knots some 10 um
apart: dense rasters, oblique planes and single points all see the same function. Only + - * / and square roots touch
the values, in an order that does not depend on the block, so that results are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_NOISE_GAIN = 2.45
"""Brings B-spline noise of unit nodes back to unit variance: 0.55^-1.5, the mean sum of w^2 being 0.55 an axis."""

_GRADIENT = 2.33
"""Root-mean-square gradient of unit noise times its cell size: sqrt(3 * 1 / b5(0)) with b5 the quintic B-spline."""


def distance_um(level: Float32, cell_um: float) -> Float32:
    """Level of a unit-variance noise (any shape) as a rough distance to its zero set, um: first-order Taylor."""
    scaled: Float32 = level * np.float32(cell_um / _GRADIENT)
    return scaled


def hashed(seed: int, channel: int, *cells: Ints) -> npt.NDArray[np.uint64]:
    """64 well-mixed bits for every lattice cell: int64 coordinates that broadcast -> uint64 (splitmix64 finaliser)."""
    start = (seed * 0x9E3779B97F4A7C15 + channel * 0xD1B54A32D192ED03 + 0x2545F4914F6CDD1D) % 2**64
    bits = np.array([start], dtype=np.uint64)
    for cell in cells:
        bits = _finalise(bits ^ (cell.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)))
    return _finalise(bits)


def uniform(seed: int, channel: int, *cells: Ints) -> Float64:
    """A uniform number in [0, 1) for every lattice cell: int64 coordinates that broadcast -> float64."""
    return (hashed(seed, channel, *cells) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _finalise(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _taps(places: Float64) -> tuple[Ints, tuple[Float32, Float32, Float32]]:
    """Middle node and the three quadratic B-spline weights at fractional lattice places: (n,) -> (n,), 3 x (n,)."""
    middle = np.floor(places + 0.5)
    away = places - middle
    left, right = 0.5 * (0.5 - away) ** 2, 0.5 * (0.5 + away) ** 2
    weights = (left.astype(np.float32), (0.75 - away * away).astype(np.float32), right.astype(np.float32))
    return middle.astype(np.int64), weights


def _along(values: Float32, places: Float64, first: int, axis: int) -> Float32:
    """Spline along one axis of node values whose first node is ``first``; places in node units."""
    middle, weights = _taps(places)
    index = middle - first
    shape = tuple(-1 if k == axis else 1 for k in range(values.ndim))
    out = values.take(index - 1, axis=axis)
    out *= weights[0].reshape(shape)
    for step in (0, 1):
        part = values.take(index + step, axis=axis)
        part *= weights[step + 1].reshape(shape)
        out += part
    return out


def _along_first(values: Float32, places: Float64, first: int) -> Float32:
    """As ``_along`` for axis 0, plane by plane, so that the work stays in the cache."""
    middle, weights = _taps(places)
    out = np.empty((len(places), *values.shape[1:]), dtype=np.float32)
    part = np.empty(values.shape[1:], dtype=np.float32)
    for row, node in enumerate(middle - first):
        np.multiply(values[node - 1], weights[0][row], out=out[row])
        for step in (0, 1):
            np.multiply(values[node + step], weights[step + 1][row], out=part)
            out[row] += part
    return out


def noise(axes_um: tuple[Float64, Float64, Float64], cell_um: float, seed: int, channel: int) -> Float32:
    """Smooth noise of about zero mean and unit variance on the raster spanned by three axes: (z, y, x) float32.

    Features are about ``cell_um`` across. ``axes_um`` may be in any order of size and spacing.
    """
    places = [np.asarray(axis, dtype=np.float64) / cell_um for axis in axes_um]
    lows = [int(np.floor(place.min() + 0.5)) - 1 for place in places]
    highs = [int(np.floor(place.max() + 0.5)) + 2 for place in places]
    cells = np.ix_(*(np.arange(low, high, dtype=np.int64) for low, high in zip(lows, highs, strict=True)))
    values = _node_values(seed, channel, *cells)
    for axis in (2, 1):
        values = _along(values, places[axis], lows[axis], axis)
    return _along_first(values, places[0], lows[0])


def noise_at(points_um: Float64, cell_um: float, seed: int, channel: int) -> Float64:
    """The same noise at single points: (n, 3) um -> (n,) float64 (equal to ``noise`` but for rounding)."""
    nodes, weights = zip(*(_taps(points_um[:, k] / cell_um) for k in range(3)), strict=True)
    total = np.zeros(len(points_um))
    for i in range(3):
        for j in range(3):
            for k in range(3):
                value = _node_values(seed, channel, nodes[0] + (i - 1), nodes[1] + (j - 1), nodes[2] + (k - 1))
                total += (weights[0][i] * weights[1][j] * weights[2][k]).astype(np.float64) * value
    return total


def _node_values(seed: int, channel: int, *cells: Ints) -> Float32:
    even = uniform(seed, channel, *cells) * 2.0 - 1.0
    values: Float32 = (even * (3.0**0.5 * _NOISE_GAIN)).astype(np.float32)
    return values


@dataclass(frozen=True)
class Knots:
    """Fields at knots ``pitch_um`` apart (knot i lies at i * pitch_um): what all evaluations interpolate."""

    pitch_um: float
    first: tuple[int, int, int]
    values: Mapping[str, Float32]

    def on_axes(self, name: str, axes_um: tuple[Float64, Float64, Float64]) -> Float32:
        """One field on an axis-aligned raster: (z, y, x) float32."""
        values = self.values[name]
        for axis in (2, 1):
            values = self._trimmed(values, axes_um, axis)
            values = _along(values, axes_um[axis] / self.pitch_um, self._start(axes_um, axis), axis)
        values = self._trimmed(values, axes_um, 0)
        return _along_first(values, axes_um[0] / self.pitch_um, self._start(axes_um, 0))

    def bounds(self, name: str, axes_um: tuple[Float64, Float64, Float64]) -> tuple[float, float]:
        """Values that a field cannot leave within the box of the axes: B-splines stay in their knots' convex hull."""
        values = self.values[name]
        for axis in range(3):
            values = self._trimmed(values, axes_um, axis)
        return float(values.min()), float(values.max())

    def at(self, names: tuple[str, ...], points_um: Float64) -> dict[str, Float32]:
        """Several fields at points: (n, 3) um -> name: (n,) float32."""
        stacked = np.stack([self.values[name] for name in names], axis=-1)
        shape = stacked.shape[:3]
        flat = stacked.reshape(-1, len(names))
        nodes, weights = zip(*(_taps(points_um[:, k] / self.pitch_um) for k in range(3)), strict=True)
        base = [nodes[k] - self.first[k] for k in range(3)]
        out = np.zeros((len(points_um), len(names)), dtype=np.float32)
        for i in range(3):
            for j in range(3):
                plane = ((base[0] + (i - 1)) * shape[1] + (base[1] + (j - 1))) * shape[2]
                weight = weights[0][i] * weights[1][j]
                for k in range(3):
                    part = flat.take(plane + (base[2] + (k - 1)), axis=0)
                    part *= (weight * weights[2][k])[:, None]
                    out += part
        return {name: np.ascontiguousarray(out[:, index]) for index, name in enumerate(names)}

    def _start(self, axes_um: tuple[Float64, Float64, Float64], axis: int) -> int:
        return int(np.floor(axes_um[axis].min() / self.pitch_um + 0.5)) - 1

    def _trimmed(self, values: Float32, axes_um: tuple[Float64, Float64, Float64], axis: int) -> Float32:
        low = self._start(axes_um, axis) - self.first[axis]
        high = int(np.floor(axes_um[axis].max() / self.pitch_um + 0.5)) + 2 - self.first[axis]
        if low < 0 or high > values.shape[axis]:
            raise ValueError("these knots do not reach around the requested raster")
        cut = [slice(None)] * 3
        cut[axis] = slice(low, high)
        return values[tuple(cut)]


KnotMaker = Callable[[tuple[Float64, Float64, Float64]], Mapping[str, Float32]]


def make_knots(maker: KnotMaker, pitch_um: float, low_um: Float64, high_um: Float64) -> Knots:
    """Knots that reach around the box low_um .. high_um (z, y, x): ``maker`` is called with the three axes in um."""
    first = [int(np.floor(low / pitch_um + 0.5)) - 1 for low in low_um]
    last = [int(np.floor(high / pitch_um + 0.5)) + 2 for high in high_um]
    axes = [np.arange(a, b, dtype=np.float64) * pitch_um for a, b in zip(first, last, strict=True)]
    return Knots(pitch_um, (first[0], first[1], first[2]), maker((axes[0], axes[1], axes[2])))
