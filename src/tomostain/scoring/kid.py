"""Kernel inception distance: how far apart two sets of pictures are, as distributions of a network's features.

Bińkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", 2018. Its estimate has no bias, however few the pictures
are, where that of the Fréchet distance (FID) has, below some thousands. The published KID takes features of
Inception-v3; here they are those of the network of LPIPS, so that values compare methods of one experiment and not with
other papers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tomostain.scoring.lpips import Lpips

FEATURES = "means and standard deviations of the last layer of LPIPS' AlexNet, in tiles of 64 px"
"""What the distances are computed from."""
_TILE_PX = 64


def features(picture: npt.NDArray[np.uint8], weight: npt.NDArray[np.float32], metric: Lpips) -> npt.NDArray[np.float64]:
    """Features (tiles, n) of a picture (y, x, 3) uint8: of each whole tile of 64 px that is not mostly masked.

    Masked pixels are mid grey. A tile's features are each channel's mean and standard deviation over its pixels.
    """
    unit = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1.0).permute(2, 0, 1)
    unit = torch.where(torch.from_numpy(weight > 0), unit, torch.zeros(()))
    rows, columns = (side // _TILE_PX for side in picture.shape[:2])
    tiles: list[Tensor] = []
    for row in range(rows):
        for column in range(columns):
            at = np.s_[row * _TILE_PX : (row + 1) * _TILE_PX, column * _TILE_PX : (column + 1) * _TILE_PX]
            if (weight[at] > 0).mean() > 0.5:
                tiles.append(unit[(slice(None), *at)])
    if not tiles:
        return np.zeros((0, 1))
    with torch.inference_mode():
        maps = (torch.stack(tiles) - metric.shift) / metric.scale
        maps = metric.features(maps)
        found = torch.cat([maps.mean(dim=(2, 3)), maps.std(dim=(2, 3))], dim=1)
    return found.double().numpy()


def kernel_distance(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """Unbiased squared maximum mean discrepancy of (n, d) and (m, d) features under (x . y / d + 1)^3.

    It may be negative where the sets are of one distribution.

    Raises
    ------
    ValueError
        A set has fewer than two members.
    """
    n, m = len(first), len(second)
    if min(n, m) < 2:
        raise ValueError(f"a kernel distance needs two pictures on each side, there are {n} and {m}")
    within_first, within_second = _kernel(first, first), _kernel(second, second)
    own = (within_first.sum() - np.trace(within_first)) / (n * (n - 1))
    own += (within_second.sum() - np.trace(within_second)) / (m * (m - 1))
    return float(own - 2.0 * _kernel(first, second).mean())


def stacked(parts: Iterable[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """The features of several pictures as one set; (0, 1) where no picture has a tile."""
    found = [part for part in parts if len(part)]
    return np.concatenate(found) if found else np.zeros((0, 1))


def _kernel(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = (first @ second.T / first.shape[1] + 1.0) ** 3
    return result
