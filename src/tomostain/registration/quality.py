"""How far to trust a registration: confidence of each pixel, the error to expect, and whether to refuse.

What tells most is whether two registrations agree that have each seen every other patch of the slide: where the slide
was not cut from the volume they go separate ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain.registration.fine import Fit
from tomostain.registration.modality import Float32, Float64
from tomostain.registration.scene import Picture

# Provisional: of ten registrations of tuning specimens (seeds 1000, 1001; 200 x 400 x 400 voxels) the five right ones
# had margins of 0.64 to 0.95, the five of other specimens' or no slides 0.01 to 0.15. All four are to be fitted by
# `python benchmarks/registration.py calibrate` once a cohort has been registered.
WEIGHTS = (-4.8, 0.0, 0.0, 12.0)
"""Logistic weights: constant, log of disagreement over voxel, log of unexplained share, margin over the runner-up."""
ACCEPTED = 0.5
"""Least probability of being right that is accepted."""
ERROR_SCALE, ERROR_POWER = 1.0, 1.0
"""Expected TRE = scale x voxel x (disagreement / voxel) ** power."""
LEAST_STAINED = 0.02
"""Least share of a slide that must differ from bare glass."""


@dataclass(frozen=True)
class Score:
    """What a registration is judged by.

    ``ratio`` is the share of the CT's variance that the slide explains, ``margin`` the gain of the best placement over
    the next different one, ``disagreement_um`` the median distance of two registrations from half the slide each,
    ``inside`` the share of the slide that lies in the volume.
    """

    ratio: float
    margin: float
    disagreement_um: float
    inside: float
    voxel_um: float

    @property
    def features(self) -> Float64:
        return np.asarray(
            [
                1.0,
                np.log(max(self.disagreement_um, 1e-3) / self.voxel_um),
                np.log(max(1 - self.ratio, 1e-3)),
                self.margin,
            ]
        )

    @property
    def probability(self) -> float:
        """Probability that the placement is right, calibrated on phantom cohorts."""
        return float(1 / (1 + np.exp(-np.clip(self.features @ np.asarray(WEIGHTS), -30, 30))))

    @property
    def expected_tre_um(self) -> float:
        """The median distance to the truth to expect, um."""
        return float(ERROR_SCALE * self.voxel_um * (self.disagreement_um / self.voxel_um) ** ERROR_POWER)

    def fault(self) -> str | None:
        """Why the placement must not be used, None where it may."""
        if self.probability >= ACCEPTED:
            return None
        told = []
        if self.disagreement_um > 4 * self.voxel_um:
            told.append(f"two halves of the slide disagree by {self.disagreement_um:.0f} um")
        if self.ratio < 0.7:
            told.append(f"the slide explains only {self.ratio:.0%} of the CT's contrast")
        if self.margin < 0.1:
            told.append("another place fits nearly as well")
        return " and ".join(told or ["slide and volume do not fit together well enough"])


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
    """How far each pixel of a fit may be believed: (y, x) in [0, 1].

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
