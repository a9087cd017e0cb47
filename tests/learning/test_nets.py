import pytest
import torch
from torch import nn

from tomostain.learning.nets import NetSpec, build_discriminator, build_generator
from tomostain.learning.nets.layers import PixelNorm
from tomostain.learning.nets.steady import SteadyConvolutions
from tomostain.learning.nets.toned import TONE_HIGH, TONE_LOW, tone_knots

EXACT = [
    NetSpec("resnet", {"width": 4, "depth": 1}),
    NetSpec("resnet", {"width": 4, "depth": 4}),
    NetSpec("resnet", {"width": 4, "depth": 2, "norm": "batch"}),
    NetSpec("resnet", {"width": 4, "depth": 2, "norm": "none", "skips": False}),
    NetSpec("unet", {"width": 4, "depth": 2}),
    NetSpec("unet", {"width": 4, "depth": 3, "norm": "batch"}),
    NetSpec("resnet", {"width": 4, "depth": 1, "tone": True}),
    NetSpec("subpixel_unet", {"width": 4, "depth": 1}),
    NetSpec("subpixel_unet", {"width": 4, "depth": 2, "norm": "batch"}),
]
CLASSICAL = [
    NetSpec("resnet", {"width": 4, "depth": 1, "up": "transposed", "norm": "none"}),
    NetSpec("unet", {"width": 4, "depth": 2, "up": "transposed", "norm": "none"}),
]


def fresh(spec):
    """A generator as after some training: no weight is zero, and a tone has colours."""
    net = build_generator(spec, 1, 3)
    for weight in net.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.1)
    if spec.args.get("tone"):
        net.set_tone(torch.stack([tone_knots().sin(), tone_knots().cos(), tone_knots() / 5]))
    return net


def seen_by(net, size, y, x):
    """Inputs that the output pixel (y, x) depends on, as rows and columns."""
    image = torch.rand(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    net(image)[0, :, y, x].sum().backward()
    return (image.grad[0, 0] != 0).nonzero()


@pytest.mark.parametrize("spec", EXACT + CLASSICAL, ids=str)
def test_the_halo_is_just_as_far_as_the_net_sees(spec):
    torch.manual_seed(0)
    net = fresh(spec).double().eval()
    stride, halo = net.stride_px, net.halo_px
    size = 2 * halo + 6 * stride
    middle = size // 2 // stride * stride
    reach = 0
    for offset in range(stride):
        centre = middle + offset
        seen = seen_by(net, size, centre, centre)
        reach = max(reach, int((seen - centre).abs().max()))
    assert reach <= halo
    assert halo - reach < stride


@pytest.mark.parametrize("spec", EXACT, ids=str)
def test_a_pixel_is_the_same_number_in_any_tile_that_shows_its_halo(spec):
    torch.manual_seed(1)
    # as a Stainer lays it out and runs it: otherwise narrow convolutions sum in an order that the size decides
    net = fresh(spec).eval().to(memory_format=torch.channels_last)
    assert net.tile_exact
    halo, stride = net.halo_px, net.stride_px
    image = torch.rand(1, 1, 2 * halo + 20 * stride, 2 * halo + 16 * stride).to(memory_format=torch.channels_last)
    with torch.inference_mode(), SteadyConvolutions():
        whole = net(image)
        y, x, tall, wide = 4 * stride, 8 * stride, 8 * stride, 4 * stride
        part = net(image[:, :, y : y + tall + 2 * halo, x : x + wide + 2 * halo])
    core = (..., slice(halo, halo + tall), slice(halo, halo + wide))
    shifted = (..., slice(y + halo, y + halo + tall), slice(x + halo, x + halo + wide))
    assert (part[core] - whole[shifted]).abs().max() == 0


def test_instance_norm_lets_a_far_pixel_change_the_colour_and_says_so():
    torch.manual_seed(0)
    net = build_generator(NetSpec("resnet", {"width": 4, "depth": 1, "norm": "instance"}), 1, 3).eval()
    assert not net.tile_exact
    image = torch.rand(1, 1, 96, 96)
    changed = image.clone()
    changed[..., 90:, 90:] += 50.0
    assert (net(image) - net(changed))[..., :8, :8].abs().max() > 1e-3
    assert not build_generator(CLASSICAL[0], 1, 3).tile_exact


def test_pixel_norm_makes_every_pixel_s_mean_square_one():
    image = torch.randn(2, 16, 5, 7) * torch.rand(2, 1, 5, 7) * 9
    torch.testing.assert_close(PixelNorm(16)(image).square().mean(dim=1), torch.ones(2, 5, 7), atol=1e-3, rtol=0)


def test_a_toned_net_begins_at_its_tone():
    net = build_generator(NetSpec("resnet", {"width": 4, "depth": 1, "tone": True}), 3, 3).eval()
    net.set_tone(torch.stack([tone_knots() / 5, tone_knots() / -5, torch.zeros(len(tone_knots()))]).clamp(-1, 1))
    image = torch.rand(1, 3, 16, 16) * (TONE_HIGH - TONE_LOW - 4) + TONE_LOW
    painted, middle = net(image)[0], image[0, 1]
    torch.testing.assert_close(painted[0], 0.99 * middle / 5, atol=1e-3, rtol=0)
    torch.testing.assert_close(painted[1], -0.99 * middle / 5, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("depth", "field"), [(1, 16), (2, 34), (3, 70)])
def test_a_verdict_sees_as_many_pixels_as_it_says(depth, field):
    net = build_discriminator(NetSpec("patchgan", {"width": 4, "depth": depth, "norm": "none"}), 3).double()
    image = torch.rand(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    verdicts = net(image)
    verdicts[0, 0, verdicts.shape[2] // 2, verdicts.shape[3] // 2].backward()
    rows = image.grad[0].abs().sum(dim=(0, 2)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == field


def test_the_painter_is_bounded_and_the_unpainter_is_not():
    image = torch.full((1, 1, 16, 16), 1e4)
    torch.manual_seed(0)
    bounded, free = (
        build_generator(NetSpec("resnet", {"width": 4, "norm": "none"}), 1, 3, bounded=b) for b in (True, False)
    )
    assert bounded(image).abs().max() <= 1.0
    assert free(image).abs().max() > 1.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (NetSpec("resnett"), "did you mean 'resnet'"),
        (NetSpec("resnet", {"widht": 4}), "widht"),
        (NetSpec("resnet", {"norm": "layer"}), "norm 'layer' is not known"),
        (NetSpec("resnet", {"up": "bilinear"}), "up 'bilinear' is not known"),
        (NetSpec("unet", {"depth": 0}), "at least one level"),
        (NetSpec("torch.nn:Conv2d", {"kernel_size": 3}), "must declare halo_px"),
        (NetSpec("pathlib:Path"), "cannot be built"),
    ],
)
def test_a_net_that_cannot_be_built_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build_generator(spec, 1, 3)


def test_a_stranger_s_net_is_imported_only_when_trusted():
    with pytest.raises(ValueError, match="trust"):
        build_generator(NetSpec("strangers_nets:Blue"), 1, 3, trust=False)


def test_a_net_takes_a_slab_of_planes():
    net = build_generator(NetSpec("unet", {"width": 4, "depth": 2}), 5, 3)
    assert net(torch.rand(2, 5, 16, 24)).shape == (2, 3, 16, 24)
    assert isinstance(net, nn.Module)
