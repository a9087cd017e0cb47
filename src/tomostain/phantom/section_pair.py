"""A CT plane and a section of it that are as hard to register as real soft tissue: a seed in, both with the truth out.

Bone with marrow spaces, skin, muscle, gland and fat lie in bands. CT and stain see different things: some soft tissues
differ in one of them only, air is in the CT alone, pieces are lost on the glass, the section is uneven in thickness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain._settings import Within, check_numbers
from tomostain.images.geometry import Grid, Placement
from tomostain.images.image import Slide, Volume
from tomostain.images.simulated import SIMULATED
from tomostain.images.srgb import to_srgb
from tomostain.phantom.deformation import bent

Float32 = npt.NDArray[np.float32]

_KINDS = ("wax", "skin", "fascia", "bone", "muscle", "gland", "fat")
_GREY = {"wax": 0.33, "skin": 0.45, "fascia": 0.42, "bone": 0.78, "muscle": 0.47, "gland": 0.47, "fat": 0.36}
"""CT grey value of each tissue over its range."""
_DENSITY = {
    "wax": (0.0, 0.0, 0.0),
    "skin": (0.22, 0.45, 0.28),
    "fascia": (0.10, 0.28, 0.16),
    "bone": (0.08, 0.32, 0.15),
    "muscle": (0.10, 0.38, 0.22),
    "gland": (0.40, 0.50, 0.22),
    "fat": (0.02, 0.03, 0.02),
}
"""Optical density (R, G, B) of each tissue."""


@dataclass(frozen=True)
class HardRecipe:
    """What makes a pair hard; each setting at 0 switches its difficulty off."""

    unseen: Annotated[float, Within(0, 1)] = 0.5
    """Share of soft tissue whose boundary one of the two images does not show."""
    blur_um: Annotated[float, Within(0, 100)] = 15.0
    """How gradual the boundaries of muscle, gland and fascia are."""
    air: Annotated[float, Within(0, 1)] = 0.3
    """Share of marrow spaces that are full of air in the CT."""
    uneven: Annotated[float, Within(0, 1)] = 0.25
    """Spread of the section's thickness from place to place, as a share of its mean."""
    lost: Annotated[float, Within(0, 0.5)] = 0.08
    """Share of the section that was lost on its way to the glass."""
    noise: Annotated[float, Within(0, 1)] = 0.04
    """Standard deviation of the CT's noise, as a share of its range."""
    elastic_um: Annotated[tuple[float, float], Within(0, 1000)] = (10.0, 50.0)
    """Range of the largest elastic displacement."""
    inverted_grey: bool = False
    """The slide is a grey image in which glass is black."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, eq=False)
class HardPair:
    """One pair: the CT plane, the slide, the true placement, and which slide pixels (y, x) show tissue."""

    ct: Volume
    slide: Slide
    truth: Placement
    tissue: npt.NDArray[np.bool_]


def hard_pair(
    seed: int | Sequence[int],
    recipe: HardRecipe = HardRecipe(),
    *,
    shape: tuple[int, int] = (420, 520),
    pixel_um: float = 4.0,
) -> HardPair:
    """Make a CT plane of ``shape`` pixels and a section of the same place that was turned, shrunk and bent.

    The same seed gives the same pair; the difficulties do not change which tissues lie where.
    """
    parts = np.random.SeedSequence(seed).spawn(4)
    rngs = [np.random.default_rng(part) for part in parts]
    shares, marrow = _anatomy(rngs[0], shape, pixel_um, recipe.blur_um)
    ct = _scan(rngs[1], shares, marrow, recipe)
    density = _stain(rngs[2], shares, marrow, recipe)
    truth = _placement(rngs[3], shape, pixel_um, recipe)
    px = np.moveaxis(np.indices(truth.slide_shape), 0, -1).astype(np.float64)
    at = np.moveaxis(truth.slide_to_volume_um(px)[..., 1:] / pixel_um, -1, 0)
    bands = [ndimage.map_coordinates(density[..., i], at, order=1, mode="constant") for i in range(3)]
    light = np.power(np.float32(10.0), -np.moveaxis(np.asarray(bands, dtype=np.float32), 0, -1))
    rgb = to_srgb(light * np.float32(0.9))
    tissue = ndimage.map_coordinates(1 - shares[..., 0] - shares[..., 6], at, order=1, mode="constant") > 0.5
    if recipe.inverted_grey:
        rgb = np.repeat(255 - rgb.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    grid = Grid((1, *shape), (pixel_um,) * 3)
    return HardPair(
        Volume(ct[None], grid, name=f"ct, {SIMULATED}"),
        Slide(rgb, Grid(rgb.shape[:2], (pixel_um, pixel_um)), name=f"slide, {SIMULATED}"),
        truth,
        np.asarray(tissue),
    )


def _smooth(rng: np.random.Generator, shape: tuple[int, int], sigma: float | tuple[float, float]) -> Float32:
    """Gaussian noise of mean 0 and variance 1, smooth over ``sigma`` pixels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return np.asarray((noise - noise.mean()) / noise.std())


