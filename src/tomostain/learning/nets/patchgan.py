"""PatchGAN discriminator (Isola et al. 2017): one verdict per patch of the image."""

from __future__ import annotations

from torch import Tensor, nn

from tomostain.learning.nets.layers import Norm, norm_layer


class PatchGAN(nn.Module):
    """4 x 4 convolutions, the first ``depth`` of them strided; with ``depth`` 3 each verdict sees 70 x 70 px.

    Depth 2 sees 34 px, depth 1 sees 16 px. Its norm may look at the whole patch (``instance``, Zhu et al. 2017): a
    discriminator never meets a tile.
    """

    def __init__(self, in_channels: int, *, width: int = 64, depth: int = 3, norm: Norm = "instance") -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = in_channels
        for level in range(depth + 1):
            channels = width * min(2**level, 8)
            layers.append(nn.Conv2d(before, channels, 4, 2 if level < depth else 1, 1))
            layers += [norm_layer(norm, channels) if level else nn.Identity(), nn.LeakyReLU(0.2)]
            before = channels
        self.body = nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, y, x) -> verdicts (b, 1, y', x'): towards 1 for real, 0 for generated (least squares, no sigmoid)."""
        verdict: Tensor = self.body(image)
        return verdict
