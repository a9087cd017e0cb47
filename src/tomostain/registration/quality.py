"""How reliable a registration is: confidence of each pixel, expected error, and whether to refuse it.

The most informative measure is detail: whether the relation of colour and CT value, learnt on one part of the slide,
predicts the CT's fine structure on another. At a wrong position it predicts nearly nothing, even where coarse outlines
fit; and two registrations that use every other patch of the slide each then differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain.registration.fine import FLOOR, MOST_SQUARE, Fit, robust_ridge
from tomostain.registration.modality import Float32, Float64
from tomostain.registration.scene import Picture, Scene

WEIGHTS = (-4.4, 8.0, -3.0, 10.0, -4.0)
"""Logistic weights: constant, detail, log of the halves' disagreement over the fitted pixel, lead in detail, and how
much less of the slide than ``USUAL_INSIDE`` lies in the volume.

Chosen between right and wrong placements of tuning phantoms and the three real pairs: of 32 right ones the least
sure has 0.58, of 30 wrong ones the surest has 0.09 (docs/registration.md).
"""
ACCEPTED = 0.5
"""Least probability of being right that is accepted."""
ERROR_HALVES, ERROR_SIZE = 1.1, 0.006
"""Expected TRE: the halves' disagreement, and the slide's diagonal as far as no detail is seen, times these, added in
squares. Halves that are dragged alike agree; only the second part sees that. Fitted to phantoms, hard pairs and real
pairs of sections, each left out once (benchmarks/registration_calibration.py)."""
CHECKED = 0.95
"""Below this probability a person should look at the placement before it is used: one of 87 % was 3.5 times as far off
as expected; eight of eight phantom slides above 99 % (seeds 1010, 2001) were at most 1.5 times as far off."""
MOST_EXPECTED = 3.0
"""Expected error, in voxels, above which a person should look too."""
USUAL_INSIDE = 0.65
"""Share of a slide in the volume below which its probability falls: what is outside was compared with nothing."""
LEAST_STAINED = 0.02
"""Least share of a slide that must differ from bare glass."""

_LEAST_APART = 0.3
"""Least disagreement, in fitted pixels, that is distinguished from none."""
_DETAIL, _SQUARES = 35, 6
"""Parts of the diagonal over which detail is measured; squares along each edge between which colours are learnt."""


@dataclass(frozen=True)
class Score:
    """The measures by which a registration is accepted or refused.

    ``ratio`` is the share of the CT's variance that the slide explains, ``detail`` what it explains of the CT's local
    contrast where the colours were learnt elsewhere on the slide (see `explained_detail`), ``margin`` the margin in
    detail over the second-best position, ``disagreement_um`` the mean distance between two
    registrations that use half of the slide each, ``inside`` the share of the slide that lies in the volume,
    ``softness`` how soft the section was taken to be, ``size_um`` the slide's diagonal, ``fitted_um`` the pixel of the
    finest level.
    """

    ratio: float
    detail: float
    margin: float
    disagreement_um: float
    softness: float
    size_um: float
    inside: float
    voxel_um: float
    fitted_um: float

    @property
    def features(self) -> Float64:
        apart = max(self.disagreement_um / self.fitted_um, _LEAST_APART)
        outside = max(0.0, USUAL_INSIDE - self.inside)
        return np.asarray([1.0, self.detail, np.log(apart), self.margin, outside])

    @property
    def probability(self) -> float:
        """Probability that the placement is right, 0 to 1; a score by ``WEIGHTS``, not a calibrated frequency."""
        return float(1 / (1 + np.exp(-np.clip(self.features @ np.asarray(WEIGHTS), -30, 30))))

    @property
    def expected_tre_um(self) -> float:
        """The expected median distance to the true position, um."""
        unseen = 1 - float(np.clip(self.detail, 0, 1))
        return float(np.hypot(ERROR_HALVES * self.disagreement_um, ERROR_SIZE * unseen**2 * self.size_um))

    @property
    def uncertain(self) -> bool:
        """Whether a person should check the placement before it is used."""
        return self.probability < CHECKED or self.expected_tre_um > MOST_EXPECTED * self.voxel_um

    def fault(self) -> str | None:
        """Why the placement must not be used, None where it may."""
        if self.probability >= ACCEPTED:
            return None
        reasons = []
        if self.detail < 0.5:
            reasons.append(f"the slide explains only {max(self.detail, 0):.0%} of the CT's detail there")
        if self.margin < 0.5 * self.detail:
            reasons.append("another position fits nearly as well")
        if self.disagreement_um > self.fitted_um:
            reasons.append(f"two halves of the slide disagree by {self.disagreement_um:.0f} um")
        if self.inside < USUAL_INSIDE:
            reasons.append(f"only {self.inside:.0%} of the slide lies in the volume")
        return " and ".join(reasons or ["slide and volume do not match well enough"])


def explained_detail(fit: Fit, scene: Scene, slide: Picture) -> float:
    """Share of the CT's local contrast that the slide's colours predict on squares they were not fitted to.

    CT and features lose what is smooth over a thirty-fifth of the slide's diagonal, so that agreement in the large,
    which a few parameters can produce anywhere, has no effect. What a colour means is then fitted on the black
    squares of a chequerboard and tested on the white, and the other way round. Near 0 (or below) where slide and CT
    have nothing to do with each other, towards 1 where every structure meets its like.
    """
    rows, columns = (np.arange(n) * _SQUARES // n for n in slide.shape)
    black = ((rows[:, None] + columns[None, :]) % 2 == 0).reshape(-1)
    stack, known = _detail_of(fit, scene, slide)
    left = whole = 0.0
    for learnt, judged in ((black, ~black), (~black, black)):
        if min((known & learnt).sum(), (known & judged).sum()) < 2 * stack.shape[1]:
            return 0.0
        left += float((_left(stack, known & learnt, known & judged) + FLOOR).sum())
        whole += float((np.minimum(stack[known & judged, 0] ** 2, MOST_SQUARE) + FLOOR).sum())
    return 1.0 - left / whole


def detail_left(
    fit: Fit, scene: Scene, slide: Picture, learnt: npt.NDArray[np.bool_], judged: npt.NDArray[np.bool_]
) -> Float64:
    """Squares of what the colours, whose meaning is fitted to ``learnt`` pixels, leave of the CT's detail: (judged,).

    NaN off the volume. Both are smoothed a little before: interpolation between voxels smooths noise, and a fit that
    lies between them must not gain by that.
    """
    stack, known = _detail_of(fit, scene, slide, smooth=1.0)
    left = np.full(len(known), np.nan)
    if (known & learnt).sum() >= 2 * stack.shape[1]:
        left[known & judged] = _left(stack, known & learnt, known & judged)
    return left[judged]


def _detail_of(fit: Fit, scene: Scene, slide: Picture, *, smooth: float = 0.0) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """CT and features (n, 1 + k) without what is smooth over a thirty-fifth of the diagonal, and what is known (n,)."""
    values, _, inside = scene.sample(placed(fit, slide.points_um))
    known = inside.reshape(slide.shape)
    sigma = float(np.linalg.norm(slide.shape)) / _DETAIL
    stack = np.column_stack([values, slide.features]).astype(np.float32).reshape(*slide.shape, -1)
    stack[~known] = 0.0
    share = ndimage.gaussian_filter(known.astype(np.float32), sigma) + 1e-6
    low = ndimage.gaussian_filter(stack, (sigma, sigma, 0)) / share[..., None]
    stack = (ndimage.gaussian_filter(stack, (smooth, smooth, 0)) if smooth > 0 else stack) - low
    return stack.reshape(-1, stack.shape[-1]).astype(np.float64), inside


def _left(stack: Float64, learnt: npt.NDArray[np.bool_], judged: npt.NDArray[np.bool_]) -> Float64:
    beta, _, _ = robust_ridge(stack[learnt, 1:], stack[learnt, 0])
    return np.asarray(np.minimum((stack[judged, 0] - stack[judged, 1:] @ beta) ** 2, MOST_SQUARE))


def halves(slide: Picture, patch_um: float) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Two masks (n,) of a picture's pixels: the black and the white squares of a chequerboard."""
    square = np.floor(slide.points_um / patch_um).astype(int).sum(axis=1) % 2 == 0
    return square, ~square


