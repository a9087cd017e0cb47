"""A generator that begins at the colour table: it gives each CT value its best colour and learns what context adds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TONE_LOW, TONE_HIGH, TONE_KNOTS = -3.0, 5.0, 513
"""Unit CT values over which the colours are tabulated; what lies beyond takes the last colour."""
_MOST = 0.99  # tanh never reaches 1: the palest and darkest colours of the table are brought this close to it


def tone_knots() -> Tensor:
    """Unit CT values at which a tone is tabulated, (TONE_KNOTS,) float32."""
    return torch.linspace(TONE_LOW, TONE_HIGH, TONE_KNOTS)


class Toned(nn.Module):
    """Returns tanh(tone + change): the tone is a fixed colour for each CT value, the change is the inner network's.

    The inner network sees the CT planes and the tone's colours, and its last layer begins at zero, so that before the
    first step the stain is the colour table's. With few pairs and steps that leaves the network only to learn what a
    table cannot know: noise, texture, and tissues of equal grey. The tone looks at single pixels: tiles stay exact.

    Parameters
    ----------
    inner
        Generator of ``planes + colours`` channels in, ``colours`` out, unbounded.
    planes, colours
        CT planes in; colours out.
    """

    tone: Tensor

    def __init__(self, inner: nn.Module, planes: int, colours: int) -> None:
        super().__init__()
        self.inner, self.planes = inner, planes
        self.halo_px, self.stride_px, self.tile_exact = inner.halo_px, inner.stride_px, inner.tile_exact
        self.register_buffer("tone", torch.zeros(colours, TONE_KNOTS))
        last = [module for module in inner.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)][-1]
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)

    def set_tone(self, colours: Tensor) -> None:
        """Take the colours (colours, TONE_KNOTS) in [-1, 1] that ``tone_knots`` are coloured with."""
        self.tone.copy_(torch.atanh(colours.clamp(-1.0, 1.0) * _MOST))

    def forward(self, image: Tensor) -> Tensor:
        """(b, planes, y, x) -> (b, colours, y, x) in [-1, 1]."""
        step = (TONE_HIGH - TONE_LOW) / (TONE_KNOTS - 1)
        place = ((image[:, self.planes // 2] - TONE_LOW) / step).clamp(0.0, TONE_KNOTS - 1.001)
        first = place.floor()
        share = place - first
        index = first.long()
        tone = self.tone[:, index] * (1.0 - share) + self.tone[:, index + 1] * share
        tone = tone.transpose(0, 1)
        change: Tensor = self.inner(torch.cat([image, torch.tanh(tone)], dim=1))
        return torch.tanh(tone + change)
