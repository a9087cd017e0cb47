"""The table of backends: name -> how a network is run, and what its colours may differ by."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType

from tomostain.inference.bounds import BF16, FP32, INT8
from tomostain.inference.compile_backend import compiled, compiled_bf16, has_compiler
from tomostain.inference.cuda_backend import BATCH, cuda
from tomostain.inference.openvino_backend import openvino_bf16, openvino_fp32, openvino_int8
from tomostain.inference.predictor import Backend, Bound
from tomostain.inference.torch_backend import torch_fp32
from tomostain.learning.stainer import Stainer


def processor_flags() -> frozenset[str]:
    """Instruction sets of the processor, by Linux's names; empty where the system does not list them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(line.partition(":")[2].split())


def _on_cpu(model: Stainer) -> bool:
    return model.device.type == "cpu"


def _has_bf16(model: Stainer) -> bool:
    """Whether there is bfloat16, and oneDNN is not limited to less: OpenVINO would return empty arrays."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    allowed = limit in ("", "DEFAULT", "ALL") or any(name in limit for name in ("BF16", "FP16", "AMX"))
    return _on_cpu(model) and allowed and bool(processor_flags() & {"avx512_bf16", "amx_bf16"})


def _has_compiler(model: Stainer) -> bool:
    return _on_cpu(model) and has_compiler()


def _has_openvino(model: Stainer) -> bool:
    return _on_cpu(model) and find_spec("openvino") is not None


def _has_nncf(model: Stainer) -> bool:
    return _has_openvino(model) and find_spec("nncf") is not None


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "torch": Backend(torch_fp32, Bound(0.0, 0), lambda model: True),
        "openvino": Backend(openvino_fp32, FP32, _has_openvino),
        "openvino-bf16": Backend(openvino_bf16, BF16, lambda m: _has_openvino(m) and _has_bf16(m)),
        "openvino-int8": Backend(openvino_int8, INT8, _has_nncf, by_name_only=True),
        "compile": Backend(compiled, FP32, _has_compiler, one_shape=True),
        "compile-bf16": Backend(compiled_bf16, BF16, lambda m: _has_compiler(m) and _has_bf16(m), one_shape=True),
        "cuda": Backend(cuda, BF16, lambda model: model.device.type == "cuda", one_shape=True, batch=BATCH),
    }
)
"""By name. A backend of your own is one function and one line here."""
