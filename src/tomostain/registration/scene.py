"""What is fitted to what: a volume with its gradients on a raster, and a slide as features that predict it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.stats import rankdata

from tomostain.registration.coarse import Pose
from tomostain.registration.modality import Float32, Float64, Stained, Target, colour_classes


@dataclass(frozen=True, eq=False)
class Scene:
    """A target's values and gradients (um^-1) on a raster that can be sampled; ``frame`` turns z y x into its axes."""

    stack: npt.NDArray[np.float32]
    origin: Float64
    spacing: Float64
    frame: Float64
    box: tuple[Float64, Float64]
    """First and last corner (z y x um, edges of voxels) of what is known."""

    def sample(self, points_um: Float64) -> tuple[Float32, Float32, npt.NDArray[np.bool_]]:
        """Values (n,), gradients in z y x (n, 3) and whether each point (n, 3) is known."""
        inside = np.all((points_um >= self.box[0]) & (points_um <= self.box[1]), axis=1)
        index = ((points_um - self.origin) @ self.frame.T / self.spacing).T
        last = np.asarray(self.stack.shape[1:])[:, None] - 1
        inside &= np.all((index >= -0.5) & (index <= last + 0.5), axis=0)
        np.clip(index, 0, last, out=index)
        values = np.empty((4, index.shape[1]), dtype=np.float32)
        for i in range(4):
            ndimage.map_coordinates(self.stack[i], index, output=values[i], order=1, mode="nearest")
        return values[0], (values[1:].T @ self.frame).astype(np.float32), inside


SMOOTH_COUNTS = 0.2
"""How much what is smooth counts beside detail. Glass, void and shading differ between slide and CT in the large; were
they to count in full, they would pull edges apart that could meet (chosen on the three real pairs)."""


def volume_scene(target: Target, spacing_um: float, *, smooth_um: float | None = None) -> Scene:
    """The whole target, averaged to about ``spacing_um``; what is smooth over ``smooth_um`` counts for less."""
    coarse = target.at_spacing(spacing_um)
    values = ndimage.gaussian_filter(coarse.values, [0.5 if n > 1 else 0 for n in coarse.values.shape])
    values = _detailed(values, smooth_um, coarse.grid.spacing_um)
    return Scene(
        _with_gradients(values, coarse.grid.spacing_um),
        np.asarray(coarse.grid.origin_um),
        np.asarray(coarse.grid.spacing_um),
        np.eye(3),
        _box(target),
    )


def slab_scene(
    target: Target,
    pose: Pose,
    extent_um: tuple[float, float],
    *,
    spacing_um: float,
    thickness_um: float,
    reach_um: float,
) -> Scene:
    """The target around a pose, averaged through the section's thickness along the pose's normal."""
    coarse = target.at_spacing(spacing_um)
    down = pose.axes[:, 0] / np.linalg.norm(pose.axes[:, 0])
    right = pose.axes[:, 1] - (pose.axes[:, 1] @ down) * down
    right /= np.linalg.norm(right)
    frame = np.stack([np.cross(down, right), down, right])
    half = [reach_um + thickness_um / 2, *(e * 0.55 + 4 * spacing_um for e in extent_um)]
    counts = [2 * int(np.ceil(h / spacing_um)) + 1 for h in half]
    first = pose.centre_um - sum((n - 1) / 2 * spacing_um * axis for n, axis in zip(counts, frame, strict=True))
    values = _resampled(coarse, first, frame * spacing_um, counts)
    values = _through(values, thickness_um / spacing_um)
    return Scene(_with_gradients(values, (spacing_um,) * 3), first, np.full(3, spacing_um), frame, _box(target))


@dataclass(frozen=True, eq=False)
class Picture:
    """A slide at one level: its points (n, 2) slide um and the features (n, k) that predict a CT from it."""

    points_um: Float64
    features: Float64
    shape: tuple[int, int]
    spacing_um: float
    extent_um: tuple[float, float]
    used: npt.NDArray[np.bool_] | None = None
    """Which pixels (n,) take part; None for all."""


