"""The box around the tissue: an image or a volume in, the part of it that is more than empty margin out.

Registration takes its scales, colour classes and resolutions from this box, so that it makes no difference how much
glass a scanner has photographed around a section, or how much air a scan holds around a specimen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Float32 = npt.NDArray[np.float32]
Box = tuple[tuple[int, int], ...]

_LONGEST = 200
"""Pixels along the longest edge of the image in which tissue is searched first."""
_SMOOTH = 1.5
"""Gaussian width, in those pixels, over which noise and dust are averaged."""
_SPREADS = 4.0
"""How many median deviations from the margin's colour still count as margin."""
_UNEVEN = 0.3
"""A strip along an edge is margin if at most this share of it differs from its median colour."""
_LEAST_PART = 0.05
"""A piece smaller than this share of the largest piece is dirt."""
_SOLID = 0.9
"""Share of the rows behind the first one that must be tissue too; dust is not as deep."""
_LEAST_ROW = 0.05
"""A row counts as tissue from this share of the widest row on; a run of rows, from this share of all tissue on."""


@dataclass(frozen=True, eq=False)
class _Margin:
    """The colour (c,) of empty margin and how far a pixel of it may differ."""

    colour: Float32
    tolerance: float

    def exceeded(self, image: Float32) -> npt.NDArray[np.bool_]:
        """Where an image (..., c) is something else."""
        return np.asarray(_deviation(image, self.colour) > self.tolerance)


def tissue_box(image: Float32, *, least: float, most: float, noise: float = np.inf) -> Box:
    """The (start, stop) along each axis of an image (y, x, c) or (z, y, x, c) around all that is not margin.

    Margin is what at least one outer edge shows evenly: within ``least`` (the smallest difference that counts) or a few
    times its own noise, which must stay below ``most`` (and nine pixels in ten within ``noise`` before averaging). Dust
    is left out. The whole image if it has no margin, or nothing but margin.
    """
    box: Box = tuple((0, n) for n in image.shape[:-1])
    for _ in range(6):
        part = image[tuple(slice(*edge) for edge in box)]
        smaller = _without_margin(part, least=least, most=most, noise=noise)
        if smaller is None:
            break
        box = tuple((start + low, start + high) for (start, _), (low, high) in zip(box, smaller, strict=True))
    return box


