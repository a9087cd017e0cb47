"""Ways to run a stainer's network: each a function that makes a painter, and what it may differ from fp32.

A painter takes CT values (b, planes, y, x), float32, and gives sRGB (b, y, x, 3), uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tomostain.learning.ranges import RGBRange
from tomostain.learning.stainer import Stainer
from tomostain.staining.native import compiler, with_kernel
from tomostain.staining.winograd import OUT_PX, with_fewer_products
from tomostain.staining.work import Paint

Sample = npt.NDArray[np.float32]
"""Tiles of the volume itself, CT values (b, planes, y, x): to measure on, and to calibrate int8 with."""


@dataclass(frozen=True)
class Backend:
    """A way to run a network, and what is held against it before it is used."""

    make: Callable[[Stainer, Sample], Paint]
    most: float
    """Largest difference from fp32 that any colour value of the self-test may show, of 255."""
    mean: float
    """Largest mean difference, of 255."""
    available: Callable[[Stainer], bool]
    """Whether this machine can run it on the stainer's device."""
    asked_for: bool = False
    """Taken only when named: never chosen by the self-test."""
    lattice: bool = False
    """Its rounding depends on the tile: tiles are always those of one lattice over the plane."""
    one_shape: bool = False
    """It is made for one tile shape, and shown no other."""
    align: int = 1
    """Strides of the network at whose multiples its tiles begin."""
    remade: Callable[[nn.Module], nn.Module] = lambda net: net
    """The network as it runs, whose memory is predicted."""


def torch_fp32(model: Stainer, sample: Sample) -> Paint:
    """PyTorch, single precision, channels last: the reference that the others are held against."""
    return _torch_painter(model, model.run)


def winograd(model: Stainer, sample: Sample) -> Paint:
    """PyTorch, single precision, with fewer multiplications (Winograd's convolutions; ``winograd.py``)."""
    return _torch_painter(model, with_fewer_products(model.net))


def native(model: Stainer, sample: Sample) -> Paint:
    """The same in a C++ kernel that is compiled here (``native.py``)."""
    return _torch_painter(model, with_kernel(model.net))


def native_bf16(model: Stainer, sample: Sample) -> Paint:
    """The same kernel with products of bfloat16, on processors that have it; sums and all else in single precision."""
    return _torch_painter(model, with_kernel(model.net, "half"))


def native_int8(model: Stainer, sample: Sample) -> Paint:
    """The same kernel with products of 8-bit integers, scaled cell by cell, on processors with avx512_vnni."""
    return _torch_painter(model, with_kernel(model.net, "byte"))


def torch_bf16(model: Stainer, sample: Sample) -> Paint:
    """PyTorch with bfloat16 convolutions (autocast)."""
    return _torch_painter(model, model.net, autocast=True)


def compiled(model: Stainer, sample: Sample) -> Paint:
    """PyTorch compiled by its inductor, single precision: element-wise layers are fused between convolutions."""
    return _torch_painter(model, torch.compile(model.net, dynamic=False))


def compiled_bf16(model: Stainer, sample: Sample) -> Paint:
    """PyTorch compiled by its inductor, bfloat16 convolutions."""
    return _torch_painter(model, torch.compile(model.net, dynamic=False), autocast=True)


def openvino_fp32(model: Stainer, sample: Sample) -> Paint:
    """OpenVINO, single precision."""
    from tomostain.staining.openvino_backend import openvino_painter

    return openvino_painter(model, sample, precision="f32")


def openvino_bf16(model: Stainer, sample: Sample) -> Paint:
    """OpenVINO, bfloat16, on processors that have it."""
    from tomostain.staining.openvino_backend import openvino_painter

    return openvino_painter(model, sample, precision="bf16")


def openvino_int8(model: Stainer, sample: Sample) -> Paint:
    """OpenVINO, 8-bit integers, calibrated on the sample (NNCF, post-training)."""
    from tomostain.staining.openvino_backend import openvino_painter

    return openvino_painter(model, sample, precision="int8")


def cuda(model: Stainer, sample: Sample) -> Paint:
    """CUDA: bfloat16, channels last, a CUDA graph for each tile shape, copies that overlap the kernels."""
    from tomostain.staining.cuda import CudaPainter

    return CudaPainter(model)


def flags_of_processor() -> frozenset[str]:
    """What the processor can do, in Linux's words; empty where that is not told."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(line.partition(":")[2].split())


def _on_cpu(model: Stainer) -> bool:
    return model.device.type == "cpu"


def _has_bf16(model: Stainer) -> bool:
    return _on_cpu(model) and bool(flags_of_processor() & {"avx512_bf16", "amx_bf16"})


def _has_compiler(model: Stainer) -> bool:
    return _on_cpu(model) and compiler() is not None


def _has_openvino(model: Stainer) -> bool:
    return _on_cpu(model) and find_spec("openvino") is not None


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "torch": Backend(torch_fp32, 0.0, 0.0, lambda model: True),
        "winograd": Backend(winograd, 2.0, 0.02, _on_cpu, lattice=True, align=OUT_PX, remade=with_fewer_products),
        "native": Backend(native, 2.0, 0.02, _has_compiler, lattice=True, align=OUT_PX, remade=with_kernel),
        "native-bf16": Backend(
            native_bf16,
            255.0,
            1.0,
            lambda m: _has_compiler(m) and "avx512_bf16" in flags_of_processor(),
            asked_for=True,
            lattice=True,
            align=OUT_PX,
            remade=partial(with_kernel, products="half"),
        ),
        "native-int8": Backend(
            native_int8,
            255.0,
            1.0,
            lambda m: _has_compiler(m) and "avx512_vnni" in flags_of_processor(),
            asked_for=True,
            lattice=True,
            align=OUT_PX,
            remade=partial(with_kernel, products="byte"),
        ),
        "torch-bf16": Backend(torch_bf16, 16.0, 0.5, _has_bf16, asked_for=True, lattice=True),
        "compile": Backend(compiled, 2.0, 0.02, _has_compiler, lattice=True, one_shape=True),
        "compile-bf16": Backend(
            compiled_bf16,
            16.0,
            0.5,
            lambda m: _has_bf16(m) and _has_compiler(m),
            asked_for=True,
            lattice=True,
            one_shape=True,
        ),
        "openvino": Backend(openvino_fp32, 2.0, 0.02, _has_openvino),
        "openvino-bf16": Backend(openvino_bf16, 16.0, 0.5, lambda m: _has_openvino(m) and _has_bf16(m), asked_for=True),
        "openvino-int8": Backend(
            openvino_int8, 255.0, 1.0, lambda m: _has_openvino(m) and find_spec("nncf") is not None, asked_for=True
        ),
        "cuda": Backend(cuda, 16.0, 0.5, lambda model: model.device.type == "cuda"),
    }
)
"""By name. A plug is one function and one line; the differences are promises that the self-test checks."""


def _torch_painter(model: Stainer, net: Callable[[Tensor], Tensor], *, autocast: bool = False) -> Paint:
    device = model.device

    def paint(ct: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        rows, columns = ct.shape[-2:]
        image = torch.from_numpy(model.prepared(ct)).to(device, memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            painted = net(image)[:, :, :rows, :columns].permute(0, 2, 3, 1).float()
        return RGBRange.from_unit(painted.cpu().numpy())

    return paint
