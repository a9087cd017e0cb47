"""PyTorch compiled by its inductor: layers between convolutions are fused into one pass. Needs a C++ compiler."""

from __future__ import annotations

import os
import shutil

import torch

from tomostain.inference.predictor import Calibration, Predictor
from tomostain.inference.torch_backend import predictor_of
from tomostain.learning.stainer import Stainer


def compiled(model: Stainer, calibration: Calibration) -> Predictor:
    """Single precision."""
    return predictor_of(model, torch.compile(model.net, dynamic=False))


def compiled_bf16(model: Stainer, calibration: Calibration) -> Predictor:
    """Products of bfloat16."""
    return predictor_of(model, torch.compile(model.net, dynamic=False), half=True)


def has_compiler() -> bool:
    """Whether a C++ compiler that the inductor can use is found."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name)
