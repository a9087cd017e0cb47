"""Three orthogonal cuts through a stained volume, and the same cuts through its CT; only the cuts are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tomostain.images.image import Volume
from tomostain.reporting.pictures import Picture, grey, picture

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

    The CT is cut at the same places of the world, so it may be a larger volume on another grid; ``window`` holds
    the CT values shown black and white. Planes longer than 2400 px are thinned out.
    """
    middle = tuple(n // 2 for n in stained.grid.shape)
    painted = [_plane(stained, axis, middle[axis]) for axis in range(3)]
    greys = [_matching(stained, ct, axis, middle[axis]) for axis in range(3)] if ct is not None else []
    cuts = []
    for axis, (colours, step) in enumerate(painted):
        rows, columns = (i for i in range(3) if i != axis)
        spacing = (stained.grid.spacing_um[rows] * step, stained.grid.spacing_um[columns] * step)
        lines = tuple(
            (way, (middle[i] + 0.5) / stained.grid.shape[i]) for way, i in (("row", rows), ("column", columns))
        )
        title = f"Cut across {_AXES[axis]}" + (" (a painted plane)" if axis == 0 else "")
        at_um = stained.grid.origin_um[axis] + middle[axis] * stained.grid.spacing_um[axis]
        where = f"{_AXES[axis]} = {at_um:.0f} µm, plane {middle[axis] + 1} of {stained.grid.shape[axis]}; "
        where += f"{_AXES[rows]} runs down, {_AXES[columns]} to the right"
        shown = picture(colours, f"Virtual stain, {title}", spacing_um=spacing, lossless=lossless, lines=lines)
        beside = None
        if ct is not None and greys[axis].size:
            values = greys[axis]
            extent = tuple(n * s for n, s in zip(colours.shape[:2], spacing, strict=True))
            beside_um = (extent[0] / values.shape[0], extent[1] / values.shape[1])
            beside = picture(
                grey(values, *window), f"CT, {title}", spacing_um=beside_um, lossless=lossless, lines=lines
            )
        cuts.append(Cut(title, where, shown, beside))
    return cuts


def _plane(volume: Volume, axis: int, index: int) -> tuple[npt.NDArray[Any], int]:
    """The cut at ``index`` of ``axis``, every so many pixels, and how many."""
    step = -(-max(n for i, n in enumerate(volume.grid.shape) if i != axis) // _LARGEST_PX)
    window = tuple(slice(index, index + 1) if i == axis else slice(None) for i in range(3))
    plane = np.take(volume[window], 0, axis=axis)
    return plane[::step, ::step], step


def _matching(stained: Volume, ct: Volume, axis: int, index: int) -> npt.NDArray[Any]:
    """The CT values on the stained volume's cut: the same box of the world, in the CT's own voxels."""
    window = []
    for i in range(3):
        first, step = stained.grid.origin_um[i], stained.grid.spacing_um[i]
        ends = (index, index) if i == axis else (0, stained.grid.shape[i] - 1)
        start, stop = ((first + end * step - ct.grid.origin_um[i]) / ct.grid.spacing_um[i] for end in ends)
        begin = int(np.clip(round(start), 0, ct.grid.shape[i] - 1))
        window.append(slice(begin, int(np.clip(round(stop) + 1, begin + 1, ct.grid.shape[i]))))
    plane = np.take(ct[tuple(window)], 0, axis=axis)
    step = -(-max(plane.shape) // _LARGEST_PX)
    return np.asarray(plane[::step, ::step])
