"""Volumes as TIFF: a folder of slices, one ImageJ or OME file, or a folder of pyramidal OME-TIFF planes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tomostain.io.writers.flat import PlaneSink
from tomostain.io.writers.pyramidal_tiff import write_slide
from tomostain.io.writers.target import Block, Target, Window

IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
_CLASSIC_BYTES = 2**32 - 2**25
"""Where a classic TIFF ends, less room for its directories; beyond it the file is a BigTIFF."""


class SliceSink:
    """One file a plane: NAME_0000.tif, NAME_0001.tif, ... with as many digits as the last one needs."""

    slab = (1, 0, 0)

    def __init__(self, folder: Path, target: Target, *, pyramids: bool) -> None:
        self._folder, self._target, self._pyramids = folder, target, pyramids
        self._digits = max(4, len(str(target.grid.shape[0] - 1)))

    def __setitem__(self, window: Window, block: Block, /) -> None:
        _, y_um, x_um = self._target.spacing_um
        for z, plane in enumerate(block, start=window[0].start):
            stem = self._folder / f"{self._target.name}_{z:0{self._digits}d}"
            if self._pyramids:
                words = self._target.facts.get("simulated")
                write_slide(Path(f"{stem}.ome.tif"), plane, pixel_um=(y_um, x_um), ome=True, description=words)
            else:
                tifffile.imwrite(f"{stem}.tif", plane, **_settings(self._target, planes=1))


@contextmanager
def tiff_stack(path: Path, target: Target) -> Iterator[SliceSink]:
    """A folder with one TIFF a plane, as ImageJ opens them by File > Import > Image Sequence."""
    path.mkdir()
    yield SliceSink(path, target, pyramids=False)


@contextmanager
def ome_planes(path: Path, target: Target) -> Iterator[SliceSink]:
    """A folder with one pyramidal OME-TIFF a plane, each of which opens in QuPath as a slide would."""
    path.mkdir()
    yield SliceSink(path, target, pyramids=True)


@contextmanager
def tiff(path: Path, target: Target) -> Iterator[PlaneSink]:
    """One file: an ImageJ hyperstack where ImageJ has the type and 4 GB suffice, else OME-TIFF (BigTIFF if need be).

    Planes of one column are OME-TIFF too: tifffile's ImageJ form takes their rows for columns.
    """
    fits = target.dtype.name in IMAGEJ_DTYPES and target.nbytes < _CLASSIC_BYTES and target.grid.shape[2] > 1
    with _filled(path, target, _settings(target, planes=target.grid.shape[0]) if fits else _ome(target)) as sink:
        yield sink


@contextmanager
def ome_tiff(path: Path, target: Target) -> Iterator[PlaneSink]:
    """One OME-TIFF, BigTIFF beyond 4 GB."""
    with _filled(path, target, _ome(target)) as sink:
        yield sink


@contextmanager
def _filled(path: Path, target: Target, settings: dict[str, Any]) -> Iterator[PlaneSink]:
    """Lay out the directories first, then write the planes where they say they are."""
    single = settings.get("imagej") and target.grid.shape[0] == 1  # whose axes are YX, without Z
    where: Any = tifffile.imwrite(
        path,
        None,
        shape=target.shape[1:] if single else target.shape,
        dtype=target.dtype.newbyteorder("<"),
        returnoffset=True,
        **settings,
    )
    with path.open("r+b") as file:
        file.seek(where[0])
        yield PlaneSink(file, target.dtype)


def _settings(target: Target, *, planes: int) -> dict[str, Any]:
    """What ImageJ reads a plane or a stack with; a type that it has not is written as plain TIFF, sizes in cm."""
    z_um, y_um, x_um = target.spacing_um
    settings: dict[str, Any] = {"photometric": "rgb" if target.colours else "minisblack", "byteorder": "<"}
    if target.dtype.name not in IMAGEJ_DTYPES:
        resolution = {"resolution": (1e4 / x_um, 1e4 / y_um), "resolutionunit": "CENTIMETER"}
        return settings | resolution | {"metadata": None, "software": False}
    axes = ("ZYX" if planes > 1 else "YX") + ("S" if target.colours else "")
    metadata = {"axes": axes, "spacing": z_um, "unit": "um"}
    return settings | {"imagej": True, "resolution": (1 / x_um, 1 / y_um), "metadata": metadata}


def _ome(target: Target) -> dict[str, Any]:
    lengths: dict[str, Any] = {"axes": "ZYXS" if target.colours else "ZYX"}
    for axis, edge in zip("ZYX", target.spacing_um, strict=True):
        lengths |= {f"PhysicalSize{axis}": edge, f"PhysicalSize{axis}Unit": "µm"}
    return {
        "ome": True,
        "bigtiff": target.nbytes >= _CLASSIC_BYTES,
        "byteorder": "<",
        "photometric": "rgb" if target.colours else "minisblack",
        "metadata": lengths,
    }


def stack_keeps_z(dtype: np.dtype[Any]) -> bool:
    """Whether the slices of a stack of this type say how far apart they are."""
    return dtype.name in IMAGEJ_DTYPES
