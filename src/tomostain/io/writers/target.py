"""What is to be written, and the sink that takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tomostain.images.geometry import Grid

Window = tuple[slice, slice, slice]
Block = npt.NDArray[Any]


@dataclass(frozen=True)
class Target:
    """The volume that is to be written: values of ``dtype`` on ``grid``, (z, y, x) or (z, y, x, 3) colours."""

    name: str
    """File name without its suffix."""
    grid: Grid
    dtype: np.dtype[Any]
    colours: int | None = None
    stain: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else is known of it: ``units`` of grey values, ``simulated`` (what of it was simulated)."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.grid.shape, *((self.colours,) if self.colours else ()))

    @property
    def nbytes(self) -> int:
        return int(np.prod([int(n) for n in self.shape], dtype=object)) * self.dtype.itemsize

    @property
    def spacing_um(self) -> tuple[float, float, float]:
        """Voxel size (z, y, x)."""
        z, y, x = self.grid.spacing_um
        return z, y, x


class Sink(Protocol):
    """Takes a volume, ``sink[z0:z1, y0:y1, x0:x1] = block``, in the order of z and in pieces of ``slab``."""

    @property
    def slab(self) -> tuple[int, int, int]:
        """What is best written at once (z, y, x); a length of 0 stands for the whole axis."""
        ...

    def __setitem__(self, window: Window, block: Block, /) -> None: ...
