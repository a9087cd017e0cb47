"""From a pose to a placement: all nine numbers of a plane's affine map, then an elastic field within the plane.

Gauss-Newton on the difference between the CT on the plane and the CT that the slide's colours predict. The prediction
is a ridge regression that is solved for together with the pose (variable projection), so the similarity is a
correlation ratio with a richer model; residuals are weighted robustly, because slides fold, tear and lose pieces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, linalg

from tomostain.registration.coarse import Pose
from tomostain.registration.field import Field, bending
from tomostain.registration.modality import Float32, Float64
from tomostain.registration.scene import Picture, Scene

SHEAR_SPREAD = 0.015
"""Spread of what makes a section's two directions oblique, radians."""
_FARTHEST = 4.0
"""Spreads of scale and obliqueness that no section exceeds."""
MOST_SQUARE, FLOOR = 4.0, 0.01
"""Greatest square of a residual that counts, and what is always left over, in working values (bone is about 2 above
marrow, a tenth of that is noise)."""
_PATCHES = 70
"""Neighbouring residuals are alike: a square of this part of the diagonal counts as one observation against priors."""
_HEIGHT = [0, 3, 6]
"""Which of the nine affine steps move along z."""
_HUBER = 2.5
"""Robust spreads at which residuals begin to count for less (Huber). They are never left out: an edge that does
not match yet has large residuals, and these are what pulls it into place."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted placement at one level: pose, elastic field, and the residual.

    ``ratio`` is the (robust) correlation ratio, ``weight`` (y, x) the weight of each pixel, ``residual`` (y, x)
    CT minus prediction in units of its robust spread ``spread`` (NaN off the volume).
    """

    pose: Pose
    field: Field | None
    ratio: float
    gain: float
    weight: Float32
    residual: Float32
    predicted: Float32
    spread: float
    inside: float


@dataclass(frozen=True)
class Schedule:
    """How one level is fitted."""

    iterations: int = 10
    scale: float = 1.05
    """Expected volume um per slide um."""
    scale_spread: float = 0.03
    """Spread of the scale about it; sections shrink by 3 to 9 % (Museyko et al. 2015)."""
    softness: float = 1.0
    """How soft the section is taken to be: a factor on the spreads of an elastic field's strain and curvature."""
    in_plane_only: bool = False
    keep_last: bool = False
    """The last iteration is returned however it did: where a fit wanders off is then seen."""


def fit(scene: Scene, slide: Picture, pose: Pose, field: Field | None, how: Schedule) -> Fit:
    """Fit pose and (where there is one) field to the CT by Gauss-Newton.

    Returns the last iteration, or the best one where the last is worse by more than a tenth.
    """
    problem = _Problem(scene, slide, field, how)
    best: Fit | None = None
    damping = 1e-3
    for _ in range(how.iterations):
        current, step = problem.linearise(pose, field, damping)
        if best is None or current.gain > best.gain:
            best, damping = current, max(damping * 0.3, 1e-4)
        else:
            damping = min(damping * 3, 1.0)
        if step is None:
            break
        pose, field, moved = problem.moved(pose, field, step)
        if moved < 0.02 * slide.spacing_um:
            break
    last, _ = problem.linearise(pose, field, damping)
    if how.keep_last or best is None or last.gain > best.gain - 0.1 * abs(best.gain):
        return last
    return best


def plausible(axes: Float64, how: Schedule) -> Float64:
    """Axes (3, 2) brought back to what a section can have become: stretch and obliqueness within ``_FARTHEST`` spreads.

    The stretch is that of the polar decomposition, so that only its excess is taken away and no turn is added.
    """
    left, sizes, right = np.linalg.svd(axes, full_matrices=False)
    stretch = right.T @ np.diag(sizes) @ right
    reach, oblique = _FARTHEST * how.scale_spread, _FARTHEST * SHEAR_SPREAD * how.scale / 2
    lengths = np.clip(stretch.diagonal(), how.scale - reach, how.scale + reach)
    across = float(np.clip(stretch[0, 1], -oblique, oblique))
    return np.asarray(left @ right @ np.asarray([[lengths[0], across], [across, lengths[1]]]))


