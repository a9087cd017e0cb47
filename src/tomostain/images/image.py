"""A lazy array with its Grid: Volume (z, y, x[, colour]) and Slide (y, x, colour)."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tomostain.images.geometry import Grid, by

Array = npt.NDArray[Any]

_SAMPLED_PLANES = 16


class LazyArray(Protocol):
    """What a reader returns: it has shape and dtype, and reads only the window it is indexed with."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, window: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume somewhere on disk: (z, y, x) grey values, or (z, y, x, 3) uint8 colours.

    ``volume[window]`` reads that window and nothing else, and returns an ndarray.
    """

    array: LazyArray
    grid: Grid
    name: str
    stain: str | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    """What else its file says, in words: ``format``, ``units`` of the values, ``orientation`` of the axes,
    ``simulated`` (what of it was simulated) where it does not come from a real specimen."""

    def __post_init__(self) -> None:
        if tuple(self.array.shape[:3]) != self.grid.shape:
            raise ValueError(f"{self.name}: the array is {self.array.shape}, its grid {self.grid.shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.array.dtype)

    @property
    def is_colour(self) -> bool:
        return len(self.shape) == 4

    @property
    def simulated(self) -> str | None:
        """What of it was simulated, in words; None for a volume of a real specimen."""
        return self.about.get("simulated")

    def fingerprint(self) -> str:
        """SHA-256 of shape, type, voxel size and the values of up to 16 evenly spaced planes.

        The same volume in another format has the same fingerprint; ``runs.fingerprint`` is that of a file.
        """
        digest = hashlib.sha256(repr((self.shape, self.dtype.newbyteorder("=").str, self.grid.spacing_um)).encode())
        for z in np.unique(np.linspace(0, self.shape[0] - 1, min(self.shape[0], _SAMPLED_PLANES)).astype(int)):
            digest.update(np.ascontiguousarray(self[slice(int(z), int(z) + 1)]).tobytes())
        return digest.hexdigest()

    def __getitem__(self, window: Any) -> Array:
        return np.asarray(self.array[window])

    def __repr__(self) -> str:
        what = f"{self.stain or 'colours'}, " if self.is_colour else f"{self.dtype.name}, "
        return f"<Volume {self.name}: {by(self.shape[:3])} voxels of {by(self.grid.spacing_um)} um, {what}z y x>"


@dataclass(frozen=True, eq=False)
class Level:
    """A slide at lower resolution: its pixel i covers the slide's pixels from i to (i + 1) x ``downsample`` (y, x)."""

    array: LazyArray
    downsample: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Slide:
    """A stained section as the scanner wrote it: (y, x, 3) uint8 RGB and its pixel size.

    ``levels`` is its pyramid, finest first; the finest is ``array`` itself. ``about`` says where things were found:
    ``format``, ``pixel_from``, ``notes``, and ``simulated`` where no microscope has seen it.
    """

    array: LazyArray
    grid: Grid
    name: str
    stain: str | None = None
    levels: tuple[Level, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.levels:
            object.__setattr__(self, "levels", (Level(self.array, (1.0, 1.0)),))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.array.shape)

    @property
    def simulated(self) -> str | None:
        """What of it was simulated, in words; None for a real slide."""
        return self.about.get("simulated")

    @property
    def pixel_um(self) -> tuple[float, float]:
        """Pixel size (y, x) in um."""
        y, x = self.grid.spacing_um
        return y, x

    def __getitem__(self, window: Any) -> Array:
        return np.asarray(self.array[window])

    def __repr__(self) -> str:
        levels = f", {len(self.levels)} levels" if len(self.levels) > 1 else ""
        stain = f", {self.stain}" if self.stain else ""
        return f"<Slide {self.name}: {by(self.shape[:2])} px of {by(self.grid.spacing_um)} um{levels}{stain}>"


def warn_if_grey(name: str, colours: Array) -> None:
    """Warn where the red, green and blue (last axis) of what is used of a slide are equal everywhere."""
    if colours.size and (colours == colours[..., :1]).all():
        warnings.warn(f"{name} is grey, red = green = blue everywhere; is it a stained slide?", stacklevel=3)


@dataclass(frozen=True, eq=False)
class ColourLast:
    """A lazy (c, z, y, x) array seen as (z, y, x, c): the one place where OME-Zarr's axis order is crossed."""

    source: LazyArray

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.source.shape[1:], self.source.shape[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.source.dtype)

    def __getitem__(self, window: Any, /) -> Any:
        where = window if isinstance(window, tuple) else (window,)
        if any(part is Ellipsis for part in where):
            raise TypeError("a colour volume is indexed with [z, y, x] or [z, y, x, c], without an ellipsis")
        space, colour = where[:3], where[3] if len(where) > 3 else slice(None)
        block = np.asarray(self.source[(colour, *space)])
        return block if isinstance(colour, int) else np.moveaxis(block, 0, -1)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A lazy array in calibrated units: float32 ``slope`` x stored value + ``intercept``."""

    source: LazyArray
    slope: float
    intercept: float

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def __getitem__(self, window: Any, /) -> Any:
        stored = np.asarray(self.source[window], dtype=np.float32)
        return stored * np.float32(self.slope) + np.float32(self.intercept)


@dataclass(frozen=True, eq=False)
class Filled:
    """A lazy array in which ``value`` takes the place of NaN and infinite values."""

    source: LazyArray
    value: float

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.source.dtype)

    def __getitem__(self, window: Any, /) -> Any:
        values = np.asarray(self.source[window])
        return np.where(np.isfinite(values), values, values.dtype.type(self.value))


def filled(volume: Volume, value: float | None) -> Volume:
    """A volume whose NaN and infinite values are replaced; itself where there is no value, or there can be none."""
    if value is None or volume.dtype.kind != "f":
        return volume
    return dataclasses.replace(volume, array=Filled(volume.array, value))


def scaled(volume: Volume, grey_range: tuple[float, float] | None) -> Volume:
    """A volume of unsigned integers in the units of ``grey_range``: the values of 0 and of the largest integer.

    Raises
    ------
    ValueError
        The volume holds colours, or values of another type.
    """
    if grey_range is None:
        return volume
    if volume.is_colour or volume.dtype.kind != "u":
        raise ValueError(
            f"{volume.name} holds {'colours' if volume.is_colour else volume.dtype.name}; --grey-range is for CT "
            "values that were stored as unsigned integers, leave it out"
        )
    about = {key: value for key, value in volume.about.items() if key != "units"}
    low, high = grey_range
    slope = (high - low) / np.iinfo(volume.dtype).max
    return dataclasses.replace(volume, array=Calibrated(volume.array, slope, low), about=about)
