"""ResNet generator (Johnson et al. 2016; Zhu et al. 2017), in a form whose tiles equal the whole plane."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tomostain.learning.nets.layers import Layer, Norm, Up, convolved, enlarged, halo_of, norm_layer, up_layers


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added to what came in.

    A pixel norm stands before them (He et al. 2016b) and nowhere else in the net: dividing a pixel by its own magnitude
    on the main path would throw away how bright the CT is there, which in flat tissue is all there is to see.
    """

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        if norm == "pixel":
            self.body = nn.Sequential(
                norm_layer(norm, channels),
                convolved(channels, channels, norm="none"),
                convolved(channels, channels, norm="none", activate=False),
            )
        else:
            self.body = nn.Sequential(
                convolved(channels, channels, norm=norm), convolved(channels, channels, norm=norm, activate=False)
            )

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> the same shape."""
        change: Tensor = self.body(image)
        return image + change


class ResNet(nn.Module):
    """7 x 7 stem, two strided convolutions, ``depth`` residual blocks, two enlargements, head.

    Parameters
    ----------
    in_channels, out_channels
        CT planes in and colours out (or the reverse).
    width
        Channels of the stem; the blocks have four times as many.
    depth
        Residual blocks (9 for 256 px patches in Zhu et al.); each makes the net see 8 px further.
    norm
        ``pixel``, ``batch`` and ``none`` leave the net tile-exact, ``instance`` (Zhu et al.) does not.
    up
        ``resize`` (tile-exact) or ``transposed`` (Zhu et al.).
    skips
        Hand the stem's and the first strided convolution's output to the last layers, so that fine detail need not
        pass the coarse blocks (Ronneberger et al. 2015); the head is then two 3 x 3 convolutions that also see the
        input itself, otherwise one of 7 x 7 (Zhu et al.).
    bounded
        End in tanh, [-1, 1]; otherwise in plain numbers, for CT, whose outliers lie outside its range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 64,
        depth: int = 9,
        norm: Norm = "batch",
        up: Up = "resize",
        skips: bool = True,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        self.stride_px = 4
        self.tile_exact = norm != "instance" and up == "resize"
        self.skips = skips
        main: Norm = "none" if norm == "pixel" else norm
        self.stem = convolved(in_channels, width, 7, norm=main)
        self.halve = convolved(width, 2 * width, stride=2, norm=main)
        self.quarter = convolved(2 * width, 4 * width, stride=2, norm=main)
        self.blocks = nn.Sequential(*[ResidualBlock(4 * width, norm) for _ in range(depth)])
        self.to_half = enlarged(4 * width, 2 * width, norm=main, up=up)
        self.to_full = enlarged((4 if skips else 2) * width, width, norm=main, up=up)
        if skips:
            fine = convolved(2 * width + in_channels, width, norm=main)
            head: list[nn.Module] = [*fine, nn.Conv2d(width, out_channels, 3, 1, 1, padding_mode="reflect")]
        else:
            head = [nn.Conv2d(width, out_channels, 7, 1, 3, padding_mode="reflect")]
        self.head = nn.Sequential(*head, *([nn.Tanh()] if bounded else []))
        wide: Layer = ("conv", 7, 1)
        strided: Layer = ("conv", 3, 2)
        plain: Layer = ("conv", 3, 1)
        layers = [wide, strided, strided, *[plain] * (2 * depth), *up_layers(up), *up_layers(up)]
        self.halo_px = halo_of([*layers, *([plain] * 2 if skips else [wide])], self.stride_px)

    def forward(self, image: Tensor) -> Tensor:
        """(b, in_channels, y, x) -> (b, out_channels, y, x); y and x multiples of 4."""
        full = self.stem(image)
        half = self.halve(full)
        deep = self.to_half(self.blocks(self.quarter(half)))
        fine = self.to_full(torch.cat([deep, half], dim=1) if self.skips else deep)
        stained: Tensor = self.head(torch.cat([fine, full, image], dim=1) if self.skips else fine)
        return stained
