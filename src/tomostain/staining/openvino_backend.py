"""Run a stainer's network in OpenVINO: fp32, bf16, or int8 calibrated on the volume's own tiles."""

from __future__ import annotations

import logging
import warnings
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tomostain._imports import require
from tomostain.learning.ranges import RGBRange
from tomostain.learning.stainer import Stainer
from tomostain.staining.work import Paint

Precision = Literal["f32", "bf16", "int8"]
CALIBRATION_TILES = 24
_CALIBRATION_PX = 192


def openvino_painter(model: Stainer, sample: npt.NDArray[np.float32], *, precision: Precision) -> Paint:
    """A painter of OpenVINO's CPU plugin; a network is compiled for each tile shape that is met.

    Raises
    ------
    ModuleNotFoundError
        OpenVINO, or for int8 NNCF, is not installed.
    """
    openvino: Any = require("openvino", extra="fast")
    unit = torch.from_numpy(model.prepared(sample[:1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it traces by a way that PyTorch calls deprecated
        graph = openvino.convert_model(_Plain(model.net), example_input=unit)
    graph.reshape([-1, model.planes, -1, -1])
    if precision == "int8":
        graph = _quantised(graph, model, sample)
    core = openvino.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled: dict[tuple[int, ...], Any] = {}

    def paint(ct: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        rows, columns = ct.shape[-2:]
        unit = np.ascontiguousarray(model.prepared(ct))
        if unit.shape not in compiled:
            fixed = graph.clone()
            fixed.reshape(list(unit.shape))
            compiled[unit.shape] = core.compile_model(fixed, "CPU", hints).create_infer_request()
        painted = compiled[unit.shape].infer([unit], share_inputs=True, share_outputs=True)[0]
        return RGBRange.from_unit(np.moveaxis(painted[:, :, :rows, :columns], 1, -1))

    return paint


class _Plain(nn.Module):
    """The network in PyTorch's usual memory order: OpenVINO chooses its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(b, planes, y, x) -> (b, colours, y, x)."""
        painted: torch.Tensor = self.net(image)
        return painted


def _quantised(graph: Any, model: Stainer, sample: npt.NDArray[np.float32]) -> Any:
    """8-bit weights and activations, their ranges taken from the sample; the head stays fp32."""
    nncf: Any = require("nncf", extra="fast")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    size = min(_CALIBRATION_PX, *sample.shape[-2:])
    tiles = [np.ascontiguousarray(model.prepared(tile[None, :, :size, :size])) for tile in sample[:CALIBRATION_TILES]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nncf.quantize(
            graph,
            nncf.Dataset(tiles),
            preset=nncf.QuantizationPreset.MIXED,
            fast_bias_correction=True,
            subset_size=len(tiles),
            ignored_scope=nncf.IgnoredScope(patterns=[".*head.*"], validate=False),
        )
