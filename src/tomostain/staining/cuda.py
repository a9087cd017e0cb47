"""Run a stainer's network on a GPU: bfloat16, channels last, one CUDA graph for each tile shape, pinned copies."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tomostain.learning.stainer import Stainer

_WARM_CALLS = 3
_CAPTURE = threading.Lock()
"""A graph is captured while no other thread captures one."""


@dataclass(frozen=True, eq=False)
class _Captured:
    """The fixed buffers of one shape and the graph that works on them."""

    host_in: Tensor
    host_out: Tensor
    graph: Any
    """Copies in, network, colours, copies out: one replay."""


class CudaPainter:
    """Paints batches of tiles on one GPU; several painters on one GPU, each in its thread, overlap copies and kernels.

    A batch is filled up to the size first met for its tile shape, so that each shape has one graph.
    """

    def __init__(self, model: Stainer) -> None:
        self._model, self._device = model, model.device
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._captured: dict[tuple[int, ...], _Captured] = {}

    def __call__(self, ct: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """CT values (b, planes, y, x) -> sRGB (b, y, x, 3)."""
        rows, columns = ct.shape[-2:]
        unit = torch.from_numpy(self._model.prepared(ct))
        shape = tuple(unit.shape[1:])
        if shape not in self._captured or len(self._captured[shape].host_in) < len(unit):
            self._captured[shape] = self._capture(unit)
        held = self._captured[shape]
        held.host_in[: len(unit)].copy_(unit)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            held.graph.replay()
        self._stream.synchronize()
        return held.host_out[: len(unit), :rows, :columns].numpy().copy()

    def _capture(self, unit: Tensor) -> _Captured:
        with _CAPTURE, torch.inference_mode(), torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            host_in = torch.empty(unit.shape, pin_memory=True).copy_(unit)
            image = torch.empty_like(host_in, device=self._device, memory_format=torch.channels_last)
            host_out = torch.empty((len(unit), *unit.shape[-2:], 3), dtype=torch.uint8, pin_memory=True)
            for _ in range(_WARM_CALLS):
                self._paint(host_in, image, host_out)
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._paint(host_in, image, host_out)
        return _Captured(host_in, host_out, graph)

    def _paint(self, host_in: Tensor, image: Tensor, host_out: Tensor) -> None:
        image.copy_(host_in, non_blocking=True)
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            painted = self._model.net(image)
        level = ((painted.float() + 1.0) * 127.5).clamp(0.0, 255.0).add(0.5).floor()
        host_out.copy_(level.permute(0, 2, 3, 1).to(torch.uint8), non_blocking=True)