def placed(fit: Fit, points_um: Float64) -> Float64:
    """Where slide points (..., 2) um lie in the volume by a fit: (..., 3) um."""
    at = fit.pose.to_um(points_um)
    if fit.field is None:
        return at
    units = fit.pose.axes / np.linalg.norm(fit.pose.axes, axis=0)
    return np.asarray(at + fit.field.at(points_um) @ units.T)


def jacobian(fit: Fit, points_um: Float64) -> Float64:
    """Local area over that of the undeformed slide at points (..., 2) um: 1 is undeformed, 0 and below a fold."""
    if fit.field is None:
        return np.ones(points_um.shape[:-1])
    lengths = np.linalg.norm(fit.pose.axes, axis=0)
    near = 0.02 * fit.field.step_um * np.eye(2)
    along = [
        (fit.field.at(points_um + near[i]) - fit.field.at(points_um - near[i])) / (2 * near[i, i]) / lengths
        for i in range(2)
    ]
    return np.asarray((1 + along[0][..., 0]) * (1 + along[1][..., 1]) - along[0][..., 1] * along[1][..., 0])


def confidence(fit: Fit, distance_um: Float32, jacobians: Float64, *, voxel_um: float, spacing_um: float) -> Float32:
    """Confidence of each pixel of a fit: (y, x) in [0, 1].

    The product of local similarity (robust weights, averaged over about 8 voxels), agreement of the two halves (a
    disagreement of four voxels counts for 0.6) and a plausible Jacobian; 0 off the volume.
    """
    known = np.isfinite(fit.residual)
    sigma = 2.0 * voxel_um / spacing_um + 1.0
    weight = np.where(known, fit.weight, 0.0)
    share = ndimage.gaussian_filter(known.astype(np.float32), sigma)
    similar = ndimage.gaussian_filter(weight, sigma) / np.maximum(share, 1e-3)
    agreed = np.exp(-0.5 * (distance_um / (4 * voxel_um)) ** 2)
    sound = (jacobians > 0.4) & (jacobians < 2.5)
    return np.asarray(np.clip(similar / 0.8, 0, 1) * agreed * sound * known, dtype=np.float32)
