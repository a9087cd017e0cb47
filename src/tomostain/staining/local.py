"""Stain a CT volume on this machine: a block is read with its halo, painted plane by plane, and written once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from tomostain import runs
from tomostain.images.image import Volume
from tomostain.images.ome_zarr import VolumeWriter
from tomostain.staining.blocks import Plan

Paint = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.uint8]]
"""(planes, y + 2 halo, x + 2 halo) CT values -> (y, x, 3) uint8 sRGB."""


def stain_volume(paint: Paint, ct: Volume, plan: Plan, painted: VolumeWriter) -> dict[str, float]:
    """Paint every block of the plan and write it; returns the smallest and largest CT value that was met.

    Raises
    ------
    ValueError
        A block holds NaN or infinite values.
    """
    low, high = np.inf, -np.inf
    total = sum((block.core[0].stop - block.core[0].start) for block in plan.blocks)
    bar = runs.progress(_planes(paint, ct, plan, painted), total=total, desc="staining", unit="plane")
    for least, most in bar:
        low, high = min(low, least), max(high, most)
    return {"ct_min": float(low), "ct_max": float(high)}


def _planes(paint: Paint, ct: Volume, plan: Plan, painted: VolumeWriter) -> Iterator[tuple[float, float]]:
    """Stain plane after plane; each block is written when its last plane is done."""
    for block in plan.blocks:
        values = np.asarray(ct[block.outer], dtype=np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"{ct.name} has NaN or infinite values near voxel {_first_bad(values, block.outer)}")
        least, most = float(values.min()), float(values.max())
        values = block.padded(values)
        core = tuple(part.stop - part.start for part in block.core)
        colours = np.empty((*core, 3), dtype=np.uint8)
        window = 2 * plan.halo_px[0] + 1
        for z in range(core[0]):
            colours[z] = paint(values[z : z + window])[: core[1], : core[2]]
            if z + 1 == core[0]:
                painted[block.core] = colours
            yield least, most


def _first_bad(values: npt.NDArray[np.float32], outer: tuple[slice, ...]) -> tuple[int, ...]:
    where = np.argwhere(~np.isfinite(values))[0]
    return tuple(int(i) + part.start for i, part in zip(where, outer, strict=True))
