"""A stained volume is what the network says plane by plane, whatever tiles, region, axis and number of predictors."""

import errno
import threading
from pathlib import Path

import numpy as np
import pytest

from tomostain.images.pyramid import halved
from tomostain.io.ome_zarr import VolumeWriter
from tomostain.io.volumes import read_volume
from tomostain.staining.journal import Journal
from tomostain.staining.local import stain_here
from tomostain.staining.run import Run, go_on, journal_path


@pytest.mark.parametrize("tile", [None, (64, 64), (32, 100), (30, 7)])
@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_every_voxel_is_stained_from_its_own_neighbourhood(stain_run, stand_in, values, tile, axis):
    out, facts = stain_run(values[:30, :70, :90], tile=tile, axis=axis)
    expected = stand_in.whole(values[:30, :70, :90], "zyx".index(axis))
    np.testing.assert_array_equal(read_volume(out)[:, :, :], expected)
    assert (facts.ct_min, facts.ct_max) == (0.0, 252.0)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("tile", [None, (40, 25)])
def test_blocks_of_one_file_each_give_the_same(stain_run, stand_in, values, tile):
    out, facts = stain_run(values, tile=tile, predictors=[stand_in.predict] * 3)
    np.testing.assert_array_equal(read_volume(out)[:, :, :], stand_in.whole(values))
    assert facts.ct_max == 252.0


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(("axis", "every"), [("z", 1), ("z", 3), ("y", 1), ("x", 4)])
def test_a_region_is_the_cut_of_the_whole(stain_run, stand_in, values, axis, every):
    out, _ = stain_run(values, roi="3:68,17:121,30:", axis=axis, every=every)
    window = [slice(3, 68), slice(17, 121), slice(30, 150)]
    place = "zyx".index(axis)
    window[place] = slice(window[place].start, window[place].stop, every)
    stained = read_volume(out)
    np.testing.assert_array_equal(stained[:, :, :], stand_in.whole(values, place)[tuple(window)])
    assert stained.grid.origin_um == (15.0, 85.0, 150.0)
    assert stained.grid.spacing_um[place] == 5.0 * every


@pytest.mark.usefixtures("small_shards")
def test_the_pyramid_is_halved_level_by_level(stain_run, values):
    out, _ = stain_run(values)
    finer = read_volume(out)[:, :, :]
    for level in (1, 2):
        finer = np.moveaxis(halved(np.moveaxis(finer, -1, 0), colours=True, reduce="mean"), 0, -1)
        np.testing.assert_array_equal(read_volume(Path(f"{out}::{level}"))[:, :, :], finer)
    assert finer.shape == (18, 33, 38, 3)


def test_nan_deep_in_a_volume_names_its_place(stain_run, values):
    values[5, 3, 7] = np.nan
    with pytest.raises(ValueError, match=r"ct\.h5 has NaN or infinite values near voxel \(5, 3, 7\).*--fill"):
        stain_run(values)


def test_constant_tiles_take_the_networks_answer_and_change_nothing(stain_run, stand_in, values):
    values[:20, :, :80] = 96.0
    seen = []

    def predictor(ct):
        seen.append(ct)
        return stand_in.predict(ct)

    out, facts = stain_run(values[:30], tile=(32, 32), predictors=[predictor])
    np.testing.assert_array_equal(read_volume(out)[:, :, :], stand_in.whole(values[:30]))
    assert 0 < facts.constant < facts.tiles
    assert len(seen) < facts.tiles - facts.constant + 10


def test_output_that_is_not_finite_names_plane_and_tile(stain_run, stand_in, values):
    def predictor(ct):
        if ct[0, 1].max() == 999.0:
            raise ValueError("the network's output has NaN or infinite values: its weights are damaged")
        return stand_in.predict(ct)

    values[7, 40, 140] = 999.0
    fault = r"weights are damaged \(plane 7 along z, tile y 32:72, x 120:150\).*--resume"
    with pytest.raises(ValueError, match=fault):
        stain_run(values[:9, :130], tile=(40, 30), predictors=[predictor], roi=":,32:,:")


