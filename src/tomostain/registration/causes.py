"""Why a slide was refused: the usual causes, and whether another pixel size would fit better."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tomostain.registration import quality
from tomostain.registration.align import COARSE, MIDDLE, ROUGH, diagonal_um, region_of, smooth_um
from tomostain.registration.coarse import Pose, search
from tomostain.registration.fine import Schedule, fit
from tomostain.registration.hints import Hints
from tomostain.registration.modality import Stained, Target
from tomostain.registration.scene import picture, volume_scene

CAUSES = (
    "the pixel size of the slide or the voxel size of the CT is wrong (a factor of 2, 4 or 10 is usual)",
    "the slide was cut from another specimen, or from a part that was not scanned",
    "the section lies mirrored, tilted or shrunk outside the limits of the search "
    "(--mirrored, --tilt-within, --shrinkage)",
    "the colours or the grey values are inverted, or the picture shows more than one section",
)
_FACTORS = (0.1, 0.25, 0.5, 2.0, 4.0, 10.0)
_SIZES = (0.5, 2.0)
"""Sizes of a slide, over that of the volume's cross-section, for which another pixel size is tried."""
_BETTER, _LEAST = 1.5, 0.25
"""How many times as much detail another pixel size must explain, and how much at least."""
_PLACES = 10


@dataclass(frozen=True)
class Scaled:
    """A pixel size that fits better: its factor on the stated one and the share of detail that it explains."""

    factor: float
    detail: float
    stated: float
    """The share of detail that the stated pixel size explains in the same quick test."""


def better_scale(
    target: Target, stained: Stained, hints: Hints, prior: Pose | None = None, *, stated: float = 0.0
) -> Scaled | None:
    """The pixel size, among the usual mistakes, with which the slide fits clearly better than the ``stated`` detail.

    A quick registration is made with each: a coarse search, a few positions refined, and the detail of the best.
    None if no other pixel size fits.
    """
    across = float(np.linalg.norm(target.grid.extent_um[1:]))
    found = []
    for factor in _FACTORS:
        scaled = replace(stained, pixel_um=(stained.pixel_um[0] * factor, stained.pixel_um[1] * factor))
        if _SIZES[0] <= float(np.linalg.norm(scaled.extent_um)) / across <= _SIZES[1]:
            found.append(Scaled(factor, _quick_detail(target, scaled, hints, prior), stated))
    best = max(found, key=lambda s: s.detail, default=None)
    return best if best is not None and best.detail >= max(_LEAST, _BETTER * stated) else None


def _quick_detail(target: Target, stained: Stained, hints: Hints, prior: Pose | None) -> float:
    scale = 1 / (1 - hints.shrinkage)
    size = diagonal_um(target, stained, scale)
    region = region_of(target, hints, prior)
    raster_um = max(size / COARSE, float(np.linalg.norm(target.grid.extent_um[1:])) / COARSE)
    found = search(target, stained, region, spacing_um=raster_um, scale=scale, keep=_PLACES)
    if not found:
        return 0.0
    how = Schedule(12, scale=scale, in_plane_only=target.is_plane, scale_spread=0.1 if target.is_plane else 0.03)
    rough, small = volume_scene(target, size / ROUGH), picture(stained, size / ROUGH, classes=7, rich=False)
    fits = sorted((fit(rough, small, c.pose, None, how) for c in found), key=lambda f: -f.gain)[:3]
    smooth = smooth_um(target, size)
    middle = volume_scene(target, size / MIDDLE, smooth_um=smooth)
    medium = picture(stained, size / MIDDLE, classes=10, rich=False, smooth_um=smooth)
    return max(quality.explained_detail(fit(middle, medium, f.pose, None, how), middle, medium) for f in fits)
