"""Paired augmentation: one geometric draw moves CT, stain and weight alike; then each image gets its own flaws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional

from tomostain._settings import SHARE, Within, check_numbers
from tomostain.images.srgb import encoded

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Augment:
    """How far patches are varied; zeros switch a variation off."""

    flip: bool = True
    """Mirror and turn by quarters: exact, no pixel is interpolated. A section has no up or left."""
    warp_share: Annotated[float, SHARE] = 0.5
    """Share of patches that are also rotated freely, scaled and bent. Interpolation softens an image a little, so the
    other patches keep the sharpness and the noise that the stainer will meet."""
    rotation_deg: Annotated[float, Within(0, 180)] = 180.0
    """Largest free rotation, either way, in degrees."""
    scale: Annotated[float, Within(1, 4)] = 1.15
    """Largest factor, larger or smaller: specimens and shrinkage differ by some per cent."""
    elastic_px: Annotated[float, Within(0, 256)] = 2.0
    """Standard deviation of the smooth bending, in pixels; its nodes are 32 px apart."""
    ct_gain: Annotated[float, Within(0, 2)] = 0.05
    """Strength of the log gain of the CT window: its standard deviation on the patches that vary most. Most patches
    vary far less (a third over all), since marrow, resin and plastics differ by a hundredth of the CT range."""
    ct_offset: Annotated[float, Within(0, 10)] = 0.03
    """The same for the offset of the CT window, in units of half the CT range."""
    ct_noise: Annotated[float, Within(0, 10)] = 0.03
    """Largest standard deviation of added CT noise (white to slightly grainy), in units of half the CT range."""
    ct_blur_px: Annotated[float, Within(0, 64)] = 0.6
    """Largest Gaussian blur of the CT, standard deviation in pixels, on half of the patches."""
    stain_strength: Annotated[float, Within(0, 2)] = 0.03
    """Standard deviation of the log dye strength: optical densities are multiplied."""
    stain_balance: Annotated[float, Within(0, 2)] = 0.01
    """Standard deviation of the log white balance of each colour."""

    def __post_init__(self) -> None:
        check_numbers(self)


USUAL = Augment()
NO_AUGMENT = Augment(False, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Patches as they are."""

_NODE_PX = 32
_SPLINE_SHRINKS = 0.479
"""Standard deviation of a cubic B-spline surface through independent nodes of standard deviation 1."""


def draw_map(rng: np.random.Generator, patch_px: int, augment: Augment) -> Floats | None:
    """Offsets y, x in px from a patch's centre to where its pixels come from: (y, x, 2), or None, unwarped."""
    if rng.random() >= augment.warp_share:
        return None
    angle = np.deg2rad(rng.uniform(-augment.rotation_deg, augment.rotation_deg))
    factor = np.exp(rng.uniform(-1.0, 1.0) * np.log(augment.scale))
    along = np.arange(patch_px, dtype=np.float32) - np.float32((patch_px - 1) / 2)
    y, x = along[:, None], along[None, :]
    cosine, sine = np.float32(np.cos(angle) * factor), np.float32(np.sin(angle) * factor)
    offsets = np.stack([cosine * y - sine * x, sine * y + cosine * x], axis=-1)
    if augment.elastic_px:
        spline = _cubic_spline(patch_px)
        nodes = rng.standard_normal((2, spline.shape[1], spline.shape[1])).astype(np.float32)
        bend = spline @ nodes @ spline.T
        offsets += np.float32(augment.elastic_px / _SPLINE_SHRINKS) * np.moveaxis(bend, 0, -1)
    return offsets.astype(np.float32)


def warp(images: Floats, weight: Floats, where_px: Floats) -> tuple[Floats, Floats]:
    """Images and their weight at other places.

    Parameters
    ----------
    images
        (c, y, x), interpolated bicubically; the edge repeats outside.
    weight
        (y, x) in [0, 1], interpolated linearly; 0 outside and wherever a pixel of weight 0 would be mixed in.
    where_px
        (y', x', 2) places y, x in px.

    Returns
    -------
    images (c, y', x') and weight (y', x'), float32.
    """
    size = torch.tensor([images.shape[2], images.shape[1]], dtype=torch.float32)
    places = torch.from_numpy(np.ascontiguousarray(where_px[..., ::-1]))
    grid = ((places + 0.5) / size * 2.0 - 1.0)[None]
    stack = torch.from_numpy(np.ascontiguousarray(images))[None]
    moved = functional.grid_sample(stack, grid, mode="bicubic", padding_mode="border", align_corners=False)
    # four pixels along each axis are mixed: all of them, not only the middle two, must have a weight
    whole = ndimage.binary_erosion(weight > 0, np.ones((3, 3), dtype=bool), border_value=1).astype(np.float32)
    stacked = torch.from_numpy(np.stack([weight, whole]))[None]
    weights = functional.grid_sample(stacked, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    return moved[0].numpy(), torch.where(weights[1] > 0.999, weights[0], 0.0).numpy()


def flaw_ct(rng: np.random.Generator, unit_ct: Floats, augment: Augment) -> Floats:
    """CT as another scan might show it: (planes, y, x) unit values -> the same shape, blurred, re-windowed, noisier."""
    blur = rng.uniform(-1.0, 1.0) * augment.ct_blur_px
    if blur > 0.2:
        unit_ct = ndimage.gaussian_filter(unit_ct, (0.0, blur, blur), mode="nearest")
    share = rng.random() ** 4
    gain, offset = np.exp(rng.normal() * share * augment.ct_gain), rng.normal() * share * augment.ct_offset
    unit_ct = unit_ct * np.float32(gain) + np.float32(offset)
    strength, grain = rng.uniform(0.0, augment.ct_noise), rng.uniform(0.0, 0.8)
    if strength:
        noise = rng.standard_normal(unit_ct.shape, dtype=np.float32)
        if grain > 0.3:
            noise = ndimage.gaussian_filter(noise, (0.0, grain, grain), mode="nearest")
            noise /= noise.std()
        unit_ct = unit_ct + np.float32(strength) * noise
    return unit_ct


def flaw_stain(rng: np.random.Generator, linear: Floats, augment: Augment) -> Floats:
    """A section from another batch: (3, y, x) linear light -> the same, its dye stronger or weaker, its white shifted.

    Light is transmission (Beer-Lambert), so dye strength is a power of it and white balance a factor.
    """
    strength = np.float32(np.exp(rng.normal(0.0, 1.0) * augment.stain_strength))
    balance = np.exp(rng.normal(0.0, 1.0, 3) * augment.stain_balance).astype(np.float32)
    if strength == 1.0 and (balance == 1.0).all():
        return linear
    varied: Floats = np.clip(np.power(linear, strength) * balance[:, None, None], 0.0, 1.0)
    return varied


def coded(linear: Floats) -> Floats:
    """Linear light in [0, 1] (clipped) -> sRGB-coded values in [-1, 1], unrounded, same shape."""
    return (encoded(linear) * 2.0 - 1.0).astype(np.float32)


@cache
def _cubic_spline(length: int) -> Floats:
    """Weights (length, nodes) of a uniform cubic B-spline with a node every 32 px."""
    at = np.arange(length) / _NODE_PX
    nodes = np.arange(-(-length // _NODE_PX) + 3) - 1
    far = np.abs(at[:, None] - nodes[None, :])
    near, outer = 2 / 3 - far**2 + far**3 / 2, (2 - far) ** 3 / 6
    weights: Floats = np.where(far < 1, near, np.where(far < 2, outer, 0.0)).astype(np.float32)
    return weights
