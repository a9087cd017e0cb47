"""The same network with fewer multiplications, in single precision and plain PyTorch.

3 x 3 convolutions of many channels by Winograd's minimal filtering F(4 x 4, 3 x 3) (Lavin & Gray 2016): 36 products for
16 outputs instead of 144. Both transforms are matrix products too. ``inference.py`` has what else is spared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tomostain.staining.inference import Phased, fold, is_doubling, is_plain, without_copies
from tomostain.staining.striped import in_strips

OUT_PX, SEEN_PX = 4, 6
"""A Winograd cell: outputs along an axis, and inputs they are made from."""
_FEWEST_CHANNELS = 128
_CELLS_AT_ONCE = 256
"""Cells whose transforms are in memory at once: small enough for the processor's caches."""
_POINTS, _POINTS_DOUBLED = (0.625, 1.5), (1.0, 2.0)
"""Filters and cells are polynomials, evaluated at 0, at these points, their negatives and infinity. The usual 1 and
2 make the rounding of products twice as large; with 1, a product of each pixel repeated vanishes."""


def with_fewer_products(net: nn.Module) -> nn.Module:
    """A copy of a network in which the layers that gain by it are computed in these ways."""
    net = fold(net)
    for module in list(net.modules()):
        if isinstance(module, nn.Sequential):
            _phase(module)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if (
                isinstance(child, nn.Conv2d)
                and is_plain(child)
                and min(child.in_channels, child.out_channels) >= _FEWEST_CHANNELS
            ):
                setattr(module, name, Winograd(child))
    return in_strips(without_copies(net))


def winograd_filters(conv: nn.Conv2d, *, doubled: bool = False) -> Tensor:
    """The transformed filters of a 3 x 3 convolution, of an image or of its pixels repeated 2 x 2: (36, c, c')."""
    _, make, _ = _transforms(*(_POINTS_DOUBLED if doubled else _POINTS))
    weight = conv.weight.detach()
    filters = torch.einsum("ia,ocab,jb->ijco", make, weight.double(), make)
    return filters.reshape(-1, conv.in_channels, conv.out_channels).to(weight)


def _transforms(near: float, far: float) -> tuple[Tensor, Tensor, Tensor]:
    """What a line of a cell, of a filter and of products is multiplied with: (6, 6), (6, 3) and (4, 6), float64."""
    finite = torch.tensor([0.0, near, -near, far, -far], dtype=torch.float64)
    a, b = near**2, far**2
    into = [[a * b, 0.0, -a - b, 0.0, 1.0, 0.0]]
    into += [[0.0, -p * b, -b, p, 1.0, 0.0] for p in (near, -near)]
    into += [[0.0, -p * a, -a, p, 1.0, 0.0] for p in (far, -far)]
    into += [[0.0, a * b, 0.0, -a - b, 0.0, 1.0]]
    apart = finite[:, None] - finite + torch.eye(5, dtype=torch.float64)
    filters = finite[:, None] ** torch.arange(3) / apart.prod(dim=1, keepdim=True)
    at_infinity = torch.eye(4, dtype=torch.float64)
    back = torch.cat([finite ** torch.arange(4)[:, None], at_infinity[:, -1:]], dim=1)
    return torch.tensor(into, dtype=torch.float64), torch.cat([filters, at_infinity[-1:, 1:]]), back


class Winograd(nn.Module):
    """A 3 x 3 convolution of stride 1 with mirrored border, cell by cell."""

    filters: Tensor
    to_cells: Tensor
    from_cells: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight = conv.weight.detach()
        self.register_buffer("filters", winograd_filters(conv))
        into, _, back = _transforms(*_POINTS)
        self.register_buffer("to_cells", torch.kron(into, into).to(weight))
        self.register_buffer("from_cells", torch.kron(back, back).to(weight))
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> (b, c', y, x), channels last."""
        b, channels, rows, columns = image.shape
        down, across = -(-rows // OUT_PX), -(-columns // OUT_PX)
        image = functional.pad(image, (1, 1, 1, 1), mode="reflect")
        fill = (0, OUT_PX * across - columns, 0, OUT_PX * down - rows)
        image = functional.pad(image, fill) if any(fill) else image
        seen = image.permute(0, 2, 3, 1).contiguous()
        outputs = self.filters.shape[-1]
        made = seen.new_empty((b, down, OUT_PX, across, OUT_PX, outputs))
        cells = seen.new_zeros((SEEN_PX, SEEN_PX, _CELLS_AT_ONCE, channels))
        for batch in _batches(b * down, across):
            at = 0
            for row, first, last in batch:
                cells[:, :, at : at + last - first] = _cells(seen[row // down], row % down, first, last)
                at += last - first
            spread = (self.to_cells @ cells.view(SEEN_PX**2, -1)).view(SEEN_PX**2, -1, channels)
            products = torch.bmm(spread, self.filters).view(SEEN_PX**2, -1)
            gathered = (self.from_cells @ products).view(OUT_PX, OUT_PX, -1, outputs)
            at = 0
            for row, first, last in batch:
                part = gathered[:, :, at : at + last - first].permute(0, 2, 1, 3)
                made[row // down, row % down, :, first:last] = part
                at += last - first
        whole = made.view(b, OUT_PX * down, OUT_PX * across, outputs)
        painted = whole[:, :rows, :columns].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        return painted if self.bias is None else painted.add_(self.bias[:, None, None])


def _batches(rows: int, across: int) -> list[list[tuple[int, int, int]]]:
    """All cells as runs (row, first, last + 1), together ``_CELLS_AT_ONCE`` to a batch: every product has one shape.

    One shape, because the order in which a matrix product is summed may depend on it.
    """
    batches: list[list[tuple[int, int, int]]] = [[]]
    room = _CELLS_AT_ONCE
    for row in range(rows):
        first = 0
        while first < across:
            if not room:
                batches.append([])
                room = _CELLS_AT_ONCE
            last = min(across, first + room)
            batches[-1].append((row, first, last))
            room -= last - first
            first = last
    return batches


def _cells(seen: Tensor, row: int, first: int, last: int) -> Tensor:
    """A view of neighbouring cells of (y, x, c): (6, 6, last - first, c)."""
    down, across, _ = seen.stride()
    start = seen.storage_offset() + OUT_PX * (row * down + first * across)
    size = (SEEN_PX, SEEN_PX, last - first, seen.shape[-1])
    return seen.as_strided(size, (down, across, OUT_PX * across, 1), start)


def _phase(layers: nn.Sequential) -> None:
    """Enlargements by repetition and the convolutions behind them become one layer."""
    for i in range(len(layers) - 1):
        first, second = layers[i], layers[i + 1]
        if is_doubling(first) and isinstance(second, nn.Conv2d) and is_plain(second):
            layers[i], layers[i + 1] = nn.Identity(), Phased(second)
