"""Move images between slide and volume: planes cut through a volume, slides averaged down to the CT's voxel size.

Colours are averaged as light: sRGB values are turned into linear light, averaged, and turned back (IEC 61966-2-1).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain.images.geometry import Box, Floats, Grid, Placement, Plane
from tomostain.images.image import LazyArray, Level, Slide, Volume
from tomostain.images.srgb import RGB, Linear, to_linear, to_srgb


@dataclass(frozen=True, eq=False)
class _Channel:
    """One channel of a lazy colour volume (z, y, x, 3) as a lazy volume (z, y, x)."""

    colours: LazyArray
    channel: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.colours.shape[:3])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.colours.dtype)

    def __getitem__(self, window: Any, /) -> Any:
        return np.asarray(self.colours[(*window, self.channel)])


_POINTS = 4
"""Points along each axis of a plane pixel that its area average is made of."""
_BAND_ROWS = 256


def area_average(rgb: RGB, factor: int) -> Linear:
    """Mean over ``factor`` x ``factor`` pixels: (y, x, 3) uint8 -> (y // factor, x // factor, 3) linear light."""
    rows, columns = rgb.shape[0] // factor, rgb.shape[1] // factor
    light = to_linear(rgb[: rows * factor, : columns * factor])
    mean: Linear = light.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3), dtype=np.float32)
    return mean


def sample_volume(
    array: LazyArray, grid: Grid, points_um: Floats, *, order: Literal[0, 1] = 1, fill: float = np.nan
) -> npt.NDArray[np.float32]:
    """Values of a (z, y, x) volume at world points (..., 3): float32 (...,), ``fill`` outside the volume.

    Reads only the box that holds the points. ``order`` is the spline order (0 nearest, 1 linear).
    """
    where = grid.index_of(points_um)
    flat = where.reshape(-1, 3)
    last = np.asarray(grid.shape) - 1
    inside = np.all((flat >= -0.5) & (flat <= last + 0.5), axis=1)
    values = np.full(len(flat), fill, dtype=np.float32)
    if not inside.any():
        return values.reshape(where.shape[:-1])
    wanted = np.clip(flat[inside], 0, last)
    start = np.maximum(np.floor(wanted.min(axis=0)).astype(int) - 1, 0)
    stop = np.minimum(np.ceil(wanted.max(axis=0)).astype(int) + 2, last + 1)
    box = np.asarray(array[tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))], dtype=np.float32)
    values[inside] = ndimage.map_coordinates(box, (wanted - start).T, order=order, mode="nearest")
    return values.reshape(where.shape[:-1])


def plane_of(
    volume: Volume, plane: Plane, *, planes: int = 1, step_um: float | None = None, order: Literal[0, 1] = 1
) -> npt.NDArray[np.float32]:
    """Cut a slab of parallel planes out of a volume: (planes, y, x) float32, NaN outside the volume.

    The slab is centred on ``plane``; its planes lie ``step_um`` apart (default: the plane's own spacing).
    """
    step = plane.spacing_um if step_um is None else step_um
    offsets = (np.arange(planes) - (planes - 1) / 2) * step
    cuts = [sample_volume(volume.array, volume.grid, plane.points_um(offset), order=order) for offset in offsets]
    return np.stack(cuts)


def colours_on_plane(volume: Volume, plane: Plane) -> RGB:
    """Cut a plane out of a colour volume: (y, x, 3) uint8 sRGB, white outside the volume.

    Colours are interpolated linearly as they are coded, as any viewer does; as light, thin bright gaps would widen.
    """
    points_um = plane.points_um()
    channels = [_Channel(volume.array, channel) for channel in range(3)]
    cut = np.stack([sample_volume(one, volume.grid, points_um, fill=255.0) for one in channels], axis=-1)
    rgb: RGB = np.floor(cut + 0.5).astype(np.uint8)
    return rgb


def slide_on_plane(slide: Slide, placement: Placement, plane: Plane) -> tuple[RGB, npt.NDArray[np.bool_]]:
    """The slide averaged down onto a plane's raster: (y, x, 3) uint8 and where the slide covers it, (y, x) bool.

    Each plane pixel takes the mean of 4 x 4 points a quarter of a pixel apart, among means of whole blocks of about
    that size: together the area average over the plane pixel, in linear light. Blocks are averaged from the coarsest
    level that is not coarser than they are, in windows, and only where the plane lies. In a pixel the deformation is
    taken as constant.
    """
    step_um = float(np.mean([np.linalg.norm(placement.step_y_um), np.linalg.norm(placement.step_x_um)]))
    shrink = plane.spacing_um / step_um / _POINTS
    level = _nearest_finer(slide, shrink)
    factor = max(1, round(shrink / float(np.mean(level.downsample))))
    rgb = np.empty((*plane.shape, 3), dtype=np.uint8)
    covered = np.empty(plane.shape, dtype=bool)
    for top in range(0, plane.shape[0], _BAND_ROWS):
        band = slice(top, min(top + _BAND_ROWS, plane.shape[0]))
        rgb[band], covered[band] = _band_of_slide(level, factor, placement, _rows_of(plane, band))
    return rgb, covered


