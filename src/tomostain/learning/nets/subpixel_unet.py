"""Sub-pixel U-Net: all heavy work at half the resolution and below, for slabs of CT planes on ordinary processors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tomostain.learning.nets.layers import Layer, Norm, Up, halo_of, norm_layer


class Residual(nn.Module):
    """Norm, convolution, ReLU, convolution, added to what came in (He et al. 2016b); it begins as the identity."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm_layer(norm, channels)
        self.first = nn.Conv2d(channels, channels, 3, 1, 1)
        self.second = _silent(nn.Conv2d(channels, channels, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> the same shape."""
        change: Tensor = self.second(functional.relu(self.first(self.norm(image))))
        return image + change


class Windows(nn.Module):
    """Grey windows beside the CT itself: tanh(gain x (value - centre)), as a radiologist sets them, but learnt.

    Fat and marrow differ by a thirtieth of what bone and marrow do; the first window shows them at full contrast, the
    second old and new bone. The output has, plane by plane, the CT and its windows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.tensor([-0.55, 0.45]))
        self.gain = nn.Parameter(torch.tensor([8.0, 5.0]))

    def forward(self, image: Tensor) -> Tensor:
        """(b, planes, y, x) -> (b, 3 x planes, y, x)."""
        each = image[:, :, None]
        shape = (1, 1, -1, 1, 1)
        windows = torch.tanh((each - self.centre.reshape(shape)) * self.gain.reshape(shape))
        return torch.cat([each, windows], dim=2).flatten(1, 2)


class Levels(nn.Module):
    """Mean grey values of small blocks, at high contrast, for what differs by less than the noise of a voxel.

    Marrow, resin and PEEK differ by 0.008 to 0.02 /cm, bone and its cement lines by 0.1 /cm; the noise of a voxel is
    0.06 /cm, that of 8 x 8 pixels in seven planes 0.006, of 40 x 40 pixels 0.001. Eight windows are shown: four about
    soft tissue, four about bone. Values are taken relative to ``centre`` before they are averaged, so that half
    precision does not round the differences away. The slope of x / (1 + abs(x)) does not vanish far from a window's
    centre.
    """

    gains, to_bone = (60.0, 25.0, 10.0, 4.0), 1.17
    channels = 16, 16, 32

    def __init__(self, planes: int) -> None:
        super().__init__()
        away = (torch.arange(planes) - planes // 2).abs()
        near = (away <= 1).float()
        self.slabs = nn.Parameter(
            torch.stack([torch.ones(planes), near * planes / near.sum()])[..., None, None] / planes
        )
        gains = torch.tensor(2 * self.gains)
        places = torch.tensor([0.0] * len(self.gains) + [self.to_bone] * len(self.gains))
        self.centre, self.gain = nn.Parameter(torch.tensor(-0.52)), nn.Parameter(gains)
        self.offset = nn.Parameter(-gains * places)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(b, planes, y, x) -> (b, 16, y / 2, x / 2), the same at 1/4, and (b, 32, y / 8, x / 8) with wider means too.

        Half of the channels begin as means over all planes, half over the central three.
        """
        half = functional.avg_pool2d(functional.conv2d(image - self.centre, self.slabs), 2)
        quarter = functional.avg_pool2d(half, 2)
        eighth = functional.avg_pool2d(quarter, 2)
        wide = functional.avg_pool2d(eighth, 5, 1, 2, count_include_pad=False)
        return self._shown(half), self._shown(quarter), torch.cat([self._shown(eighth), self._shown(wide)], dim=1)

    def _shown(self, means: Tensor) -> Tensor:
        shape = (1, -1, 1, 1, 1)
        windows = means[:, None] * self.gain.reshape(shape) + self.offset.reshape(shape)
        return functional.softsign(windows).flatten(1, 2)


class SubpixelUNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) whose first and last steps rearrange pixels instead of convolving them.

    Each 2 x 2 pixels of all CT planes and their grey windows become channels of one pixel (Shi et al. 2016), so that
    the finest convolutions run at a quarter of the pixels. Two strided convolutions lead to 1/4 and 1/8 of the
    resolution, where ``depth`` residual blocks see about 90 px far; nearest-neighbour enlargement and skips lead back,
    and a last small convolution at full resolution sees the central CT plane itself. Mean grey values (``Levels``)
    enter at 1/2, 1/4 and 1/8. Padding is with zeros: reflection costs a copy of each layer's input.

    Parameters
    ----------
    in_channels, out_channels
        CT planes in and colours out (or the reverse).
    width
        Channels at half the resolution; twice and four times as many at 1/4 and 1/8.
    depth
        Residual blocks at 1/8.
    norm
        As in ``ResNet``.
    up
        ``resize``; the network has no transposed convolutions.
    bounded
        End in tanh, [-1, 1].

    Raises
    ------
    ValueError
        ``up`` is not ``resize``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 32,
        depth: int = 3,
        norm: Norm = "pixel",
        up: Up = "resize",
        bounded: bool = True,
    ) -> None:
        super().__init__()
        if up != "resize":
            raise ValueError(f"the sub-pixel U-Net enlarges by resize only, up is {up!r}")
        self.stride_px, self.tile_exact = 8, norm != "instance"
        fine, middle, coarse, full = width, 2 * width, 4 * width, max(width // 2, out_channels)
        self.central = slice(3 * (in_channels // 2), 3 * (in_channels // 2) + 3)
        self.windows, self.levels = Windows(), Levels(in_channels)
        self.half_levels, self.quarter_levels, self.eighth_levels = (
            _silent(nn.Conv2d(shown, channels, 3, 1, 1, bias=False))
            for shown, channels in zip(Levels.channels, (fine, middle, coarse), strict=True)
        )
        self.stem = nn.Conv2d(4 * 3 * in_channels, fine, 3, 1, 1)
        self.fine = Residual(fine, norm)
        self.quarter = nn.Conv2d(fine, middle, 3, 2, 1)
        self.middle = nn.Sequential(Residual(middle, norm), Residual(middle, norm))
        self.eighth = nn.Conv2d(middle, coarse, 3, 2, 1)
        self.coarse = nn.Sequential(*[Residual(coarse, norm) for _ in range(depth)])
        self.to_quarter = nn.Conv2d(coarse + middle, middle, 3, 1, 1)
        self.middle_back = nn.Sequential(Residual(middle, norm))
        self.to_half = nn.Conv2d(middle + fine, fine, 3, 1, 1)
        self.fine_back = Residual(fine, norm)
        self.to_full = nn.Conv2d(fine, 4 * full, 1)
        self.detail = nn.Conv2d(full, full, 3, 1, 1)
        self.detail_ct = nn.Conv2d(3, full, 3, 1, 1, bias=False)
        self.head = nn.Conv2d(full, out_channels, 3, 1, 1)
        self.bounded = bounded
        same: Layer = ("conv", 3, 1)
        half: Layer = ("conv", 3, 2)
        twice: Layer = ("resize", 1, 2)
        to_blocks: Layer = ("conv", 2, 2)
        chain = [to_blocks, *[same] * 3, half, *[same] * 4, half, *[same] * (2 * depth), twice, *[same] * 3]
        self.halo_px = halo_of([*chain, twice, *[same] * 3, twice, same, same], self.stride_px)

    def forward(self, image: Tensor) -> Tensor:
        """(b, in_channels, y, x) -> (b, out_channels, y, x); y and x multiples of 8."""
        half, quarter, eighth = self.levels(image)
        image = self.windows(image)
        fine = self.fine(functional.relu(self.stem(functional.pixel_unshuffle(image, 2)) + self.half_levels(half)))
        middle = self.middle(functional.relu(self.quarter(fine) + self.quarter_levels(quarter)))
        coarse = self.coarse(functional.relu(self.eighth(middle) + self.eighth_levels(eighth)))
        middle = self.middle_back(functional.relu(self.to_quarter(torch.cat([_twice(coarse), middle], dim=1))))
        fine = self.fine_back(functional.relu(self.to_half(torch.cat([_twice(middle), fine], dim=1))))
        full = functional.relu(functional.pixel_shuffle(self.to_full(fine), 2))
        stained: Tensor = self.head(functional.relu(self.detail(full) + self.detail_ct(image[:, self.central])))
        return torch.tanh(stained) if self.bounded else stained


def _silent(convolution: nn.Conv2d) -> nn.Conv2d:
    """The convolution with weights of zero: what it adds begins at nothing."""
    for weights in convolution.parameters():
        nn.init.zeros_(weights)
    return convolution


def _twice(image: Tensor) -> Tensor:
    return functional.interpolate(image, scale_factor=2.0, mode="nearest")
