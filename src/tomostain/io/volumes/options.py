"""What a user may say about a volume that its file does not: one group of options for every step that reads one."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class VolumeOptions:
    """How a volume is read where its file does not say it; ``read_volume(path, **vars(options))``."""

    spacing_um: tuple[float, ...] | None = None
    """Voxel size z y x in um (one number: the same along all axes), where the volume does not state it."""
    shape: tuple[int, int, int] | None = None
    """Voxels z y x of a volume of raw values."""
    dtype: str | None = None
    """Type of a volume's raw values: uint8, uint16, int16, float32; big-endian as uint16be."""
    offset: int = 0
    """Bytes before the first of a volume's raw values."""

    def __post_init__(self) -> None:
        if self.spacing_um is not None:
            if not self.spacing_um or not all(math.isfinite(edge) and edge > 0 for edge in self.spacing_um):
                sizes = " ".join(f"{edge:g}" for edge in self.spacing_um)
                raise ValueError(f"voxel size must be positive, got {sizes or 'nothing'} um")
            if len(self.spacing_um) == 1:
                object.__setattr__(self, "spacing_um", self.spacing_um * 3)
        if self.shape is not None and any(n < 1 for n in self.shape):
            raise ValueError(f"a volume needs at least one voxel along each axis, got {self.shape}")
        if self.offset < 0:
            raise ValueError(f"offset must not be negative, got {self.offset}")


AS_STATED = VolumeOptions()
"""Everything as the file says it."""
