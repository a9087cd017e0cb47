"""A stand-in network that is exact in tiles, and runs of it small enough for every test."""

from types import SimpleNamespace

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
    for axis in (2, 3):
        padded = np.lib.stride_tricks.sliding_window_view(padded, 9, axis=axis).mean(axis=-1)
    seen = padded.mean(axis=1)
    return np.round(np.stack([seen, seen / 2, 255 - seen], axis=-1)).astype(np.uint8)


def whole(values, axis=0):
    """What the stand-in stains of a whole volume whose planes are cut along ``axis``: (z, y, x, 3)."""
    planes = np.moveaxis(values, axis, 0)
    padded = np.pad(planes, ((1, 1), (0, 0), (0, 0)), mode="reflect")
    stained = np.stack([neighbours(padded[None, z : z + 3])[0] for z in range(len(planes))])
    return np.moveaxis(stained, 0, axis)


@pytest.fixture
def stand_in():
    return SimpleNamespace(predict=neighbours, whole=whole)


@pytest.fixture
def values(rng):
    return (rng.integers(0, 64, (70, 130, 150)) * 4).astype(np.float32)


@pytest.fixture
def begin_run(tmp_path):
    """Set up a run of the stand-in over values; returns its work, run and output."""

    def make(values, *, tile=None, name="v", wrap=lambda array: array, background=None, one_shape=False, **cut):
        ct = Volume(wrap(values), Grid(values.shape, (5, 5, 5)), "ct.h5")
        plan = plan_blocks(
            choose_cut(values.shape, **cut), planes=3, halo_px=REACH, align_px=4, tile_px=tile, one_shape=one_shape
        )
        out = tmp_path / f"{name}.ome.zarr"
        writer, journal = begin(out, plan, {"run": name})
        return Work(ct, plan, writer, background), Run(plan, writer, journal), out

    return make


@pytest.fixture
def stain_run(begin_run):
    """Paint values with the stand-in; returns the output's path and what was met."""

    def stain(values, *, predictors=(neighbours,), **settings):
        work, run, out = begin_run(values, **settings)
        with run:
            stain_here(work, run, predictors)
        work.writer.declare(work.plan.cut.grid(work.ct.grid))
        return out, run.facts

    return stain


@pytest.fixture
def small_shards(monkeypatch):
    """Output files of 64 x 64 x 64, so that a small volume has many blocks."""
    monkeypatch.setattr("tomostain.staining.blocks.SHARD_PX", (64, 64, 64))
