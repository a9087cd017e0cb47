"""Tissues are read back from colours, each error is counted where its tissue lies, and specimens count alike."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from tomostain.phantom.tissues import Tissue
from tomostain.scoring.colours import colour_difference
from tomostain.scoring.tissue_colours import GROUPS, read_back, reference_colours, tissue_scores

COLOURS = {Tissue.METAL: (10, 10, 12), Tissue.DEGRADATION: (110, 100, 80), Tissue.LAMELLAR: (80, 110, 190)}


@dataclass(frozen=True)
class Known:
    specimen: str
    truth: npt.NDArray[np.uint8] | None
    tissues: npt.NDArray[np.uint8] | None
    weight: npt.NDArray[np.float32]


def _known(specimen: str, columns: dict[Tissue, int], *, metal: tuple[int, int, int] | None = None) -> Known:
    """Stripes of tissues, as many columns of 20 pixels as are named."""
    tissues = np.repeat([int(t) for t in columns], list(columns.values()))[None].repeat(20, axis=0).astype(np.uint8)
    truth = np.zeros((*tissues.shape, 3), np.uint8)
    for tissue, colour in COLOURS.items():
        truth[tissues == tissue] = metal if metal and tissue == Tissue.METAL else colour
    return Known(specimen, truth, tissues, np.ones(tissues.shape, np.float32))


def test_the_perfect_section_has_no_error_and_is_read_back_wholly() -> None:
    pairs = [
        _known("a", {Tissue.METAL: 10, Tissue.DEGRADATION: 5, Tissue.LAMELLAR: 25}),
        _known("b", {Tissue.LAMELLAR: 9}),
    ]
    scores = tissue_scores(pairs, [pair.truth for pair in pairs if pair.truth is not None])
    for name in ("implant", "degradation layer", "old bone"):
        assert (scores[name].delta_e, scores[name].dice) == (0.0, 1.0)
    assert scores["old bone"].share == pytest.approx(34 / 49)
    assert (scores["fat"].share, scores["fat"].delta_e, scores["fat"].dice) == (0.0, None, None)


def test_a_layer_stained_as_bone_is_an_error_of_the_layer_and_lowers_both_overlaps() -> None:
    pair = _known("a", {Tissue.DEGRADATION: 10, Tissue.LAMELLAR: 30})
    stained = pair.truth.copy()
    stained[:, :4] = COLOURS[Tissue.LAMELLAR]
    scores = tissue_scores([pair], [stained])
    wrong = float(colour_difference(stained[:1, :1], pair.truth[:1, :1])[0, 0])
    assert scores["degradation layer"].delta_e == pytest.approx(0.4 * wrong)
    assert scores["degradation layer"].dice == pytest.approx(2 * 6 / (10 + 6))
    assert scores["old bone"].delta_e == 0.0
    assert scores["old bone"].dice == pytest.approx(2 * 30 / (30 + 34))


def test_each_specimen_counts_once_in_the_colour_error() -> None:
    pairs = [_known("a", {Tissue.LAMELLAR: 10}), _known("a", {Tissue.LAMELLAR: 10}), _known("b", {Tissue.LAMELLAR: 10})]
    off = np.full((20, 10, 3), (90, 130, 170), np.uint8)
    error = float(colour_difference(off[:1, :1], pairs[0].truth[:1, :1])[0, 0])
    assert tissue_scores(pairs, [off, off, pairs[2].truth])["old bone"].delta_e == pytest.approx(error / 2)


def test_an_implant_of_another_colour_is_known_by_its_own_and_a_missing_tissue_by_that_of_the_others() -> None:
    beige = (205, 198, 170)
    pairs = [
        _known("ti", {Tissue.METAL: 10, Tissue.LAMELLAR: 10}),
        _known("peek", {Tissue.METAL: 10, Tissue.LAMELLAR: 10}, metal=beige),
        _known("mg", {Tissue.DEGRADATION: 10, Tissue.LAMELLAR: 10}),
    ]
    references = reference_colours(pairs)
    number = {name: i for i, name in enumerate(GROUPS)}
    read = read_back(np.array([[beige, COLOURS[Tissue.DEGRADATION]]], np.uint8), references["peek"])
    assert read.tolist() == [[number["implant"], number["degradation layer"]]]
    assert read_back(np.array([[COLOURS[Tissue.METAL]]], np.uint8), references["ti"]).item() == number["implant"]


def test_what_does_not_count_is_not_counted() -> None:
    pair = _known("a", {Tissue.METAL: 10, Tissue.LAMELLAR: 30})
    weight = pair.weight.copy()
    weight[:, :5] = 0.0
    stained = pair.truth.copy()
    stained[:, :5] = 255
    scores = tissue_scores([dataclasses.replace(pair, weight=weight)], [stained])
    assert (scores["implant"].delta_e, scores["implant"].dice) == (0.0, 1.0)
    assert scores["implant"].share == pytest.approx(5 / 35)


def test_a_pair_without_its_truth_is_refused() -> None:
    pair = _known("a", {Tissue.METAL: 10})
    with pytest.raises(ValueError, match="does not know its perfect section"):
        tissue_scores([dataclasses.replace(pair, truth=None)], [np.zeros((20, 10, 3), np.uint8)])
