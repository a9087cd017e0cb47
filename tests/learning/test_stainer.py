import hashlib
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.nets.steady import SteadyConvolutions
from tomostain.learning.ranges import CTRange, RGBRange
from tomostain.learning.recipe import TrainRecipe
from tomostain.learning.stainer import Stainer
from tomostain.learning.training import fit

SMALL = {"width": 8, "discriminator_width": 8, "discriminator_depth": 1, "patch_px": 32, "workers": 1, "log_every": 4}


@pytest.fixture(scope="module")
def trained(pairs, tmp_path_factory):
    """Stainers that were trained for a few steps: their weights are no longer the ones they were born with."""
    out = {}
    for net, depth in (("resnet", 3), ("unet", 3), ("subpixel_unet", 1)):
        recipe = TrainRecipe(net=net, depth=depth, steps=12, **SMALL)
        out[net] = fit(pairs, tmp_path_factory.mktemp(net), recipe)
    return out


def fresh(name="resnet", planes=1, **args):
    torch.manual_seed(0)
    spec = NetSpec(name, {"width": 4, "depth": 1, **args})
    net = build_generator(spec, planes, 3).eval()
    return Stainer(
        net, spec, CTRange(0.0, 3.0, "1/cm", -0.2, 3.4), "toluidine blue", 5.0, planes, {"specimens": ["S0"]}
    )


@pytest.mark.parametrize("net", ["resnet", "unet", "subpixel_unet"])
@pytest.mark.parametrize("shape", [(301, 270), (97, 515)])
def test_tiled_equals_whole(trained, net, shape, rng):
    stainer = trained[net]
    ct = rng.uniform(0.0, 3.0, (1, *shape)).astype(np.float32)
    ct[:, 40:80, 30:90] = 2.4
    whole = stainer(ct, tile_px=None)
    assert np.ptp(whole) > 20
    for tile in (50, 64, 96, 256):
        np.testing.assert_array_equal(stainer(ct, tile_px=tile), whole)


def test_a_stainer_comes_back_as_it_was_saved(trained, tmp_path, rng):
    stainer, ct = trained["resnet"], rng.uniform(0, 3, (1, 40, 44)).astype(np.float32)
    stainer.save(tmp_path / "stainer")
    loaded = Stainer.load(tmp_path / "stainer")
    np.testing.assert_array_equal(loaded(ct), stainer(ct))
    assert loaded.ct_range == stainer.ct_range
    assert (loaded.stain, loaded.um_per_px, loaded.planes) == ("toluidine blue", 5.0, 1)
    assert loaded.history == stainer.history
    assert loaded.history["specimens"] == ["S00", "S01", "S02"]
    assert (loaded.halo_px, loaded.stride_px, loaded.tile_exact) == (40, 4, True)


def test_the_same_stainer_is_the_same_bytes(trained, tmp_path):
    for folder in ("a", "b"):
        trained["resnet"].save(tmp_path / folder)
    for name in ("weights.safetensors", "stainer.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("key", "value"),
    [("um_per_px", v) for v in ("NaN", "0", "-5", "1e9", "Infinity")] + [("planes", "0"), ("planes", "1e4")],
)
def test_a_stainer_of_no_possible_pixel_or_depth_is_refused(tmp_path, key, value):
    """A pixel of NaN passes every comparison of scales; one of 0 divides."""
    folder = fresh().save(tmp_path / "stainer")
    text = json.loads((folder / "stainer.json").read_text())
    text[key] = "HERE"
    written = json.dumps(text).replace('"HERE"', value.replace("1e4", "10000"))
    (folder / "stainer.json").write_text(written)
    with pytest.raises(ValueError, match=r"stainer\.json cannot be read as a stainer .*which cannot be"):
        Stainer.load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path, value):
    stainer = fresh()
    folder = stainer.save(tmp_path / "stainer")
    with torch.no_grad():
        next(stainer.net.parameters()).view(-1)[3] = value
    with pytest.raises(ValueError, match=r"1 of its .* weight tensors hold NaN or infinite"):
        stainer.save(tmp_path / "other")
    assert not (tmp_path / "other" / "stainer.json").exists()
    weights = safetensors.torch.save(dict(stainer.net.state_dict()))
    (folder / "weights.safetensors").write_bytes(weights)
    about = json.loads((folder / "stainer.json").read_text())
    about["weights"]["sha256"] = hashlib.sha256(weights).hexdigest()
    (folder / "stainer.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"weights\.safetensors cannot be used: 1 of its .* NaN or infinite"):
        Stainer.load(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "stainer.json"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = fresh().save(tmp_path / "stainer")
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        Stainer.load(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "stainer.json"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_named(tmp_path, name, share):
    folder = fresh().save(tmp_path / "stainer")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        Stainer.load(folder)


def test_an_altered_weight_is_noticed(tmp_path):
    folder = fresh().save(tmp_path / "stainer")
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "weights.safetensors").write_bytes(bytes(content))
    with pytest.raises(ValueError, match="altered"):
        Stainer.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "cake"}, "does not call itself a stainer"),
        ({"version": 2}, "version is 2"),
        ({"ct_range": {"low": 3.0, "high": 1.0}}, "low < high"),
        ({"net": {"name": "resnet", "args": {"width": 10**9, "depth": 1}}}, "width is 1000000000"),
        ({"net": {"name": "resnet", "args": {"width": 8, "depth": 1}}}, "does not hold the weights of this version"),
        ({"net": {"name": "resmet", "args": {}}}, "did you mean 'resnet'"),
        ({"planes": 3}, "does not hold the weights"),
    ],
)
def test_a_lying_description_is_refused(tmp_path, changes, message):
    folder = fresh().save(tmp_path / "stainer")
    about = json.loads((folder / "stainer.json").read_text())
    (folder / "stainer.json").write_text(json.dumps(about | changes))
    with pytest.raises(ValueError, match=message):
        Stainer.load(folder)


