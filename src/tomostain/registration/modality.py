"""The bridge between grey CT and coloured stain: both sides as images that can be compared.

The CT becomes working values (unitless, metal compressed), the slide optical densities, colour classes and features of
which a CT can be predicted. Nothing here assumes which tissue is bright in which image: contrast may invert.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.cluster.vq import kmeans2, vq
from skimage.filters import threshold_otsu

from tomostain.images.geometry import Grid
from tomostain.images.image import Slide, Volume
from tomostain.images.srgb import to_linear
from tomostain.registration.tissue import block_means, tissue_box

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

DENSEST = 2.0
"""Optical density past which a scanner sees black."""
_METAL = 5.0
"""How many times as far as bone from marrow metal lies from both (titanium 9 at 38 keV, magnesium alloys below 3)."""
_APART = 0.7
"""Share of variance between two kinds from which they are two (0.64 for the halves of one bell curve)."""
_SAMPLE = 200_000
_LEAST_GREY, _MOST_GREY = 5.0, 24.0
"""Of 255: the smallest difference from glass that counts as tissue, and how uneven glass may be."""
_GREY = 0.01
"""Greatest difference of a grey picture's channels, in linear light."""
_LEAST_SPAN, _MOST_SPAN, _NOISE_SPAN = 0.05, 0.15, 0.35
"""The same for CT values, as shares of the span of its tissues, and how noisy air may be."""
_AROUND = 0.05
"""How much wider than the specimen the box is on each side."""
_FINEST_VOXELS = 3 * 10**8
"""Voxels that are in memory at once; a larger volume is averaged down."""


@dataclass(frozen=True, eq=False)
class Target:
    """What a slide is searched in: working values (z, y, x) float32 on a grid; one plane for a single image."""

    values: Float32
    grid: Grid

    @property
    def is_plane(self) -> bool:
        """Whether there is only one plane, so that neither depth nor tilt is sought."""
        return bool(self.values.shape[0] == 1)

    @property
    def middle_um(self) -> Float64:
        """The centre of the box, z y x um."""
        spacing, shape = np.asarray(self.grid.spacing_um), np.asarray(self.grid.shape)
        middle: Float64 = np.asarray(self.grid.origin_um) + (shape - 1) / 2 * spacing
        return middle

    def at_spacing(self, spacing_um: float) -> Target:
        """The target averaged over blocks so that its voxels are about ``spacing_um`` wide (never finer than it is)."""
        factors = [
            max(1, min(n, round(spacing_um / s))) for n, s in zip(self.grid.shape, self.grid.spacing_um, strict=True)
        ]
        return Target(*_block_mean(self.values, self.grid, factors)) if max(factors) > 1 else self


