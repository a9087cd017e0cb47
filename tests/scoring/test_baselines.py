"""The baselines are as strong as they claim, and survive the disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tomostain.scoring.baselines import ColourTable, MeanColour, fit_baselines, load_baselines, save_baselines


@dataclass(frozen=True)
class Sample:
    ct: npt.NDArray[Any]
    stain: npt.NDArray[Any]
    weight: npt.NDArray[Any]


@dataclass(frozen=True)
class Range:
    low: float
    high: float


def _noisy(seed: int, *, weight: float = 1.0) -> Sample:
    """A smooth law from intensity to colour, with noise on both, 160 x 200 px."""
    rng = np.random.default_rng(seed)
    ct = rng.gamma(2.0, 0.7, size=(3, 160, 200)).astype(np.float32)
    plane = ct[1]
    colour = np.stack([200 - 40 * plane, 120 + 50 * np.sin(2 * plane), 80 + 20 * plane], axis=-1)
    stain = np.clip(colour + rng.normal(0, 12, colour.shape), 0, 255).astype(np.uint8)
    return Sample(ct, stain, np.full(plane.shape, weight, dtype=np.float32))


def _squared_error(table: Any, sample: Sample) -> float:
    return float(((table(sample.ct).astype(float) - sample.stain) ** 2).mean())


def test_the_table_has_less_error_than_the_means_of_256_bins() -> None:
    train = _noisy(0)
    table = fit_baselines([train], Range(0.0, 6.0))["colour table"]
    edges = np.quantile(train.ct[1], np.linspace(0, 1, 257))
    which = np.clip(np.searchsorted(edges, train.ct[1], side="right") - 1, 0, 255)
    sums = np.stack([np.bincount(which.ravel(), train.stain[..., i].ravel(), 256) for i in range(3)], axis=1)
    means = sums / np.bincount(which.ravel(), minlength=256)[:, None]
    binned = float(((np.floor(means[which] + 0.5) - train.stain) ** 2).mean())
    assert _squared_error(table, train) <= binned * 1.0005


def test_the_table_generalises_to_pixels_it_has_not_seen() -> None:
    table = fit_baselines([_noisy(0), _noisy(1)], Range(0.0, 6.0))["colour table"]
    assert _squared_error(table, _noisy(2)) == pytest.approx(_squared_error(table, _noisy(0)), rel=0.03)


def test_eight_bit_intensities_take_exactly_their_mean_colour() -> None:
    rng = np.random.default_rng(3)
    ct = rng.integers(0, 9, size=(1, 90, 90)).astype(np.float32)
    stain = rng.integers(0, 256, size=(90, 90, 3)).astype(np.uint8)
    table = fit_baselines([Sample(ct, stain, np.ones((90, 90), np.float32))], Range(0.0, 8.0))["colour table"]
    for value in range(9):
        mean = stain[ct[0] == value].mean(axis=0)
        predicted = table(np.full((1, 1, 1), value, np.float32))[0, 0].astype(float)
        assert np.abs(predicted - mean).max() <= 0.51


def test_pixels_of_no_weight_and_half_weight_count_so() -> None:
    ct = np.zeros((1, 1, 3), np.float32)
    stain = np.asarray([[[100] * 3, [40] * 3, [255] * 3]], np.uint8)
    pair = Sample(ct, stain, np.asarray([[1.0, 0.5, 0.0]], np.float32))
    both = fit_baselines([pair], Range(0.0, 1.0))
    assert both["colour table"](ct)[0, 0].tolist() == [80, 80, 80]
    assert both["mean colour"](ct)[0, 2].tolist() == [80, 80, 80]


def test_a_gap_between_intensities_is_bridged_by_a_straight_line() -> None:
    ct = np.asarray([[[0.0, 10.0]]], np.float32)
    stain = np.asarray([[[0, 0, 0], [200, 100, 50]]], np.uint8)
    table = fit_baselines([Sample(ct, stain, np.ones((1, 2), np.float32))], Range(0.0, 10.0))["colour table"]
    assert table(np.full((1, 1, 1), 5.0, np.float32))[0, 0].tolist() == pytest.approx([100, 50, 25], abs=1)


def test_the_central_plane_of_a_slab_is_coloured_and_the_ends_hold_beyond_the_range() -> None:
    table = ColourTable(np.asarray([0.0, 1.0]), np.asarray([[0.0, 0.0, 0.0], [200.0, 100.0, 50.0]]))
    slab = np.stack([np.full((2, 2), 9.0), np.asarray([[-5.0, 0.5], [7.0, np.nan]]), np.full((2, 2), 9.0)])
    predicted = table(slab.astype(np.float32))
    assert predicted.tolist() == [[[0, 0, 0], [100, 50, 25]], [[200, 100, 50], [0, 0, 0]]]


def test_baselines_come_back_from_disk_bit_for_bit(tmp_path: Path) -> None:
    sample = _noisy(5)
    fitted = fit_baselines([sample], Range(0.0, 6.0))
    save_baselines(fitted, tmp_path)
    loaded = load_baselines(tmp_path)
    for name, baseline in fitted.items():
        np.testing.assert_array_equal(loaded[name](sample.ct), baseline(sample.ct))
    assert isinstance(loaded["mean colour"], MeanColour)


def test_missing_and_damaged_baselines_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no baselines\.json"):
        load_baselines(tmp_path)
    save_baselines(fit_baselines([_noisy(5)], Range(0.0, 6.0)), tmp_path)
    file = tmp_path / "baselines.json"
    text = json.loads(file.read_text())
    text["colour table"]["intensities"][0] = 1e9
    file.write_text(json.dumps(text))
    with pytest.raises(ValueError, match=r"baselines\.json is damaged"):
        load_baselines(tmp_path)
    file.write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        load_baselines(tmp_path)


def test_nothing_to_fit_on_is_an_error() -> None:
    empty = Sample(np.ones((1, 2, 2), np.float32), np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="no training pair"):
        fit_baselines([empty], Range(0.0, 1.0))
