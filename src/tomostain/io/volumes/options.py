"""What a user may say about a volume that its file does not: one group of options for every step that reads one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tomostain._settings import PIXEL_UM, VOXELS, Within, check_numbers


@dataclass(frozen=True)
class VolumeOptions:
    """How a volume is read where its file does not say it; ``read_volume(path, **vars(options))``."""

    spacing_um: Annotated[tuple[float, ...] | None, PIXEL_UM] = None
    """Voxel size z y x in um (one number: the same along all axes), where the volume does not state it."""
    shape: Annotated[tuple[int, int, int] | None, VOXELS] = None
    """Voxels z y x of a volume of raw values."""
    dtype: str | None = None
    """Type of a volume's raw values: uint8, uint16, int16, float32; big-endian as uint16be."""
    offset: Annotated[int, Within(0, 2**50)] = 0
    """Bytes before the first of a volume's raw values."""
    fill: Annotated[float | None, Within(-1e30, 1e30)] = None
    """Value that takes the place of NaN and infinite voxels (outside the scanned circle): that of air."""
    grey_range: Annotated[tuple[float, float] | None, Within(-1e30, 1e30)] = None
    """Grey values of 0 and of the largest integer, where the CT was exported as 8 or 16-bit integers."""
    reader: str | None = None
    """Read the volume as files with this ending are read (such as .tif), or with package.module:function of your own:
    a path and ``Hints`` in, a ``Volume`` out."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.grey_range is not None and not self.grey_range[0] < self.grey_range[1]:
            low, high = self.grey_range
            raise ValueError(f"grey_range must be a smaller and a larger value, got {low:g} {high:g}")
        if self.spacing_um is not None:
            if not self.spacing_um:
                raise ValueError("spacing_um must be one number, or one for each axis, got none")
            if len(self.spacing_um) == 1:
                object.__setattr__(self, "spacing_um", self.spacing_um * 3)


AS_STATED = VolumeOptions()
"""Everything as the file says it."""