@dataclass(frozen=True, eq=False)
class Stained:
    """A slide averaged down: optical density (y, x, 3) float32, and how many slide pixels (y, x) make one of its own.

    ``pixel_um`` is the slide pixel's size as the scanner states it; ``slide_shape`` the whole slide in pixels;
    ``window_px`` ((top, bottom), (left, right)) the part of it that ``density`` shows: the box around the tissue.
    """

    density: Float32
    factor: tuple[int, int]
    pixel_um: tuple[float, float]
    slide_shape: tuple[int, int]
    window_px: tuple[tuple[int, int], tuple[int, int]]

    @classmethod
    def whole(cls, density: Float32, pixel_um: tuple[float, float]) -> Stained:
        """Densities (y, x, 3) of a whole slide, pixel for pixel."""
        rows, columns = density.shape[:2]
        return cls(density, (1, 1), pixel_um, (rows, columns), ((0, rows), (0, columns)))

    @property
    def window_shape(self) -> tuple[int, int]:
        """Slide pixels (y, x) of the window."""
        (top, bottom), (left, right) = self.window_px
        return bottom - top, right - left

    @property
    def centre_px(self) -> Float64:
        """The window's centre, slide px (y, x); slide um are counted from here."""
        return np.asarray([(start + stop - 1) / 2 for start, stop in self.window_px])

    def um_of(self, slide_px: Any) -> Float64:
        """Slide pixels (..., 2) as slide um from the window's centre."""
        return np.asarray((np.asarray(slide_px) - self.centre_px) * np.asarray(self.pixel_um))

    @property
    def spacing_um(self) -> tuple[float, float]:
        """Size (y, x) of an averaged pixel in slide um."""
        return self.factor[0] * self.pixel_um[0], self.factor[1] * self.pixel_um[1]

    @property
    def points_um(self) -> Float64:
        """Slide um (y, x), seen from the window's centre, of every averaged pixel: (y, x, 2)."""
        axes = [
            ((np.arange(n) * f + (f - 1) / 2) - (whole - 1) / 2) * pixel
            for n, f, whole, pixel in zip(
                self.density.shape, self.factor, self.window_shape, self.pixel_um, strict=False
            )
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    @property
    def extent_um(self) -> tuple[float, float]:
        """Edges (y, x) of the window in slide um."""
        return self.window_shape[0] * self.pixel_um[0], self.window_shape[1] * self.pixel_um[1]

    def at_spacing(self, spacing_um: float) -> Stained:
        """Averaged further, to about ``spacing_um``."""
        more = [max(1, round(spacing_um / s)) for s in self.spacing_um]
        if max(more) == 1:
            return self
        factor = (self.factor[0] * more[0], self.factor[1] * more[1])
        return replace(self, density=block_means(self.density, more), factor=factor)


def read_target(volume: Volume) -> Target:
    """Load a CT volume, keep the box around its specimen, and turn its values into working values.

    Without heavy metal, the median becomes 0 and half the spread between the 10th and 90th percentile 1; ``asinh`` then
    keeps metal, which may be ten times as dense as bone, from outweighing all else. Volumes above 3e8 voxels are
    averaged down.
    """
    shape = volume.shape[:3]
    factor = 1
    while np.prod([max(1, n // factor) for n in shape]) > _FINEST_VOXELS:
        factor += 1
    factors = [min(factor, n) for n in shape]
    step = max(factors[0], 32 // factors[0] * factors[0])
    parts = [
        block_means(np.asarray(volume[z : z + step], dtype=np.float32), factors)
        for z in range(0, shape[0] // factors[0] * factors[0], step)
    ]
    values, grid, specimen = _specimen(np.concatenate(parts), _coarser(volume.grid, factors))
    low, middle, high = np.percentile(_without_metal(_some(values[specimen])), [10, 50, 90])
    spread = max(float(high - low) / 2, 1e-6 * max(abs(float(high)), 1.0))
    np.subtract(values, np.float32(middle), out=values)
    np.divide(values, np.float32(spread), out=values)
    np.arcsinh(values, out=values)
    return Target(values, grid)


def _specimen(values: Float32, grid: Grid) -> tuple[Float32, Grid, tuple[slice, ...]]:
    """A volume without the air around its specimen, but for a little, its grid, and where it is surely specimen."""
    flat = values.shape[0] == 1
    span = float(np.subtract(*np.percentile(_without_metal(_some(values)), [99, 1])))
    if span <= 0:
        return values, grid, (slice(None),) * 3
    bounds = {"least": _LEAST_SPAN * span, "most": _MOST_SPAN * span, "noise": _NOISE_SPAN * span}
    found = tissue_box((values[0] if flat else values)[..., None], **bounds)
    box = ((0, 1), *found) if flat else found
    wider, core = [], []
    for (start, stop), n in zip(box, values.shape, strict=True):
        extra = round(_AROUND * (stop - start))
        wider.append((max(0, start - extra), min(n, stop + extra)))
        core.append((start + extra * (start > 0), stop - extra * (stop < n)))
    origin = [o + start * s for o, (start, _), s in zip(grid.origin_um, wider, grid.spacing_um, strict=True)]
    inside = values[tuple(slice(*edge) for edge in wider)].copy()
    specimen = tuple(slice(a - low, b - low) for (a, b), (low, _) in zip(core, wider, strict=True))
    return inside, Grid(inside.shape, grid.spacing_um, tuple(origin)), specimen


def _without_metal(values: Float32) -> Float32:
    """The values (n,) below metal, if there is any: what stands many times further off than the rest falls apart.

    Metal may fill a fifth of a volume, and must not determine the contrast of bone and marrow.
    """
    found = _split(values)
    if found is None:
        return values
    rest = values[values <= found.edge]
    below = _split(rest)
    metal = below is not None and below.apart > _APART and found.gap > _METAL * below.gap
    return rest if metal else values


@dataclass(frozen=True)
class _Split:
    """Two kinds of values: the threshold between them, the distance of their means, their share of the variance."""

    edge: float
    gap: float
    apart: float


def _split(values: Float32) -> _Split | None:
    """Otsu's two kinds (1979) of values (n,); None where all are alike."""
    if values.size < 100 or np.ptp(values) <= 0:
        return None
    edge = float(threshold_otsu(values, nbins=1024))
    low, high = values[values <= edge], values[values > edge]
    if not (low.size and high.size):
        return None
    gap = float(high.mean() - low.mean())
    return _Split(edge, gap, low.size * high.size / values.size**2 * gap**2 / float(values.var()))


def read_stained(slide: Slide, spacing_um: float) -> Stained:
    """Read a slide averaged down, in linear light, to about ``spacing_um`` and turn it into optical densities.

    Only the box around the tissue is kept, so that empty glass around it has no influence. White is the 99th percentile
    of each channel in that box: the glass where it shows some. A grey picture's values say nothing of light: its
    densities are its values from the 99th percentile (0) to the first (1); an inverted one differs in sign only.
    """
    pixel = slide.pixel_um
    factor = tuple(max(1, round(spacing_um / p)) for p in pixel)
    band = max(1, 1024 // factor[0]) * factor[0]
    rows = slide.shape[0] // factor[0] * factor[0]
    parts = [block_means(to_linear(slide[start : min(start + band, rows)]), factor) for start in range(0, rows, band)]
    light = np.concatenate(parts)
    box = tissue_box(255 * light ** np.float32(1 / 2.2), least=_LEAST_GREY, most=_MOST_GREY)
    window = [
        (start * f, whole if stop == n else stop * f)
        for (start, stop), f, n, whole in zip(box, factor, light.shape, slide.shape, strict=False)
    ]
    light = light[slice(*box[0]), slice(*box[1])]
    shape = (slide.shape[0], slide.shape[1])
    if (light.max(axis=2) - light.min(axis=2)).max() < _GREY:
        grey = np.concatenate(
            [block_means(slide[start : min(start + band, rows)], factor) for start in range(0, rows, band)]
        )[slice(*box[0]), slice(*box[1])]
        dark, bright = np.percentile(grey, [1, 99])
        shown = (bright - grey) / max(float(bright - dark), _LEAST_GREY)
        density = np.clip(shown, 0.0, 1.0).astype(np.float32)
        return Stained(density, (factor[0], factor[1]), pixel, shape, (window[0], window[1]))
    white = np.maximum(np.percentile(light.reshape(-1, 3), 99, axis=0), 1e-3).astype(np.float32)
    density = -np.log10(np.clip(light / white, 10.0**-DENSEST, 1.0)).astype(np.float32)
    return Stained(density, (factor[0], factor[1]), pixel, shape, (window[0], window[1]))


def colour_classes(density: Float32, count: int, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Classes of colour and texture (k-means): density (y, x, 3) -> (y, x) uint8 in [0, count).

    The features are the densities, their local spread and their local mean.
    """
    total = density.mean(axis=2)
    mean = ndimage.uniform_filter(total, 3)
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(total**2, 3) - mean**2, 0))
    stack = np.dstack([density, 0.7 * spread, 0.5 * mean]).reshape(-1, 5).astype(np.float64)
    rng = np.random.default_rng(seed)
    some = stack[rng.choice(len(stack), size=min(20_000, len(stack)), replace=False)]
    centres, _ = kmeans2(some, count, iter=20, minit="++", rng=seed)
    return vq(stack, centres)[0].reshape(density.shape[:2]).astype(np.uint8)


def _block_mean(values: Float32, grid: Grid, factors: list[int]) -> tuple[Float32, Grid]:
    return block_means(values, factors), _coarser(grid, factors)


def _coarser(grid: Grid, factors: list[int]) -> Grid:
    shape = tuple(n // f for n, f in zip(grid.shape, factors, strict=True))
    spacing = tuple(s * f for s, f in zip(grid.spacing_um, factors, strict=True))
    origin = tuple(o + (f - 1) / 2 * s for o, f, s in zip(grid.origin_um, factors, grid.spacing_um, strict=True))
    return Grid(shape, spacing, origin)


def _some(values: Float32) -> Float32:
    flat = values.reshape(-1)
    return flat[:: max(1, flat.size // _SAMPLE)]
