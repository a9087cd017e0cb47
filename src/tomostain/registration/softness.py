"""How soft a section is taken to be: what the CT shows on squares of the slide that took no part in the fit decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tomostain.registration import quality
from tomostain.registration.field import Field
from tomostain.registration.fine import Fit, Schedule, fit
from tomostain.registration.modality import Float64
from tomostain.registration.scene import Picture, Scene

SOFTNESSES = (0.1, 0.3, 1.0)
"""From all but affine to what bends by the width of a tissue border (tuning phantoms)."""
_SQUARE = 1.5
"""Edge of the squares in steps of the field's lattice: further apart than what one coefficient moves on its own."""


def held_out(scene: Scene, slide: Picture, start: Fit, lattice: Field, how: Schedule) -> Float64:
    """What the CT's detail leaves unexplained on squares left out of the fit: (softness, square), sums of squares."""
    squares = np.floor(slide.points_um / (_SQUARE * lattice.step_um)).astype(int)
    _, which = np.unique(squares, axis=0, return_inverse=True)
    count = np.bincount(which)
    losses = []
    for softness in SOFTNESSES:
        left = np.full(len(which), np.nan)
        for fitted, judged in (masks := quality.halves(slide, _SQUARE * lattice.step_um), masks[::-1]):
            part = replace(slide, used=fitted)
            found = fit(scene, part, start.pose, lattice, replace(how, softness=softness, iterations=5))
            left[judged] = quality.detail_left(found, scene, slide, fitted, judged)
        known = np.isfinite(left)
        total = np.bincount(which[known], left[known], minlength=len(count))
        losses.append(total)
    there = np.bincount(which[np.isfinite(left)], minlength=len(count)) > 0
    return np.stack(losses).astype(np.float64)[:, there]


def best_softness(scene: Scene, slide: Picture, start: Fit, lattice: Field, how: Schedule) -> float:
    """The softest of ``SOFTNESSES``, or a stiffer one if held-out detail is better by more than a standard error."""
    losses = held_out(scene, slide, start, lattice, how)
    more = losses[-1] - losses
    gained = more.mean(axis=1) - more.std(axis=1) / np.sqrt(more.shape[1])
    best = int(losses.sum(axis=1).argmin())
    return SOFTNESSES[best] if gained[best] > 0 else SOFTNESSES[-1]
