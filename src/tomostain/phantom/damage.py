"""What real slides suffer: transmitted light in; the scanner's RGB and a mask of what it no longer shows out.

Each damage is one function and one line of ``DAMAGES``, in the order in which it happens to a slide, and draws from a
generator of its own: switching one off changes nothing in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain._imports import nearest
from tomostain.images.srgb import to_srgb
from tomostain.phantom.colours import seen

Linear = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Window = tuple[slice, slice]

_ROWS_AT_ONCE = 512
_OPAQUE = 0.005
"""Transmittance below which it is metal: it neither folds nor tears."""
_USUAL_WIDTH_UM = 2500.0
_JPEG_QUALITY = (78, 93)


@dataclass(eq=False)
class Glass:
    """A slide on its way from the saw to the camera; damages change it in place, because slides are large.

    ``light`` is transmittance (y, x, 3) float32 (linear), ``lost`` marks where the picture stops showing what was
    there, ``gain`` (3,) is the camera's, ``noise`` the standard deviation of its sRGB values in [0, 255], ``quality``
    that of JPEG, None for lossless.
    """

    light: Linear
    lost: Mask
    pixel_um: float
    gain: Linear
    noise: float = 0.0
    quality: int | None = None

    @property
    def extent_um(self) -> tuple[float, float]:
        """Edges (y, x) of the slide in um."""
        rows, columns = self.lost.shape
        return rows * self.pixel_um, columns * self.pixel_um


@dataclass(frozen=True, eq=False)
class DamagedSlide:
    """What the scanner writes: ``rgb`` (y, x, 3) uint8 sRGB, where it is ``lost`` (y, x) bool, and the JPEG quality."""

    rgb: npt.NDArray[np.uint8]
    lost: Mask
    jpeg_quality: int | None


def damage_slide(
    transmittance: Linear, *, pixel_um: float, seed: Sequence[int], without: Collection[str] = (), amount: float = 1.0
) -> DamagedSlide:
    """Let a slide suffer, then scan it.

    Parameters
    ----------
    transmittance
        Linear light (y, x, 3) float32 through the mounted section; it is used up.
    without
        Names of ``DAMAGES`` that shall not happen; ``all`` means every one.
    amount
        Factor on the expected number of folds, tears, missing pieces, bubbles, scratches and blurred zones, which
        otherwise is that of a slide 2.5 mm wide and goes with the slide's width.

    Raises
    ------
    ValueError
        ``without`` names a damage that does not exist.
    """
    check_names(without)
    rows, columns = transmittance.shape[:2]
    glass = Glass(
        light=transmittance,
        lost=np.zeros((rows, columns), dtype=bool),
        pixel_um=pixel_um,
        gain=np.ones(3, dtype=np.float32),
    )
    amount *= float(np.sqrt(np.prod(glass.extent_um))) / _USUAL_WIDTH_UM
    for index, (name, happen) in enumerate(DAMAGES.items()):
        if name not in without and "all" not in without:
            happen(glass, np.random.default_rng([*seed, index]), amount)
    rgb = _scan(glass, np.random.default_rng([*seed, len(DAMAGES)]))
    return DamagedSlide(rgb, glass.lost, glass.quality)


def check_names(names: Collection[str]) -> None:
    """Refuse names of damages that do not exist, with the nearest that does."""
    for name in names:
        if name != "all" and name not in DAMAGES:
            raise ValueError(f"there is no damage {name!r} to leave out; {nearest(name, [*DAMAGES, 'all'])}")


def dye(glass: Glass, rng: np.random.Generator, amount: float) -> None:
    """Batch-to-batch strength and hue of the stain: a factor on all densities."""
    strength = np.exp(rng.normal(0.0, 0.14) + rng.normal(0.0, 0.03, size=3)).astype(np.float32)
    for rows in _bands(glass):
        np.power(glass.light[rows], strength, out=glass.light[rows])


def grinding(glass: Glass, rng: np.random.Generator, amount: float) -> None:
    """Fine parallel lines that knife or grinding paper left: the section is a little thinner or thicker along them."""
    depth = 0.05 * rng.uniform(0.4, 1.0)
    angle = rng.uniform(0.0, np.pi)
    length = int(np.ceil(np.hypot(*glass.extent_um) / 2.0)) * 2
    coarse = ndimage.gaussian_filter1d(rng.standard_normal(length), 8.0)
    fine = ndimage.gaussian_filter1d(rng.standard_normal(length) * (rng.random(length) < 0.06), 1.0)
    profile = (1.0 + depth * (coarse / coarse.std() + fine / (fine.std() + 1e-9)) / 2).astype(np.float32)
    centre = (glass.extent_um[0] / 2, glass.extent_um[1] / 2)
    for rows in _bands(glass):
        _, across = _turned(glass, (rows, slice(None)), centre, angle)
        at = np.clip((across + length / 2).astype(np.int32), 0, length - 1)
        np.power(glass.light[rows], np.clip(profile[at], 0.7, 1.3)[..., None], out=glass.light[rows])


def scratches(glass: Glass, rng: np.random.Generator, amount: float) -> None:
    """Long thin lines where the dye is rubbed off, or debris was dragged along."""
    for _ in range(rng.poisson(3.0 * amount)):
        length, width = _size(rng, glass, (150.0, 1500.0), 0.5), rng.uniform(1.5, 5.0)
        dark = rng.random() < 0.25
        for window, inside in _streak(glass, rng, length, width, bend=0.05, rough=0.3):
            light = glass.light[window]
            light[inside] = light[inside] * np.float32(0.35) if dark else light[inside] ** np.float32(0.25)
            glass.lost[window] |= inside


def folds(glass: Glass, rng: np.random.Generator, amount: float) -> None:
    """Bands where tissue lies double: densities of the place and of what is folded onto it add up."""
    for _ in range(rng.poisson(0.7 * amount)):
        length, width = _size(rng, glass, (400.0, 2500.0), 0.8), _size(rng, glass, (25.0, 90.0), 0.06)
        shift_px = rng.uniform(0.8, 1.5, size=2) * width / glass.pixel_um * rng.choice([-1.0, 1.0], size=2)
        for window, inside in _streak(glass, rng, length, width, bend=0.25, rough=0.5, taper=True):
            rows, columns = np.nonzero(inside)
            rows, columns = rows + window[0].start, columns + window[1].start
            over = glass.light[
                np.clip(rows + int(shift_px[0]), 0, glass.lost.shape[0] - 1),
                np.clip(columns + int(shift_px[1]), 0, glass.lost.shape[1] - 1),
            ]
            over[over.max(axis=-1) < _OPAQUE] = 1.0
            glass.light[rows, columns] *= over
            edge = ndimage.binary_dilation(inside, iterations=max(1, round(2 / glass.pixel_um))) & ~inside
            glass.light[window][edge] **= np.float32(1.6)
            glass.lost[window] |= inside | edge


def tears(glass: Glass, rng: np.random.Generator, amount: float) -> None:
    """Gaps that opened in the tissue (metal does not tear): empty glass between ragged edges."""
    for _ in range(rng.poisson(0.6 * amount)):
        length, width = _size(rng, glass, (200.0, 1200.0), 0.4), _size(rng, glass, (15.0, 60.0), 0.05)
        for window, inside in _streak(glass, rng, length, width, bend=0.3, rough=4.0, taper=True):
            _empty(glass, window, inside & (glass.light[window].max(axis=-1) > _OPAQUE))


def missing(glass: Glass, rng: np.random.Generator, amount: float) -> None:
    """Pieces that broke out and floated away."""
    for _ in range(rng.poisson(0.8 * amount)):
        for window, depth_um in _blob(glass, rng, _size(rng, glass, (50.0, 240.0), 0.10), ragged=0.35):
            _empty(glass, window, depth_um > 0)


def bubbles(glass: Glass, rng: np.random.Generator, amount: float) -> None:
    """Air under the cover glass: a black rim by total reflection, a pale picture within."""
    for _ in range(rng.poisson(1.2 * amount)):
        radius_um = _size(rng, glass, (25.0, 160.0), 0.08)
        for window, depth_um in _blob(glass, rng, radius_um, ragged=0.04):
            inside = depth_um > 0
            rim = inside & (depth_um < max(0.08 * radius_um, 2 * glass.pixel_um))
            light = glass.light[window]
            light[inside] = light[inside] * np.float32(0.65) + light[inside].mean(axis=0) * np.float32(0.35)
            light[rim] = np.float32(0.04)
            glass.lost[window] |= inside


def focus(glass: Glass, rng: np.random.Generator, amount: float) -> None:
    """Zones that lie out of the plane of focus; lost where the blur is wider than a CT voxel or so."""
    for _ in range(rng.poisson(0.7 * amount)):
        sigma_px = rng.uniform(3.0, 8.0) / glass.pixel_um
        radius_um = _size(rng, glass, (150.0, 450.0), 0.16)
        for window, depth_um in _blob(glass, rng, radius_um, ragged=0.3):
            weight = np.clip(depth_um / np.float32(0.4 * radius_um), 0.0, 1.0)[..., None]
            light = glass.light[window]
            blurred = ndimage.gaussian_filter(light, (sigma_px, sigma_px, 0), mode="nearest")
            light += (blurred - light) * weight
            glass.lost[window] |= weight[..., 0] > 0.5


def illumination(glass: Glass, rng: np.random.Generator, amount: float) -> None:
    """Uneven lamp light over the slide: a tilt and a vignette of a few per cent."""
    slope, bowl = rng.normal(0.0, 0.03, size=2), rng.uniform(0.0, 0.08)
    rows, columns = (np.linspace(-1.0, 1.0, n, dtype=np.float32) for n in glass.lost.shape)
    down, right = (1.0 + slope[0] * rows - bowl / 2 * rows**2), (1.0 + slope[1] * columns - bowl / 2 * columns**2)
    glass.light *= (down.astype(np.float32)[:, None] * right.astype(np.float32)[None, :])[..., None]


def white_balance(glass: Glass, rng: np.random.Generator, amount: float) -> None:
    """The scanner's gains of red, green and blue, and its exposure."""
    glass.gain[:] = np.exp(rng.normal(0.0, 0.025, size=3) + rng.normal(-0.02, 0.03))


