"""A stand-in network that is exact in tiles, and runs of it small enough for every test."""

import numpy as np
import pytest

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.staining.blocks import choose_cut, plan_blocks
from tomostain.staining.local import stain_here
from tomostain.staining.run import Run, begin
from tomostain.staining.work import Work

REACH = 4


def neighbours(ct):
    """Sees 3 planes and 4 px around, mirrored at the border of what it is shown: (b, 3, y, x) -> (b, y, x, 3)."""
    padded = np.pad(ct, ((0, 0), (0, 0), (REACH, REACH), (REACH, REACH)), mode="symmetric")
    seen = np.lib.stride_tricks.sliding_window_view(padded, (9, 9), axis=(2, 3)).mean(axis=(1, -2, -1))
    return np.round(np.stack([seen, seen / 2, 255 - seen], axis=-1)).astype(np.uint8)


def whole(values, axis=0):
    """What the stand-in paints of a whole volume whose planes are cut along ``axis``: (z, y, x, 3)."""
    planes = np.moveaxis(values, axis, 0)
    padded = np.pad(planes, ((1, 1), (0, 0), (0, 0)), mode="reflect")
    painted = np.stack([neighbours(padded[None, z : z + 3])[0] for z in range(len(planes))])
    return np.moveaxis(painted, 0, axis)


@pytest.fixture
def values(rng):
    return (rng.integers(0, 64, (70, 130, 150)) * 4).astype(np.float32)


@pytest.fixture
def begin_run(tmp_path):
    """Set up a run of the stand-in over values; returns its work, run and output."""

    def make(values, *, tile=None, name="v", wrap=None, shards=(1, 1), background=None, **cut):
        ct = Volume(values if wrap is None else wrap(values), Grid(values.shape, (5, 5, 5)), "ct.h5")
        plan = plan_blocks(
            choose_cut(values.shape, **cut), planes=3, halo_px=REACH, align_px=4, tile_px=tile, shards=shards
        )
        out = tmp_path / f"{name}.ome.zarr"
        writer, journal = begin(out, plan, {"run": name})
        return Work(ct, plan, writer, background), Run(plan, writer, journal), out

    return make


@pytest.fixture
def paint_run(begin_run):
    """Paint values with the stand-in and return the output's path and what was met."""

    def paint(values, *, painter=neighbours, **settings):
        work, run, out = begin_run(values, **settings)
        with run:
            stain_here(work, run, [painter])
        work.writer.declare(work.plan.cut.grid(work.ct.grid))
        return out, run.facts

    return paint
