"""Metrics are the published ones, and a masked pixel is never seen."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from tomostain.scoring.lpips import Lpips
from tomostain.scoring.metrics import METRICS, lpips, ms_ssim, psnr, ssim


def _images(seed: int = 0, *, shape: tuple[int, int] = (60, 47), images: int = 2) -> tuple[Tensor, Tensor]:
    """Two uint8-valued pictures that resemble each other."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, size=(images, 3, -(-shape[0] // 6), -(-shape[1] // 6)))
    target = np.kron(coarse, np.ones((1, 1, 6, 6)))[..., : shape[0], : shape[1]]
    pred = np.clip(np.round(0.8 * target + 20 + rng.normal(0, 9, target.shape)), 0, 255)
    return torch.from_numpy(pred), torch.from_numpy(target)


def _ragged_mask(seed: int, shape: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape) > 0.3)


def _untrained_lpips() -> Lpips:
    torch.manual_seed(7)
    metric = Lpips("alex")
    for head in range(5):
        weight = metric.get_submodule(f"lin{head}.model.1").weight
        assert isinstance(weight, Tensor)
        weight.abs_()
    return metric


def _known_ssim(pred: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> float:
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(pred, target, data_range=255, channel_axis=0, **wang))


def _known_psnr(pred: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> float:
    return float(peak_signal_noise_ratio(target, pred, data_range=255))


ALL: list[Callable[..., Tensor]] = [ssim, ms_ssim, psnr, functools.partial(lpips, metric=_untrained_lpips())]


def test_ssim_is_that_of_wang_et_al_where_nothing_is_masked() -> None:
    pred, target = _images()
    ours = ssim(pred, target, data_range=255)
    known = [_known_ssim(p.numpy(), t.numpy()) for p, t in zip(pred, target, strict=True)]
    assert ours.tolist() == pytest.approx(known, abs=1e-12)


def test_psnr_is_the_known_one_where_nothing_is_masked() -> None:
    pred, target = _images(1)
    known = [_known_psnr(p.numpy(), t.numpy()) for p, t in zip(pred, target, strict=True)]
    assert psnr(pred, target, data_range=255).tolist() == pytest.approx(known, abs=1e-10)


def test_psnr_of_a_known_error() -> None:
    target = torch.full((1, 3, 4, 4), 100.0)
    pred = target.clone()
    pred[..., 0, :] += 51.0
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0] = True
    assert psnr(pred, target, data_range=255, mask=mask).item() == pytest.approx(20 * np.log10(5), abs=1e-9)
    assert psnr(pred, target, data_range=255).item() == pytest.approx(20 * np.log10(10), abs=1e-9)


@pytest.mark.parametrize("metric", ALL, ids=["ssim", "ms_ssim", "psnr", "lpips"])
def test_masked_pixels_add_nothing_whatever_they_hold(metric: Callable[..., Tensor]) -> None:
    pred, target = _images(2)
    mask = _ragged_mask(2, (60, 47))
    before = metric(pred, target, data_range=255, mask=mask)
    for value_p, value_t in ((0.0, 255.0), (255.0, 0.0), (13.0, 13.0)):
        pred[..., ~mask], target[..., ~mask] = value_p, value_t
        assert metric(pred, target, data_range=255, mask=mask).tolist() == before.tolist()
    pred[:, :, 30, 20] = 255.0 - target[:, :, 30, 20]
    mask[30, 20] = True
    assert metric(pred, target, data_range=255, mask=mask).tolist() != before.tolist()


@pytest.mark.parametrize("metric", ALL, ids=["ssim", "ms_ssim", "psnr", "lpips"])
def test_a_mask_of_ones_is_no_mask_and_equal_weights_are_too(metric: Callable[..., Tensor]) -> None:
    pred, target = _images(3)
    bare = metric(pred, target, data_range=255).tolist()
    for weight in (torch.ones(60, 47, dtype=torch.bool), torch.full((2, 1, 60, 47), 0.37)):
        assert metric(pred, target, data_range=255, mask=weight).tolist() == pytest.approx(bare, abs=1e-6)


@pytest.mark.parametrize("metric", ALL, ids=["ssim", "ms_ssim", "psnr", "lpips"])
def test_metrics_do_not_depend_on_the_unit_of_the_values(metric: Callable[..., Tensor]) -> None:
    pred, target = _images(4)
    in_bytes = metric(pred, target, data_range=255)
    in_units = metric(pred / 255, target / 255, data_range=1.0)
    assert in_units.tolist() == pytest.approx(in_bytes.tolist(), abs=1e-5)


