"""A GPU: bfloat16 products, channels last, compiled by PyTorch's inductor where that works and eager where it does not.

It has not been run on a GPU yet.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from tomostain.inference.predictor import Calibration, Predictor
from tomostain.inference.torch_backend import predictor_of
from tomostain.learning.stainer import Stainer

BATCH = 8
"""Planes of a tile in the network at once: more than one fills a GPU better."""


def cuda(model: Stainer, calibration: Calibration) -> Predictor:
    """The network on the stainer's device, always with a batch of ``BATCH``."""
    return predictor_of(model, CompiledOrEager(model.net), half=True, batch=BATCH)


class CompiledOrEager:
    """A network that is compiled when it is first called; if that fails, it is run as it is, and a warning says so."""

    def __init__(self, net: torch.nn.Module) -> None:
        self._eager = net
        self._compiled = torch.compile(net, dynamic=False)
        self.fell_back = False

    def __call__(self, image: Tensor) -> Tensor:
        """(b, planes, y, x) -> (b, colours, y, x)."""
        if not self.fell_back:
            try:
                found: Tensor = self._compiled(image)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # the compilers behind the inductor raise errors of many kinds
                self.fell_back = True
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                warnings.warn(f"torch.compile fails here, the network runs without it: {reason}", stacklevel=2)
            else:
                return found
        found = self._eager(image)
        return found
