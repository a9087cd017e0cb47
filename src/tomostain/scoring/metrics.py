"""How close a virtual stain comes to the real one: SSIM, PSNR and LPIPS of whole images, inside the mask.

Every metric is called with two (b, 3, y, x) tensors of values in [0, data_range] and an optional mask (b, 1, y, x) or
(y, x): bool, or weights in [0, 1] (mask x confidence). It returns (b,) values. A pixel of weight 0 adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from tomostain.scoring.lpips import Lpips

WINDOW_PX, WINDOW_SIGMA_PX = 11, 1.5
"""SSIM's gaussian window, as published."""

_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales of MS-SSIM, as published."""

HIGHER_IS_BETTER: Mapping[str, bool] = MappingProxyType(
    {"ssim": True, "psnr": True, "lpips": False, "ms_ssim": True, "delta_e": False, "kid": False}
)
"""Which way each metric points; a metric that is not named here is better when higher."""
_NAMES = {"ssim": "SSIM", "psnr": "PSNR (dB)", "lpips": "LPIPS", "ms_ssim": "MS-SSIM", "delta_e": "CIEDE2000"}


def plain_name(metric: str) -> str:
    """A metric as it is written in text; that it was taken after a dye fit is not said."""
    tissue, colon, value = metric.removesuffix("_after_dye_fit").rpartition(": ")
    return f"{tissue}{colon}{_NAMES.get(value, value)}"


def psnr(pred: Tensor, target: Tensor, *, data_range: float, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB: 10 log10(data_range^2 / weighted mean squared error over pixels and channels).

    Infinite where the images are equal.
    """
    pred, target, weight = _checked(pred, target, data_range, mask)
    squared = ((pred - target) ** 2).mean(dim=1, keepdim=True)
    error = (squared * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
    return 10.0 * torch.log10(data_range**2 / error)


def ssim(pred: Tensor, target: Tensor, *, data_range: float, mask: Tensor | None = None) -> Tensor:
    """Structural similarity, mean over pixels and the three channels (Wang, Bovik, Sheikh, Simoncelli, 2004).

    Gaussian window of 11 px (sigma 1.5), K1 0.01, K2 0.03, population covariance, and no value for the outer 5 px,
    where the window leaves the image: without a mask this is the published metric. With a mask the window is the
    gaussian times the weights, normalised, so that local means and variances are those of the pixels that count alone;
    the map is then averaged with the weights.

    Raises
    ------
    ValueError
        As for all metrics, and where nothing is left 5 px from the image border.
    """
    pred, target, weight = _checked(pred, target, data_range, mask)
    return _similarity(pred, target, weight, data_range)[0].mean(dim=1)


def ms_ssim(pred: Tensor, target: Tensor, *, data_range: float, mask: Tensor | None = None) -> Tensor:
    """SSIM over five scales, each half as fine (Wang, Simoncelli, Bovik, 2003), masked as ``ssim`` is.

    Of images below 176 px as many scales are used as they have, with the published exponents scaled to the same sum. A
    negative contrast term counts as 0, as usual. Smaller images are means of 2 x 2 pixels by weight.

    Raises
    ------
    ValueError
        As for ``ssim``.
    """
    pred, target, weight = _checked(pred, target, data_range, mask)
    shortest = min(pred.shape[2:])
    scales = max(1, sum(shortest >> level >= WINDOW_PX for level in range(len(_EXPONENTS))))
    whole_sum = sum(_EXPONENTS)  # 1.0001, as published
    exponents = [exponent * whole_sum / sum(_EXPONENTS[:scales]) for exponent in _EXPONENTS[:scales]]
    product = pred.new_ones(pred.shape[:2])
    for level, exponent in enumerate(exponents):
        whole, contrast = _similarity(pred, target, weight, data_range)
        product = product * (whole if level == scales - 1 else contrast).clamp_min(0.0) ** exponent
        coarse = functional.avg_pool2d(weight, 2)
        pred, target = (functional.avg_pool2d(i * weight, 2) / coarse.clamp_min(1e-9) for i in (pred, target))
        weight = coarse
    return product.mean(dim=1)


def _similarity(pred: Tensor, target: Tensor, weight: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure term of checked images, each (b, 3): means by weight."""
    margin = WINDOW_PX // 2
    counted = weight[..., margin:-margin, margin:-margin]
    if counted.numel() == 0 or not bool((counted.sum(dim=(1, 2, 3)) > 0).all()):
        raise ValueError(f"SSIM needs unmasked pixels at least {margin} px from the image border, there are none")
    share = _blur(weight)
    safe = torch.where(share > 1e-9, share, torch.ones_like(share))
    mean_p, mean_t = _blur(pred * weight) / safe, _blur(target * weight) / safe
    var_p = _blur(pred * pred * weight) / safe - mean_p * mean_p
    var_t = _blur(target * target * weight) / safe - mean_t * mean_t
    shared = _blur(pred * target * weight) / safe - mean_p * mean_t
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    contrast = (2 * shared + c2) / (var_p + var_t + c2)
    whole = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1) * contrast
    total = counted.sum(dim=(2, 3))
    return (whole * counted).sum(dim=(2, 3)) / total, (contrast * counted).sum(dim=(2, 3)) / total


def lpips(
    pred: Tensor, target: Tensor, *, data_range: float, mask: Tensor | None = None, metric: Lpips | None = None
) -> Tensor:
    """LPIPS v0.1 (see ``tomostain.scoring.lpips``), AlexNet unless another ``metric`` is passed; lower is better.

    Raises
    ------
    FileNotFoundError
        The published weights are not on this machine; the message says how to get them.
    """
    pred, target, weight = _checked(pred, target, data_range, mask)
    metric = metric or _alexnet()
    pred, target = (2.0 * image.float() / data_range - 1.0 for image in (pred, target))
    distance: Tensor = metric(pred, target, None if mask is None else weight.float())
    return distance


@cache
def _alexnet() -> Lpips:
    return Lpips.load("alex")


def _checked(pred: Tensor, target: Tensor, data_range: float, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The images in float64 and weights (b, 1, y, x), after the checks that all metrics share."""
    if pred.shape != target.shape or pred.ndim != 4 or pred.shape[1] != 3:
        raise ValueError(f"a metric needs two (b, 3, y, x) images of one shape, got {_size(pred)} and {_size(target)}")
    pred, target = pred.double(), target.double()
    lowest, highest = min(pred.min(), target.min()).item(), max(pred.max(), target.max()).item()
    if not (lowest >= 0.0 and highest <= data_range):  # also refuses NaN
        raise ValueError(f"values must lie in [0, data_range = {data_range:g}], these reach {lowest:g}..{highest:g}")
    if mask is None:
        return pred, target, pred.new_ones((len(pred), 1, *pred.shape[2:]))
    if mask.ndim not in (2, 4) or mask.shape[-2:] != pred.shape[-2:]:
        raise ValueError(f"the mask is {_size(mask)}, the images are {_size(pred)}; it needs their rows and columns")
    weight = mask.to(torch.float64).expand(len(pred), 1, *pred.shape[2:])
    if not (weight.min().item() >= 0.0 and weight.max().item() <= 1.0):
        raise ValueError("the weights of a mask must lie in [0, 1]")
    if not bool((weight.sum(dim=(1, 2, 3)) > 0).all()):
        raise ValueError("the mask leaves no pixel to compare")
    return pred, target, weight


def _blur(x: Tensor) -> Tensor:
    """Gaussian-weighted sums over the windows that lie inside the image: (b, c, y, x) -> (b, c, y - 10, x - 10)."""
    offsets = torch.arange(WINDOW_PX, dtype=x.dtype, device=x.device) - WINDOW_PX // 2
    kernel = torch.exp(-(offsets**2) / (2 * WINDOW_SIGMA_PX**2))
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    x = functional.conv2d(x, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return functional.conv2d(x, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def _size(x: Tensor) -> str:
    return " x ".join(str(n) for n in x.shape)


METRICS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"ssim": ssim, "psnr": psnr, "lpips": lpips, "ms_ssim": ms_ssim}
)
"""Every metric by its name; each is called with ``(pred, target, *, data_range, mask=None)``."""
