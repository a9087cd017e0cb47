"""What is claimed of a comparison is what its interval and its test say."""

import numpy as np
import pytest
from scipy import stats

from tomostain.experiment.statistics import claims, compare, higher_is_better, is_shown, mean_interval


def table(values, metric="ssim"):
    """By method: a row of values, one for each specimen."""
    return {name: {metric: {f"S{i:02d}": float(v) for i, v in enumerate(row)}} for name, row in values.items()}


def test_a_difference_that_every_specimen_shows_is_claimed_with_its_interval(rng):
    base = rng.uniform(0.3, 0.6, 12)
    (found,) = compare(table({"ours": base + rng.uniform(0.01, 0.05, 12), "theirs": base}), ["ssim"])
    assert is_shown(found)
    assert found["low"] < found["gain"] < found["high"]
    assert (found["won"], found["specimens"], found["effect"]) == (12, 12, 1.0)
    assert found["p"] == pytest.approx(2 / 2**12)
    (line,) = claims([found])
    assert line.startswith("ours against theirs: better in SSIM by 0.0")
    assert line.endswith("; ahead in 12 of 12 specimens).")


def test_a_metric_that_is_better_when_lower_turns_the_sign():
    low = table({"a": np.arange(8) * 0.1, "b": np.arange(8) * 0.1 + 0.3 + np.arange(8) * 0.01}, "lpips")
    (found,) = compare(low, ["lpips"])
    assert found["gain"] > 0
    assert "a against b: better in LPIPS" in claims([found])[0]
    assert not higher_is_better("new bone: delta_e")
    assert not higher_is_better("lpips_after_dye_fit")
    assert higher_is_better("new bone: dice")


def test_chance_is_not_claimed_nor_is_equality(rng):
    noise = rng.standard_normal(10)
    (found,) = compare(table({"a": noise - noise.mean(), "b": np.zeros(10)}), ["ssim"])
    assert not is_shown(found)
    assert "a against b: it is not shown that they differ in SSIM" in claims([found])[0]
    (same,) = compare(table({"a": np.ones(7), "b": np.ones(7)}), ["ssim"])
    assert (same["p"], same["gain"], same["effect"]) == (1.0, 0.0, 0.0)


def test_few_specimens_show_nothing_and_the_sentence_says_why():
    (found,) = compare(table({"a": [1.0, 1.1, 1.2], "b": [0.0, 0.05, 0.2]}), ["ssim"])
    assert found["low"] > 0
    assert not is_shown(found)
    assert "so few can show nothing" in claims([found])[0]
    (one,) = compare(table({"a": [1.0], "b": [0.0]}), ["ssim"])
    assert claims([one]) == ["a against b: one specimen shows nothing in SSIM."]


def test_many_comparisons_are_corrected_together(rng):
    rows = {name: rng.normal(0.5, 0.1, 9) for name in "abcd"}
    found = compare(table(rows), ["ssim"])
    assert len(found) == 6
    corrected = stats.false_discovery_control([one["p"] for one in found])
    np.testing.assert_allclose([one["p_corrected"] for one in found], corrected)
    assert len(compare(table(rows), ["ssim"], against="a")) == 3
    assert all(one["second"] == "a" for one in compare(table(rows), ["ssim"], against="a"))


def test_only_specimens_that_both_have_are_compared():
    both = {"a": {"ssim": {"S0": 1.0, "S1": 2.0, "S2": np.inf}}, "b": {"ssim": {"S1": 1.0, "S2": 1.0, "S3": 9.0}}}
    (found,) = compare(both, ["ssim"])
    assert (found["specimens"], found["gain"]) == (1, 1.0)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says(rng):
    """200 draws of 16: binomial, three standard deviations are 0.05; BCa is a little narrow for so few."""
    inside = 0
    for _ in range(200):
        spread = mean_interval(rng.normal(1.0, 1.0, 16))
        inside += spread["low"] <= 1.0 <= spread["high"]
    assert 0.85 <= inside / 200 <= 1.0
    assert mean_interval(np.full(4, 2.0)) == {"mean": 2.0, "low": 2.0, "high": 2.0}


def test_what_is_better_and_worse_is_one_line_for_two_methods():
    worse = {"first": "a", "second": "b", "metric": "ms_ssim", "gain": -0.2, "low": -0.3, "high": -0.1,
             "p_corrected": 0.01, "won": 0, "specimens": 12}  # fmt: skip
    better = worse | {"metric": "new bone: delta_e", "gain": 2.0, "low": 1.0, "high": 3.0, "won": 12}
    assert claims([worse, better]) == [
        "a against b: worse in MS-SSIM by 0.2 (95 % interval 0.1 to 0.3; ahead in 0 of 12 specimens); "
        "better in new bone: CIEDE2000 by 2 (95 % interval 1 to 3; ahead in 12 of 12 specimens)."
    ]