def _without_margin(image: Float32, *, least: float, most: float, noise: float) -> Box | None:
    """One round of ``tissue_box``: None where there is nothing to take away."""
    shape = image.shape[:-1]
    if min(shape) < 8:
        return None
    longest = _LONGEST if len(shape) == 2 else _LONGEST // 2
    factors = [max(1, -(-max(shape) // longest))] * len(shape)
    if min(n // f for n, f in zip(shape, factors, strict=True)) < 2:
        return None
    small = _smoothed(block_means(image, factors))
    calm = [_calm(strip, noise) for strip in _edges(image)]
    found = [_margin(strip, least, most) for strip, even in zip(_edges(small), calm, strict=True) if even]
    margins = [m for m in found if m is not None]
    if not margins:
        return None
    pieces = _pieces(np.logical_and.reduce([m.exceeded(small) for m in margins]))
    if not pieces.any():
        return None
    near = _rows(_rows(tuple((0, n) for n in pieces.shape), pieces), pieces)
    box = [
        (start * f, n if stop == m else stop * f)
        for (start, stop), f, n, m in zip(near, factors, shape, pieces.shape, strict=True)
    ]
    if len(shape) == 2:
        box = [_exact(image, box, axis, factors[axis], least, most) for axis in range(2)]
    inner: Box = tuple(box)
    return None if inner == tuple((0, n) for n in shape) else inner


def _rows(box: Box, pieces: npt.NDArray[np.bool_]) -> Box:
    """A box within ``box`` whose outermost rows, columns and planes show enough tissue; what sticks out is dirt."""
    found = []
    for axis in range(pieces.ndim):
        others = tuple(a for a in range(pieces.ndim) if a != axis)
        part = pieces[tuple(slice(*edge) for edge in box)]
        count = part.sum(axis=others)
        runs, number = ndimage.label(count >= _LEAST_ROW * count.max())
        totals = ndimage.sum_labels(count, runs, np.arange(1, number + 1))
        kept = np.flatnonzero(np.isin(runs, 1 + np.flatnonzero(totals >= _LEAST_ROW * count.sum())))
        found.append((box[axis][0] + int(kept[0]), box[axis][0] + int(kept[-1]) + 1))
    return tuple(found)


def _exact(
    image: Float32, box: list[tuple[int, int]], axis: int, factor: int, least: float, most: float
) -> tuple[int, int]:
    """The edges of a box along one axis to the pixel: rows are averaged along themselves only."""
    across = 1 - axis
    band = np.moveaxis(image, axis, 0)[:, slice(*box[across])]
    width = max(3, band.shape[1] // 8)
    reach = int(np.ceil(3 * _SMOOTH * factor)) + 1

    def first(band: Float32, near: int) -> int:
        """First row of tissue, counted from the outside, where smoothing says ``near``."""
        if near == 0:
            return 0
        outer = ndimage.uniform_filter1d(band[: max(2, min(factor * 2, near))], width, axis=1)
        margin = _margin(outer.reshape(-1, band.shape[-1]), least, most)
        if margin is None:
            return near
        start, stop = max(0, near - reach), min(len(band), near + 4 * reach)
        rows = ndimage.uniform_filter1d(band[start:stop], width, axis=1)
        tissue = margin.exceeded(rows).mean(axis=1) >= _LEAST_ROW
        deep = min(max(4, width // 3), len(tissue))
        ahead = np.convolve(tissue, np.ones(deep), mode="full")[deep - 1 :]
        begun = np.flatnonzero(tissue & (ahead >= _SOLID * deep))
        return start + int(begun[0]) if len(begun) else near

    n = len(band)
    return first(band, box[axis][0]), n - first(band[::-1], n - box[axis][1])


def _edges(small: Float32) -> list[Float32]:
    """The outermost strips (n, c) of a small image, one for each side."""
    strips = []
    for axis in range(small.ndim - 1):
        deep = max(1, small.shape[axis] // 100)
        for part in (slice(0, deep), slice(-deep, None)):
            strips.append(np.moveaxis(small, axis, 0)[part].reshape(-1, small.shape[-1]))
    return strips


def _calm(strip: Float32, noise: float) -> bool:
    """Whether nine in ten pixels of a strip (n, c) differ from its median colour by less than ``noise``."""
    return bool(noise == np.inf or np.percentile(_deviation(strip, np.median(strip, axis=0)), 90) < noise)


def _margin(strip: Float32, least: float, most: float) -> _Margin | None:
    """The margin that a strip (n, c) shows, None where it is not even."""
    colour = np.median(strip, axis=0)
    deviation = _deviation(strip, colour)
    tolerance = max(least, _SPREADS * float(np.median(deviation)))
    even = tolerance <= most and float((deviation > tolerance).mean()) <= _UNEVEN
    return _Margin(colour, tolerance) if even else None


def _pieces(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A mask without its small pieces; pieces that nearly touch are one."""
    cross = ndimage.generate_binary_structure(mask.ndim, 1)
    labels, count = ndimage.label(ndimage.binary_dilation(mask, cross, iterations=2))
    if count == 0:
        return mask
    areas = ndimage.sum_labels(mask, labels, np.arange(1, count + 1))
    large = np.concatenate([[False], areas >= _LEAST_PART * areas.max()])
    return np.asarray(mask & large[labels])


def _deviation(image: Float32, colour: Float32) -> Float32:
    return np.asarray(np.abs(image - colour).max(axis=-1))


def _smoothed(image: Float32) -> Float32:
    return np.asarray(ndimage.gaussian_filter(image, (*(_SMOOTH,) * (image.ndim - 1), 0)))


def block_means(values: npt.NDArray[Any], factors: Any) -> Float32:
    """Block means over the first axes; what does not fill a block at the end is left out."""
    shape = [n // f for n, f in zip(values.shape, factors, strict=False)]
    if max(factors) == 1:
        return np.asarray(values, dtype=np.float32)
    cropped = values[tuple(slice(0, n * f) for n, f in zip(shape, factors, strict=True))]
    for axis, f in enumerate(factors):
        if f > 1:
            split = cropped.reshape(*cropped.shape[:axis], cropped.shape[axis] // f, f, *cropped.shape[axis + 1 :])
            cropped = split.mean(axis=axis + 1, dtype=np.float32)
    return np.asarray(cropped, dtype=np.float32)
