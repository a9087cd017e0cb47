"""The generators of CycleGAN and Pix2Pix as their authors' own program builds them, layer by layer.

Their weights have the names that they have in that program (https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix),
so that its checkpoints can be read. Their tiles show seams: instance norm looks at the whole image, and the sums of
transposed convolutions depend on the tile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tomostain.learning.nets.layers import Layer, Norm, Up, halo_of, norm_layer

_DEVIATION = 0.02
"""Standard deviation of the first weights."""


class ReferenceResNet(nn.Module):
    """ResNet-9 of CycleGAN (Zhu et al. 2017; Johnson et al. 2016): reflection padding, transposed convolutions.

    Parameters
    ----------
    in_channels, out_channels
        CT planes in and colours out (or the reverse).
    width
        Channels of the first layer; the blocks have four times as many.
    depth
        Residual blocks: 9 for images of 256 px and more, 6 for smaller ones.
    norm
        ``instance`` as published; ``batch`` and ``none`` exist there too.
    up
        ``transposed``; the network has no other.
    dropout
        Half of the channels' values are dropped within each block while it is trained.
    bounded
        End in tanh, [-1, 1].
    clipped
        Clip what comes in to [-1, 1], as in pictures of 8 bits, from which checkpoints of others were trained.

    Raises
    ------
    ValueError
        ``up`` is not ``transposed``.
    """

    least_strides = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 64,
        depth: int = 9,
        norm: Norm = "instance",
        up: Up = "transposed",
        dropout: bool = False,
        bounded: bool = True,
        clipped: bool = False,
    ) -> None:
        super().__init__()
        _check_up(up)
        self.clipped = clipped
        self.stride_px, self.tile_exact, bias = 4, False, norm != "batch"
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(in_channels, width, 7, bias=bias)]
        layers += [norm_layer(norm, width), nn.ReLU()]
        for channels in (width, 2 * width):
            layers += [nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=bias), norm_layer(norm, 2 * channels), nn.ReLU()]
        layers += [_Block(4 * width, norm, bias=bias, dropout=dropout) for _ in range(depth)]
        for channels in (4 * width, 2 * width):
            half = channels // 2
            layers += [nn.ConvTranspose2d(channels, half, 3, 2, 1, 1, bias=bias), norm_layer(norm, half), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7)]
        self.model = nn.Sequential(*layers, *([nn.Tanh()] if bounded else []))
        wide: Layer = ("conv", 7, 1)
        strided: Layer = ("conv", 3, 2)
        plain: Layer = ("conv", 3, 1)
        larger: Layer = ("transposed", 3, 2)
        chain = [wide, strided, strided, *[plain] * (2 * depth), larger, larger, wide]
        self.halo_px = halo_of(chain, self.stride_px)
        _first_weights(self)

    def forward(self, image: Tensor) -> Tensor:
        """(b, in_channels, y, x) -> (b, out_channels, y, x); y and x multiples of 4, at least 16."""
        stained: Tensor = self.model(image.clamp(-1.0, 1.0) if self.clipped else image)
        return stained


class ReferenceUNet(nn.Module):
    """U-Net-256 of Pix2Pix (Isola et al. 2017): eight halvings, zero padding, dropout in the middle.

    Parameters
    ----------
    in_channels, out_channels
        CT planes in and colours out (or the reverse).
    width
        Channels of the first level; they double up to eight times that.
    depth
        Levels: 8 for images of 256 px (a single pixel is left), 7 for 128 px; at least 5.
    norm
        ``batch`` as published.
    up, bounded, clipped
        As in ``ReferenceResNet``.
    dropout
        Half of the values of all levels with eight times the width but the innermost are dropped while it is trained.

    Raises
    ------
    ValueError
        ``up`` is not ``transposed``, or ``depth`` is less than 5.
    """

    least_strides = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 64,
        depth: int = 8,
        norm: Norm = "batch",
        up: Up = "transposed",
        dropout: bool = True,
        bounded: bool = True,
        clipped: bool = False,
    ) -> None:
        super().__init__()
        _check_up(up)
        self.clipped = clipped
        if depth < 5:
            raise ValueError(f"the reference U-Net has at least five levels, depth is {depth}")
        self.stride_px, self.tile_exact, bias = 2**depth, False, norm != "batch"
        full = 8 * width
        innermost = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(full, full, 4, 2, 1, bias=bias),
            *(nn.ReLU(), nn.ConvTranspose2d(full, full, 4, 2, 1, bias=bias), norm_layer(norm, full)),
        )
        level: nn.Module = _Level(innermost)
        outer_and_inner = [(full, full)] * (depth - 5) + [(4 * width, full), (2 * width, 4 * width), (width, 2 * width)]
        for outer, inner in outer_and_inner:
            layers = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=bias), norm_layer(norm, inner), level]
            layers += [nn.ReLU(), nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=bias), norm_layer(norm, outer)]
            layers += [nn.Dropout(0.5)] if dropout and outer == inner else []
            level = _Level(nn.Sequential(*layers))
        outermost = [nn.Conv2d(in_channels, width, 4, 2, 1, bias=bias), level, nn.ReLU()]
        outermost += [nn.ConvTranspose2d(2 * width, out_channels, 4, 2, 1), *([nn.Tanh()] if bounded else [])]
        self.model = _Level(nn.Sequential(*outermost), joined=False)
        down: Layer = ("conv", 4, 2)
        larger: Layer = ("transposed", 4, 2)
        self.halo_px = halo_of([*[down] * depth, *[larger] * depth], self.stride_px)
        _first_weights(self)

    def forward(self, image: Tensor) -> Tensor:
        """(b, in_channels, y, x) -> (b, out_channels, y, x); y and x multiples of 2 ** depth."""
        stained: Tensor = self.model(image.clamp(-1.0, 1.0) if self.clipped else image)
        return stained


class _Block(nn.Module):
    """Two convolutions whose result is added to what came in."""

    def __init__(self, channels: int, norm: Norm, *, bias: bool, dropout: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias)]
        layers += [norm_layer(norm, channels), nn.ReLU(), *([nn.Dropout(0.5)] if dropout else [])]
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm_layer(norm, channels)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> the same shape."""
        change: Tensor = self.conv_block(image)
        return image + change


class _Level(nn.Module):
    """A level of the U-Net with all levels below it; what came in is handed on beside what they make of it."""

    def __init__(self, model: nn.Sequential, *, joined: bool = True) -> None:
        super().__init__()
        self.model, self.joined = model, joined

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> (b, c + c', y, x), or (b, c', y, x) where nothing is joined."""
        made: Tensor = self.model(image)
        return torch.cat([image, made], dim=1) if self.joined else made


def _check_up(up: Up) -> None:
    if up != "transposed":
        raise ValueError(f"the reference networks enlarge by transposed convolutions only, up is {up!r}")


def _first_weights(net: nn.Module) -> None:
    """Normally distributed weights, as the authors begin with; biases are zero."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, _DEVIATION)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, _DEVIATION)
