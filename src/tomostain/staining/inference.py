"""A network as it is run on CPUs: the same colours with fewer passes through memory and fewer multiplications.

- Batch norms are folded into the convolutions before them.
- Mirrored borders are computed on bands along the border; no image is copied to be padded.
- Wide heads of few colours are computed row by row of their filters.
- Enlargement by repetition and 3 x 3 convolution as four 2 x 2 convolutions, one for each output pixel of four: 16
  products instead of 36, and the enlarged image is never made.

Sums are made in another order, which moves a colour value by less than 1 of 255.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold(net: nn.Module) -> nn.Module:
    """A copy of a network with norms folded into convolutions, ReLUs in place, and rows of narrow heads apart."""
    net = deepcopy(net).eval()
    for module in list(net.modules()):
        if isinstance(module, nn.Sequential):
            _fold_norms(module)
            for i, layer in enumerate(module):
                if isinstance(layer, nn.Conv2d) and _is_narrow(layer):
                    module[i] = RowByRow(layer)
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return net


def without_copies(net: nn.Module) -> nn.Module:
    """The network itself, with each convolution of mirrored border replaced by one that pads bands only."""
    for module in [module for module in net.modules() if not isinstance(module, Mirrored)]:
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and child.padding_mode == "reflect" and isinstance(child.padding, tuple):
                setattr(module, name, Mirrored(child))
    return net


class Mirrored(nn.Module):
    """A convolution with mirrored border: what touches it is computed on bands, no image is padded whole."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> (b, c', y', x'), channels last."""
        conv = self.conv
        reach = tuple(int(n) for n in conv.padding)
        if min(image.shape[2:]) < 2 * max(conv.kernel_size):
            return self._padded(image, (reach[1], reach[1], reach[0], reach[0]))
        made = functional.conv2d(image, conv.weight, conv.bias, conv.stride, reach, conv.dilation, conv.groups)
        for axis in (2, 3):
            size, step, pad = image.shape[axis], conv.stride[axis - 2], reach[axis - 2]
            seen = conv.dilation[axis - 2] * (conv.kernel_size[axis - 2] - 1) + 1
            first, last = -(-pad // step), -(-(size + pad - seen + 1) // step)
            fill = [reach[1], reach[1], reach[0], reach[0]]
            near, far = (2, 3) if axis == 2 else (0, 1)
            if first:
                band = image.narrow(axis, 0, step * (first - 1) - pad + seen)
                made.narrow(axis, 0, first).copy_(self._padded(band, _but(fill, far)))
            if last < made.shape[axis]:
                band = image.narrow(axis, step * last - pad, size - step * last + pad)
                made.narrow(axis, last, made.shape[axis] - last).copy_(self._padded(band, _but(fill, near)))
        return made

    def _padded(self, image: Tensor, fill: Sequence[int]) -> Tensor:
        conv, padded = self.conv, functional.pad(image, tuple(fill), mode="reflect")
        return functional.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


def _but(fill: Sequence[int], place: int) -> list[int]:
    """The same padding, none at one side."""
    return [0 if i == place else n for i, n in enumerate(fill)]


class RowByRow(nn.Module):
    """A wide convolution of few outputs: each row of its filters makes channels of its own, which are added up after.

    Processors compute outputs by sixteen; 3 colours waste the most of them, 7 x 3 row sums few.
    """

    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.outputs, inputs, self.size, _ = conv.weight.shape
        rows = conv.weight.detach().permute(2, 0, 1, 3).reshape(self.size * self.outputs, inputs, 1, self.size)
        lines = nn.Conv2d(inputs, len(rows), (1, self.size), 1, (0, self.size // 2), bias=False, padding_mode="reflect")
        lines.weight = nn.Parameter(rows.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.lines = Mirrored(lines)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> (b, c', y, x), channels last."""
        count, reach = image.shape[2], self.size // 2
        lines = functional.pad(self.lines(image), (0, 0, reach, reach), mode="reflect")
        lines = lines.view(len(image), self.size, self.outputs, *lines.shape[2:])
        made = lines[:, 0, :, :count].contiguous(memory_format=torch.channels_last)
        for i in range(1, self.size):
            made += lines[:, i, :, i : i + count]
        return made if self.bias is None else made.add_(self.bias[:, None, None])


class Phased(nn.Module):
    """Each pixel repeated 2 x 2, then a 3 x 3 convolution with mirrored border, without making the repeated image.

    The mirrored border of the repeated image is the repeated border of the image.
    """

    even_even: Tensor
    even_odd: Tensor
    odd_even: Tensor
    odd_odd: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        sums = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], dtype=torch.float64)
        weight = conv.weight.detach()
        for row, vertical in enumerate(("even", "odd")):
            for column, horizontal in enumerate(("even", "odd")):
                small = torch.einsum("ia,ocab,jb->ocij", sums[row], weight.double(), sums[column])
                kernel = small.to(weight).contiguous(memory_format=torch.channels_last)
                self.register_buffer(f"{vertical}_{horizontal}", kernel)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> (b, c', 2 y, 2 x), channels last."""
        b, _, rows, columns = image.shape
        padded = functional.pad(image, (1, 1, 1, 1), mode="replicate")
        padded = padded.contiguous(memory_format=torch.channels_last)
        outputs = self.even_even.shape[0]
        made = image.new_empty((b, rows, 2, columns, 2, outputs))
        for i, kernels in enumerate(((self.even_even, self.even_odd), (self.odd_even, self.odd_odd))):
            for j, kernel in enumerate(kernels):
                part = padded[:, :, i : i + rows + 1, j : j + columns + 1]
                made[:, :, i, :, j] = functional.conv2d(part, kernel, self.bias).permute(0, 2, 3, 1)
        return made.view(b, 2 * rows, 2 * columns, outputs).permute(0, 3, 1, 2)


def _fold_norms(layers: nn.Sequential) -> None:
    """Batch norms with fixed statistics become part of the convolution before them."""
    for i in range(len(layers) - 1):
        first, second = layers[i], layers[i + 1]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            layers[i], layers[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()


def is_doubling(layer: nn.Module) -> bool:
    """Whether it repeats each pixel 2 x 2."""
    return isinstance(layer, nn.Upsample) and layer.mode == "nearest" and layer.scale_factor == 2.0


def is_plain(conv: nn.Conv2d) -> bool:
    """Whether it is a 3 x 3 convolution of stride 1 with mirrored border."""
    size = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    return size == ((3, 3), (1, 1), (1, 1), (1, 1)) and conv.groups == 1 and conv.padding_mode == "reflect"


def _is_narrow(conv: nn.Conv2d) -> bool:
    """Whether it is a wide square convolution of stride 1 with mirrored border and few outputs."""
    rows, columns = conv.kernel_size
    plain = (conv.stride, conv.padding, conv.dilation) == ((1, 1), (rows // 2, rows // 2), (1, 1))
    mirrored = conv.groups == 1 and conv.padding_mode == "reflect"
    return rows == columns and rows >= 5 and conv.out_channels <= 4 and conv.in_channels >= 16 and plain and mirrored
