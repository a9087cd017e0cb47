"""The search over planes: every depth, tilt, in-plane rotation and mirroring is tried, every shift by FFT.

At each pose the slide's colour classes predict the CT by their mean values (correlation ratio, Roche et al. 1998): no
contrast is presumed. The score is the log-likelihood gain of that prediction over a constant one, so that a large
overlap counts for more than a small one of the same correlation ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from tomostain.registration.modality import Float32, Float64, Stained, Target, colour_classes

CLASSES = 7
"""Colour classes of the slide; enough for glass, fat, marrow, two kinds of bone, metal and its layer."""
_FLOOR = 0.02
"""Variance that nothing explains, in working values, so that an all but even cross-section promises nothing."""
LEAST_OVERLAP = 0.45
"""Least share of the smaller of slide and cross-section that must lie on the other."""


@dataclass(frozen=True)
class Pose:
    """A slide laid flat into the volume: slide um (y, x) from the slide's centre -> ``centre_um + axes @ point``.

    ``axes`` is (3, 2): where a um along the slide's rows' and columns' directions goes; its columns' lengths are what
    shrinkage takes back.
    """

    centre_um: Float64
    axes: Float64

    @property
    def normal(self) -> Float64:
        """Unit normal of the plane, pointing up in z."""
        normal = np.cross(self.axes[:, 0], self.axes[:, 1])
        normal /= np.linalg.norm(normal)
        return np.asarray(normal if normal[0] > 0 else -normal)

    @property
    def mirrored(self) -> bool:
        return bool(np.cross(self.axes[:, 0], self.axes[:, 1])[0] < 0)

    @property
    def tilt_deg(self) -> float:
        return float(np.degrees(np.arccos(np.clip(abs(self.normal[0]), -1, 1))))

    def to_um(self, points: Float64) -> Float64:
        """Slide um (..., 2) from the centre -> volume um (..., 3)."""
        return np.asarray(self.centre_um + points @ self.axes.T)


@dataclass(frozen=True)
class Candidate:
    """A pose and how well it does there."""

    pose: Pose
    score: float


@dataclass(frozen=True)
class Region:
    """Where to look: tilts (about y, about x; deg), depths (um), rotations (deg), shifts, mirroring."""

    depths_um: tuple[float, float]
    tilt_deg: float = 15.0
    tilt_about: tuple[float, float] = (0.0, 0.0)
    rotation_deg: tuple[float, float] = (-180.0, 180.0)
    mirrored: tuple[bool, ...] = (False, True)
    pivot_um: tuple[float, float] | None = None
    shift_um: float = np.inf


@dataclass(frozen=True)
class Attitude:
    """How a slide lies: the lean of its normal towards y and x, its turn in the plane (deg), and which side is up."""

    tilt_y_deg: float
    tilt_x_deg: float
    turn_deg: float
    mirrored: bool

    def pose(self, centre_um: Float64, scale: float) -> Pose:
        """The pose of a slide that lies so, with its centre (z, y, x um) there; ``scale`` is volume um per slide um."""
        axes = np.stack(plane_axes(self.tilt_y_deg, self.tilt_x_deg), axis=1)
        return Pose(np.asarray(centre_um, dtype=np.float64), axes @ turned_axes(self.turn_deg, self.mirrored, scale))


def attitude(pose: Pose) -> Attitude:
    """How a pose lies."""
    normal = pose.normal
    about = [float(np.degrees(np.arctan2(normal[i], normal[0]))) for i in (1, 2)]
    flat = np.stack(plane_axes(*about)) @ pose.axes
    turn = float(np.degrees(np.arctan2(flat[1, 0], flat[0, 0])))
    return Attitude(about[0], about[1], turn, bool(np.linalg.det(flat) < 0))


def search(
    target: Target,
    stained: Stained,
    region: Region,
    *,
    spacing_um: float,
    scale: float,
    keep: int,
    progress: Callable[[float], None] | None = None,
) -> list[Candidate]:
    """The ``keep`` best poses, best first, no two of them alike.

    ``scale`` is volume um per slide um, ``spacing_um`` the raster on which planes and slide are compared; ``progress``
    is called with the share of planes that have been compared.
    """
    values = target.at_spacing(spacing_um / 2)
    bank = _Bank(values, stained, region, spacing_um, scale)
    found: list[Candidate] = []
    planes = list(_planes(values, region, spacing_um))
    for number, (depth, tilts) in enumerate(planes):
        found += bank.at_plane(depth, tilts)
        if progress is not None:
            progress((number + 1) / len(planes))
    return distinct(sorted(found, key=lambda c: -c.score), keep, apart_um=2 * spacing_um, extent_um=bank.radius_um)


def distinct(candidates: Sequence[Candidate], keep: int, *, apart_um: float, extent_um: float) -> list[Candidate]:
    """The first ``keep`` candidates that differ from those before by ``apart_um`` somewhere on the slide."""
    at = np.asarray([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) * extent_um * 0.7
    chosen: list[Candidate] = []
    corners: list[Float64] = []
    for candidate in candidates:
        points = candidate.pose.to_um(at)
        if all(np.linalg.norm(points - other, axis=1).max() > apart_um for other in corners):
            chosen.append(candidate)
            corners.append(points)
            if len(chosen) == keep:
                break
    return chosen


def plane_axes(tilt_y_deg: float, tilt_x_deg: float) -> tuple[Float64, Float64]:
    """Unit vectors (z, y, x) of a plane's rows and columns for a normal leaning by these angles towards y and x."""
    normal = np.asarray([1.0, np.tan(np.deg2rad(tilt_y_deg)), np.tan(np.deg2rad(tilt_x_deg))])
    normal /= np.linalg.norm(normal)
    down = np.asarray([0.0, 1.0, 0.0])
    down -= (down @ normal) * normal
    down /= np.linalg.norm(down)
    return down, np.cross(normal, down)