@pytest.mark.parametrize("metric", ALL, ids=["ssim", "ms_ssim", "psnr", "lpips"])
def test_a_less_trusted_error_weighs_less(metric: Callable[..., Tensor]) -> None:
    pred, target = _images(5, images=1)
    pred = target.clone()
    pred[..., 20:40, 15:30] = 255 - target[..., 20:40, 15:30]
    trusted, doubted = torch.ones(60, 47), torch.ones(60, 47)
    doubted[20:40, 15:30] = 0.2
    sign = -1.0 if metric in (ssim, ms_ssim, psnr) else 1.0
    full = sign * metric(pred, target, data_range=255, mask=trusted)
    assert (sign * metric(pred, target, data_range=255, mask=doubted) < full).all()


def test_equal_images_score_perfectly() -> None:
    _, target = _images(6)
    assert ssim(target, target, data_range=255).tolist() == pytest.approx([1.0, 1.0], abs=1e-12)
    assert ms_ssim(target, target, data_range=255).tolist() == pytest.approx([1.0, 1.0], abs=1e-12)
    assert psnr(target, target, data_range=255).tolist() == [float("inf")] * 2
    assert ALL[3](target, target, data_range=255).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("metric", ALL, ids=["ssim", "ms_ssim", "psnr", "lpips"])
def test_what_cannot_be_compared_is_refused(metric: Callable[..., Tensor]) -> None:
    pred, target = _images(7)
    with pytest.raises(ValueError, match="leaves no pixel"):
        metric(pred, target, data_range=255, mask=torch.zeros(60, 47, dtype=torch.bool))
    with pytest.raises(ValueError, match="of one shape"):
        metric(pred[..., :-1], target, data_range=255)
    with pytest.raises(ValueError, match="rows and columns"):
        metric(pred, target, data_range=255, mask=torch.ones(47, 60))
    with pytest.raises(ValueError, match="data_range"):
        metric(pred, target, data_range=1.0)
    with pytest.raises(ValueError, match="data_range"):
        metric(pred * float("nan"), target, data_range=255)
    with pytest.raises(TypeError):
        metric(pred, target)


def test_ssim_refuses_a_mask_that_leaves_only_the_border() -> None:
    pred, target = _images(8)
    mask = torch.zeros(60, 47, dtype=torch.bool)
    mask[:5] = True
    with pytest.raises(ValueError, match="from the image border"):
        ssim(pred, target, data_range=255, mask=mask)


def test_the_table_of_metrics_names_all_of_them() -> None:
    assert dict(METRICS) == {"ssim": ssim, "psnr": psnr, "lpips": lpips, "ms_ssim": ms_ssim}


def _ms_ssim_by_hand(pred: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> float:
    """MS-SSIM of one channel over five scales, its parts from scikit-image's maps."""
    product = 1.0
    for level, exponent in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        whole = structural_similarity(pred, target, full=True, **wang)[1]
        # with K2 so large that its term is 1, what is left is the luminance term
        luminance = structural_similarity(pred, target, full=True, K2=1e9, **wang)[1]
        inner = np.s_[5:-5, 5:-5]
        product *= (whole if level == 4 else whole / luminance)[inner].mean() ** exponent
        even = (pred.shape[0] // 2 * 2, pred.shape[1] // 2 * 2)
        halves = (i[: even[0], : even[1]].reshape(even[0] // 2, 2, even[1] // 2, 2) for i in (pred, target))
        pred, target = (half.mean((1, 3)) for half in halves)
    return float(product)


def test_ms_ssim_is_that_of_wang_et_al_where_nothing_is_masked() -> None:
    pred, target = _images(5, shape=(192, 208), images=1)
    known = np.mean([_ms_ssim_by_hand(p.numpy(), t.numpy()) for p, t in zip(pred[0], target[0], strict=True)])
    assert ms_ssim(pred, target, data_range=255).item() == pytest.approx(known, abs=1e-6)


def test_ms_ssim_of_small_pictures_takes_the_scales_that_they_have() -> None:
    pred, target = _images(6, shape=(20, 40), images=1)
    assert ms_ssim(pred, target, data_range=255).item() == pytest.approx(
        ssim(pred, target, data_range=255).item(), abs=1e-4
    )
    pred, target = _images(6, shape=(48, 64))
    assert bool((ms_ssim(pred, target, data_range=255) < 1.0).all())
