"""What a backend is: a function that makes a predictor of a stainer, and how far its colours may differ from fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tomostain.learning.stainer import Stainer

Tiles = npt.NDArray[np.float32]
"""CT values (b, planes, y, x)."""
Calibration = Callable[[], Tiles]
"""Reads tiles of the volume, for backends whose number ranges are taken from data."""
Predictor = Callable[[Tiles], npt.NDArray[np.uint8]]
"""CT values (b, planes, y, x), float32 -> sRGB (b, y, x, 3), uint8. It raises ValueError where the network's output is
not finite."""


@dataclass(frozen=True)
class Bound:
    """How far colours may differ from those of the reference, in counts of 255."""

    mean: float
    most: int

    def holds(self, mean: float, most: float) -> bool:
        """Whether a mean and a largest difference are both within it."""
        return mean <= self.mean and most <= self.most


@dataclass(frozen=True)
class Backend:
    """A way to run a network."""

    make: Callable[[Stainer, Calibration], Predictor]
    """Makes a predictor of a stainer."""
    bound: Bound
    """What the self-test refuses to exceed; derived in ``bounds.py``."""
    available: Callable[[Stainer], bool]
    """Whether this machine can run it on the stainer's device."""
    by_name_only: bool = False
    """Whether the self-test leaves it out unless it is named."""
    one_shape: bool = False
    """Whether its rounding may depend on the tile, or each tile shape is compiled anew: then all tiles have one shape
    and lie on one lattice over the plane, so that a voxel is always stained in the same tile."""
    batch: int = 1
    """Planes of a tile that are in the network at once."""
