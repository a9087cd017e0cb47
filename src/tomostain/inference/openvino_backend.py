"""OpenVINO on a CPU: fp32, bf16, or int8 calibrated on the volume's own tiles."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tomostain._imports import require
from tomostain.inference.predictor import Calibration, Predictor, Tiles
from tomostain.learning.ranges import RGBRange
from tomostain.learning.stainer import Stainer


def openvino_fp32(model: Stainer, calibration: Calibration) -> Predictor:
    """Single precision."""
    return _predictor(model, _converted(model), "f32")


def openvino_bf16(model: Stainer, calibration: Calibration) -> Predictor:
    """Products of bfloat16, on processors that have it."""
    return _predictor(model, _converted(model), "bf16")


def openvino_int8(model: Stainer, calibration: Calibration) -> Predictor:
    """Products of 8-bit integers, their ranges taken from the calibration's tiles (NNCF, after training)."""
    return _predictor(model, _quantised(_converted(model), model, calibration()), "f32")


def _predictor(model: Stainer, graph: Any, precision: str) -> Predictor:
    """One compiled network for tiles of any size: their memory is that of the largest."""
    hints = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = _imported("openvino").Core().compile_model(graph, "CPU", hints).create_infer_request()

    def predict(ct: Tiles) -> npt.NDArray[np.uint8]:
        rows, columns = ct.shape[-2:]
        unit = np.ascontiguousarray(model.prepared(ct))
        stained = request.infer([unit], share_inputs=True, share_outputs=True)[0]
        return RGBRange.from_unit(np.moveaxis(stained[:, :, :rows, :columns], 1, -1))

    return predict


def _converted(model: Stainer) -> Any:
    """The network as OpenVINO's graph, for any number and size of tiles."""
    example = torch.zeros((1, model.planes, 16 * model.stride_px, 16 * model.stride_px))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it traces by a way that PyTorch calls deprecated
        graph = _imported("openvino").convert_model(model.net, example_input=example)
    graph.reshape([-1, model.planes, -1, -1])
    return graph


def _quantised(graph: Any, model: Stainer, calibration: Tiles) -> Any:
    """8-bit weights and activations; the head stays fp32.

    Weights have 7 bits: on processors without VNNI the sum of two products of 8-bit numbers overflows 16 bits.
    """
    nncf = _imported("nncf")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    tiles = [np.ascontiguousarray(model.prepared(tile[None])) for tile in calibration]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nncf.quantize(
            graph,
            nncf.Dataset(tiles),
            preset=nncf.QuantizationPreset.MIXED,
            fast_bias_correction=True,
            subset_size=len(tiles),
            ignored_scope=nncf.IgnoredScope(patterns=[".*head.*"], validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )


def _imported(package: str) -> Any:
    """OpenVINO or NNCF, imported without its usage reports.

    Both give each computer a number and report to Intel over the network, from the moment they are imported, unless
    their package for that cannot be found.
    """
    reporter = "openvino_telemetry"
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == reporter}
    sys.modules[reporter] = None  # type: ignore[assignment]
    try:
        return require(package, extra="int8")
    finally:
        del sys.modules[reporter]
        sys.modules.update(hidden)