def _anatomy(
    rng: np.random.Generator, shape: tuple[int, int], pixel_um: float, blur_um: float
) -> tuple[Float32, Float32]:
    """Share of each kind (y, x, kind) and of marrow space in each pixel."""
    size = float(np.hypot(*shape))
    rows, columns = np.indices(shape, dtype=np.float32)
    angle = rng.uniform(-0.4, 0.4)
    height = (rows - shape[0] / 2) * np.cos(angle) + (columns - shape[1] / 2) * np.sin(angle)
    height = height / shape[0] + 0.05 * _smooth(rng, shape, size / 14) + 0.012 * _smooth(rng, shape, size / 50)
    inner = [str(kind) for kind in rng.permutation(["fascia", "muscle", "gland", "bone", "fat", "muscle"])]
    order = ["wax", "skin", *inner, "fascia", "wax"]
    if order.index("bone") > 6:
        order[4], order[order.index("bone")] = "bone", order[4]
    widths = np.asarray([{"skin": 0.7, "fascia": 0.5, "bone": 3.0}.get(kind, 1.0) for kind in order[1:-1]])
    edges = -0.36 + 0.72 * np.concatenate([[0.0], np.cumsum(widths * rng.uniform(0.7, 1.3, len(widths)))])
    edges = -0.36 + (edges + 0.36) / (edges[-1] + 0.36) * 0.72
    label = np.asarray([_KINDS.index(kind) for kind in order])[np.searchsorted(edges, height)]
    blob = _smooth(rng, shape, size / 30)
    soft = (label > 0) & (label != _KINDS.index("bone"))
    label[soft & (blob > 1.5)] = _KINDS.index("gland")
    label[soft & (blob < -1.6)] = _KINDS.index("fat")
    shares = np.stack([(label == k).astype(np.float32) for k in range(len(_KINDS))], axis=-1)
    if blur_um > 0:
        gradual = ndimage.gaussian_filter(shares, (blur_um / pixel_um, blur_um / pixel_um, 0))
        bone = shares[..., _KINDS.index("bone")]
        near = np.maximum(ndimage.gaussian_filter(bone, 2.0), ndimage.gaussian_filter(shares[..., 0], 2.0))[..., None]
        shares = near * shares + (1 - near) * gradual
        shares /= shares.sum(axis=-1, keepdims=True)
    spaces = np.maximum(_smooth(rng, shape, size / 70), _smooth(rng, shape, size / 160)) > 1.3
    marrow = spaces * shares[..., _KINDS.index("bone")]
    return shares, np.asarray(marrow, dtype=np.float32)


