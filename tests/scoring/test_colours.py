"""Colour differences are CIEDE2000; a dye fit takes out what dye, thickness and white balance did, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from tomostain.scoring.colours import colour_difference, fit_dye, mean_difference


def _section(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (40, 50, 3), dtype=np.uint8)


def test_colour_difference_is_ciede2000() -> None:
    black, white = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)
    assert colour_difference(black, white)[0, 0] == pytest.approx(100.0, abs=1e-3)
    assert colour_difference(white, white)[0, 0] == 0.0
    red, green, blue = (np.eye(3, dtype=np.uint8)[i][None, None] * np.uint8(255) for i in range(3))
    assert colour_difference(red, blue)[0, 0] == pytest.approx(52.88, abs=0.02), "as colour calculators give it"
    assert colour_difference(red, green)[0, 0] == pytest.approx(86.61, abs=0.02)


def test_the_mean_difference_is_that_of_the_pixels_that_count() -> None:
    real = np.zeros((2, 2, 3), np.uint8)
    predicted = real.copy()
    predicted[0, 0] = 255
    predicted[1] = 77
    weight = np.array([[0.25, 0.75], [0.0, 0.0]])
    assert mean_difference(predicted, real, weight) == pytest.approx(25.0, abs=1e-3)


def test_a_fit_takes_an_affine_change_of_colours_back_but_for_the_rounding() -> None:
    real = _section(0)
    mixed = real @ np.array([[0.6, 0.1, 0.0], [0.05, 0.7, 0.1], [0.0, 0.05, 0.8]]) + (20, 10, 5)
    back = fit_dye(np.rint(mixed).astype(np.uint8), real, np.ones(real.shape[:2]))
    assert np.abs(back.astype(int) - real).max() <= 2


def test_a_fit_sees_only_what_counts_and_is_never_worse_there() -> None:
    real, predicted = _section(1), _section(2)
    weight = np.zeros(real.shape[:2])
    weight[:20] = 1.0
    predicted[:20] = real[:20] // 2 + 30
    spoilt = real.copy()
    spoilt[20:] = 0
    fitted = fit_dye(predicted, real, weight)
    np.testing.assert_array_equal(fitted, fit_dye(predicted, spoilt, weight))
    error = [np.square(one[:20].astype(float) - real[:20]).mean() for one in (predicted, fitted)]
    assert error[1] < 0.01 * error[0]


def test_a_fit_of_one_colour_is_the_mean_of_the_real_ones() -> None:
    real = _section(3)
    flat = np.full_like(real, 90)
    assert np.abs(fit_dye(flat, real, np.ones(real.shape[:2]))[0, 0] - real.mean(axis=(0, 1))).max() <= 0.51
