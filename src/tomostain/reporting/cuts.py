"""Three orthogonal cuts through a stained volume, and the same cuts through its CT; only the cuts are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tomostain.images.image import Volume
from tomostain.reporting.pictures import Picture, grey, hatched, picture

_AXES = ("z", "y", "x")
_LARGEST_PX = 2400


@dataclass(frozen=True)
class Cut:
    """One cut: its axis in words, where it lies, the stained picture, and the CT's where there is one."""

    title: str
    where: str
    stained: Picture
    ct: Picture | None


def orthogonal_cuts(
    stained: Volume, ct: Volume | None, *, window: tuple[float, float], lossless: bool = True
) -> list[Cut]:
    """Cuts across z, y and x through the middle of the stained volume (z, y, x, 3).

    The CT is cut at the same places of the world, so it may be a volume on another grid; ``window`` holds the CT values
    shown black and white. What lies outside the CT, or has no value in it, is hatched in both. Planes longer than
    2400 px are thinned out.
    """
    middle = tuple(n // 2 for n in stained.grid.shape)
    planes = [_plane(stained, axis, middle[axis]) for axis in range(3)]
    matched = []
    if ct is not None:
        matched = [matching_ct(stained, ct, axis, middle[axis], step=planes[axis][1]) for axis in range(3)]
    cuts = []
    for axis, (colours, step) in enumerate(planes):
        values, inside = matched[axis] if matched else (None, None)
        rows, columns = (i for i in range(3) if i != axis)
        spacing = (stained.grid.spacing_um[rows] * step, stained.grid.spacing_um[columns] * step)
        lines = tuple(
            (way, (middle[i] + 0.5) / stained.grid.shape[i]) for way, i in (("row", rows), ("column", columns))
        )
        title = f"Cut across {_AXES[axis]}" + (" (a stained plane)" if axis == 0 else "")
        at_um = stained.grid.origin_um[axis] + middle[axis] * stained.grid.spacing_um[axis]
        where = f"{_AXES[axis]} = {at_um:.0f} µm, plane {middle[axis] + 1} of {stained.grid.shape[axis]}; "
        where += f"{_AXES[rows]} runs down, {_AXES[columns]} to the right"
        settings: Any = {"spacing_um": spacing, "lossless": lossless, "lines": lines}
        shown = picture(hatched(colours, inside, opaque=True), f"Virtual stain, {title}", **settings)
        beside = None
        if values is not None:
            beside = picture(hatched(grey(values, *window), inside, opaque=True), f"CT, {title}", **settings)
        cuts.append(Cut(title, where, shown, beside))
    return cuts


def _plane(volume: Volume, axis: int, index: int) -> tuple[npt.NDArray[Any], int]:
    """The cut at ``index`` of ``axis``, every so many pixels, and how many."""
    step = -(-max(n for i, n in enumerate(volume.grid.shape) if i != axis) // _LARGEST_PX)
    window = tuple(slice(index, index + 1) if i == axis else slice(None) for i in range(3))
    plane = np.take(volume[window], 0, axis=axis)
    return plane[(step - 1) // 2 :: step, (step - 1) // 2 :: step], step


def matching_ct(
    stained: Volume, ct: Volume, axis: int, index: int, *, step: int = 1
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The CT's nearest values at every ``step``-th pixel of the stained volume's cut, and where it has any."""
    window, places, within = [], [], []
    for i in range(3):
        at = np.array([index]) if i == axis else np.arange((step - 1) // 2, stained.grid.shape[i], step)
        at_um = stained.grid.origin_um[i] + at * stained.grid.spacing_um[i]
        place = np.rint((at_um - ct.grid.origin_um[i]) / ct.grid.spacing_um[i]).astype(np.int64)
        within.append((place >= 0) & (place < ct.grid.shape[i]))
        place = place.clip(0, ct.grid.shape[i] - 1)
        window.append(slice(int(place[0]), int(place[-1]) + 1))
        places.append(place - place[0])
    box = np.asarray(ct[tuple(window)], dtype=np.float32)
    plane = np.take(box[np.ix_(*places)], 0, axis=axis)
    inside = np.take(within[0][:, None, None] & within[1][:, None] & within[2], 0, axis=axis)
    return plane, np.asarray(inside & np.isfinite(plane))
