"""A ResNet that holds its fine layers only a strip of rows at a time, so that a tile may be larger in the same memory.

At full resolution a tile of 1024 px needs hundreds of megabytes a layer; the blocks in the middle, which see far and
are why tiles have halos, need a fourth of that. Each strip of fine layers sees all the rows it depends on; the
strips of a tile are always the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tomostain.learning.nets.resnet import ResNet

STRIP_PX = 160
_SEEN_PX = 8
"""Rows beyond a strip that its layers depend on: two of the coarsest, both on the way in and on the way out."""


def in_strips(net: nn.Module, *, half: bool = False) -> nn.Module:
    """The network itself, with each ResNet in it replaced; other networks stay as they are."""
    if isinstance(net, ResNet):
        return Striped(net, half=half)
    for name, child in net.named_children():
        setattr(net, name, in_strips(child, half=half))
    return net


class Striped(nn.Module):
    """The layers of a ``ResNet``, fine ones in strips; ``half``: those before the blocks in bfloat16."""

    def __init__(self, net: ResNet, *, half: bool = False) -> None:
        super().__init__()
        self.net, self.halved = net, half

    def forward(self, image: Tensor) -> Tensor:
        """(b, in_channels, y, x) -> (b, colours, y, x); y and x multiples of 4."""
        net, rows = self.net, image.shape[2]
        encoded = _strips(rows, 4)
        deep = net.blocks(
            _joined(rows // 4, ((core, seen, self._encoded(image[:, :, seen])) for core, seen in encoded))
        )
        decoded = _strips(rows, 1)
        return _joined(rows, ((core, seen, self._decoded(deep, image, seen)) for core, seen in decoded))

    def _encoded(self, image: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.halved):
            encoded: Tensor = self.net.quarter(self.net.halve(self.net.stem(image)))
        return encoded.float()

    def _decoded(self, deep: Tensor, image: Tensor, seen: slice) -> Tensor:
        net = self.net
        half = net.to_half(deep[:, :, seen.start // 4 : seen.stop // 4])
        if net.skips:
            part = image[:, :, seen]
            full = net.stem(part)
            fine = net.to_full(torch.cat([half, net.halve(full)], dim=1))
            painted: Tensor = net.head(torch.cat([fine, full, part], dim=1))
        else:
            painted = net.head(net.to_full(half))
        return painted


def _strips(rows: int, step: int) -> Iterator[tuple[slice, slice]]:
    """Rows that a strip makes, counted in steps, and rows that it sees, in pixels."""
    for first in range(0, rows, STRIP_PX):
        last = min(first + STRIP_PX, rows)
        seen = slice(max(first - _SEEN_PX, 0), min(last + _SEEN_PX, rows))
        yield slice(first // step, last // step), seen


def _joined(rows: int, parts: Iterator[tuple[slice, slice, Tensor]]) -> Tensor:
    """The strips' own rows, one below the other, channels last."""
    made: Tensor | None = None
    for core, seen, part in parts:
        if made is None:
            size = (part.shape[0], part.shape[1], rows, part.shape[3])
            made = torch.empty(size, dtype=part.dtype, device=part.device, memory_format=torch.channels_last)
        step = (seen.stop - seen.start) // part.shape[2]
        first = core.start - seen.start // step
        made[:, :, core] = part[:, :, first : first + core.stop - core.start]
    assert made is not None
    return made
