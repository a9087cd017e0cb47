"""The kernel that is compiled here is the convolution, border and all; a network in strips is the network."""

import numpy as np
import pytest
import torch
from torch import nn

from tomostain.learning.nets import NetSpec, build_generator
from tomostain.staining import native, striped
from tomostain.staining.native import Kernel, compiler, with_kernel
from tomostain.staining.winograd import RowByRow, with_fewer_products

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler is here")


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


@pytest.mark.parametrize("size", [5, 7])
def test_row_by_row_is_the_convolution(size):
    conv = nn.Conv2d(20, 3, size, padding=size // 2, padding_mode="reflect").requires_grad_(False)
    image = random_image(20, (19, 23))
    np.testing.assert_allclose(RowByRow(conv)(image), conv(image), atol=2e-5)


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
    np.testing.assert_allclose(made(image.clone()), whole, atol=1e-6)
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