@pytest.mark.parametrize("axis", ["z", "y"])
def test_where_rounding_depends_on_the_tile_all_have_one_shape_and_a_region_is_the_cut_of_the_whole(
    stain_run, stand_in, values, axis
):
    shapes = set()

    def predictor(ct):
        """Its colours depend on the tile's shape and on what lies at its corner."""
        shapes.add(tuple(-(-n // 4) * 4 for n in ct.shape[-2:]))  # as the network sees it: multiples of its stride
        return stand_in.predict(ct) ^ np.uint8(int(ct[0, 0, 0, 0]) // 4 % 2)

    settings = {"tile": (36, 32), "one_shape": True, "predictors": [predictor], "axis": axis}
    values = values[:70]
    whole, _ = stain_run(values, name="whole", **settings)
    part, _ = stain_run(values, name="part", roi="3:68,17:121,50:", **settings)
    assert len(shapes) == 1
    np.testing.assert_array_equal(read_volume(part)[:, :, :], read_volume(whole)[3:68, 17:121, 50:])


class Unreadable:
    """An array whose file breaks behind plane 64."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.mended = array, array.shape, array.dtype, False

    def __getitem__(self, window):
        if window[0].stop > 65 and not self.mended:
            raise OSError("slice_0065.tif is truncated")
        return self.array[window]


def resumed(work, out, predictor):
    """Continue an interrupted run to its end; returns the blocks that were left to stain."""
    journal = Journal.resume(journal_path(out))
    with Run(work.plan, go_on(out, work.plan), journal) as run:
        left = [block.corner for block in run.blocks]
        stain_here(work, run, [predictor])
    work.writer.declare(work.plan.cut.grid(work.ct.grid))
    return left


@pytest.mark.usefixtures("small_shards")
def test_an_unreadable_plane_is_named_and_loses_nothing(begin_run, stand_in, values):
    broken = Unreadable(values)
    work, run, out = begin_run(values, wrap=lambda array: broken)
    with run, pytest.raises(OSError, match=r"ct\.h5 cannot be read in planes 6\d to 69 .*slice_0065.*--resume"):
        stain_here(work, run, [stand_in.predict])
    with pytest.raises(ValueError, match="did not finish"):
        read_volume(out)
    broken.mended = True
    left = resumed(work, out, stand_in.predict)
    assert 0 < len(left) < len(work.plan.blocks())
    np.testing.assert_array_equal(read_volume(out)[:, :, :], stand_in.whole(values))


@pytest.mark.usefixtures("small_shards")
def test_a_full_disk_is_reported_and_loses_nothing(begin_run, stand_in, values, monkeypatch):
    work, run, out = begin_run(values)
    write, calls = VolumeWriter.__setitem__, []

    def full(self, window, block):
        calls.append(window)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, window, block)

    monkeypatch.setattr(VolumeWriter, "__setitem__", full)
    with run, pytest.raises(OSError, match=r"v\.ome\.zarr: the disk is full; free some space; .*--resume"):
        stain_here(work, run, [stand_in.predict])
    monkeypatch.undo()
    monkeypatch.setattr("tomostain.staining.blocks.SHARD_PX", (64, 64, 64))
    left = resumed(work, out, stand_in.predict)
    assert len(left) <= len(work.plan.blocks()) - 4
    np.testing.assert_array_equal(read_volume(out)[:, :, :], stand_in.whole(values))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_network_out_of_memory_is_reported(stain_run, values, error):
    def predictor(ct):
        raise error

    with pytest.raises(MemoryError, match=r"ran out of memory; take a smaller --tile-px; .*--resume"):
        stain_run(values, predictors=[predictor])


@pytest.mark.usefixtures("small_shards")
def test_a_network_out_of_memory_loses_nothing(begin_run, stand_in, values):
    work, run, out = begin_run(values)
    calls = []

    def predictor(ct):
        calls.append(ct)
        if len(calls) > 400:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return stand_in.predict(ct)

    with run, pytest.raises(MemoryError, match="ran out of memory"):
        stain_here(work, run, [predictor])
    left = resumed(work, out, stand_in.predict)
    assert 0 < len(left) < len(work.plan.blocks())
    np.testing.assert_array_equal(read_volume(out)[:, :, :], stand_in.whole(values))


@pytest.mark.usefixtures("small_shards")
def test_no_more_than_three_blocks_are_in_memory(begin_run, stand_in, values, monkeypatch):
    work, run, _ = begin_run(values)
    lock, alive, most = threading.Lock(), 0, 0
    read, finish = type(work).read, Run.finish_block

    def counted_read(self, block):
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return read(self, block)

    def counted_finish(self, block, facts):
        nonlocal alive
        with lock:
            alive -= 1
        return finish(self, block, facts)

    monkeypatch.setattr(type(work), "read", counted_read)
    monkeypatch.setattr(Run, "finish_block", counted_finish)
    with run:
        stain_here(work, run, [stand_in.predict])
    assert 1 < most <= 3


@pytest.mark.usefixtures("small_shards")
def test_a_crash_costs_the_block_in_the_network_and_the_one_being_written(begin_run, stand_in, values, monkeypatch):
    work, run, _ = begin_run(values)
    stain, finish, at_risk, most = type(work).stain, Run.finish_block, 0, 0
    lock, slow = threading.Lock(), threading.Event()

    def counted_stain(self, block, values, predictor):
        nonlocal at_risk, most
        with lock:
            at_risk += 1
            most = max(most, at_risk)
        return stain(self, block, values, predictor)

    def slow_finish(self, block, facts):
        nonlocal at_risk
        slow.wait(0.2)
        found = finish(self, block, facts)
        with lock:
            at_risk -= 1
        return found

    monkeypatch.setattr(type(work), "stain", counted_stain)
    monkeypatch.setattr(Run, "finish_block", slow_finish)
    with run:
        stain_here(work, run, [stand_in.predict])
    assert most == 2
