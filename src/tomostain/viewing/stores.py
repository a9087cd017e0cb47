"""An OME-Zarr store in, what a viewer needs to know of it out; what cannot be shown is refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tomostain import runs
from tomostain.images.image import Volume
from tomostain.io.volumes import VolumeError, read_volume
from tomostain.io.volumes.zarr_groups import METADATA, Choice, choose, multiscales
from tomostain.io.volumes.zarr_store import attributes_of

_SHOWN_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32")
_SAMPLED_VOXELS = 2**21
_TAILS = (0.5, 99.5)
"""Percentiles of the sampled values between which grey values are shown."""


@dataclass(frozen=True, eq=False)
class Store:
    """An OME-Zarr image that can be shown: its folder, the group inside it, and how stored values become units."""

    path: Path
    inside: str
    version: int
    """Of the Zarr format, 2 or 3."""
    volume: Volume
    slope: float
    intercept: float
    units: str
    window: tuple[float, float]
    """Stored values that are shown as black and white."""


def open_store(path: Path, *, colours: bool) -> Store:
    """Open an OME-Zarr image for a viewer; ``colours``: whether it must be a stained volume, or grey values.

    Raises
    ------
    FileNotFoundError
        There is nothing at ``path``.
    ValueError
        It is being written, is no OME-Zarr, is damaged, holds the wrong kind of values or a type no viewer reads.
    """
    folder, inside = runs.split_inside(path)
    if not folder.exists():
        raise FileNotFoundError(f"there is no volume {folder}")
    refuse_unfinished(folder)
    if not folder.is_dir() or not any((folder / file).is_file() for file in METADATA):
        raise ValueError(
            f"{path} is no OME-Zarr, which alone can be shown; convert it: tomostain convert {path} NAME.ome.zarr"
        )
    volume, chosen = read_volume(path), choose(folder, inside.strip("/"), folder.name)
    if not multiscales(chosen.attributes):
        raise VolumeError(f"{path} has no OME-Zarr metadata; convert it: tomostain convert {path} NAME.ome.zarr")
    if volume.is_colour != colours:
        wanted, found = ("colours", "grey values") if colours else ("grey values", "colours")
        advice = "`tomostain stain` writes a stained volume" if colours else "choose a CT or another map of grey values"
        raise ValueError(f"{path} holds {found}, not {wanted}; {advice}")
    about = attributes_of(folder) if not chosen.where else chosen.attributes
    own: Mapping[str, Any] = about.get("tomostain") or {}
    slope, intercept = float(own.get("slope") or 1.0), float(own.get("intercept") or 0.0)
    calibrated = (slope, intercept) != (1.0, 0.0)
    if not calibrated and volume.dtype.name not in _SHOWN_TYPES:
        raise ValueError(
            f"{path} holds {volume.dtype.name}, which the viewer cannot read; convert it to one of "
            f"{', '.join(_SHOWN_TYPES)}"
        )
    window = (0.0, 255.0) if colours else _window(folder, chosen, slope, intercept)
    version = 3 if (folder / chosen.where / METADATA[0]).is_file() else 2
    return Store(folder, chosen.where, version, volume, slope, intercept, volume.about.get("units") or "", window)


def refuse_unfinished(path: Path) -> None:
    """Refuse what a run writes, or left half-written.

    Raises
    ------
    ValueError
        ``path`` is marked as unfinished.
    """
    about = runs.unfinished(path)
    if about is None:
        return
    by = f"tomostain {about.get('step') or ''}".strip()
    if runs.is_running(about):
        raise ValueError(f"{path} is being written ({by}); wait until that has ended")
    raise ValueError(f"{path} is not finished: {by} was interrupted; run it again")


def _window(folder: Path, chosen: Choice, slope: float, intercept: float) -> tuple[float, float]:
    """Stored values between which nearly all values of the coarsest level lie."""
    last = len(multiscales(chosen.attributes)[0]["datasets"]) - 1
    coarsest = read_volume(f"{folder}::{chosen.where}/{last}".replace("::/", "::"))
    depth, rows, columns = coarsest.shape[:3]
    step = max(1, -(-depth * rows * columns // _SAMPLED_VOXELS))
    planes = [np.asarray(coarsest[z : z + 1], dtype=np.float32) for z in range(step // 2, depth, step)]
    values = np.concatenate([plane[np.isfinite(plane)] for plane in planes])
    if not values.size:
        return 0.0, 1.0
    low, high = sorted((float(v) - intercept) / slope for v in np.percentile(values, _TAILS))
    return (low, high) if high > low else (low, low + 1.0)
