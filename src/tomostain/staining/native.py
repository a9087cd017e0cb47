"""The same network with Winograd's convolutions in a small C++ kernel, compiled here for the processor at hand.

``winograd.py`` says what is saved. PyTorch's own operations make each step a walk through memory; the kernel
(``native.cpp``) keeps a group of cells in the caches from transform to transform, mirrors the border and adds bias and
ReLU on the way. Enlargement by repetition is read in place, and 11 of 36 products vanish in it.

Products are of single precision, of bfloat16, or of 8-bit integers. For these each of a cell's 36 transformed pixels
is scaled by its own largest value, and each product's filters by theirs, so that nothing is calibrated on other data
and no cell's rounding depends on another's; sums are exact integers.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from tomostain.learning.nets.resnet import ResidualBlock
from tomostain.staining.inference import fold, is_doubling, is_plain, without_copies
from tomostain.staining.striped import in_strips
from tomostain.staining.winograd import winograd_filters

_SOURCE = Path(__file__).with_name("native.cpp")
_FEWEST_CHANNELS = 64
_PLAIN, _POSITIVE, _ADDED = range(3)
Products = Literal["single", "half", "byte"]
"""What is multiplied in the kernel: fp32; bfloat16, on processors with avx512_bf16; int8, with avx512_vnni."""
_AT_ONCE = {"single": 1, "half": 2, "byte": 4}
"""Channels that one instruction multiplies and adds up."""
_MOST = 127
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-pthread")


def compiler() -> str | None:
    """The C++ compiler that is used: ``$CXX``, or the first that is found."""
    named = os.environ.get("CXX")
    return named if named and shutil.which(named) else next(filter(shutil.which, _COMPILERS), None)


@lru_cache(maxsize=1)
def kernel() -> ctypes.CDLL:
    """The kernel, compiled once a process (a second or two).

    Raises
    ------
    OSError
        There is no compiler, or it fails.
    """
    found = compiler()
    if found is None:
        raise OSError("there is no C++ compiler here (c++, g++ or clang++)")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "native.so"
        done = subprocess.run(
            [found, *_FLAGS, "-o", str(made), str(_SOURCE)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(f"{found} cannot compile the kernel: {' '.join(done.stderr.split())[:300]}")
        library = ctypes.CDLL(str(made))
    pointer, number, count = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    for name in map(_entry, _AT_ONCE):
        if hasattr(library, name):  # bfloat16 and int8 only where the processor has them
            image, filters = (pointer, number, number, number, count), (pointer, pointer, pointer)
            getattr(library, name).argtypes = [*image, *filters, pointer, count, pointer, number, count]
    return library


def with_kernel(net: nn.Module, products: Products = "single") -> nn.Module:
    """A copy of a network whose wide 3 x 3 convolutions run in the kernel."""
    net = fold(net)
    for module in list(net.modules()):
        if isinstance(module, nn.Sequential):
            _replace(module, products)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ResidualBlock) and isinstance(_last(child), Kernel):
                setattr(module, name, Added(child))
    return in_strips(without_copies(net), half=products != "single")


class Kernel(nn.Module):
    """A 3 x 3 convolution of stride 1 with mirrored border, of the image or of each pixel repeated 2 x 2; then ReLU."""

    panels: Tensor
    scales: Tensor | None
    offsets: Tensor | None
    bias: Tensor | None

    def __init__(
        self, conv: nn.Conv2d, *, doubled: bool = False, positive: bool = False, products: Products = "single"
    ) -> None:
        super().__init__()
        self.doubled, self.positive, self.products = doubled, positive, products
        filters, scales, offsets = winograd_filters(conv, doubled=doubled), None, None
        if products == "byte":
            scales = filters.abs().amax(dim=1).clamp_min(torch.finfo(filters.dtype).tiny) / _MOST
            filters = (filters / scales[:, None]).round()
            offsets = (-(_MOST + 1) * filters.sum(dim=1)).to(torch.int32)
        split = filters.view(len(filters), -1, _AT_ONCE[products], conv.out_channels // _wide(), _wide())
        kept = {"single": filters.dtype, "half": torch.bfloat16, "byte": torch.int8}[products]
        self.register_buffer("panels", split.permute(0, 3, 1, 4, 2).contiguous().to(kept))
        self.register_buffer("scales", scales)
        self.register_buffer("offsets", offsets)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().contiguous())
        self.outputs = conv.out_channels

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> (b, c', y, x), or twice its rows and columns; channels last.

        Raises
        ------
        MemoryError
            There is none for the kernel's scratch.
        """
        size = (len(image), self.outputs, image.shape[2] << self.doubled, image.shape[3] << self.doubled)
        made = torch.empty(size, dtype=image.dtype, device=image.device, memory_format=torch.channels_last)
        return self._run(image, made, _POSITIVE if self.positive else _PLAIN)

    def add_to(self, sums: Tensor, image: Tensor) -> Tensor:
        """Add the convolution of ``image`` to ``sums``, in place."""
        return self._run(image, sums, _ADDED)

    def _run(self, image: Tensor, made: Tensor, finish: int) -> Tensor:
        if image.is_meta:
            return made
        image = image.contiguous(memory_format=torch.channels_last)
        _, channels, rows, columns = image.shape
        filters = (self.panels.data_ptr(), _place(self.scales), _place(self.offsets))
        run, threads = getattr(kernel(), _entry(self.products)), torch.get_num_threads()
        for seen, painted in zip(image, made, strict=True):
            known = (seen.data_ptr(), rows, columns, channels, int(self.doubled))
            wanted = (_place(self.bias), finish, painted.data_ptr(), self.outputs, threads)
            if run(*known, *filters, *wanted):
                raise MemoryError("out of memory in a convolution")
        return made


