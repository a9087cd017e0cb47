"""Discrete things in tissue - cells, tubes, bubbles - from hashed cells in, drawn into a raster of labels out.

A population is a jittered lattice: every cell of it may hold one object, found from its hash alone, so the objects of
any box can be listed without those of the rest. Drawing never depends on the order of objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tomostain.phantom.fields import Float32, Float64, Ints, uniform

Bools = npt.NDArray[np.bool_]

_CHUNK = 1_500_000
"""Most raster points handled at once when many small objects are drawn together; keeps the work in the cache."""


@dataclass(frozen=True)
class Raster:
    """Points on a box in a local orthonormal frame: local coordinates ``axes_um``, any spacing, rising.

    A point lies at ``corner_um + a0 * frame[0] + a1 * frame[1] + a2 * frame[2]`` in z, y, x um of the world. For the
    raster of a volume the frame is the identity and the corner 0, so that coordinates are exact.
    """

    axes_um: tuple[Float64, Float64, Float64]
    corner_um: Float64
    frame: Float64

    @property
    def shape(self) -> tuple[int, int, int]:
        """Points along the three local axes."""
        return len(self.axes_um[0]), len(self.axes_um[1]), len(self.axes_um[2])

    @property
    def aligned(self) -> bool:
        """Whether local coordinates are world coordinates."""
        return bool(np.array_equal(self.frame, np.eye(3)) and not self.corner_um.any())

    def crop(self, *cuts: slice) -> Raster:
        """The part of the raster under one slice per local axis."""
        axes = tuple(axis[cut] for axis, cut in zip(self.axes_um, cuts, strict=True))
        return Raster((axes[0], axes[1], axes[2]), self.corner_um, self.frame)

    def local(self, points_um: Float64) -> Float64:
        """World points in the local frame: (n, 3) -> (n, 3)."""
        if self.aligned:
            return points_um
        return self.turned(points_um - self.corner_um)

    def turned(self, vectors: Float64) -> Float64:
        """World vectors in the local frame: (..., 3) -> (..., 3)."""
        if self.aligned:
            return vectors
        turned: Float64 = vectors @ self.frame.T
        return turned

    def points_um(self) -> Float64:
        """All points in the world: (n, 3) in C order of the local axes."""
        local = np.stack(np.meshgrid(*self.axes_um, indexing="ij"), axis=-1).reshape(-1, 3)
        if self.aligned:
            return local
        world: Float64 = self.corner_um + local @ self.frame
        return world

    def bounds_um(self, margin_um: float = 0.0) -> tuple[Float64, Float64]:
        """Smallest world box around the raster, grown by a margin: (low, high), each (3,)."""
        ends = np.array(np.meshgrid(*[(axis[0], axis[-1]) for axis in self.axes_um])).reshape(3, -1).T
        world = ends if self.aligned else self.corner_um + ends @ self.frame
        return world.min(axis=0) - margin_um, world.max(axis=0) + margin_um


@dataclass(frozen=True)
class Objects:
    """A list of objects: centres (n, 3) in world um, and the hash cells (n, 3) that each owes its properties to."""

    centres_um: Float64
    cells: Ints
    seed: int
    channel: int

    def __len__(self) -> int:
        return len(self.cells)

    def draw(self, what: int) -> Float64:
        """The ``what``-th own uniform number in [0, 1) of each object: (n,)."""
        return uniform(self.seed, self.channel * 64 + 8 + what, *self.cells.T)

    def where(self, chosen: Bools) -> Objects:
        """Those that are chosen."""
        return Objects(self.centres_um[chosen], self.cells[chosen], self.seed, self.channel)

    def directions(self, what: int) -> Float64:
        """A random unit vector of each object, uniform on the sphere to within 6 %: (n, 3)."""
        total = np.zeros((len(self), 3))
        for term in range(4):
            total += np.stack([self.draw(what + 3 * term + axis) - 0.5 for axis in range(3)], axis=1)
        length = np.sqrt((total * total).sum(axis=1, keepdims=True))
        unit: Float64 = total / np.maximum(length, 1e-9)
        return unit


def population(
    raster: Raster, reach_um: float, pitch_um: float, seed: int, channel: int, *, jitter: float = 0.8
) -> Objects:
    """Objects, one per cell of a jittered lattice, whose centres are within ``reach_um`` of the raster."""
    low, high = raster.bounds_um(reach_um)
    ranges = [
        np.arange(int(np.floor(a / pitch_um)), int(np.floor(b / pitch_um)) + 1, dtype=np.int64)
        for a, b in zip(low, high, strict=True)
    ]
    cells = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    if not raster.aligned:
        middle = raster.local((cells.astype(np.float64) + 0.5) * pitch_um)
        slack = reach_um + pitch_um * 3.0**0.5
        near = np.ones(len(cells), dtype=bool)
        for axis in range(3):
            along = raster.axes_um[axis]
            near &= (middle[:, axis] > along[0] - slack) & (middle[:, axis] < along[-1] + slack)
        cells = cells[near]
    shift = np.stack([uniform(seed, channel * 64 + axis, *cells.T) for axis in range(3)], axis=1) - 0.5
    found = Objects((cells + 0.5 + jitter * shift) * pitch_um, cells, seed, channel)
    local = raster.local(found.centres_um)
    inside = np.ones(len(cells), dtype=bool)
    for axis in range(3):
        along = raster.axes_um[axis]
        inside &= (local[:, axis] >= along[0] - reach_um) & (local[:, axis] <= along[-1] + reach_um)
    return found.where(inside)


def draw_ellipsoids(
    mask: Bools, raster: Raster, centres_um: Float64, axes: Float64, half_um: Float64, reach_um: float
) -> None:
    """Set ``mask`` (the raster's shape) inside ellipsoids.

    ``axes`` (n, 3, 3) holds three orthonormal world directions per ellipsoid, ``half_um`` (n, 3) the half-axes along
    them, none longer than ``reach_um``.
    """
    centres = raster.local(centres_um)
    scaled = (raster.turned(axes) / half_um[:, :, None]).astype(np.float32)
    first, count = _windows(raster, centres, reach_um)
    step = max(1, _CHUNK // max(1, int(np.prod(count))))
    for begin in range(0, len(centres), step):
        some = slice(begin, begin + step)
        index, away = _offsets(raster, centres[some], first[some], count)
        total = np.zeros((len(away[0]), *count), dtype=np.float32)
        for row in range(3):
            term = scaled[some, row, 0, None] * away[0]
            along = term[:, :, None] + (scaled[some, row, 1, None] * away[1])[:, None, :]
            full = along[:, :, :, None] + (scaled[some, row, 2, None] * away[2])[:, None, None, :]
            full *= full
            total += full
        who, i, j, k = np.nonzero(total <= 1)
        mask[index[0][who, i], index[1][who, j], index[2][who, k]] = True


def _windows(raster: Raster, centres: Float64, reach_um: float) -> tuple[Ints, tuple[int, int, int]]:
    """First raster index (n, 3) of each object's window and the size that holds the largest of them."""
    first = np.empty((len(centres), 3), dtype=np.int64)
    count = [0, 0, 0]
    for axis, along in enumerate(raster.axes_um):
        first[:, axis] = np.searchsorted(along, centres[:, axis] - reach_um)
        last = np.searchsorted(along, centres[:, axis] + reach_um)
        count[axis] = int((last - first[:, axis]).max(initial=0))
    return first, (count[0], count[1], count[2])


def _offsets(
    raster: Raster, centres: Float64, first: Ints, count: tuple[int, int, int]
) -> tuple[list[Ints], list[Float32]]:
    """Raster indices and distances from the centre along each local axis: 3 x (n, count); outside counts as far."""
    index, away = [], []
    for axis, along in enumerate(raster.axes_um):
        places = first[:, axis, None] + np.arange(count[axis])
        inside = places < len(along)
        places = np.minimum(places, len(along) - 1)
        distance = (along[places] - centres[:, axis, None]).astype(np.float32)
        index.append(places)
        away.append(np.where(inside, distance, np.float32(1e9)))
    return index, away


def frames(first: Float64, hint: Float64) -> Float64:
    """Orthonormal triples (n, 3, 3): the first unchanged (n, 3), the second as near to ``hint`` as it can be."""
    second = hint - (hint * first).sum(axis=1, keepdims=True) * first
    length = np.sqrt((second * second).sum(axis=1, keepdims=True))
    spare = np.stack([-first[:, 1] - first[:, 2], first[:, 0] + 1e-12, first[:, 0]], axis=1)
    spare -= (spare * first).sum(axis=1, keepdims=True) * first
    second = np.where(length > 1e-3, second / np.maximum(length, 1e-9), spare)
    second /= np.maximum(np.sqrt((second * second).sum(axis=1, keepdims=True)), 1e-9)
    return np.stack([first, second, np.cross(first, second)], axis=1)


def draw_tubes(mask: Bools, raster: Raster, starts_um: Float64, ends_um: Float64, radii_um: Float64) -> None:
    """Set ``mask`` inside round-ended tubes from starts to ends (n, 3 each) with radii (n,)."""
    starts, ends = raster.local(starts_um), raster.local(ends_um)
    for start, end, radius in zip(starts, ends, radii_um, strict=True):
        low, high = np.minimum(start, end) - radius, np.maximum(start, end) + radius
        cut = tuple(
            slice(int(np.searchsorted(along, a)), int(np.searchsorted(along, b)))
            for along, a, b in zip(raster.axes_um, low, high, strict=True)
        )
        if any(part.start >= part.stop for part in cut):
            continue
        span = end - start
        length = max(float((span * span).sum()), 1e-9)
        away = [
            (raster.axes_um[axis][cut[axis]] - start[axis])
            .astype(np.float32)
            .reshape([-1 if k == axis else 1 for k in range(3)])
            for axis in range(3)
        ]
        step = [np.float32(value) for value in span]
        along_tube = (away[0] * step[0] + away[1] * step[1] + away[2] * step[2]) * np.float32(1 / length)
        np.clip(along_tube, 0, 1, out=along_tube)
        square = (away[0] - along_tube * step[0]) ** 2
        square += (away[1] - along_tube * step[1]) ** 2
        square += (away[2] - along_tube * step[2]) ** 2
        mask[cut] |= square <= np.float32(radius * radius)


def pack_spheres(raster: Raster, centres_um: Float64, radii_um: Float64, wall_um: float) -> Bools:
    """Where a point is inside one of soft spheres that press on each other, leaving walls: bool, raster's shape.

    Depth in a sphere is its radius less the distance to its centre; a point belongs to the deepest sphere, and is wall
    where the second deepest comes within ``wall_um``.
    """
    best = np.full(raster.shape, -1e6, dtype=np.float32)
    second = np.full(raster.shape, -1e6, dtype=np.float32)
    for centre, radius in zip(raster.local(centres_um), radii_um, strict=True):
        cut = tuple(
            slice(int(np.searchsorted(along, middle - radius)), int(np.searchsorted(along, middle + radius)))
            for along, middle in zip(raster.axes_um, centre, strict=True)
        )
        if any(part.start >= part.stop for part in cut):
            continue
        square = [
            ((raster.axes_um[axis][cut[axis]] - centre[axis]) ** 2)
            .astype(np.float32)
            .reshape([-1 if k == axis else 1 for k in range(3)])
            for axis in range(3)
        ]
        depth = square[0] + square[1] + square[2]
        np.sqrt(depth, out=depth)
        np.subtract(np.float32(radius), depth, out=depth)
        first = best[cut]
        np.maximum(second[cut], np.minimum(first, depth), out=second[cut])
        np.maximum(first, depth, out=first)
    return (best > 0) & (best - second > np.float32(wall_um))
