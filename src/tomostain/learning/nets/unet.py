"""U-Net generator as in Pix2Pix (Isola et al. 2017), of any depth and for planes of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tomostain.learning.nets.layers import Layer, Norm, Up, enlarged, halo_of, norm_layer, up_layers


class UNet(nn.Module):
    """``depth`` halvings by strided 4 x 4 convolutions and as many enlargements, joined level by level.

    Parameters
    ----------
    in_channels, out_channels
        CT planes in and colours out (or the reverse).
    width
        Channels of the first level; they double up to eight times that.
    depth
        Levels; the input's rows and columns must be multiples of 2 ** depth, and the net sees about 4 * 2 ** depth px.
    norm, up, bounded
        As in ``ResNet``. Isola et al.: ``batch`` and ``transposed``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 64,
        depth: int = 5,
        norm: Norm = "batch",
        up: Up = "resize",
        bounded: bool = True,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"a U-Net needs at least one level, depth is {depth}")
        self.stride_px = 2**depth
        self.tile_exact = norm != "instance" and up == "resize"
        widths = [min(width * 2**level, 8 * width) for level in range(depth)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, channels in enumerate(widths):
            before = widths[level - 1] if level else in_channels
            conv = nn.Conv2d(before, channels, 4, 2, 1, padding_mode="reflect")
            inner = norm_layer(norm, channels) if level else nn.Identity()
            self.down.append(nn.Sequential(conv, inner, nn.LeakyReLU(0.2)))
            above = widths[level - 1] if level else width
            joined = channels if level == depth - 1 else 2 * channels
            self.up.append(enlarged(joined, above, norm=norm, up=up))
        head = nn.Conv2d(width, out_channels, 3, 1, 1, padding_mode="reflect")
        self.head = nn.Sequential(head, nn.Tanh()) if bounded else nn.Sequential(head)
        down: Layer = ("conv", 4, 2)
        self.halo_px = halo_of([*[down] * depth, *up_layers(up) * depth, ("conv", 3, 1)], self.stride_px)

    def forward(self, image: Tensor) -> Tensor:
        """(b, in_channels, y, x) -> (b, out_channels, y, x)."""
        levels: list[Tensor] = []
        for down in self.down:
            image = down(image)
            levels.append(image)
        image = levels.pop()
        for up in reversed(self.up):
            image = up(image)
            if levels:
                image = torch.cat([image, levels.pop()], dim=1)
        stained: Tensor = self.head(image)
        return stained
