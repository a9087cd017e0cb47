"""Does a volume suit a stainer: its voxel size and its grey values."""

from __future__ import annotations

import warnings

from tomostain import runs
from tomostain.images.grey_values import GreyValues
from tomostain.images.image import Volume
from tomostain.images.intensity import sample_of
from tomostain.learning.stainer import Stainer
from tomostain.staining.blocks import Axis

SCALE_TOLERANCE = 0.05
"""Share by which the volume's voxel size may differ from the one the stainer was trained on."""
_WORTH_SAYING = 0.01
"""Share of voxels outside the training's grey values from which a warning is given."""


def check_scale(model: Stainer, ct: Volume, axis: Axis) -> None:
    """Compare the pixels of the planes that are stained with those of the training; warn of planes farther apart.

    Raises
    ------
    ValueError
        They differ by more than ``SCALE_TOLERANCE``.
    """
    through = "zyx".index(axis)
    apart = ct.grid.spacing_um[through]
    in_plane = [edge for i, edge in enumerate(ct.grid.spacing_um) if i != through]
    if max(abs(edge / model.um_per_px - 1) for edge in in_plane) > SCALE_TOLERANCE:
        raise ValueError(
            f"the planes of {ct.name} across {axis} have pixels of {in_plane[0]:g} x {in_plane[1]:g} um, "
            f"the stainer was trained on {model.um_per_px:g} um; resample the volume, or pass "
            "--any-scale to accept colours that have not been tested"
        )
    if abs(apart / model.um_per_px - 1) <= SCALE_TOLERANCE:
        return
    if model.planes > 1:
        raise ValueError(
            f"the planes of {ct.name} lie {apart:g} um apart along {axis}, and the stainer sees {model.planes} planes "
            f"{model.um_per_px:g} um apart at once; resample the volume, or pass --any-scale to accept colours that "
            "have not been tested"
        )
    runs.say(
        f"{ct.name}: planes are {apart:g} um apart along {axis}, their pixels {in_plane[0]:g} x {in_plane[1]:g} um; "
        "each plane is stained by itself"
    )


def check_values(model: Stainer, ct: Volume, *, any_values: bool = False) -> None:
    """Compare grey values with those of the training; warn where a share of them is outside.

    Raises
    ------
    ValueError
        They are other ones: other units, a window, inverted (``any_values``: a warning).
    """
    values = sample_of(ct)
    model.check_values(GreyValues.of(values), ct.name, any_values=any_values)
    share = model.ct_range.outside(values)
    low, high = model.ct_range.seen_low, model.ct_range.seen_high
    if share > _WORTH_SAYING and low is not None and high is not None:
        warnings.warn(
            f"{share:.1%} of the voxels of {ct.name} are outside the grey values met in training, {low:g} to {high:g}; "
            "the colours there have not been tested",
            stacklevel=3,
        )
