import numpy as np
import pytest
import torch

from tomostain.learning.ranges import CTRange, RGBRange, luminance


def test_low_and_high_become_minus_one_and_one_and_metal_stays_beyond():
    ct_range = CTRange(0.2, 2.2, "1/cm")
    values = np.array([-8.8, 0.2, 1.2, 2.2, 11.5], np.float32)
    unit = ct_range.to_unit(values)
    np.testing.assert_allclose(unit, [-1 - np.log(10), -1.0, 0.0, 1.0, 1 + np.log(10.3)], atol=1e-6)
    np.testing.assert_allclose(ct_range.from_unit(unit), values, atol=1e-5)


def test_unit_values_rise_without_a_step_or_a_kink():
    unit = CTRange(-1.0, 1.0).to_unit(np.linspace(-4, 4, 8001))
    slopes = np.diff(unit) / 0.001
    assert slopes.min() > 0.24
    assert np.abs(np.diff(slopes)).max() < 0.01


def test_integers_of_a_16_bit_scan_are_not_wrapped():
    unit = CTRange(0.0, 65535.0).to_unit(np.array([0, 32767, 65535], np.uint16))
    np.testing.assert_allclose(unit, [-1.0, -1.5e-5, 1.0], atol=1e-5)


def test_one_very_bright_implant_does_not_flatten_everyone_s_tissue(rng):
    tissue = [rng.uniform(0, 1, 5_000) for _ in range(3)]
    titanium = np.concatenate([rng.uniform(0, 1, 4_000), rng.uniform(10, 12, 1_000)])
    ct_range = CTRange.fit([*tissue, titanium], percentiles=(1, 99))
    assert ct_range.low == pytest.approx(0.01, abs=0.01)
    assert ct_range.high == pytest.approx(0.99, abs=0.01)
    assert (ct_range.seen_low, ct_range.seen_high) == pytest.approx((0, 12), abs=0.01)


def test_outside_counts_only_what_training_never_saw():
    ct_range = CTRange(0.0, 1.0, seen_low=-0.5, seen_high=2.0)
    assert ct_range.outside(np.array([-0.4, 0.5, 1.9, 2.1])) == 0.25
    assert ct_range.outside(np.array([np.nan, 0.5])) == 0.5


@pytest.mark.parametrize(
    ("values", "fault"),
    [([np.full(10, 3.0)], "constant"), ([np.array([1.0, np.nan])], "NaN"), ([np.zeros(0)], "no CT value")],
)
def test_worthless_ct_is_refused(values, fault):
    with pytest.raises(ValueError, match=fault):
        CTRange.fit(values)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, np.inf)])
def test_an_empty_range_is_refused(low, high):
    with pytest.raises(ValueError, match="low < high"):
        CTRange(low, high)


def test_every_colour_comes_back_from_unit_values():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(RGBRange.from_unit(RGBRange.to_unit(every)), every)
    np.testing.assert_array_equal(RGBRange.from_unit(np.array([-1.5, 1.5], np.float32)), [0, 255])


def test_luminance_of_grey_is_grey_and_green_weighs_most():
    image = torch.tensor([[0.3, 1.0, -1.0, -1.0], [0.3, -1.0, 1.0, -1.0], [0.3, -1.0, -1.0, 1.0]])[None, :, None]
    grey = luminance(image)[0, 0, 0]
    assert grey[0].item() == pytest.approx(0.3)
    assert grey[2] > grey[1] > grey[3]