class _Bank:
    """The slide, turned and mirrored every way, as transforms of its class maps."""

    def __init__(self, values: Target, stained: Stained, region: Region, spacing_um: float, scale: float) -> None:
        self.values, self.region, self.spacing_um, self.scale = values, region, spacing_um, scale
        extent = np.asarray(values.grid.extent_um)
        slide = np.asarray(stained.extent_um) * scale
        self.radius_um = float(np.linalg.norm(slide)) / 2
        self.turns = _turns(region, spacing_um, self.radius_um)
        self.shape = tuple(int(np.ceil(e / spacing_um)) + 2 for e in extent[1:])
        inside = np.abs(extent[1:].max() - slide.min()) / 2 + (1 - LEAST_OVERLAP) * min(extent[1:].min(), slide.min())
        self.reach = int(np.ceil(min(inside, region.shift_um + spacing_um) / spacing_um))
        across = 2 * self.radius_um / spacing_um
        self.size = tuple(
            fft.next_fast_len(max(int(np.ceil((n + across) / 2 + self.reach)), n + 1, int(across) + 3), real=True)
            for n in self.shape
        )
        fine = stained.at_spacing(spacing_um / 3 / scale)
        classes = colour_classes(fine.density, CLASSES)
        maps = np.stack([self._turned(classes, fine, turn, mirror) for turn, mirror in self.turns])
        self.count = maps.sum(axis=(1, 2, 3))
        self.maps = np.conj(fft.rfft2(maps.astype(np.float32), axes=(2, 3))).astype(np.complex64)
        self.whole = self.maps.sum(axis=1)

    def _turned(self, classes: npt.NDArray[np.uint8], fine: Stained, turn: float, mirror: bool) -> Float32:
        """Share of each class in the raster's pixels, slide centre in the middle of the frame: (class, y, x)."""
        over, (rows, columns) = 3, self.size
        step = self.spacing_um / over
        v = (np.arange(rows * over) - (rows * over - 1) / 2) * step
        h = (np.arange(columns * over) - (columns * over - 1) / 2) * step
        axes = turned_axes(turn, mirror, self.scale)
        back = np.linalg.inv(axes)
        points = np.stack(np.meshgrid(v, h, indexing="ij"), axis=-1) @ back.T
        first = fine.points_um[0, 0]
        index = np.round((points - first) / np.asarray(fine.spacing_um)).astype(int)
        inside = np.all((index >= 0) & (index < np.asarray(classes.shape)), axis=-1)
        index = np.where(inside[..., None], index, 0)
        there = np.where(inside, classes[index[..., 0], index[..., 1]], 255)
        shares = [(there == k).reshape(rows, over, columns, over).mean(axis=(1, 3)) for k in range(CLASSES)]
        return np.stack(shares).astype(np.float32)

    def at_plane(self, depth_um: float, tilts: tuple[float, float]) -> list[Candidate]:
        """The best shift of every turn at one plane."""
        down, right = plane_axes(*tilts)
        middle = self.values.middle_um.copy()
        middle[0] = depth_um
        if self.region.pivot_um is not None:
            middle[0] += np.tan(np.deg2rad(tilts)) @ (np.asarray(self.region.pivot_um) - middle[1:])
        v = (np.arange(self.shape[0]) - (self.shape[0] - 1) / 2) * self.spacing_um
        h = (np.arange(self.shape[1]) - (self.shape[1] - 1) / 2) * self.spacing_um
        points = middle + v[:, None, None] * down + h[None, :, None] * right
        cut = sample(self.values, points)
        there = np.isfinite(cut)
        if there.mean() < 0.3:
            return []
        level = float(cut[there].mean())
        ct = np.zeros(self.size, dtype=np.float32)
        valid = np.zeros(self.size, dtype=np.float32)
        ct[: self.shape[0], : self.shape[1]] = np.where(there, cut - level, 0.0)
        valid[: self.shape[0], : self.shape[1]] = there
        spectra = fft.rfft2(np.stack([ct, valid, ct**2]))
        sums = fft.irfft2(spectra[0] * self.maps, s=self.size, axes=(2, 3))
        counts = np.maximum(fft.irfft2(spectra[1] * self.maps, s=self.size, axes=(2, 3)), 1e-3)
        squares = fft.irfft2(spectra[2] * self.whole, s=self.size, axes=(1, 2))
        total, number = sums.sum(axis=1), counts.sum(axis=1)
        explained = (sums**2 / (counts + 1.0)).sum(axis=1)
        floor = total**2 / number
        spread = np.maximum(squares - floor, 1e-3 * number) + _FLOOR * number
        ratio = np.clip((explained - floor) / spread, 0.0, 0.999)
        least = LEAST_OVERLAP * np.minimum(self.count, there.sum())
        gain = np.where(number >= least[:, None, None], -number * np.log1p(-ratio), -1.0)
        # Where the frame's middle, which is the slide's centre, comes to lie on the plane's raster.
        shift = [self._shifts(axis) for axis in range(2)]
        allowed = (np.abs(shift[0])[:, None] <= self.reach) & (np.abs(shift[1])[None, :] <= self.reach)
        if self.region.pivot_um is not None:
            near_v = np.abs(shift[0] * self.spacing_um - self._offset(down, middle)) <= self.region.shift_um
            near_h = np.abs(shift[1] * self.spacing_um - self._offset(right, middle)) <= self.region.shift_um
            allowed = near_v[:, None] & near_h[None, :]
        gain = np.where(allowed, gain, -1.0).reshape(len(self.turns), -1)
        best = gain.argmax(axis=1)
        found = []
        for i, (turn, mirror) in enumerate(self.turns):
            if gain[i, best[i]] <= 0:
                continue
            row, column = np.unravel_index(int(best[i]), self.size)
            centre = middle + self.spacing_um * (shift[0][row] * down + shift[1][column] * right)
            axes = np.stack([down, right], axis=1) @ turned_axes(turn, mirror, self.scale)
            found.append(Candidate(Pose(centre, axes), float(gain[i, best[i]])))
        return found

    def _offset(self, along: Float64, middle: Float64) -> float:
        assert self.region.pivot_um is not None
        wanted = np.asarray([0.0, *self.region.pivot_um]) - np.asarray([0.0, *middle[1:]])
        return float(wanted @ along)

    def _shifts(self, axis: int) -> Float64:
        """Position of the slide's centre from the plane's middle, in pixels, for each lag of the correlation."""
        n, frame = self.shape[axis], self.size[axis]
        lag = np.arange(frame)
        lag = np.where(lag > frame // 2, lag - frame, lag)
        # frame index (frame-1)/2 of the slide map lands at lag + (frame-1)/2 of the plane, whose middle is (n-1)/2
        shift = lag + (frame - 1) / 2 - (n - 1) / 2
        wrapped = np.where(shift > frame / 2, shift - frame, shift)
        return np.asarray(np.where(wrapped < -frame / 2, wrapped + frame, wrapped), dtype=np.float64)


def turned_axes(turn_deg: float, mirror: bool, scale: float) -> Float64:
    """Slide directions on the plane's (row, column) axes: (2, 2), columns are the slide's rows' and columns' axes."""
    turn = np.deg2rad(turn_deg)
    down = np.asarray([np.cos(turn), np.sin(turn)])
    right = np.asarray([-np.sin(turn), np.cos(turn)]) * (-1.0 if mirror else 1.0)
    return np.asarray(np.stack([down, right], axis=1) * scale)


def sample(target: Target, points_um: Float64) -> Float32:
    """Trilinear values of a target at points (..., 3) um, NaN outside its box: float32 (...,)."""
    index = target.grid.index_of(points_um)
    flat = np.moveaxis(index, -1, 0).reshape(3, -1)
    last = np.asarray(target.grid.shape)[:, None] - 1
    inside = np.all((flat >= -0.5) & (flat <= last + 0.5), axis=0)
    values = ndimage.map_coordinates(target.values, np.clip(flat, 0, last), order=1, output=np.float32, mode="nearest")
    values[~inside] = np.nan
    return np.asarray(values.reshape(index.shape[:-1]), dtype=np.float32)


def _turns(region: Region, spacing_um: float, radius_um: float) -> list[tuple[float, bool]]:
    """In-plane rotations so dense that a point at two thirds of the radius is never further than a pixel off."""
    step = float(np.degrees(2 * spacing_um / (radius_um * 0.67)))
    low, high = region.rotation_deg
    count = max(1, int(np.ceil((high - low) / step)))
    full = high - low >= 360
    turns = low + (np.arange(count) if full else np.arange(count) + 0.5) * (high - low) / count
    return [(float(turn), mirror) for mirror in region.mirrored for turn in turns]


def _planes(target: Target, region: Region, spacing_um: float) -> Iterator[tuple[float, tuple[float, float]]]:
    """Depths and tilts so dense that no point of the cross-section is further than a pixel off."""
    if target.is_plane:
        yield float(target.grid.origin_um[0]), (0.0, 0.0)
        return
    radius = max(target.grid.extent_um[1:]) / 2
    step = float(np.degrees(2 * spacing_um / radius))
    count = int(np.ceil(region.tilt_deg / step))
    steps = np.arange(-count, count + 1) * (region.tilt_deg / count if count else 0.0)
    low, high = region.depths_um
    depths = np.linspace(low, high, max(1, int(np.ceil((high - low) / spacing_um))) + 1)
    for tilt_y in steps:
        for tilt_x in steps:
            if np.hypot(tilt_y, tilt_x) <= region.tilt_deg + 0.5 * step:
                for depth in depths:
                    yield float(depth), (region.tilt_about[0] + tilt_y, region.tilt_about[1] + tilt_x)
