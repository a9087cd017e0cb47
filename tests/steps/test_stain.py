"""The stain step: tiles of any size give the whole plane's bytes, and what cannot be stained is refused first."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tomostain import runs
from tomostain.images import read_volume
from tomostain.images.geometry import Grid
from tomostain.images.ome_zarr import create_volume
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer
from tomostain.steps.stain import StainRecipe, stain


def make_stainer(folder, **net):
    torch.manual_seed(3)
    spec = NetSpec("resnet", {"width": 8, "depth": 2, "norm": "pixel", "up": "resize", **net})
    generator = build_generator(spec, 1, 3)
    for weights in generator.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    made = Stainer(generator.eval(), spec, CTRange(0.0, 2.0, "1/cm"), "toluidine blue", 5.0)
    made.save(folder)
    runs.record(folder, "train")
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
    for edge in (64, 96, 256):
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
    recipe = StainRecipe(spacing_um=(19.5, 19.5, 19.5))
    with pytest.raises(ValueError, match=r"voxels of \(19\.5, 19\.5, 19\.5\) um but the stainer learnt at 5 um"):
        stain(lab / "stainer", lab / "ct.ome.zarr", lab / "out.ome.zarr", recipe=recipe)
    recipe = StainRecipe(spacing_um=(19.5, 19.5, 19.5), any_scale=True)
    out = stain(lab / "stainer", lab / "ct.ome.zarr", lab / "out.ome.zarr", recipe=recipe)
    assert read_volume(out).grid.spacing_um == (19.5, 19.5, 19.5)


def test_truncated_stainer_is_refused_by_file(lab):
    weights = lab / "stainer" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"weights\.safetensors is truncated or altered"):
        stain(lab / "stainer", lab / "ct.ome.zarr", lab / "out.ome.zarr")
    assert not list(lab.glob("out*"))


def test_values_far_beyond_the_training_are_told(lab, rng):
    bright = write_ct(lab / "bright.ome.zarr", rng.random((4, 40, 40), dtype=np.float32) * 20)
    with pytest.warns(UserWarning, match=r"the stainer learnt on 0 to 2; do not believe"):
        stain(lab / "stainer", bright, lab / "out.ome.zarr")


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
    five = {"spacing_um": (5.0, 5.0, 5.0)}
    asked = {
        f"{lab / 'ct.h5'}::/entry/ct": StainRecipe(**five),
        str(lab / "ct.raw"): StainRecipe(**five, shape=ct.shape, dtype="float32be"),
    }
    for i, (path, recipe) in enumerate(asked.items()):
        out = stain(lab / "stainer", Path(path), lab / f"out{i}.ome.zarr", recipe=recipe)
        np.testing.assert_array_equal(read_volume(out)[:], whole)
        assert runs.read_record(out)["inputs"][1] == {"path": path, "sha256": runs.fingerprint(Path(path))}


def test_a_format_without_voxel_size_says_what_to_type(lab):
    np.save(lab / "ct.npy", read_volume(lab / "ct.ome.zarr")[:])
    with pytest.raises(ValueError, match=r"ct\.npy has no voxel size; pass --spacing-um z y x"):
        stain(lab / "stainer", lab / "ct.npy", lab / "out.ome.zarr")
    assert not list(lab.glob("out*"))
