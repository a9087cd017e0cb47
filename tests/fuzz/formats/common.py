"""What several formats share: values to write, how ours opens a volume or a slide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from fuzz.judge import Look, look
from tomostain.io.slides import read_slide
from tomostain.io.volumes import read_volume

SHAPE = (11, 37, 43)
SPACING_UM = (3.0, 2.5, 2.5)
PIXEL_UM = 2.0


def grey(dtype: str = "uint16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Smooth structure with noise on it, no value of which is zero."""
    rng = np.random.default_rng(11)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), 2.0)
    field = (field - field.min()) / np.ptp(field) + 0.02 * rng.random(shape)
    top = 200 if np.dtype(dtype).itemsize == 1 else 30_000
    return (1 + field * top).astype(dtype)


def colours(shape: tuple[int, int] = (293, 331)) -> np.ndarray:
    """An RGB picture with structure, (y, x, 3) uint8."""
    return np.stack([grey("uint8", (2, *shape))[0] // (i + 1) + 20 * i for i in range(3)], axis=-1).astype(np.uint8)


def volume(spacing_um: tuple[float, float, float] | None = None) -> Callable[[Path], Look]:
    """Open with ``read_volume`` and look at it."""

    def ours(path: Path) -> Look:
        opened = read_volume(path, spacing_um=spacing_um)
        return look(opened, opened.grid.spacing_um)

    return ours


def slide(pixel_um: float | None = None) -> Callable[[Path], Look]:
    """Open with ``read_slide`` and look at it."""

    def ours(path: Path) -> Look:
        opened = read_slide(path, pixel_um=pixel_um)
        return look(opened.array, opened.grid.spacing_um)

    return ours
