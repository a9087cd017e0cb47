"""What is claimed of scores follows from them: specimens count alike, intervals cover, verdicts are plain."""

from __future__ import annotations

import numpy as np
import pytest

from tomostain.scoring.scores import Score, interval, specimen_means, summarise, verdict


def _scores(ours: dict[str, list[float]], table: dict[str, list[float]], *, metric: str = "ssim") -> list[Score]:
    made = []
    for method, groups in (("stainer", ours), ("colour table", table)):
        for specimen, values in groups.items():
            made += [Score(specimen, f"{specimen}_{i}", method, {metric: v}, 100) for i, v in enumerate(values)]
    return made


def test_a_specimen_with_many_pairs_counts_no_more_than_one_with_few() -> None:
    scores = _scores({"a": [0.9, 0.9, 0.9], "b": [0.5]}, {"a": [0.1, 0.2, 0.3], "b": [0.4]})
    summary = summarise(scores)
    assert summary["methods"]["stainer"]["ssim"]["mean"] == pytest.approx(0.7)
    assert summary["methods"]["colour table"]["ssim"]["mean"] == pytest.approx(0.3)
    assert summary["gains"]["colour table"]["ssim"]["mean"] == pytest.approx(0.4)
    assert (summary["specimens"], summary["pairs"]) == (2, 4)
    means = {(s.specimen, s.method): (s.values["ssim"], s.pixels) for s in specimen_means(scores)}
    assert means["a", "colour table"] == (pytest.approx(0.2), 300)


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_the_interval_covers_the_true_mean_as_often_as_it_says_even_from_two_specimens(count: int) -> None:
    rng = np.random.default_rng(count)
    trials = 2000
    covered = 0
    for _ in range(trials):
        spread = interval(list(rng.normal(5.0, 1.0, size=count)))
        covered += spread["low"] <= 5.0 <= spread["high"]
    assert covered / trials == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / trials))


def test_the_interval_is_students() -> None:
    """Mean 2, standard deviation 1; t(0.975) is 4.303 with 2 and 12.706 with 1 degree of freedom."""
    three, two = interval([1.0, 2.0, 3.0]), interval([1.0, 3.0])
    assert (three["low"], three["high"]) == pytest.approx((2 - 4.303 / np.sqrt(3), 2 + 4.303 / np.sqrt(3)), abs=1e-3)
    assert (two["low"], two["high"]) == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-3)


def test_one_specimen_has_no_interval_however_many_pairs_it_has() -> None:
    assert interval([1.0]) == {"mean": 1.0, "low": None, "high": None}
    summary = summarise(_scores({"a": [0.9, 0.91, 0.92, 0.93]}, {"a": [0.1, 0.1, 0.1, 0.1]}))
    assert summary["methods"]["stainer"]["ssim"] == {"mean": pytest.approx(0.915), "low": None, "high": None}
    assert summary["beats_colour_table"] == {"ssim": None}
    assert summary["verdict"].startswith("No verdict: one specimen cannot show")


def test_pairs_of_one_specimen_do_not_count_as_specimens() -> None:
    """Many alike pairs of two specimens that disagree leave the answer open."""
    many = _scores({"a": [0.6] * 20, "b": [0.5] * 20}, {"a": [0.5] * 20, "b": [0.52] * 20})
    assert summarise(many)["gains"]["colour table"]["ssim"]["mean"] == pytest.approx(0.04)
    assert summarise(many)["beats_colour_table"] == {"ssim": None}


def test_a_gain_is_claimed_only_where_its_interval_excludes_zero() -> None:
    table = {name: [0.5] for name in "abc"}
    clear = summarise(_scores({"a": [0.60], "b": [0.62], "c": [0.61]}, table))
    assert clear["beats_colour_table"] == {"ssim": True}
    assert clear["verdict"] == "The stainer is better than the colour table in SSIM."
    doubtful = summarise(_scores({"a": [0.70], "b": [0.49], "c": [0.61]}, table))
    assert doubtful["gains"]["colour table"]["ssim"]["mean"] == pytest.approx(0.1)
    assert doubtful["beats_colour_table"] == {"ssim": None}
    assert "not shown that the stainer is better" in doubtful["verdict"]
    worse = summarise(_scores({"a": [0.40], "b": [0.38], "c": [0.39]}, table))
    assert worse["beats_colour_table"] == {"ssim": False}
    assert worse["verdict"] == "The stainer is worse than the colour table in SSIM."


