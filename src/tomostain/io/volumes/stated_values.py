"""What HDF5, NeXus, netCDF and Zarr say of stored numbers: their scale and unit, or that they are raw projections."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomostain.images.image import Calibrated, LazyArray
from tomostain.io.units import number_of, um_per
from tomostain.io.volumes.headers import VolumeError

_PAIRS = (
    ("scale_factor", "add_offset", False),
    ("scaling_factor", "offset", True),
    ("rescale_slope", "rescale_intercept", False),
    ("rescaleslope", "rescaleintercept", False),
    ("scl_slope", "scl_inter", False),
    ("slope", "intercept", False),
)
"""Names of scale and offset, and whether the offset is added before the scale is applied: CF conventions (netCDF,
xarray), NeXus' NXdata ((value + offset) x scaling_factor), DICOM, NIfTI."""
_ANGLES = (
    "theta", "thetas", "angle", "angles", "rotation_angle", "rotation_angles", "projection_angles", "proj_angles",
    "image_key", "image_key_control",
)  # fmt: skip
"""One number for each projection."""
_FIELDS = (
    "data_white", "data_dark", "white", "dark", "whites", "darks", "flat", "dark", "flats", "darks", "white_field",
    "img_bkg", "img_dark", "flat_field", "dark_field", "white_fields", "flat_fields", "dark_fields",
    "flatfield", "darkfield",
)  # fmt: skip
"""Images without the specimen, or without the beam."""
_RECONSTRUCTED = re.compile("recon|volume|slices|tomogram", re.IGNORECASE)
"""Names that are not projections, even where there happen to be as many angles as planes."""
SIGNS_OF_PROJECTIONS = frozenset((*_ANGLES, *_FIELDS))
"""What data sets beside raw projections are called."""


@dataclass(frozen=True)
class Scale:
    """Values are ``slope`` x stored number + ``intercept``, in ``units``."""

    slope: float = 1.0
    intercept: float = 0.0
    units: str = ""

    def applied(self, array: LazyArray) -> tuple[LazyArray, dict[str, str]]:
        """The array in calibrated values, and its unit as ``about`` keeps it."""
        plain = (self.slope, self.intercept) == (1.0, 0.0)
        return array if plain else Calibrated(array, self.slope, self.intercept), (
            {"units": self.units} if self.units else {}
        )


def stated_scale(name: str, attributes: Mapping[str, Any]) -> Scale:
    """Scale, offset and unit among the attributes of an array.

    Raises
    ------
    VolumeError
        A scale or an offset is stated that is not a number, or a scale of zero.
    """
    lower = {str(key).lower(): value for key, value in attributes.items()}
    if "scaling" in lower:  # NXtomoproc's name
        lower.setdefault("scaling_factor", lower["scaling"])
    units = _text(lower.get("units", lower.get("unit")))
    for scale_name, offset_name, offset_first in _PAIRS:
        if scale_name not in lower and (offset_name not in lower or np.size(lower[offset_name]) != 1):
            continue  # an offset of several numbers is a place
        scale, offset = (_one(lower.get(key, default)) for key, default in ((scale_name, 1.0), (offset_name, 0.0)))
        if scale is None or offset is None or scale == 0:
            words = ", ".join(f"{key} = {lower[key]!s:.40}" for key in (scale_name, offset_name) if key in lower)
            raise VolumeError(f"{name} states {words}, which does not say how its values are scaled; export it anew")
        if (scale, offset) != (1.0, 0.0):
            return Scale(scale, scale * offset if offset_first else offset, units)
    return Scale(units=units)


def projections(own_name: str, shape: tuple[int, ...], beside: Mapping[str, tuple[int, ...]]) -> str:
    """Why an array of this shape is raw projections or sinograms, by the arrays beside it; empty where it is not.

    Angles, or keys that separate projections from flats and darks, come one for each projection; flats and darks have a
    projection's shape, and one picture alone proves nothing.
    """
    beside = {name.lower(): sizes for name, sizes in beside.items() if sizes}
    if len(shape) < 3 or _RECONSTRUCTED.search(own_name):
        return ""
    angles = [
        name
        for name in _ANGLES
        if name in beside and len(beside[name]) == 1 and beside[name][0] in shape[:-1] and beside[name][0] > 1
    ]
    fields = [
        name for name in _FIELDS if name in beside and beside[name][-2:] == shape[-2:] and name != own_name.lower()
    ]
    if own_name.lower() in _FIELDS and (SIGNS_OF_PROJECTIONS & set(beside)) - {own_name.lower()}:
        return f"its name is {own_name}"
    if not angles and len(fields) < 2 and not any(len(beside[name]) > 2 for name in fields):
        return ""
    found = angles + fields
    return f"{' and '.join(found[:2])} {'stands' if len(found) == 1 else 'stand'} beside them" if found else ""


def refuse_projections(name: str, why: str) -> None:
    """Refuse raw projections, where there is a reason to take an array for them."""
    if why:
        raise VolumeError(
            f"{name} holds raw projections, not a reconstructed volume ({why}); reconstruct them first, for example "
            "with TomoPy or the scanner's program, and pass the reconstruction"
        )


def _one(value: Any) -> float | None:
    if isinstance(value, (str, bytes)):
        return number_of(value)
    return number_of(np.ravel(value)[0]) if np.size(value) == 1 else None


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    known = isinstance(text, str) and text.isprintable() and um_per(text) is None  # a length is that of the voxels
    return text.strip()[:40] if known else ""
