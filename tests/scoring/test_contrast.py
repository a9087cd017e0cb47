"""Pictures without contrast are found, and those of trained stainers are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tomostain.scoring.contrast import contrast, flaw_of


@dataclass
class Window:
    low: float = 0.0
    high: float = 2.0


@pytest.fixture
def tissue(rng: np.random.Generator) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """CT values, and the predicted and real colours of 5000 pixels of bone and marrow."""
    bone = rng.random(5000) < 0.4
    ct = np.where(bone, 1.4, 0.4) + rng.normal(0, 0.1, 5000)
    real = np.where(bone[:, None], (90, 110, 200), (235, 230, 240)) + rng.integers(-6, 7, (5000, 3))
    predicted = np.where(bone[:, None], (120, 130, 200), (210, 210, 220))
    return ct, predicted.astype(np.uint8), real.clip(0, 255).astype(np.uint8)


def test_contrast_is_not_that_of_a_few_pixels() -> None:
    values = np.full((1000, 3), 100.0)
    values[:40] = 255
    values[40:, 1] += np.linspace(0, 20, 960)
    assert contrast(values[:, 0]) == 0
    assert contrast(values) == pytest.approx(19, abs=1.5)


def test_a_good_pair_and_a_blank_section_have_no_flaw(tissue: Any) -> None:
    ct, predicted, real = tissue
    assert flaw_of(ct, predicted, real, Window()) is None
    blank = np.full_like(real, 240)
    assert flaw_of(np.full_like(ct, 0.4), blank, blank, Window()) is None


def test_a_flat_virtual_stain_is_named(tissue: Any) -> None:
    ct, predicted, real = tissue
    flat = np.full_like(predicted, (60, 90, 190))
    flat[:200] = 255
    assert flaw_of(ct, flat, real, Window()) == "the virtual stain has no contrast"


@pytest.mark.parametrize(
    ("scale", "shift", "flaw"),
    [
        (1000.0, 0.0, "100% of the CT values lie outside the stainer's range of 0 to 2"),
        (3333.0, -1000.0, "100% of the CT values lie outside the stainer's range of 0 to 2"),
        (0.01, 0.0, "the CT has no contrast in the stainer's range of 0 to 2"),
        (-1.0, 0.0, "100% of the CT values lie outside the stainer's range of 0 to 2"),
        (50.0, 25.0, "100% of the CT values lie outside the stainer's range of 0 to 2"),
    ],
)
def test_a_ct_of_another_scale_is_named_though_its_picture_has_contrast(
    tissue: Any, scale: float, shift: float, flaw: str
) -> None:
    ct, predicted, real = tissue
    assert flaw_of(ct * scale + shift, predicted, real, Window()) == flaw


def test_a_third_of_metal_is_not_another_scale(tissue: Any) -> None:
    ct, predicted, real = tissue
    ct[:1600] = 11.0
    assert flaw_of(ct, predicted, real, Window()) is None
