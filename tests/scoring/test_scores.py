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


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        of_specimens = rng.normal(5.0, 1.0, size=12)
        groups = [list(rng.normal(mean, 0.5, size=3)) for mean in of_specimens]
        spread = interval(groups, resamples=400, seed=trial)
        covered += spread["low"] <= 5.0 <= spread["high"]
    assert 0.88 <= covered / 200 <= 0.99


def test_the_interval_of_one_specimen_is_that_of_its_pairs_and_of_one_pair_is_unknown() -> None:
    several = interval([[1.0, 2.0, 3.0]], resamples=2000, seed=0)
    assert several["mean"] == 2.0
    assert 1.0 <= several["low"] < 2.0 < several["high"] <= 3.0
    assert interval([[1.0]], resamples=100, seed=0) == {"mean": 1.0, "low": None, "high": None}


def test_pairs_of_unequal_count_are_all_drawn_and_no_padding_is() -> None:
    spread = interval([[1.0], [1.0, 1.0, 1.0, 1.0]], resamples=500, seed=1)
    assert (spread["low"], spread["high"]) == (pytest.approx(1.0), pytest.approx(1.0))


def test_the_same_seed_gives_the_same_interval() -> None:
    groups = [[0.2, 0.4], [0.3, 0.9]]
    assert interval(groups, resamples=300, seed=4) == interval(groups, resamples=300, seed=4)


def test_a_lower_lpips_is_a_gain() -> None:
    summary = summarise(_scores({"a": [0.2]}, {"a": [0.5]}, metric="lpips"))
    assert summary["gains"]["colour table"]["lpips"]["mean"] == pytest.approx(0.3)
    assert summary["gains"]["colour table"]["lpips"]["pairs_won"] == 1
    assert summary["beats_colour_table"] == {"lpips": True}


def test_a_tie_is_not_a_win_not_even_at_infinity() -> None:
    assert summarise(_scores({"a": [0.5]}, {"a": [0.5]}))["beats_colour_table"] == {"ssim": False}
    tied = summarise(_scores({"a": [np.inf]}, {"a": [np.inf]}, metric="psnr"))
    assert tied["beats_colour_table"] == {"psnr": False}


def test_verdicts_say_it_plainly() -> None:
    assert verdict({"ssim": True, "psnr": True}) == "The stainer beats the best colour look-up table in SSIM and PSNR."
    assert "not in LPIPS" in verdict({"ssim": True, "lpips": False})
    assert "has learnt nothing" in verdict({"ssim": False, "lpips": False})
    assert "nothing can be said" in verdict({})


def test_a_method_that_was_not_scored_everywhere_is_refused() -> None:
    scores = _scores({"a": [0.5, 0.6]}, {"a": [0.5]})
    with pytest.raises(ValueError, match="once on every pair"):
        summarise(scores)
    with pytest.raises(ValueError, match="no score of the stainer"):
        summarise([s for s in scores if s.method != "stainer"])
