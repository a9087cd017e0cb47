"""sRGB and linear light (IEC 61966-2-1): colours are averaged, mixed and dimmed as light, and kept as sRGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
RGB = npt.NDArray[np.uint8]
Linear = npt.NDArray[np.float32]


def decoded(value: Floats) -> Floats:
    """SRGB values in [0, 1] -> linear light, same shape and dtype."""
    return np.asarray(np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4))


def encoded(light: Floats) -> Floats:
    """Linear light (clipped to [0, 1]) -> sRGB values in [0, 1], same shape and dtype."""
    light = np.clip(light, 0.0, 1.0)
    return np.asarray(np.where(light <= 0.0031308, light * 12.92, 1.055 * np.power(light, 1 / 2.4) - 0.055))


_TO_LINEAR = decoded(np.arange(256) / 255.0).astype(np.float32)
_TO_LINEAR.setflags(write=False)


def to_linear(rgb: RGB) -> Linear:
    """uint8 sRGB -> linear light in [0, 1], float32, same shape.

    >>> to_linear(np.array([0, 255], np.uint8)).tolist()
    [0.0, 1.0]
    """
    linear: Linear = _TO_LINEAR[rgb]
    return linear


def to_srgb(light: Floats) -> RGB:
    """Linear light (clipped to [0, 1]) -> uint8 sRGB, rounded half up, same shape.

    >>> to_srgb(np.array([0.0, 0.2140, 2.0])).tolist()
    [0, 127, 255]
    """
    rgb: RGB = np.floor(encoded(light) * 255.0 + 0.5).astype(np.uint8)
    return rgb
