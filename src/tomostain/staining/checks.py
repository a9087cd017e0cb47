"""Does a volume suit a stainer: its voxel size and its grey values."""

from __future__ import annotations

import numpy as np

from tomostain import runs
from tomostain.images.anchors import Anchors, GreyMap, find_anchors
from tomostain.images.grey_values import GreyValues
from tomostain.images.grid import scale_differs
from tomostain.images.image import Volume
from tomostain.images.sampling import sampled_planes
from tomostain.learning.ranges import warn_out_of_range
from tomostain.learning.stainer import Stainer
from tomostain.staining.blocks import Axis

_WARN_FROM = 0.01
"""Share of voxels outside the training's grey values from which a warning is given."""


def check_scale(model: Stainer, ct: Volume, axis: Axis) -> None:
    """Compare the pixels of the planes that are stained with those of the training; warn of planes farther apart.

    Raises
    ------
    ValueError
        They differ by more than ``images.grid.SCALE_TOLERANCE``.
    """
    through = "zyx".index(axis)
    apart = ct.grid.spacing_um[through]
    in_plane = [edge for i, edge in enumerate(ct.grid.spacing_um) if i != through]
    if scale_differs(in_plane, model.um_per_px, within_um=model.within_um):
        raise ValueError(
            f"the planes of {ct.name} across {axis} have pixels of {in_plane[0]:g} x {in_plane[1]:g} um, "
            f"the stainer was trained on {model.scale}; resample the volume, or pass "
            "--any-scale to accept colours that have not been tested"
        )
    if not scale_differs([apart], in_plane[0] if model.within_um else model.um_per_px):
        return
    if model.planes > 1:
        raise ValueError(
            f"the planes of {ct.name} lie {apart:g} um apart along {axis}, and the stainer sees {model.planes} planes "
            f"as far apart as their pixels are wide; resample the volume, or pass --any-scale to accept colours that "
            "have not been tested"
        )
    runs.say(
        f"{ct.name}: planes are {apart:g} um apart along {axis}, their pixels {in_plane[0]:g} x {in_plane[1]:g} um; "
        "each plane is stained by itself"
    )


def scale_of(model: Stainer, ct: Volume, *, anchors: Anchors | None = None, any_values: bool = False) -> GreyMap:
    """The map of a volume's grey values onto those of the training; warns where a share of them is outside.

    Parameters
    ----------
    anchors
        The volume's grey values of soft tissue and bone; None: those that are found, where they are needed.
    any_values
        Take the values as they are.

    Raises
    ------
    ValueError
        They do not agree, and cannot be mapped: one material only, inverted (``any_values``: a warning).
    """
    planes = sampled_planes(ct)
    values = np.concatenate([plane.ravel() for plane in planes])
    found = find_anchors(planes[::2], units=ct.about.get("units"))
    grey_map = model.scale_of(GreyValues.of(values), found, ct.name, anchors=anchors, any_values=any_values)
    warn_out_of_range({ct.name: model.ct_range.outside(grey_map(values))}, model.ct_range.learnt, limit=_WARN_FROM)
    return grey_map