class _Problem:
    """The normal equations of one level."""

    def __init__(self, scene: Scene, slide: Picture, field: Field | None, how: Schedule) -> None:
        self.scene, self.slide, self.how = scene, slide, how
        self.radius = float(np.linalg.norm(slide.extent_um)) / 2
        self.basis = field.basis(slide.points_um) if field is not None else None
        self.correlated = max(1.0, (2 * self.radius / _PATCHES / slide.spacing_um) ** 2)
        if field is not None:
            self.stiff = bending(field, 2 * self.radius, how.softness)
        self.lever = np.column_stack([np.ones(len(slide.points_um)), slide.points_um / self.radius])

    def linearise(self, pose: Pose, field: Field | None, damping: float) -> tuple[Fit, Float64 | None]:
        """The fit at a pose and field, and the step from there (None where too little is known)."""
        slide, how = self.slide, self.how
        at = pose.to_um(slide.points_um)
        units = pose.axes / np.linalg.norm(pose.axes, axis=0)
        if field is not None and self.basis is not None:
            at = at + np.asarray(self.basis @ field.coefficients.reshape(-1, 2)) @ units.T
        values, gradients, inside = self.scene.sample(at)
        known = np.flatnonzero(inside if slide.used is None else inside & slide.used)
        if len(known) < 50:
            return _nothing(pose, field, slide.shape), None
        y = values[known].astype(np.float64)
        features = slide.features[known]
        beta, weight, spread = robust_ridge(features, y)
        residual = y - features @ beta
        result = self._judge(pose, field, known, y, residual, weight, spread, features @ beta)
        g = gradients[known].astype(np.float64)
        if how.in_plane_only:
            g[:, 0] = 0.0
        lever = self.lever[known]
        affine = (lever[:, :, None] * g[:, None, :]).reshape(len(known), 9)
        dense = np.hstack([affine, features])
        weighted = dense * weight[:, None]
        normal = dense.T @ weighted
        right = -(weighted.T @ residual)
        n_theta, n_beta = 9, features.shape[1]
        worth = spread**2 * max(self.correlated, self._patch(known, residual * weight, g @ units))
        prior_n, prior_r = self._prior(pose, worth)
        normal[:9, :9] += prior_n
        right[:9] += prior_r
        if how.in_plane_only:
            # Nothing determines the height; without this, rounding errors grow to steps out of the plane.
            normal[_HEIGHT, :], normal[:, _HEIGHT], right[_HEIGHT] = 0.0, 0.0, 0.0
            normal[_HEIGHT, _HEIGHT] = 1.0
        normal[range(9), range(9)] *= 1 + damping
        normal[range(9), range(9)] += 1e-9 * normal[range(9), range(9)].max() + 1e-12
        normal[range(9, 9 + n_beta), range(9, 9 + n_beta)] += 1e-3 * weight.sum() / n_beta * 0.01
        if field is None or self.basis is None:
            return result, _solve(normal, right)[:n_theta]
        basis = self.basis[known]
        along = g @ units
        nodes = basis.shape[1]
        m = n_theta + n_beta + 2 * nodes
        big = np.zeros((m, m))
        big[: 9 + n_beta, : 9 + n_beta] = normal
        rhs = np.zeros(m)
        rhs[: 9 + n_beta] = right
        stiff = self.stiff * worth
        coefficients = field.coefficients.reshape(-1, 2)
        for i in range(2):
            lo = 9 + n_beta + i * nodes
            cross = np.asarray(basis.T @ (weighted * along[:, i : i + 1]))
            big[lo : lo + nodes, : 9 + n_beta] = cross
            big[: 9 + n_beta, lo : lo + nodes] = cross.T
            rhs[lo : lo + nodes] = -(basis.T @ (weight * along[:, i] * residual)) - stiff @ coefficients[:, i]
            for j in range(i, 2):
                hi = 9 + n_beta + j * nodes
                each = along[:, i] * along[:, j] * weight
                block = np.asarray((basis.T @ basis.multiply(each[:, None]).tocsr()).todense())
                big[lo : lo + nodes, hi : hi + nodes] = block
                big[hi : hi + nodes, lo : lo + nodes] = block.T
            spot = np.arange(lo, lo + nodes)
            big[spot, spot] += damping * big[spot, spot].mean() + 1e-9
            big[lo : lo + nodes, lo : lo + nodes] += stiff
        step = _solve(big, rhs)
        return result, np.concatenate([step[:9], step[9 + n_beta :]])

    def moved(self, pose: Pose, field: Field | None, step: Float64) -> tuple[Pose, Field | None, float]:
        """The pose and field after a step, shortened so that no point moves further than two pixels."""
        shift = self.lever @ step[:9].reshape(3, 3)
        length = np.linalg.norm(shift, axis=1)
        if field is not None and self.basis is not None:
            bend = step[9:].reshape(2, -1).T
            length = length + np.linalg.norm(np.asarray(self.basis @ bend), axis=1)
        largest = float(length.max())
        share = min(1.0, 2.0 * self.slide.spacing_um / max(largest, 1e-9))
        theta: Float64 = share * step[:9].reshape(3, 3)
        axes = plausible(np.asarray(pose.axes + theta[1:].T / self.radius), self.how)
        turned = Pose(pose.centre_um + theta[0], axes)
        if field is not None:
            added = share * step[9:].reshape(2, -1).T.reshape(field.coefficients.shape)
            field = replace(field, coefficients=field.coefficients + added)
        return turned, field, share * largest

    def _patch(self, known: npt.NDArray[Any], residual: Float64, gradient: Float64) -> float:
        """How many pixels of this residual are worth one independent observation of a displacement.

        The variance of a sum of gradient times residual (n, 2) over that of independent pixels: the sum over all lags
        of the product of their autocorrelations.
        """
        maps = np.zeros((3, len(self.slide.points_um)))
        maps[0, known], maps[1:, known] = residual - residual.mean(), gradient.T
        sizes = [fft.next_fast_len(2 * n, real=True) for n in self.slide.shape]
        power = np.abs(fft.rfft2(maps.reshape(3, *self.slide.shape), s=sizes)) ** 2
        own, moved = fft.irfft2(power[0], s=sizes), fft.irfft2(power[1] + power[2], s=sizes)
        alike = float((own * moved).sum()) / max(float(own[0, 0] * moved[0, 0]), 1e-30)
        return max(1.0, alike)

    def _prior(self, pose: Pose, worth: float) -> tuple[Float64, Float64]:
        """What is expected of scale and obliqueness, as normal equations of the nine affine steps."""
        normal, right = np.zeros((9, 9)), np.zeros(9)
        down, across = pose.axes[:, 0], pose.axes[:, 1]
        for i, axis in enumerate((down, across)):
            length = float(np.linalg.norm(axis))
            row = np.zeros(9)
            row[3 + 3 * i : 6 + 3 * i] = axis / length / self.radius
            normal += worth / self.how.scale_spread**2 * np.outer(row, row)
            right -= worth / self.how.scale_spread**2 * row * (length - self.how.scale)
        row = np.concatenate([np.zeros(3), across, down]) / self.radius / self.how.scale**2
        normal += worth / SHEAR_SPREAD**2 * np.outer(row, row)
        right -= worth / SHEAR_SPREAD**2 * row * float(down @ across) / self.how.scale**2
        return normal, right

    def _judge(
        self,
        pose: Pose,
        field: Field | None,
        known: npt.NDArray[Any],
        y: Float64,
        residual: Float64,
        weight: Float64,
        spread: float,
        predicted: Float64,
    ) -> Fit:
        """How good the fit is: correlation ratio over all known pixels, with and without the slide bounded alike.

        The bounds are in working values, the same everywhere: where the CT is all but even, a few pixels that stand out
        must not look like contrast that was explained.
        """
        whole = float(np.minimum((y - np.median(y)) ** 2, MOST_SQUARE).mean()) + FLOOR
        left = float(np.minimum(residual**2, MOST_SQUARE).mean()) + FLOOR
        ratio = float(np.clip(1 - left / whole, 0.0, 1.0))
        gain = -len(known) / len(self.slide.points_um) * float(np.log(max(1 - ratio, 1e-6)))
        maps = []
        for part, empty in ((weight, 0.0), (residual / spread, np.nan), (predicted, np.nan)):
            full = np.full(len(self.slide.points_um), empty, dtype=np.float32)
            full[known] = part
            maps.append(full.reshape(self.slide.shape))
        return Fit(pose, field, ratio, gain, maps[0], maps[1], maps[2], spread, len(known) / len(self.slide.points_um))


