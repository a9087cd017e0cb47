"""A discriminator that sees every image varied, real and generated alike: few pairs cannot be learnt by heart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SHIFT, _HOLE = 8, 2
"""Images are moved by up to 1/8 of their edge and lose a square of 1/2 of it, as in Zhao et al."""


class Varied(nn.Module):
    """Differentiable augmentation (Zhao et al. 2020): brightness, a shift, and a hole, drawn for each image.

    The variations are differentiable, so that the generator learns through them. They are drawn from torch's generator,
    which the training sets for each step.
    """

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> verdicts of the discriminator on the varied images."""
        verdict: Tensor = self.discriminator(varied(image))
        return verdict


def varied(image: Tensor) -> Tensor:
    """(b, c, y, x) -> the same shape: brighter or darker by up to 0.25, shifted (0 comes in), with a hole of 0."""
    batch, _, rows, columns = image.shape
    brightness = (torch.rand(batch, 1, 1, 1) - 0.5).to(image) * 0.5
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    out = []
    for one in image + brightness:
        down, right = (int(torch.randint(-(n // _SHIFT), n // _SHIFT + 1, ())) for n in (rows, columns))
        top, left = (int(torch.randint(0, n, ())) for n in (rows, columns))
        seen = (y - down >= 0) & (y - down < rows) & (x - right >= 0) & (x - right < columns)
        seen &= ~(((y - top) % rows < rows // _HOLE) & ((x - left) % columns < columns // _HOLE))
        out.append(torch.roll(one, (down, right), (1, 2)) * seen.to(one))
    return torch.stack(out)
