"""The kernel that is compiled here is the convolution, border and all; a network in strips is the network."""

import numpy as np
import pytest
import torch
from torch import nn

from tomostain.learning.nets import NetSpec, build_generator
from tomostain.staining import native, striped
from tomostain.staining.backends import flags_of_processor
from tomostain.staining.native import Kernel, compiler, with_kernel
from tomostain.staining.winograd import with_fewer_products

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler is here")

needs_vnni = pytest.mark.skipif("avx512_vnni" not in flags_of_processor(), reason="the processor has no avx512_vnni")
needs_bf16 = pytest.mark.skipif("avx512_bf16" not in flags_of_processor(), reason="the processor has no avx512_bf16")
FAST = [
    pytest.param("half", 0.03, marks=[needs_compiler, needs_bf16]),
    pytest.param("byte", 0.12, marks=[needs_compiler, needs_vnni]),
]
"""Kinds of products, and the share of the spread of a convolution's result that their error may have."""


def random_image(channels, size, batch=2):
    torch.manual_seed(1)
    return torch.randn(batch, channels, *size).to(memory_format=torch.channels_last)


@needs_compiler
@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (13, 30), (44, 17), (4, 5)])
def test_the_kernel_is_the_convolution(size, doubled):
    image = random_image(96, size)
    conv = nn.Conv2d(96, 64, 3, padding=1, padding_mode="reflect").requires_grad_(False)
    larger = nn.Upsample(scale_factor=2.0, mode="nearest")(image) if doubled else image
    whole = conv(larger)
    assert whole.abs().mean() > 0.1
    np.testing.assert_allclose(Kernel(conv, doubled=doubled)(image), whole, atol=5e-5)
    np.testing.assert_allclose(Kernel(conv, doubled=doubled, positive=True)(image), whole.relu(), atol=5e-5)
    sums = torch.ones_like(whole)
    np.testing.assert_allclose(Kernel(conv, doubled=doubled).add_to(sums, image), whole + 1.0, atol=5e-5)


@pytest.mark.parametrize(("products", "share"), FAST)
@pytest.mark.parametrize("doubled", [False, True])
def test_faster_products_differ_by_little(products, share, doubled):
    image = random_image(96, (13, 30))
    conv = nn.Conv2d(96, 64, 3, padding=1, padding_mode="reflect").requires_grad_(False)
    whole = conv(nn.Upsample(scale_factor=2.0, mode="nearest")(image) if doubled else image)
    off = Kernel(conv, doubled=doubled, products=products)(image) - whole
    assert 0 < off.std() < share * whole.std()
    assert off.mean().abs() < 0.1 * off.std()  # no bias


@pytest.mark.parametrize(("products", "share"), FAST)
def test_faster_products_of_nothing_are_the_bias(products, share):
    conv = nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect").requires_grad_(False)
    conv.weight[7] = 0.0  # a filter of zeros has no scale of its own
    image = torch.zeros(1, 64, 9, 11).to(memory_format=torch.channels_last)
    made = Kernel(conv, products=products)(image)
    assert torch.equal(made, conv.bias[:, None, None].expand(1, -1, 9, 11))
    assert torch.isfinite(Kernel(conv, products=products)(image + 1.0)).all()


@pytest.mark.parametrize(("products", "share"), FAST)
def test_faster_products_of_a_cell_depend_on_no_other_cell(products, share):
    conv = nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect").requires_grad_(False)
    image, layer = random_image(64, (40, 48), batch=1), Kernel(conv, products=products)
    loud = image.clone()
    loud[:, :, :, 24:] *= 100.0
    assert torch.equal(layer(image)[..., :20], layer(loud)[..., :20])
    assert torch.equal(layer(image[:, :, 8:32, 12:40])[:, :, 4:-4, 4:-4], layer(image)[:, :, 12:28, 16:36])


@needs_compiler
@pytest.mark.parametrize("threads", [1, 3])
def test_the_kernel_gives_the_same_bytes_with_any_number_of_threads(threads):
    conv = nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect").requires_grad_(False)
    image, layer, before = random_image(64, (61, 83)), Kernel(conv), torch.get_num_threads()
    expected = layer(image)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(layer(image), expected)
    finally:
        torch.set_num_threads(before)


@needs_compiler
@pytest.mark.parametrize("remade", [with_kernel, with_fewer_products])
@pytest.mark.parametrize(
    "args",
    [
        {"width": 32, "depth": 2, "norm": "batch", "skips": False},
        {"width": 32, "depth": 1, "norm": "pixel"},
        {"width": 32, "depth": 1, "norm": "batch", "tone": True},
    ],
)
def test_in_strips_a_network_gives_the_same_colours(remade, args, monkeypatch):
    torch.manual_seed(0)
    net = build_generator(NetSpec("resnet", args), 1, 3).eval().requires_grad_(False)
    net = net.to(memory_format=torch.channels_last)
    for weights in net.parameters():
        nn.init.normal_(weights, std=0.05)
    image = random_image(1, (548, 52), batch=1)
    made = remade(net)
    monkeypatch.setattr(striped, "STRIP_PX", 10_000)
    whole = made(image.clone())
    monkeypatch.setattr(striped, "STRIP_PX", 160)
    assert whole.std() > 0.01
    np.testing.assert_allclose(made(image.clone()), whole, atol=3e-6)
    np.testing.assert_allclose(whole, net(image.clone()), atol=2e-5)


def test_without_a_compiler_the_kernel_is_refused_in_words(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(native, "_COMPILERS", ("no-such-compiler-either",))
    assert compiler() is None
    with pytest.raises(OSError, match=r"there is no C\+\+ compiler here"):
        native.kernel.__wrapped__()


def test_a_compiler_that_fails_is_told(monkeypatch, tmp_path):
    source = tmp_path / "broken.cpp"
    source.write_text("int broken(")
    monkeypatch.setattr(native, "_SOURCE", source)
    if compiler() is None:
        pytest.skip("no C++ compiler is here")
    with pytest.raises(OSError, match=r"cannot compile the kernel: .*broken"):
        native.kernel.__wrapped__()
