"""The implant of a phantom: a screw or a pin along any axis, as a signed distance, placed to fill part of a field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tomostain.images.geometry import Grid
from tomostain.phantom.fields import Float64

PITCH_UM = 400.0
"""Pitch of an M2 thread (ISO 261), um."""

THREAD_UM = 0.6134 * PITCH_UM
"""Depth of an ISO external thread (ISO 68-1: 0.6134 of the pitch), um."""

_CREST = 0.125
_ROOT = 0.25
"""Flats of the ISO profile as parts of the pitch (ISO 68-1: P/8 and P/4)."""


@dataclass(frozen=True)
class Implant:
    """An endless rod: ``centre_um`` on its axis, orthonormal ``frame`` rows (along, across, across), z, y, x."""

    shape: Literal["screw", "pin"]
    centre_um: Float64
    frame: Float64
    radius_um: float

    def cylindrical(self, points_um: Float64) -> tuple[Float64, Float64, Float64]:
        """Height along the axis and distance from it (um), angle about it (turns): (..., 3) -> 3 x (...)."""
        away = points_um - self.centre_um
        height, across, beside = (
            away[..., 0] * axis[0] + away[..., 1] * axis[1] + away[..., 2] * axis[2] for axis in self.frame
        )
        return height, np.sqrt(across * across + beside * beside), turns(beside, across)

    def distance_um(self, points_um: Float64) -> Float64:
        """Signed distance to the implant as it was put in, negative inside: (..., 3) um -> (...) um.

        Exact for a pin; for a screw the distance to the thread profile in the plane through the axis.
        """
        height, radial, angle = self.cylindrical(points_um)
        if self.shape == "pin":
            return radial - self.radius_um
        phase = height / PITCH_UM - angle
        along = np.abs(phase - np.floor(phase) - 0.5) * PITCH_UM
        crest, root = _CREST / 2 * PITCH_UM, (1 - _ROOT) / 2 * PITCH_UM
        outer, inner = self.radius_um, self.radius_um - THREAD_UM
        flank = np.clip((along - crest) / (root - crest), 0.0, 1.0)
        surface = outer - THREAD_UM * flank
        distance = _length(np.maximum(along - crest, 0.0), radial - outer)
        distance = np.minimum(distance, _length(np.maximum(root - along, 0.0), radial - inner))
        run, fall = root - crest, -THREAD_UM
        part = np.clip(((along - crest) * run + (radial - outer) * fall) / (run * run + fall * fall), 0.0, 1.0)
        distance = np.minimum(distance, _length(along - crest - part * run, radial - outer - part * fall))
        return np.where(radial < surface, -distance, distance)

    def bore_um(self, points_um: Float64) -> Float64:
        """Signed distance to the cylinder around the thread, into which the hole was drilled: (..., 3) -> (...) um."""
        return self.cylindrical(points_um)[1] - self.radius_um


def turns(sine: Float64, cosine: Float64) -> Float64:
    """Angle of (cosine, sine) in turns, [0, 1): a polynomial arctangent, the same bits wherever IEEE arithmetic is.

    Abramowitz and Stegun 4.4.49, error below 2e-6 of a turn.
    """
    high, low = np.maximum(np.abs(sine), np.abs(cosine)), np.minimum(np.abs(sine), np.abs(cosine))
    ratio = low / np.maximum(high, 1e-30)
    square = ratio * ratio
    series = 0.9998660 + square * (-0.3302995 + square * (0.1801410 + square * (-0.0851330 + square * 0.0208351)))
    angle = ratio * series * (1 / 6.283185307179586)
    angle = np.where(np.abs(sine) > np.abs(cosine), 0.25 - angle, angle)
    angle = np.where(cosine < 0, 0.5 - angle, angle)
    wrapped: Float64 = np.where(sine < 0, 1.0 - angle, angle)
    return wrapped


def place_implant(
    shape: Literal["screw", "pin"], grid: Grid, away_from: Float64, generator: np.random.Generator
) -> tuple[Implant, float]:
    """Put an implant into a field of view so that 12 to 28 % of it is implant and its surface runs through.

    The axis takes any direction; the implant lies off centre, rather not towards ``away_from`` (a unit vector).
    Screws are M2; pins are 2 mm thick or, in small fields, 0.9 of the field's second-longest edge.

    Returns
    -------
    implant : Implant
    depth_um : float
        How deep the field reaches into the implant.
    """
    lengths = np.asarray(grid.extent_um)
    middle = np.asarray(grid.origin_um) + (lengths - np.asarray(grid.spacing_um)) / 2
    axis = _unit(generator.normal(size=3))
    offset = _unit(_without(generator.normal(size=3), axis))
    if offset @ away_from > 0.2:
        offset = -offset
    target = generator.uniform(0.12, 0.28)
    radius = 1000.0 if shape == "screw" else min(1000.0, 0.45 * float(np.sort(lengths)[1]))
    frame = np.stack([axis, offset, np.cross(axis, offset)])
    start = generator.uniform(0, PITCH_UM)
    unit = (np.arange(20) + 0.5) / 20 - 0.5
    probes = middle + np.stack(np.meshgrid(*[unit * length for length in lengths], indexing="ij"), axis=-1).reshape(
        -1, 3
    )

    def at(push_um: float) -> tuple[Implant, Float64]:
        implant = Implant(shape, middle + push_um * offset + start * axis, frame, radius)
        return implant, implant.distance_um(probes)

    near, far = 0.0, radius + float(np.sqrt((lengths * lengths).sum()))
    for _ in range(24):
        push = (near + far) / 2
        if (at(push)[1] < 0).mean() > target:
            near = push
        else:
            far = push
    implant, distance = at(far)
    return implant, max(0.0, -float(distance.min()))


def _length(first: Float64, second: Float64) -> Float64:
    return np.sqrt(first * first + second * second)


def _unit(vector: Float64) -> Float64:
    unit: Float64 = vector / np.sqrt((vector * vector).sum())
    return unit


def _without(vector: Float64, axis: Float64) -> Float64:
    rest: Float64 = vector - (vector * axis).sum() * axis
    return rest
