"""The small parts that all networks share: norms, convolutions, upsampling, and how far a chain of them can see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Norm = Literal["pixel", "batch", "none", "instance"]
Up = Literal["resize", "transposed"]
Layer = tuple[Literal["conv", "resize", "transposed"], int, int]
"""(kind, kernel, stride) of one layer, "same"-padded; a resize repeats each pixel ``stride`` times."""


@runtime_checkable
class Generator(Protocol):
    """What every generator tells about itself; its call is (b, c, y, x) -> (b, colours, y, x).

    ``halo_px`` is how far (rounded up to ``stride_px``) an output pixel can see; ``stride_px`` is what the input's
    rows and columns must be a multiple of; ``tile_exact`` says whether an output pixel is the same number whatever
    surrounds its halo.
    """

    halo_px: int
    stride_px: int
    tile_exact: bool

    def __call__(self, image: Tensor) -> Tensor:
        """Paint a batch."""


class PixelNorm(nn.Module):
    """Root-mean-square normalisation over the channels of each pixel (Zhang & Sennrich 2019), with gain and bias.

    It looks at one pixel only, so that a tile and the whole plane give the same numbers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> the same shape."""
        scale = torch.rsqrt(image.square().mean(dim=1, keepdim=True) + 1e-6)
        return image * scale * self.gain + self.bias


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """The normalisation of that name.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    match norm:
        case "pixel":
            return PixelNorm(channels)
        case "batch":
            return nn.BatchNorm2d(channels)
        case "instance":
            return nn.InstanceNorm2d(channels)
        case "none":
            return nn.Identity()
        case _:
            raise ValueError(f"norm {norm!r} is not known; known: pixel, batch, none, instance")


def convolved(
    inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, norm: Norm, activate: bool = True
) -> nn.Sequential:
    """Reflect-padded convolution, norm and (unless the block's sum comes first) ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect")
    return nn.Sequential(conv, norm_layer(norm, outputs), *([nn.ReLU()] if activate else []))


def enlarged(inputs: int, outputs: int, *, norm: Norm, up: Up) -> nn.Sequential:
    """Twice the rows and columns.

    ``resize`` repeats pixels and convolves: bitwise the same in any tile, and free of checkerboards (Odena et al.
    2016). ``transposed`` is the classical transposed convolution, whose sums depend on the tile's size (about 1e-7).
    """
    match up:
        case "resize":
            return nn.Sequential(nn.Upsample(scale_factor=2.0, mode="nearest"), *convolved(inputs, outputs, norm=norm))
        case "transposed":
            conv = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
            return nn.Sequential(conv, norm_layer(norm, outputs), nn.ReLU())
        case _:
            raise ValueError(f"up {up!r} is not known; known: resize, transposed")


def up_layers(up: Up) -> list[Layer]:
    """What ``enlarged`` is made of, for ``halo_of``."""
    return [("resize", 1, 2), ("conv", 3, 1)] if up == "resize" else [("transposed", 4, 2)]


def halo_of(layers: Sequence[Layer], stride_px: int) -> int:
    """How far the outputs of a chain of layers (first to last) can see, rounded up to ``stride_px``.

    Follows the interval of inputs behind each of ``stride_px`` neighbouring outputs back through the chain.
    """
    reach = 0
    for position in range(stride_px):
        first = last = position
        for kind, kernel, stride in reversed(layers):
            if kind == "conv":
                pad = (kernel - 1) // 2
                first, last = first * stride - pad, last * stride - pad + kernel - 1
            elif kind == "resize":
                first, last = first // stride, last // stride
            else:
                pad = (kernel - stride + 1) // 2
                first, last = -((kernel - 1 - pad - first) // stride), (last + pad) // stride
        reach = max(reach, position - first, last - position)
    return -(-reach // stride_px) * stride_px
