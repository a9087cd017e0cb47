"""A section in a volume's format (MetaImage, NRRD, NIfTI, ...): its one plane as a slide, or in its own values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tomostain.images.image import Volume
from tomostain.io.volumes import READERS, read_volume

_IMAGES = (".tif", ".tiff", ".btf")
"""Endings that slides and volumes share, read as a slide here."""


def is_volume_format(path: Path) -> bool:
    """Whether only the readers of volumes open a file of this name."""
    name = path.name.lower()
    return any(name.endswith(ending) for ending in READERS if ending not in _IMAGES)


def read_section(path: Path, pixel_um: float | None) -> Volume:
    """A volume of one plane.

    Raises
    ------
    ValueError
        It has several planes, cannot be read, or states no pixel size and none is passed.
    """
    try:
        volume = read_volume(path, spacing_um=None if pixel_um is None else (pixel_um,) * 3)
    except ValueError as error:
        if pixel_um is None and "--spacing-um" in str(error):
            raise ValueError(f"{path.name} does not state a plausible pixel size; pass --slide-um") from None
        raise
    if volume.shape[0] != 1:
        raise ValueError(f"{path.name} has {volume.shape[0]} planes; a slide is one picture: save its plane alone")
    return volume


def section_values(path: Path) -> npt.NDArray[Any]:
    """The plane of a volume of one plane, (y, x) or (y, x, 3), in its own values."""
    return np.asarray(read_section(path, 1.0)[0])


@dataclass(frozen=True, eq=False)
class SectionColours:
    """The plane of a section as (y, x, 3) uint8: grey as three equal colours."""

    volume: Volume

    def __post_init__(self) -> None:
        if self.volume.dtype != np.uint8:
            raise ValueError(
                f"{self.volume.name} holds {self.volume.dtype} values; a slide is 8-bit, and only you know how to "
                "scale them: save it as 8-bit"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.volume.shape[1], self.volume.shape[2], 3)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def __getitem__(self, window: Any, /) -> npt.NDArray[np.uint8]:
        where = window if isinstance(window, tuple) else (window,)
        values = self.volume[(0, *where[:2])]
        colours = values if self.volume.is_colour else np.repeat(values[..., None], 3, axis=-1)
        return np.asarray(colours[(slice(None), slice(None), *where[2:])], dtype=np.uint8)
