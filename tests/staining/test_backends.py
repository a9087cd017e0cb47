"""Each backend this machine has keeps its promise against fp32, and paints a voxel the same in any tile."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.images.tiling import tiles
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer
from tomostain.staining.backends import BACKENDS
from tomostain.staining.blocks import choose_cut, plan_blocks
from tomostain.staining.choose import choose_backend
from tomostain.staining.inference import Phased
from tomostain.staining.winograd import OUT_PX, Winograd, with_fewer_products
from tomostain.staining.work import Work


def lively(spec, planes=1):
    """A stainer whose colours vary with what it sees, as a trained one's do."""
    torch.manual_seed(1)
    net = build_generator(spec, planes, 3).eval()
    with torch.no_grad():
        net.head[-2].weight *= 6.0
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.1, 0.5)
                module.running_mean.uniform_(-0.2, 0.2)
    net = net.requires_grad_(False).to(memory_format=torch.channels_last)
    return Stainer(net, spec, CTRange(0.0, 1.0), "giemsa", 5.0, planes)


@pytest.fixture(scope="module")
def model():
    return lively(NetSpec("resnet", {"width": 32, "depth": 2, "skips": False}))


@pytest.fixture(scope="module")
def plane():
    rng = np.random.default_rng(4)
    noise = ndimage.gaussian_filter(rng.standard_normal((1, 203, 237)), (0, 2, 2))
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


HERE = [name for name in BACKENDS if not name.startswith("compile")]


@pytest.fixture(params=HERE)
def backend(request, model):
    found = BACKENDS[request.param]
    if not found.available(model):
        pytest.skip(f"{request.param} is not on this machine")
    return found


def test_the_promise_is_kept_and_tiles_do_not_show(backend, model, plane):
    sample = np.stack([plane[:, :96, :96], plane[:, 60:156, 100:196]])
    paint = backend.make(model, sample)
    expected = BACKENDS["torch"].make(model, sample)(plane[None])[0]
    painted = paint(plane[None])[0]
    assert np.ptp(expected) > 60
    off = np.abs(painted.astype(int) - expected)
    assert off.max() <= backend.most
    assert off.mean() <= backend.mean
    for size in () if backend.lattice else ((64, 64), (100, 237), (50, 72)):
        found = np.empty_like(painted)
        for tile in tiles(plane.shape[1:], size, halo=(model.halo_px,) * 2, align=(model.stride_px,) * 2):
            found[tile.core] = paint(plane[(None, slice(None), *tile.outer)])[0][tile.inner]
        np.testing.assert_array_equal(found, painted)


@pytest.mark.parametrize("size", [(8, 8), (13, 30), (44, 17)])
def test_winograds_convolution_is_the_convolution(size):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(20, 24, 3, padding=1, padding_mode="reflect").requires_grad_(False)
    image = torch.randn(2, 20, *size)
    np.testing.assert_allclose(Winograd(conv)(image), conv(image), atol=2e-5)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("resnet", {"width": 32, "depth": 2, "norm": "batch"}),
        ("resnet", {"width": 32, "depth": 1, "norm": "pixel", "tone": True}),
        ("unet", {"width": 32, "depth": 3}),
    ],
)
def test_fewer_products_give_the_same_colours(name, args, rng):
    spec = NetSpec(name, args)
    net = build_generator(spec, 1, 3).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    image = torch.from_numpy(rng.uniform(-1, 1, (1, 1, 64, 96)).astype(np.float32))
    before = net(image.clone())
    fast = with_fewer_products(net)
    assert any(isinstance(module, Winograd | Phased) for module in fast.modules())
    np.testing.assert_allclose(fast(image.clone()), before, atol=1e-4)
    np.testing.assert_array_equal(net(image.clone()), before)


def test_a_short_run_is_not_worth_a_self_test_and_a_long_one_takes_what_is_faster(model, plane, monkeypatch):
    sample = plane[None, :, :64, :64]
    short = plan_blocks(choose_cut((1, 203, 237)), planes=1, halo_px=model.halo_px, align_px=4)
    assert choose_backend(model, sample, short)[0] == "torch"
    monkeypatch.setattr("tomostain.staining.choose.WORTH_S", 0.0)
    monkeypatch.setattr("tomostain.staining.choose.BACKENDS", {n: BACKENDS[n] for n in ("torch", "winograd")})
    name, trials = choose_backend(model, sample, short)
    assert [trial.name for trial in trials] == ["torch", "winograd"]
    assert name == max(trials, key=lambda trial: trial.mpx_per_s).name
    assert all(trial.kept and trial.most <= 2 for trial in trials)


def test_a_backend_that_breaks_its_promise_is_not_taken(model, plane, monkeypatch):
    from dataclasses import replace

    def dark(model, sample):
        return lambda ct: np.zeros((len(ct), *ct.shape[-2:], 3), np.uint8)

    liar = replace(BACKENDS["torch"], make=dark, most=2.0, mean=0.02)
    monkeypatch.setattr("tomostain.staining.choose.BACKENDS", {"torch": BACKENDS["torch"], "liar": liar})
    monkeypatch.setattr("tomostain.staining.choose.WORTH_S", 0.0)
    plan = plan_blocks(choose_cut((1, 203, 237)), planes=1, halo_px=model.halo_px, align_px=4)
    assert choose_backend(model, plane[None, :, :64, :64], plan)[0] == "torch"
    with pytest.raises(ValueError, match=r"backend liar: .*more than it promises: not used; take another"):
        choose_backend(model, plane[None, :, :64, :64], plan, wanted="liar")


def test_on_a_lattice_a_region_is_the_cut_of_the_whole(model, plane):
    paint = BACKENDS["winograd"].make(model, plane[None])
    raster = model.stride_px * BACKENDS["winograd"].align
    assert raster == 4 * OUT_PX
    found = []
    for roi in (None, ":,37:150,70:"):
        cut = choose_cut((1, 203, 237), roi=roi)
        plan = plan_blocks(cut, planes=1, halo_px=model.halo_px, align_px=raster, tile_px=(64, 64), lattice=True)
        work = Work(Volume(plane, Grid(plane.shape, (5, 5, 5)), "ct"), plan, None)
        (block,) = plan.blocks()
        found.append(work.paint(block, work.read(block), paint)[0])
    np.testing.assert_array_equal(found[1], found[0][:, :, 37:150, 70:])
