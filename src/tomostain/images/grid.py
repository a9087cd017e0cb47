"""A regular raster in the world: shape, spacing and origin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


def by(sizes: Iterable[float]) -> str:
    """Sizes as they are read aloud: ``900 x 1024 x 1024``."""
    return " x ".join(f"{size:.9g}" for size in sizes)


SCALE_TOLERANCE = 0.05
"""Share by which pixel sizes may differ that one network learns from, or that it is used on."""


def scale_differs(
    spacing_um: Iterable[float], um_per_px: float, *, within_um: tuple[float, float] | None = None
) -> bool:
    """Whether an edge of a pixel or voxel is not the size that a network works at, or not ``within_um``.

    >>> scale_differs((5.2, 4.8), 5.0), scale_differs((5.0, 5.3), 5.0), scale_differs((7.0,), 5.0, within_um=(3, 8))
    (False, True, False)
    """
    low, high = within_um or (um_per_px, um_per_px)
    return any(edge < low * (1.0 - SCALE_TOLERANCE) or edge > high * (1.0 + SCALE_TOLERANCE) for edge in spacing_um)


@dataclass(frozen=True)
class Grid:
    """A raster in the world: where its pixels are.

    ``origin_um`` is the centre of the first pixel; all three run in the array's own order, (z, y, x) or (y, x).
    """

    shape: tuple[int, ...]
    spacing_um: tuple[float, ...]
    origin_um: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "spacing_um", tuple(float(s) for s in self.spacing_um))
        origin = self.origin_um or (0.0,) * len(self.shape)
        object.__setattr__(self, "origin_um", tuple(float(o) for o in origin))
        if not len(self.shape) == len(self.spacing_um) == len(self.origin_um):
            raise ValueError(
                f"a grid needs as many spacings and origins as axes: shape {self.shape}, "
                f"spacing_um {self.spacing_um}, origin_um {self.origin_um}"
            )
        if min(self.shape) < 1:
            raise ValueError(f"a grid needs at least one pixel along each axis, this one is {self.shape}")
        if not all(0 < s < float("inf") for s in self.spacing_um):
            raise ValueError(f"spacing_um must be positive and finite, this one is {self.spacing_um}")
        if not np.isfinite(self.origin_um).all():
            raise ValueError(f"origin_um must be finite, this one is {self.origin_um}")

    @property
    def extent_um(self) -> tuple[float, ...]:
        """Edge lengths of the box that the pixels fill, in um."""
        return tuple(n * s for n, s in zip(self.shape, self.spacing_um, strict=True))

    def index_of(self, points_um: Floats) -> Floats:
        """Fractional array indices of points: (..., n_axes) um -> (..., n_axes) px."""
        index: Floats = (np.asarray(points_um) - np.asarray(self.origin_um)) / np.asarray(self.spacing_um)
        return index
