"""The stain step: tiles of any size give the whole plane's bytes, and what cannot be stained is refused first."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy import ndimage

from tomostain import runs
from tomostain.images.geometry import Grid
from tomostain.images.grey_values import GreyValues
from tomostain.images.simulated import SIMULATED
from tomostain.io.ome_zarr import create_volume
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import VolumeOptions
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer
from tomostain.staining.run import journal_path
from tomostain.steps.stain import StainRecipe, stain


def make_stainer(folder, seed=3, **net):
    torch.manual_seed(seed)
    spec = NetSpec("resnet", {"width": 8, "depth": 2, "norm": "pixel", "up": "resize", **net})
    generator = build_generator(spec, 1, 3)
    for weights in generator.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    made = Stainer(generator.eval(), spec, CTRange(0.0, 2.0, "1/cm"), "toluidine blue", 5.0)
    with runs.output(folder, "train"):
        made.save(folder)
    return folder


@pytest.fixture
def lab(tmp_path, rng):
    values = rng.random((9, 301, 277), dtype=np.float32) * 2
    with create_volume(tmp_path / "ct.ome.zarr", Grid(values.shape, (5, 5, 5)), dtype=np.float32) as writer:
        writer[0:9, 0:301, 0:277] = values
    make_stainer(tmp_path / "stainer")
    return tmp_path


def write_ct(path, values, **grid):
    with create_volume(path, Grid(values.shape[:3], (5, 5, 5)), dtype=values.dtype, **grid) as writer:
        writer[tuple(slice(0, n) for n in values.shape[:3])] = values
    return path


def test_tiled_equals_whole(lab):
    model = Stainer.load(lab / "stainer")
    ct = read_volume(lab / "ct.ome.zarr")
    whole = np.stack([model(ct[z : z + 1], tile_px=None) for z in range(9)])
    assert len(np.unique(whole)) > 100
    for edge in (50, 64, 96, 256):
        out = stain(lab / "stainer", lab / "ct.ome.zarr", lab / f"t{edge}.ome.zarr", recipe=StainRecipe((edge, edge)))
        np.testing.assert_array_equal(read_volume(out)[:, :, :], whole)


def test_stained_volume_carries_grid_stain_and_record(lab):
    out = stain(lab / "stainer", lab / "ct.ome.zarr", lab / "v.ome.zarr")
    volume = read_volume(out)
    assert volume.grid == read_volume(lab / "ct.ome.zarr").grid
    assert volume.stain == "toluidine blue"
    told = runs.read_record(out)
    assert [entry["path"] for entry in told["inputs"]] == [str(lab / "stainer"), str(lab / "ct.ome.zarr")]
    assert 0 <= told["results"]["ct_min"] < told["results"]["ct_max"] <= 2


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (np.zeros((4, 8, 8, 3), np.uint8), "holds colours"),
        (np.full((4, 8, 8), 3.0, np.float32), "is constant"),
        (np.full((4, 8, 8), np.nan, np.float32), "NaN or infinite"),
    ],
)
def test_bad_ct_is_refused_before_anything_is_written(lab, values, fault):
    bad = write_ct(lab / "bad.ome.zarr", values, colours=3 if values.ndim == 4 else None)
    with pytest.raises(ValueError, match=rf"bad\.ome\.zarr.*{fault}"):
        stain(lab / "stainer", bad, lab / "out.ome.zarr")
    assert not list(lab.glob("out*"))


def test_other_voxel_size_is_refused_unless_accepted(lab, tmp_path):
    recipe = StainRecipe(reading=VolumeOptions(spacing_um=(19.5,)))
    with pytest.raises(ValueError, match=r"across z have pixels of 19\.5 x 19\.5 um, the stainer was trained on 5 um"):
        stain(lab / "stainer", lab / "ct.ome.zarr", lab / "out.ome.zarr", recipe=recipe)
    recipe = StainRecipe(reading=VolumeOptions(spacing_um=(19.5, 19.5, 19.5)), any_scale=True)
    out = stain(lab / "stainer", lab / "ct.ome.zarr", lab / "out.ome.zarr", recipe=recipe)
    assert read_volume(out).grid.spacing_um == (19.5, 19.5, 19.5)


def test_only_the_pixels_of_the_planes_that_are_stained_must_have_the_stainer_s_size(lab, caplog):
    recipe = StainRecipe(reading=VolumeOptions(spacing_um=(10, 5, 5)))
    with caplog.at_level("INFO", logger="tomostain"):
        out = stain(lab / "stainer", lab / "ct.ome.zarr", lab / "out.ome.zarr", recipe=recipe)
    assert "ct.ome.zarr: planes are 10 um apart along z, their pixels 5 x 5 um" in caplog.text
    assert read_volume(out).grid.spacing_um == (10.0, 5.0, 5.0)
    same = stain(lab / "stainer", lab / "ct.ome.zarr", lab / "same.ome.zarr")
    np.testing.assert_array_equal(read_volume(out)[:], read_volume(same)[:])
    recipe = StainRecipe(reading=VolumeOptions(spacing_um=(10, 5, 5)), axis="y")
    with pytest.raises(ValueError, match=r"planes of ct\.ome\.zarr across y have pixels of 10 x 5 um"):
        stain(lab / "stainer", lab / "ct.ome.zarr", lab / "never.ome.zarr", recipe=recipe)


@pytest.mark.parametrize("shape", [(1, 40, 50), (9, 40, 1), (2, 2, 2)])
@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_planes_of_few_voxels_are_stained_along_every_axis(lab, rng, shape, axis):
    ct = write_ct(lab / "small.ome.zarr", rng.random(shape, dtype=np.float32) * 2)
    out = stain(lab / "stainer", ct, lab / "out.ome.zarr", recipe=StainRecipe(axis=axis))
    model = Stainer.load(lab / "stainer")
    planes = np.moveaxis(read_volume(ct)[:], "zyx".index(axis), 0)
    stained = np.moveaxis(np.stack([model(plane) for plane in planes]), 0, "zyx".index(axis))
    difference = np.abs(read_volume(out)[:].astype(int) - stained)
    assert difference.max() <= 1


def test_truncated_stainer_is_refused_by_file(lab):
    weights = lab / "stainer" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"weights\.safetensors is truncated or altered"):
        stain(lab / "stainer", lab / "ct.ome.zarr", lab / "out.ome.zarr")
    assert not list(lab.glob("out*"))


def tissue(shape, seed=0):
    """CT values 0.3 and 1.4 of soft tissue and bone."""
    rng = np.random.default_rng(seed)
    bone = ndimage.gaussian_filter(rng.standard_normal(shape), (1, 4, 4)) > 0
    return (np.where(bone, 1.4, 0.3) + rng.normal(0, 0.03, shape)).astype(np.float32)


def test_values_beyond_the_training_are_reported_before_the_volume_is_stained(lab, capsys):
    values = tissue((4, 40, 40))
    values[:, :20, :20] = 9.0
    bright = write_ct(lab / "bright.ome.zarr", values)
    about = json.loads((lab / "stainer" / "stainer.json").read_text())
    about["ct_range"] |= {"seen_low": 0.0, "seen_high": 2.0}
    (lab / "stainer" / "stainer.json").write_text(json.dumps(about))
    with pytest.warns(UserWarning, match=r"outside those of training \(0 to 2\): bright\S* 25\.\d%"):
        stain(lab / "stainer", bright, lab / "out.ome.zarr")


OTHER_UNITS = (
    lambda v: 0.1 * v,
    lambda v: 5e-4 * v,
    lambda v: np.rint(np.clip(v * 94 + 19, 0, 255)),
    lambda v: 2.3 - v,
)


@pytest.mark.parametrize("other", OTHER_UNITS)
def test_a_volume_in_other_units_is_refused_before_anything_is_written(lab, other):
    about = json.loads((lab / "stainer" / "stainer.json").read_text())
    about["grey_values"] = {"S0": GreyValues.of(tissue((4, 64, 64), 1)).to_json()}
    (lab / "stainer" / "stainer.json").write_text(json.dumps(about))
    usual = write_ct(lab / "usual.ome.zarr", tissue((4, 64, 64), 2))
    stain(lab / "stainer", usual, lab / "usual_stained.ome.zarr")
    changed = write_ct(lab / "changed.ome.zarr", other(tissue((4, 64, 64), 2)).astype(np.float32))
    with pytest.raises(ValueError, match=r"of changed.* run from .* trained on from 0\.2.* to 1\.4.*--any-values"):
        stain(lab / "stainer", changed, lab / "out.ome.zarr")
    assert not list(lab.glob("out*"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stain(lab / "stainer", changed, lab / "out.ome.zarr", recipe=StainRecipe(any_values=True))
    assert any("Look at the colours" in str(warning.message) for warning in caught)


def test_instance_norm_says_that_it_shows_seams(lab):
    make_stainer(lab / "classic", norm="instance", up="transposed")
    with pytest.warns(UserWarning, match="not tile-exact"):
        stain(lab / "classic", lab / "ct.ome.zarr", lab / "out.ome.zarr")


def test_any_format_gives_the_same_stain(lab):
    ct = read_volume(lab / "ct.ome.zarr")[:]
    whole = read_volume(stain(lab / "stainer", lab / "ct.ome.zarr", lab / "zarr.ome.zarr"))[:]
    with h5py.File(lab / "ct.h5", "w") as file:
        file["entry/ct"], file["entry/other"] = ct, ct
    ct.astype(">f4").tofile(lab / "ct.raw")
    five = (5.0, 5.0, 5.0)
    settings = {
        f"{lab / 'ct.h5'}::/entry/ct": StainRecipe(reading=VolumeOptions(five)),
        str(lab / "ct.raw"): StainRecipe(reading=VolumeOptions(five, ct.shape, "float32be")),
    }
    for i, (path, recipe) in enumerate(settings.items()):
        out = stain(lab / "stainer", Path(path), lab / f"out{i}.ome.zarr", recipe=recipe)
        np.testing.assert_array_equal(read_volume(out)[:], whole)
        assert runs.read_record(out)["inputs"][1] == {"path": path, "sha256": runs.fingerprint(Path(path))}


def test_a_format_without_voxel_size_says_what_to_type(lab):
    np.save(lab / "ct.npy", read_volume(lab / "ct.ome.zarr")[:])
    with pytest.raises(ValueError, match=r"ct\.npy has no voxel size; pass --spacing-um z y x"):
        stain(lab / "stainer", lab / "ct.npy", lab / "out.ome.zarr")
    assert not list(lab.glob("out*"))


def test_a_region_and_each_third_plane_are_cuts_of_the_whole(lab):
    whole = read_volume(stain(lab / "stainer", lab / "ct.ome.zarr", lab / "w.ome.zarr"))
    recipe = StainRecipe(roi="1:8,33:200,:270", every=3, tile_px=(90, 64))
    part = read_volume(stain(lab / "stainer", lab / "ct.ome.zarr", lab / "p.ome.zarr", recipe=recipe))
    np.testing.assert_array_equal(part[:, :, :], whole[1:8:3, 33:200, :270])
    assert part.grid.origin_um == (5.0, 165.0, 0.0)


@pytest.mark.parametrize(
    ("recipe", "fault"),
    [
        (StainRecipe(roi="0:4,0:9"), "is not z0:z1,y0:y1,x0:x1"),
        (StainRecipe(roi="0:4,0:999,:"), r"roi y 0:999 is empty or outside the volume, which has 0:301"),
        (StainRecipe(roi="4:4,:,:"), "roi z 4:4 is empty"),
        (StainRecipe(memory_gib=0.01), r"this run needs .* GiB .*may use 0\.01 GiB; pass --memory-gib \d"),
        (StainRecipe(backend="openvin"), "there is no backend 'openvin'; did you mean 'openvino'"),
        (StainRecipe(backend="cuda"), "backend cuda: cannot be used here"),
        (StainRecipe(cluster="nowhere"), "none of local:N"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(lab, recipe, fault):
    with pytest.raises(ValueError, match=fault):
        stain(lab / "stainer", lab / "ct.ome.zarr", lab / "out.ome.zarr", recipe=recipe)
    assert not list(lab.glob("out*"))


def test_skipped_background_is_said_in_volume_and_record(lab, rng):
    values = rng.normal(0.1, 0.02, (9, 400, 400)).astype(np.float32)
    values[:, :150, :150] += 1.5 + 0.2 * rng.random((9, 150, 150), dtype=np.float32)
    ct = write_ct(lab / "sparse.ome.zarr", values)
    full = read_volume(stain(lab / "stainer", ct, lab / "full.ome.zarr", recipe=StainRecipe(tile_px=(64, 64))))
    recipe = StainRecipe(tile_px=(64, 64), skip_background=True)
    out = stain(lab / "stainer", ct, lab / "out.ome.zarr", recipe=recipe)
    results = runs.read_record(out)["results"]
    assert 0 < results["tiles_skipped"] < results["tiles"]
    assert results["background"]["value"] == pytest.approx(0.1, abs=0.01)
    assert 0.1 < results["background"]["threshold"] < 1.0
    told = json.loads((out / "zarr.json").read_text())["attributes"]["tomostain"]["background"]
    assert told["tiles_skipped"] == results["tiles_skipped"]
    assert "below the threshold" in told["rule"]
    stained = read_volume(out)
    np.testing.assert_array_equal(stained[:, :150, :150], full[:, :150, :150])
    assert (stained[:, 380:, 380:] == stained[0, 399, 399]).all()
    assert "background" not in json.loads((lab / "full.ome.zarr" / "zarr.json").read_text())["attributes"]["tomostain"]


@pytest.fixture
def deep(lab, rng):
    """A volume of four blocks and a pyramid."""
    return write_ct(lab / "deep.ome.zarr", rng.random((200, 70, 90), dtype=np.float32) * 2)


def chunks(out):
    """Every file of a volume but its record."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "run.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def run_until(command, path, size):
    """Start a process and kill -9 it once a file has grown to that size; returns whether it still ran."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (path.exists() and path.stat().st_size >= size):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL) if process.poll() is None else None
    process.wait()
    return process.returncode == -signal.SIGKILL


def test_killed_at_any_moment_and_resumed_gives_the_same_chunks(lab, deep):
    whole = stain(lab / "stainer", deep, lab / "a" / "v.ome.zarr")
    out = lab / "b" / "v.ome.zarr"
    command = [sys.executable, "-m", "tomostain", "stain", str(lab / "stainer"), str(deep), str(out), "--resume"]
    kills = sum(run_until(command, journal_path(out), size) for size in (1, 1300))
    assert kills >= 1
    subprocess.run(command, check=True, capture_output=True)
    assert chunks(out) == chunks(whole)
    assert not journal_path(out).exists()
    first, second = (runs.read_record(path)["results"] for path in (whole, out))
    assert {k: v for k, v in first.items() if k != "self_test"} == {k: v for k, v in second.items() if k != "self_test"}


@pytest.fixture
def broken_off(lab, deep, monkeypatch):
    """A run of which one block was finished."""
    from tomostain.staining.work import Work

    write, calls = Work.write, []

    def power_cut(self, block, colours):
        if calls:
            raise OSError("power cut")
        calls.append(block)
        write(self, block, colours)

    with monkeypatch.context() as patch:
        patch.setattr(Work, "write", power_cut)
        with pytest.raises(OSError, match="power cut"):
            stain(lab / "stainer", deep, lab / "out.ome.zarr")
    return lab / "out.ome.zarr"


def test_a_broken_off_run_is_not_begun_anew_by_mistake(lab, deep, broken_off):
    with pytest.raises(ValueError, match=r"out\.ome\.zarr holds an unfinished staining; continue it with --resume"):
        stain(lab / "stainer", deep, broken_off)


def test_a_broken_off_run_goes_on_with_another_tile_to_the_same_chunks(lab, deep, broken_off):
    stain(lab / "stainer", deep, broken_off, recipe=StainRecipe(resume=True, tile_px=(33, 64)))
    assert chunks(broken_off) == chunks(stain(lab / "stainer", deep, lab / "c" / "out.ome.zarr"))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"every": 2}, "region"),
        ({"roi": "0:100,:,:"}, "region"),
        ({"skip_background": True}, "skip-background"),
        ({"backend": "openvino"}, "backend"),
    ],
)
def test_another_runs_journal_is_refused(lab, deep, broken_off, change, what):
    with pytest.raises(ValueError, match=f"begun with another {what}"):
        stain(lab / "stainer", deep, broken_off, recipe=StainRecipe(resume=True, **change))


def test_another_stainer_or_volume_is_refused_on_resume(lab, deep, broken_off):
    make_stainer(lab / "other", depth=1)
    make_stainer(lab / "weights", seed=4)
    for other in ("other", "weights"):
        with pytest.raises(ValueError, match="begun with another stainer;"):
            stain(lab / other, deep, broken_off, recipe=StainRecipe(resume=True))
    with pytest.raises(ValueError, match="begun with another volume and another region;"):
        stain(lab / "stainer", lab / "ct.ome.zarr", broken_off, recipe=StainRecipe(resume=True))


def test_a_finished_run_has_nothing_to_resume(lab, deep):
    out = stain(lab / "stainer", deep, lab / "out.ome.zarr")
    before = chunks(out)
    assert stain(lab / "stainer", deep, out, recipe=StainRecipe(resume=True)) == out
    assert chunks(out) == before
    with pytest.raises(ValueError, match="exists; choose another name"):
        stain(lab / "stainer", deep, out)


def test_a_stained_volume_says_what_of_it_was_simulated(lab, tmp_path):
    model = Stainer.load(lab / "stainer")
    learnt = {"specimens": ["S0", "S1"], "simulated": ["S1"]}
    with runs.output(lab / "mixed", "train"):
        replace(model, history=learnt).save(lab / "mixed")
    values = read_volume(lab / "ct.ome.zarr")[:]
    write_ct(lab / "phantom.ome.zarr", values, attributes={"simulated": SIMULATED})
    told = {}
    for stainer, ct in (("stainer", "ct"), ("mixed", "ct"), ("stainer", "phantom"), ("mixed", "phantom")):
        out = stain(lab / stainer, lab / f"{ct}.ome.zarr", lab / f"{stainer}_{ct}.ome.zarr")
        told[stainer, ct] = read_volume(out).simulated
        assert runs.read_record(out)["results"].get("simulated") == told[stainer, ct]
    assert told == {
        ("stainer", "ct"): None,
        ("mixed", "ct"): "specimens S1 that the stainer was trained on",
        ("stainer", "phantom"): f"the CT ({SIMULATED})",
        ("mixed", "phantom"): f"the CT ({SIMULATED}) and specimens S1 that the stainer was trained on",
    }
