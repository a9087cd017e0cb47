"""Errors are found where they were put."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tomostain.reporting.errors import (
    Case,
    by_colour,
    by_intensity,
    colour_name,
    scale_top,
    worst_regions,
)


def _case(error: npt.NDArray[np.float32], *, real: npt.NDArray[np.uint8] | None = None, name: str = "a") -> Case:
    shape = error.shape
    real = np.full((*shape, 3), 200, np.uint8) if real is None else real
    ct = np.broadcast_to(np.linspace(0, 1, shape[1], dtype=np.float32), shape)
    return Case(name, "S", ct, real, {}, {"stainer": error}, np.ones(shape, bool), (5.0, 5.0))


def test_the_worst_square_is_found_and_masked_ones_are_not() -> None:
    error = np.ones((100, 100), np.float32)
    error[60:82, 10:32] = 30.0
    error[:40, 60:] = 90.0
    case = _case(error)
    case.mask[:40, 60:] = False
    (region,) = worst_regions([case], "stainer", count=3)
    assert region.corner_px == (60, 10)
    assert region.edge_px == 22
    assert region.error == pytest.approx(30.0)


def test_a_few_unmasked_pixels_do_not_make_a_worst_region() -> None:
    error = np.ones((100, 100), np.float32)
    error[60:82, 10:32] = 30.0
    error[:40, 60:] = 90.0
    case = _case(error)
    case.mask[:40, 60:] = False
    case.mask[10:14, 70:74] = True
    (region,) = worst_regions([case], "stainer", count=3)
    assert (region.corner_px, region.error) == ((60, 10), pytest.approx(30.0))


@pytest.mark.parametrize("seed", range(4))
def test_colours_come_in_the_order_of_their_shares(seed: int) -> None:
    real = np.full((40, 40, 3), (40, 60, 170), np.uint8)
    real[:12], real[12:16] = (250, 250, 250), (200, 40, 40)
    classes = by_colour([_case(np.ones((40, 40), np.float32), real=real)], classes=6, seed=seed)
    assert [(c.name, c.share) for c in classes] == [
        ("dark blue", pytest.approx(0.6)),
        ("white", pytest.approx(0.3)),
        ("red", pytest.approx(0.1)),
    ]


def test_errors_are_separated_by_the_real_colour() -> None:
    real = np.full((40, 40, 3), (250, 250, 250), np.uint8)
    real[:10] = (40, 60, 170)
    error = np.where(np.arange(40)[:, None] < 10, 20.0, 2.0).astype(np.float32) * np.ones((1, 40), np.float32)
    classes = by_colour([_case(error, real=real)], classes=6)
    assert [(c.name, round(c.share, 2), c.errors["stainer"]) for c in classes] == [
        ("white", 0.75, pytest.approx(2.0)),
        ("dark blue", 0.25, pytest.approx(20.0)),
    ]


def test_errors_are_separated_by_ct_value_and_masked_pixels_do_not_count() -> None:
    error = np.repeat(np.arange(50, dtype=np.float32)[None], 30, axis=0)
    case = _case(error)
    error[:, 25:] = 999.0
    case.mask[:, 25:] = False
    centres, share, means = by_intensity([case], 0.0, 1.0, bins=2)
    assert centres.tolist() == [0.25, 0.75]
    assert share.tolist() == [1.0, 0.0]
    assert means["stainer"][0] == pytest.approx(12.0)
    assert np.isnan(means["stainer"][1])


def test_one_scale_holds_for_all_cases() -> None:
    low, high = np.full((20, 20), 3.0, np.float32), np.full((20, 20), 33.0, np.float32)
    assert scale_top([_case(low)]) == 10
    assert scale_top([_case(low), _case(high)]) == 40


@pytest.mark.parametrize(("rows", "top"), [(1, 10), (3, 40)])
def test_the_scale_ends_where_all_but_two_in_a_hundred_pixels_do(rows: int, top: float) -> None:
    error = np.full((100, 20), 3.0, np.float32)
    error[:rows] = 33.0
    assert scale_top([_case(error)]) == top


@pytest.mark.parametrize(
    ("lab", "name"),
    [
        ((5, 0, 0), "black"),
        ((95, 1, -2), "white"),
        ((60, 1, 2), "grey"),
        ((35, 25, -60), "dark blue"),
        ((85, 5, -10), "pale greyish blue"),
    ],
)
def test_colours_have_plain_names(lab: tuple[float, float, float], name: str) -> None:
    assert colour_name(np.asarray(lab, dtype=np.float64)) == name
