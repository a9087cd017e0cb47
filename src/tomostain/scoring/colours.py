"""Colours of two sections compared, and the dye of one fitted to that of the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.color import deltaE_ciede2000, rgb2lab

RGB = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]


def colour_difference(predicted: RGB, real: RGB) -> npt.NDArray[np.float32]:
    """CIEDE2000 of two sRGB images (y, x, 3) uint8 -> (y, x) float32; 2.3 is just noticeable, 100 black to white."""
    difference: Floats = deltaE_ciede2000(rgb2lab(predicted), rgb2lab(real))
    return np.asarray(difference, dtype=np.float32)


def mean_difference(predicted: RGB, real: RGB, weight: Floats) -> float:
    """Mean CIEDE2000 over a section (y, x, 3), weighted by ``weight`` (y, x), which is positive somewhere."""
    there = weight > 0
    return float(np.average(colour_difference(predicted[there][None], real[there][None])[0], weights=weight[there]))


def fit_dye(predicted: RGB, real: RGB, weight: Floats) -> RGB:
    """The predicted colours after the affine map of (R, G, B) that brings them closest to the real ones: as (y, x, 3).

    Slides differ in dye strength, section thickness and white balance, which CT cannot show. The map (3 x 3 and an
    offset, 12 numbers for a slide) takes that out. It is the least-squares solution over sRGB values as they are coded,
    weighted by ``weight`` (y, x), and so has the highest PSNR of all such maps. Results are clipped to 0 .. 255.
    """
    there = weight > 0
    root = np.sqrt(weight[there], dtype=np.float64)[:, None]
    known = np.concatenate([predicted[there], np.full((there.sum(), 1), 255)], axis=1).astype(np.float64)
    fit = np.linalg.lstsq(known * root, real[there] * root, rcond=None)[0]
    fitted = predicted.reshape(-1, 3) @ fit[:3] + 255.0 * fit[3]
    rgb: RGB = np.floor(np.clip(fitted, 0.0, 255.0) + 0.5).astype(np.uint8).reshape(predicted.shape)
    return rgb