def noise(glass: Glass, rng: np.random.Generator, amount: float) -> None:
    """The camera's noise, in sRGB values of 255."""
    glass.noise = float(rng.uniform(0.8, 2.0))


def jpeg(glass: Glass, rng: np.random.Generator, amount: float) -> None:
    """The quality with which the scanner compresses."""
    glass.quality = int(rng.integers(*_JPEG_QUALITY))


DAMAGES: Mapping[str, Callable[[Glass, np.random.Generator, float], None]] = MappingProxyType(
    {
        "dye": dye,
        "grinding": grinding,
        "scratches": scratches,
        "folds": folds,
        "tears": tears,
        "missing": missing,
        "bubbles": bubbles,
        "focus": focus,
        "illumination": illumination,
        "white_balance": white_balance,
        "noise": noise,
        "jpeg": jpeg,
    }
)


def _scan(glass: Glass, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The camera: white point, gains, sRGB encoding, noise."""
    rgb = np.empty(glass.light.shape, dtype=np.uint8)
    sigma = glass.noise
    for rows in _bands(glass):
        rgb[rows] = to_srgb(seen(glass.light[rows]) * glass.gain)
        if sigma > 0:
            grain = rng.standard_normal(rgb[rows].shape, dtype=np.float32) * np.float32(sigma)
            grain += rgb[rows]
            rgb[rows] = np.clip(np.rint(grain, out=grain), 0, 255, out=grain).astype(np.uint8)
    return rgb


def _bands(glass: Glass) -> Iterator[slice]:
    for start in range(0, glass.lost.shape[0], _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, glass.lost.shape[0]))


def _size(rng: np.random.Generator, glass: Glass, range_um: tuple[float, float], share: float) -> float:
    """A length in um from a range, but no more than a share of the slide's shorter edge."""
    return float(min(rng.uniform(*range_um), share * min(glass.extent_um)))


def _empty(glass: Glass, window: Window, inside: Mask) -> None:
    """Put glass instead of tissue, with an edge that is a little darker."""
    edge = ndimage.binary_dilation(inside, iterations=max(1, round(2 / glass.pixel_um))) & ~inside
    glass.light[window][inside] = 1.0
    glass.light[window][edge] **= np.float32(1.4)
    glass.lost[window] |= inside | edge


def _turned(glass: Glass, window: Window, centre_um: tuple[float, float], angle: float) -> tuple[Any, Any]:
    """Coordinates along and across a direction, in um from a centre, of the pixels of a window: (y, x) each."""
    rows = np.arange(*window[0].indices(glass.lost.shape[0]), dtype=np.float32)[:, None] * np.float32(glass.pixel_um)
    columns = np.arange(*window[1].indices(glass.lost.shape[1]), dtype=np.float32)[None, :] * np.float32(glass.pixel_um)
    rows, columns = rows - np.float32(centre_um[0]), columns - np.float32(centre_um[1])
    sin, cos = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    return rows * sin + columns * cos, rows * cos - columns * sin


def _window(glass: Glass, centre_um: tuple[float, float], reach_um: tuple[float, float]) -> Window | None:
    """The pixels within ``reach_um`` (y, x) of a centre, None where there are none."""
    parts = []
    for centre, reach, size in zip(centre_um, reach_um, glass.lost.shape, strict=True):
        start = max(0, int((centre - reach) / glass.pixel_um))
        stop = min(size, int((centre + reach) / glass.pixel_um) + 2)
        if start >= stop:
            return None
        parts.append(slice(start, stop))
    return parts[0], parts[1]


def _streak(
    glass: Glass,
    rng: np.random.Generator,
    length_um: float,
    width_um: float,
    *,
    bend: float,
    rough: float,
    taper: bool = False,
) -> Iterator[tuple[Window, Mask]]:
    """A curved band somewhere on the slide: its window and (y, x) which pixels it covers.

    ``bend`` is the sagitta over the length, ``rough`` the standard deviation in um of its middle line.
    """
    centre = (rng.uniform(0, glass.extent_um[0]), rng.uniform(0, glass.extent_um[1]))
    angle, sagitta = rng.uniform(0.0, np.pi), bend * length_um * rng.uniform(-1.0, 1.0)
    count = max(8, int(length_um / 4))
    waves = ndimage.gaussian_filter1d(rng.standard_normal(count), 2.0)
    waves *= rough / max(float(waves.std()), 1e-9)
    half = length_um / 2
    aside = width_um + abs(sagitta) + 4 * rough
    reach = (
        half * abs(np.sin(angle)) + aside * abs(np.cos(angle)),
        half * abs(np.cos(angle)) + aside * abs(np.sin(angle)),
    )
    window = _window(glass, centre, reach)
    if window is None:
        return
    along, across = _turned(glass, window, centre, angle)
    share = along / np.float32(half)
    middle = np.float32(sagitta) * (share**2 - np.float32(0.5))
    middle += waves.astype(np.float32)[np.clip(((share + 1) / 2 * count).astype(np.int32), 0, count - 1)]
    breadth = np.float32(width_um / 2) * (np.sqrt(np.clip(1 - share**2, 0, 1)) if taper else np.float32(1.0))
    yield window, (np.abs(across - middle) <= breadth) & (np.abs(share) <= 1)


def _blob(
    glass: Glass, rng: np.random.Generator, radius_um: float, *, ragged: float
) -> Iterator[tuple[Window, Linear]]:
    """A roundish spot somewhere on the slide: its window and how far inside a pixel lies in um, (y, x)."""
    centre = (rng.uniform(0, glass.extent_um[0]), rng.uniform(0, glass.extent_um[1]))
    orders = np.arange(2, 9)
    heights, phases = rng.normal(0.0, ragged, size=7) / orders, rng.uniform(0, 2 * np.pi, size=7)
    reach = radius_um * (1 + float(np.abs(heights).sum()))
    window = _window(glass, centre, (reach, reach))
    if window is None:
        return
    right, down = _turned(glass, window, centre, 0.0)
    angle = np.arctan2(down, right)
    edge = np.ones_like(angle)
    for order, height, phase in zip(orders, heights, phases, strict=True):
        edge += np.float32(height) * np.cos(np.float32(order) * angle + np.float32(phase))
    yield window, (np.float32(radius_um) * np.maximum(edge, 0.2) - np.hypot(down, right)).astype(np.float32)