def _scan(rng: np.random.Generator, shares: Float32, marrow: Float32, recipe: HardRecipe) -> Float32:
    shape = (shares.shape[0], shares.shape[1])
    grey = {kind: value + rng.normal(0, 0.02) for kind, value in _GREY.items()}
    for kind in ("gland", "fascia", "fat"):
        if rng.random() < recipe.unseen:
            grey[kind] = grey["muscle"]
    ct = shares @ np.asarray([grey[kind] for kind in _KINDS], dtype=np.float32)
    ct += 0.02 * _smooth(rng, shape, (1.5, 7.0)) * shares[..., _KINDS.index("muscle")]
    ct += 0.03 * _smooth(rng, shape, 3.0) * shares[..., _KINDS.index("bone")]
    pieces, count = ndimage.label(marrow > 0.5)
    full = np.concatenate([[False], rng.random(count) < recipe.air])[pieces]
    ct -= marrow * np.float32(grey["bone"] - grey["muscle"])
    ct[full] = 0.02
    if recipe.air > 0:
        ct[_smooth(rng, shape, 30.0) * shares[..., 0] > 1.7] = 0.02
    seen = ndimage.gaussian_filter(ct, 0.8) + recipe.noise * rng.standard_normal(shape)
    return np.asarray(seen + 0.03 * _smooth(rng, shape, max(shape) / 3), dtype=np.float32)


def _stain(rng: np.random.Generator, shares: Float32, marrow: Float32, recipe: HardRecipe) -> Float32:
    """Optical densities (y, x, 3) of the section before it is mounted."""
    shape = (shares.shape[0], shares.shape[1])
    dyed = {kind: np.asarray(value) * np.exp(rng.normal(0, 0.15, 3)) for kind, value in _DENSITY.items()}
    for kind in ("skin", "fascia", "gland"):
        if rng.random() < recipe.unseen:
            dyed[kind] = dyed["muscle"]
    density = shares @ np.stack([dyed[kind] for kind in _KINDS]).astype(np.float32)
    density *= (1 - marrow * np.float32(0.8))[..., None]
    grain = 0.25 * _smooth(rng, shape, 1.2) + 0.2 * _smooth(rng, shape, 4.0)
    grain += 0.3 * _smooth(rng, shape, 2.0) * shares[..., _KINDS.index("gland")]
    density *= np.maximum(1 + grain, 0)[..., None]
    cells = (_smooth(rng, shape, 1.0) > 1.8) * (1 - shares[..., 0] - shares[..., 6])
    density += cells[..., None] * np.asarray([0.3, 0.3, 0.1], dtype=np.float32)
    density *= np.exp(recipe.uneven * _smooth(rng, shape, max(shape) / 8))[..., None]
    if recipe.lost > 0:
        gone = _smooth(rng, shape, (4.0, 14.0)) + _smooth(rng, shape, 20.0)
        soft = 1 - shares[..., 0] - shares[..., _KINDS.index("bone")]
        density[(gone > np.quantile(gone, 1 - recipe.lost)) & (soft > 0.5)] = 0.0
        tears = np.abs(_smooth(rng, shape, max(shape) / 10))
        density[tears < 0.02 * recipe.lost] = 0.0
    return np.asarray(density, dtype=np.float32)


def _placement(rng: np.random.Generator, shape: tuple[int, int], pixel_um: float, recipe: HardRecipe) -> Placement:
    turn, scale = rng.normal(0, 0.12), 1 + rng.normal(0, 0.02, 2)
    down = np.asarray([0.0, np.cos(turn), np.sin(turn)]) * pixel_um * scale[0]
    right = np.asarray([0.0, -np.sin(turn), np.cos(turn)]) * pixel_um * scale[1]
    centre = np.asarray([0.0, *((np.asarray(shape) - 1) / 2 + rng.normal(0, 8, 2))]) * pixel_um
    corner = centre - (shape[0] - 1) / 2 * down - (shape[1] - 1) / 2 * right
    flat = Placement(shape, tuple(corner), tuple(down), tuple(right))
    amplitude = float(rng.uniform(*recipe.elastic_um))
    return replace(bent(flat, amplitude, rng), thickness_um=pixel_um) if amplitude > 0 else flat