def slide_part(slide: Slide, box: Box, most_px: int) -> tuple[RGB, tuple[tuple[float, float], tuple[float, float]]]:
    """Part of a slide averaged down to about ``most_px``: (y, x, 3) uint8, and the box in slide px that it shows.

    ``box`` is ((top, bottom), (left, right)) px; what is shown begins and ends with whole blocks, which are averaged in
    linear light.
    """
    shrink = max(max(stop - start for start, stop in box) / most_px, 1.0)
    level = _nearest_finer(slide, shrink)
    factor = max(1, math.ceil(shrink / float(np.mean(level.downsample)) - 1e-6))
    block_px = factor * np.asarray(level.downsample)
    most = np.maximum(np.asarray(level.array.shape[:2]) // factor, 1)
    start = np.minimum(np.round([edge[0] for edge in box] / block_px).astype(int), most - 1)
    stop = np.clip(np.round([edge[1] for edge in box] / block_px).astype(int), start + 1, most)
    (top, left), (bottom, right) = (start * block_px).tolist(), (stop * block_px).tolist()
    return to_srgb(_averaged(level.array, factor, start, stop)), ((top, bottom), (left, right))


def mask_on_plane(mask: LazyArray, placement: Placement, plane: Plane) -> npt.NDArray[np.float32]:
    """Share of each plane pixel that a slide mask covers: (y, x) in [0, 1].

    ``mask`` is (y, x), non-zero where set, over the whole slide; it may be coarser than the slide.
    """
    scale = np.asarray(mask.shape[:2]) / np.asarray(placement.slide_shape)
    step_um = float(np.linalg.norm(placement.step_y_um)) / float(scale[0])
    share = (np.asarray(mask[:, :]) > 0).astype(np.float32)
    width = max(1, round(plane.spacing_um / step_um))
    share = ndimage.uniform_filter(share, size=width, mode="nearest")
    at_px = (placement.volume_um_to_slide_px(plane.points_um()) + 0.5) * scale - 0.5
    return ndimage.map_coordinates(share, np.moveaxis(at_px, -1, 0), order=1, mode="nearest").astype(np.float32)


def _rows_of(plane: Plane, rows: slice) -> Plane:
    corner = np.asarray(plane.corner_um) + rows.start * plane.spacing_um * np.asarray(plane.down)
    z, y, x = corner.tolist()
    return dataclasses.replace(plane, shape=(rows.stop - rows.start, plane.shape[1]), corner_um=(z, y, x))


def _band_of_slide(level: Level, factor: int, placement: Placement, plane: Plane) -> tuple[RGB, npt.NDArray[np.bool_]]:
    """``slide_on_plane`` for a few rows, from blocks of ``factor`` x ``factor`` pixels of one level."""
    block_px = factor * np.asarray(level.downsample)
    to_px = np.linalg.pinv(np.asarray([placement.step_y_um, placement.step_x_um]))
    row_px = plane.spacing_um * np.asarray(plane.down) @ to_px
    column_px = plane.spacing_um * np.asarray(plane.right) @ to_px
    parts = (np.arange(_POINTS) + 0.5) / _POINTS - 0.5
    shifts = [down * row_px + right * column_px for down in parts for right in parts]
    centres_px = placement.volume_um_to_slide_px(plane.points_um())
    covered = np.ones(plane.shape, dtype=bool)
    for shift in shifts:
        covered &= _within(centres_px + shift, placement.slide_shape)
    nodes = (centres_px + 0.5) / block_px - 0.5
    margin = np.abs(np.asarray(shifts) / block_px).max(axis=0)
    blocks = np.maximum(np.asarray(level.array.shape[:2]) // factor, 1)
    start = np.clip(np.floor(nodes.min(axis=(0, 1)) - margin).astype(int), 0, blocks - 1)
    stop = np.clip(np.ceil(nodes.max(axis=(0, 1)) + margin).astype(int) + 1, start + 1, blocks)
    light = _averaged(level.array, factor, start, stop)
    total = np.zeros((*plane.shape, 3), dtype=np.float32)
    for shift in shifts:
        at = np.moveaxis(nodes + shift / block_px - start, -1, 0)
        for channel in range(3):
            total[..., channel] += ndimage.map_coordinates(light[..., channel], at, order=1, mode="nearest")
    return to_srgb(total / len(shifts)), covered


def _nearest_finer(slide: Slide, shrink: float) -> Level:
    """The coarsest level of a slide that is not coarser than every ``shrink``-th pixel."""
    finer = [level for level in slide.levels if max(level.downsample) <= shrink]
    return max(finer or slide.levels[:1], key=lambda level: max(level.downsample))


def _averaged(
    array: LazyArray, factor: int, start: npt.NDArray[np.int_], stop: npt.NDArray[np.int_], *, window_px: int = 2048
) -> Linear:
    """Block means of a lazy image in linear light, for blocks ``start`` to ``stop`` (y, x), read in square windows."""
    (top, left), (bottom, right) = (start.tolist(), stop.tolist())
    light = np.empty((bottom - top, right - left, 3), dtype=np.float32)
    step = max(1, window_px // factor)
    for row in range(top, bottom, step):
        rows = slice(row, min(row + step, bottom))
        for column in range(left, right, step):
            columns = slice(column, min(column + step, right))
            window = np.asarray(
                array[rows.start * factor : rows.stop * factor, columns.start * factor : columns.stop * factor]
            )
            light[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = area_average(
                window, factor
            )
    return light


def _within(at_px: npt.NDArray[np.float64], shape: Sequence[int]) -> npt.NDArray[np.bool_]:
    limit = np.asarray(shape[:2]) - 0.5
    inside: npt.NDArray[np.bool_] = np.all((at_px >= -0.5) & (at_px <= limit), axis=-1)
    return inside