def test_the_gain_is_of_the_same_specimens_and_not_of_two_means() -> None:
    """Specimens differ far more than the methods on each of them do."""
    ours = {"a": [0.21], "b": [0.512], "c": [0.811]}
    gain = summarise(_scores(ours, {"a": [0.2], "b": [0.5], "c": [0.8]}))["gains"]["colour table"]["ssim"]
    assert gain["mean"] == pytest.approx(0.011)
    assert 0.008 < gain["low"] < gain["high"] < 0.014
    assert (gain["pairs_won"], gain["specimens_won"]) == (3, 3)


def test_a_lower_lpips_is_a_gain() -> None:
    ours, table = {"a": [0.2], "b": [0.21], "c": [0.22]}, {"a": [0.5], "b": [0.5], "c": [0.5]}
    summary = summarise(_scores(ours, table, metric="lpips"))
    assert summary["gains"]["colour table"]["lpips"]["mean"] == pytest.approx(0.29)
    assert summary["gains"]["colour table"]["lpips"]["pairs_won"] == 3
    assert summary["beats_colour_table"] == {"lpips": True}


def test_a_tie_is_not_a_win_not_even_at_infinity() -> None:
    for value, metric in ((0.5, "ssim"), (np.inf, "psnr")):
        same = {name: [value] for name in "abc"}
        tied = summarise(_scores(same, same, metric=metric))
        assert tied["beats_colour_table"] == {metric: None}
        assert tied["gains"]["colour table"][metric]["pairs_won"] == 0
    assert summarise(_scores(same, {name: [30.0] for name in "abc"}, metric="psnr"))["beats_colour_table"] == {
        "psnr": None
    }


def test_verdicts_say_it_plainly_and_no_more() -> None:
    assert verdict({"ssim": True, "psnr": True}, specimens=3) == (
        "The stainer is better than the colour table in SSIM and PSNR."
    )
    assert verdict({"ssim": True, "lpips": None, "psnr": False}, specimens=4) == (
        "The stainer is better than the colour table in SSIM. It is worse than the colour table in PSNR. "
        "In LPIPS the difference may be chance."
    )
    assert verdict({"ssim": None, "lpips": None}, specimens=9) == (
        "It is not shown that the stainer is better than the colour table in SSIM or LPIPS."
    )
    assert verdict({"ssim": True}, specimens=2).endswith("so this is a first sign and no proof.")
    assert verdict({}, specimens=5) == "No verdict: the stainer was not compared with the colour table."


def test_there_is_no_verdict_on_pictures_without_contrast() -> None:
    scores = _scores({"a": [0.60], "b": [0.62], "c": [0.61]}, {name: [0.5] for name in "abc"})
    summary = summarise(scores, without_contrast={"a_0": "the virtual stain has no contrast"})
    assert summary["beats_colour_table"] == {"ssim": None}
    assert summary["verdict"].startswith("No verdict: in pair a_0 the virtual stain has no contrast.")
    assert summary["gains"]["colour table"]["ssim"]["low"] > 0


@pytest.mark.parametrize(("metric", "ours", "expected"), [("ssim", 0.6, 0.25), ("lpips", 0.2, 0.75)])
def test_skill_is_the_share_of_the_way_from_the_table_to_the_perfect_section(
    metric: str, ours: float, expected: float
) -> None:
    table, perfect = (0.5, 0.9) if metric == "ssim" else (0.26, 0.18)
    scores = _scores({"a": [ours - 0.1] * 3, "b": [ours + 0.1]}, {"a": [table] * 3, "b": [table]}, metric=metric)
    assert summarise(scores)["skill"] == {}
    scores += [Score(s.specimen, s.pair, "perfect section", {metric: perfect}, 100) for s in scores[:4]]
    summary = summarise(scores)
    assert summary["skill"] == {metric: pytest.approx(expected)}
    assert set(summary["gains"]) == {"colour table"}
    assert "perfect" not in summary["verdict"]


def test_a_method_that_was_not_scored_everywhere_is_refused() -> None:
    scores = _scores({"a": [0.5, 0.6]}, {"a": [0.5]})
    with pytest.raises(ValueError, match="once on every pair"):
        summarise(scores)
    with pytest.raises(ValueError, match="no score of the stainer"):
        summarise([s for s in scores if s.method != "stainer"])