def test_loading_never_imports_a_stranger_s_code_unless_trusted(tmp_path, monkeypatch, rng):
    trace = tmp_path / "trace"
    (tmp_path / "strangers_net.py").write_text(
        f"from pathlib import Path\nPath({str(trace)!r}).touch()\n"
        "import torch\nfrom torch import nn\n"
        "class Blue(nn.Conv2d):\n"
        "    halo_px, stride_px, tile_exact = 1, 1, True\n"
        "    def __init__(self, planes, colours):\n        super().__init__(planes, colours, 3, padding=1)\n"
    )
    net = nn.Conv2d(1, 3, 3, padding=1)
    net.halo_px, net.stride_px, net.tile_exact = 1, 1, True
    spec = NetSpec("strangers_net:Blue")
    folder = Stainer(net, spec, CTRange(0.0, 1.0), "H&E", 2.0).save(tmp_path / "stainer")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="trust=True"):
        Stainer.load(folder)
    assert not trace.exists()
    assert Stainer.load(folder, trust=True)(rng.random((1, 9, 9), np.float32)).shape == (9, 9, 3)
    assert trace.exists()


def test_colours_are_the_net_s_answer_to_unit_values(rng):
    ct = rng.uniform(0, 3, (1, 40, 48)).astype(np.float32)
    stainer = fresh()
    with torch.inference_mode():
        answer = stainer.net(torch.from_numpy(ct / 1.5 - 1.0)[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(stainer(ct).astype(int) - RGBRange.from_unit(answer)).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (5, 6)])
def test_a_plane_smaller_than_the_halo_is_stained(trained, shape, rng):
    for stainer in (fresh(), *trained.values()):
        assert stainer(rng.uniform(0, 3, shape).astype(np.float32)).shape == (*shape, 3)


def test_a_slab_of_planes_uses_its_neighbours(rng):
    stainer, ct = fresh(planes=3), rng.uniform(0, 3, (3, 24, 24)).astype(np.float32)
    changed = ct.copy()
    changed[2] += 1.0
    assert (stainer(ct) != stainer(changed)).any()
    with pytest.raises(ValueError, match="takes 3 CT plane"):
        stainer(ct[:1])


def test_what_cannot_be_stained_is_refused(rng):
    ct = rng.uniform(0, 3, (1, 24, 24)).astype(np.float32)
    ct[0, 5, 5] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fresh()(ct)


def test_out_of_range_is_the_share_that_training_never_saw():
    assert fresh().out_of_range(np.array([0.0, 3.3, 3.5, -0.3])) == 0.5


def test_a_net_that_is_not_tile_exact_sees_the_plane_whole(rng):
    stainer, ct = fresh(norm="instance"), rng.uniform(0, 3, (1, 48, 48)).astype(np.float32)
    assert not stainer.tile_exact
    np.testing.assert_array_equal(stainer(ct, tile_px=16), stainer(ct, tile_px=None))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("inputs", "outputs", "kernel"), [(8, 8, 3), (8, 8, 1), (4, 3, 1)])
def test_small_image_is_convolved_to_the_same_bits_as_a_large_one(inputs, outputs, kernel, threads):
    before = torch.get_num_threads()
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(inputs, outputs, kernel).to(memory_format=torch.channels_last)
    image = torch.randn(1, inputs, 200, 180).to(memory_format=torch.channels_last)
    try:
        torch.set_num_threads(threads)
        with torch.inference_mode(), SteadyConvolutions():
            whole = conv(image)
            for rows, columns in ((20, 35), (50, 50), (64, 50), (96, 64)):
                part = conv(
                    image[:, :, 24 : 24 + rows, 32 : 32 + columns].contiguous(memory_format=torch.channels_last)
                )
                height, width = part.shape[-2:]
                assert torch.equal(part, whole[:, :, 24 : 24 + height, 32 : 32 + width])
    finally:
        torch.set_num_threads(before)