def robust_ridge(features: Float64, y: Float64) -> tuple[Float64, Float64, float]:
    """Ridge regression with Huber's weights: coefficients, weights, robust spread of the residuals."""
    weight: Float64 = np.ones(len(y))
    eye = np.eye(features.shape[1])
    beta = np.zeros(features.shape[1])
    spread = 1.0
    for _ in range(3):
        weighted = features * weight[:, None]
        normal = features.T @ weighted + 1e-5 * len(y) * eye
        beta = np.asarray(linalg.solve(normal, weighted.T @ y, assume_a="pos"))
        residual = np.abs(y - features @ beta)
        spread = max(1.4826 * float(np.median(residual)), 0.5 * float(np.sqrt(np.mean(residual**2))), 0.02)
        weight = np.minimum(1.0, _HUBER * spread / np.maximum(residual, 1e-9))
    return beta, weight, spread


def _solve(normal: Float64, right: Float64) -> Float64:
    scale = 1 / np.sqrt(np.maximum(normal.diagonal(), 1e-12))
    try:
        return np.asarray(scale * linalg.solve(normal * scale[:, None] * scale, right * scale, assume_a="pos"))
    except linalg.LinAlgError:
        return np.asarray(scale * linalg.lstsq(normal * scale[:, None] * scale, right * scale)[0])


def _nothing(pose: Pose, field: Field | None, shape: tuple[int, int]) -> Fit:
    blank = np.full(shape, np.nan, dtype=np.float32)
    return Fit(pose, field, 0.0, -1.0, np.zeros(shape, dtype=np.float32), blank, blank, 1.0, 0.0)
