"""PyTorch, single precision, channels last: the reference that the other backends are compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tomostain.inference.predictor import Calibration, Predictor, Tiles
from tomostain.learning.ranges import RGBRange
from tomostain.learning.stainer import Stainer


def torch_fp32(model: Stainer, calibration: Calibration) -> Predictor:
    """The network as it was trained."""
    return predictor_of(model, model.run)


def predictor_of(
    model: Stainer, net: Callable[[Tensor], Tensor], *, half: bool = False, batch: int | None = None
) -> Predictor:
    """A predictor that runs ``net`` on the stainer's device; ``half``: with bfloat16 products (autocast).

    With ``batch``, fewer tiles are filled up to that many: the network sees one batch size only.
    """
    device = model.device

    def predict(ct: Tiles) -> npt.NDArray[np.uint8]:
        count, (rows, columns) = len(ct), ct.shape[-2:]
        if batch is not None and count < batch:
            ct = np.concatenate([ct, np.repeat(ct[-1:], batch - count, axis=0)])
        image = torch.from_numpy(model.prepared(ct)).to(device, memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            stained = net(image)[:count, :, :rows, :columns].permute(0, 2, 3, 1).float()
        return RGBRange.from_unit(stained.cpu().numpy())

    return predict