def picture(
    stained: Stained,
    spacing_um: float,
    *,
    classes: int = 16,
    rich: bool = True,
    ranked: bool = False,
    smooth_um: float | None = None,
) -> Picture:
    """Features of a slide at about ``spacing_um``: colour classes and, if ``rich``, densities at several scales.

    With ``ranked`` the classes are those of the densities' ranks: as many pixels in one as in another, whatever the
    section's thickness and however its tones are spread.
    With ``smooth_um`` (slide um) what is smooth over that length counts for less, as in the scene it is compared with.
    """
    level = stained.at_spacing(spacing_um)
    density = level.density
    labels = colour_classes(_ranks(density) if ranked else density, classes)
    columns = [(labels == k).astype(np.float32) for k in range(classes)]
    mean = density.mean(axis=2)
    columns += [density[..., i] for i in range(3)]
    if rich:
        columns += [density[..., i] * density[..., j] for i in range(3) for j in range(i, 3)]
        for sigma in (1.0, 2.5, 6.0):
            smooth = ndimage.gaussian_filter(density, (sigma, sigma, 0))
            columns += [smooth[..., 0], smooth[..., 2]]
        columns += [np.sqrt(np.maximum(ndimage.uniform_filter(mean**2, 5) - ndimage.uniform_filter(mean, 5) ** 2, 0))]
    points = level.points_um
    maps = [_detailed(np.asarray(c, dtype=np.float32), smooth_um, level.spacing_um) for c in columns]
    stack = np.stack(maps, axis=-1).reshape(-1, len(maps)).astype(np.float64)
    return Picture(points.reshape(-1, 2), stack, labels.shape, float(np.mean(level.spacing_um)), stained.extent_um)


def _ranks(density: Float32) -> Float32:
    """Each channel's ranks, evenly spread with the standard deviation that its densities have."""
    even = rankdata(density.reshape(-1, density.shape[-1]), axis=0) / density[..., 0].size
    return np.asarray(even.reshape(density.shape) * np.sqrt(12) * density.std(axis=(0, 1)), dtype=np.float32)


def _detailed(values: Float32, smooth_um: float | None, spacing_um: tuple[float, ...]) -> Float32:
    if smooth_um is None:
        return values
    sigma = [smooth_um / s if n > 1 else 0.0 for n, s in zip(values.shape, spacing_um, strict=True)]
    return np.asarray(values - np.float32(1 - SMOOTH_COUNTS) * ndimage.gaussian_filter(values, sigma))


def _with_gradients(values: Float32, spacing_um: tuple[float, ...]) -> npt.NDArray[np.float32]:
    stack = np.empty((4, *values.shape), dtype=np.float32)
    stack[0] = values
    for axis in range(3):
        stack[axis + 1] = np.gradient(values, spacing_um[axis], axis=axis) if values.shape[axis] > 1 else 0.0
    return stack


def _box(target: Target) -> tuple[Float64, Float64]:
    origin, spacing = np.asarray(target.grid.origin_um), np.asarray(target.grid.spacing_um)
    low = origin - spacing / 2
    high = low + np.asarray(target.grid.extent_um)
    if target.is_plane:
        low[0], high[0] = -np.inf, np.inf
    return low, high


def _resampled(target: Target, first: Float64, steps: Float64, counts: list[int]) -> Float32:
    """Values on a turned raster (nearest voxel beyond the box)."""
    spacing, origin = np.asarray(target.grid.spacing_um), np.asarray(target.grid.origin_um)
    matrix = (steps / spacing).T
    offset = (first - origin) / spacing
    return np.asarray(
        ndimage.affine_transform(
            target.values, matrix, offset, output_shape=tuple(counts), order=1, mode="nearest", output=np.float32
        )
    )


def _through(values: Float32, width: float) -> Float32:
    """Mean along the first axis over ``width`` samples (fractions allowed)."""
    if width <= 1.0 or values.shape[0] == 1:
        return values
    whole = int((width - 1) // 2)
    part = (width - 1) / 2 - whole
    kernel = np.concatenate([[part], np.ones(2 * whole + 1), [part]])
    return np.asarray(ndimage.convolve1d(values, (kernel / kernel.sum()).astype(np.float32), axis=0, mode="nearest"))