class Added(nn.Module):
    """A residual block whose second convolution is added to what came in, in its place: one image less in memory."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.before, last = block.body[:-1], _last(block)
        assert isinstance(last, Kernel)
        self.last: Kernel = last

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> the same tensor, changed."""
        return self.last.add_to(image, self.before(image))


def _replace(layers: nn.Sequential, products: Products) -> None:
    """Convolutions that gain become the kernel, with the enlargement before and the ReLU behind them."""
    for i, layer in enumerate(layers):
        if not (isinstance(layer, nn.Conv2d) and is_plain(layer) and _fits(layer)):
            continue
        doubled = i > 0 and is_doubling(layers[i - 1])
        behind = next((k for k in range(i + 1, len(layers)) if not isinstance(layers[k], nn.Identity)), None)
        positive = behind is not None and isinstance(layers[behind], nn.ReLU)
        layers[i] = Kernel(layer, doubled=doubled, positive=positive, products=_of(products, doubled))
        if doubled:
            layers[i - 1] = nn.Identity()
        if behind is not None and positive:
            layers[behind] = nn.Identity()


def _of(products: Products, doubled: bool) -> Products:
    """Layers that enlarge stand close before the colours: their products stay bfloat16 where the processor has it."""
    return "half" if products == "byte" and doubled and hasattr(kernel(), _entry("half")) else products


def _last(block: ResidualBlock) -> nn.Module:
    """The second convolution of a block."""
    return next(block.body[-1].children())


def _fits(conv: nn.Conv2d) -> bool:
    fitting = conv.in_channels % _wide() == 0 == conv.out_channels % _wide()
    return fitting and conv.in_channels >= _FEWEST_CHANNELS


def _entry(products: str) -> str:
    """The kernel's function for products of a kind."""
    return f"winograd_{products}"


def _place(values: Tensor | None) -> int | None:
    """Where they are in memory."""
    return None if values is None else values.data_ptr()


def _wide() -> int:
    """Outputs of a panel, by which channels are shared out."""
    return int(kernel().winograd_panel())
