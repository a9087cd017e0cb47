"""The words of a report say what the numbers say, no more, and in short sentences."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tomostain.images.geometry import Grid, Plane
from tomostain.images.srgb import to_srgb
from tomostain.pairs.pair import Pair
from tomostain.phantom.colours import STAINS, palette
from tomostain.phantom.tissues import Tissue
from tomostain.reporting import words
from tomostain.reporting.errors import ColourClass
from tomostain.reporting.page import TEMPLATE
from tomostain.reporting.tissues import named_tissues
from tomostain.scoring.evaluation import Evaluation
from tomostain.scoring.scores import Score

LONGEST = 25
"""Words in a sentence that a reader whose second language is English takes in at once."""


def _summary(gains: list[float], **about: Any) -> dict[str, Any]:
    """The summary of one pair for each specimen, the colour table at 0.5."""
    scores = []
    for i, gain in enumerate(gains):
        for method, value in (("stainer", 0.5 + gain), ("colour table", 0.5)):
            scores.append(Score(f"S{i}", f"p{i}", method, {"ssim": value}, 100))
    given: dict[str, Any] = {
        "stain": "giemsa",
        "trained_on": ["T"],
        "out_of_range": {f"p{i}": 0.0 for i in range(len(gains))},
        "learnt_range": (0.0, 2.0),
        "without_contrast": {},
        "simulated": [],
    }
    return dict(Evaluation.of(scores, **(given | about)).summary)


CLEAR, OPEN, WORSE = [0.10, 0.11, 0.12], [0.3, -0.2, 0.1], [-0.10, -0.11, -0.12]


@pytest.mark.parametrize(
    ("gains", "about", "state"),
    [
        (CLEAR, {}, "good"),
        ([*CLEAR[:2], 0.105], {"trained_on": ["S1"]}, "mixed"),
        ([0.10, 0.101], {}, "mixed"),
        (OPEN, {}, "open"),
        ([0.2], {}, "open"),
        (WORSE, {}, "bad"),
        (CLEAR, {"without_contrast": {"p1": "the virtual stain has no contrast"}}, "open"),
    ],
)
def test_the_mark_is_green_only_where_better_is_shown_on_new_specimens(
    gains: list[float], about: dict[str, Any], state: str
) -> None:
    summary = _summary(gains, **about)
    assert words.state_of(summary) == state
    (tile,) = words.tiles(summary, {"ssim": True})
    assert (tile["state"] == "good") == (summary["beats_colour_table"]["ssim"] is True)


def test_warnings_name_what_limits_the_scores_the_most_serious_first() -> None:
    classes = [
        ColourClass("white", "#fff", 0.7, {"stainer": 2.0, "colour table": 3.0}),
        ColourClass("dark blue", "#00f", 0.3, {"stainer": 20.0, "colour table": 10.0}),
    ]
    quiet = words.warnings(_summary(CLEAR), classes[:1], out_of_range=0.01, volume=None)
    assert quiet == []
    found = words.warnings(
        _summary(OPEN, out_of_range={"p0": 0.2, "p1": 0.005, "p2": 0.0}, simulated=["p2"]),
        classes,
        out_of_range=0.01,
        volume={"outside": "beyond"},
    )
    assert [text.split(".")[0] for text in found] == [
        "It is not shown that the stainer is better than the colour table",
        "1 of the 3 sections are simulated by tomostain's phantom: p2",
        "CT values outside those of training (0 to 2): p0 20",
        "beyond",
        "The error is largest where the true stain is dark blue (30% of the pixels, ΔE 20",
        "The error of the colour table is smaller than that of the network where the true stain is dark blue (ΔE 10",
    ]
    assert words.warnings(_summary(WORSE), [], out_of_range=0.01, volume=None) == [
        "The stainer is worse than the colour table. Do not use it."
    ]


def test_one_section_of_one_specimen_reads_well() -> None:
    summary = _summary([0.2])
    assert words.title("giemsa", summary) == "Virtual giemsa, judged on 1 unseen specimen"
    assert words.introduction("giemsa", 5.0, ["T"], summary)[0].startswith(
        "A network was trained to predict the giemsa stain of a section from X-ray micro-CT. "
        "It learnt from 1 specimen (T) at 5 µm per pixel. It is judged here on 1 real section."
    )


@pytest.mark.parametrize("gains", [CLEAR, OPEN, WORSE, [0.1, 0.101], [0.2]])
@pytest.mark.parametrize("simulated", [[], ["p0"], ["p0", "p1", "p2"]])
def test_no_sentence_is_longer_than_a_breath(gains: list[float], simulated: list[str]) -> None:
    summary = _summary(gains, simulated=[name for name in simulated if int(name[1]) < len(gains)])
    texts = [summary["verdict"], words.explanation(summary), *words.introduction("giemsa", 5.0, ["T"], summary)]
    texts += words.warnings(summary, [], out_of_range=0.01, volume=None)
    _assert_short(texts)


def test_no_sentence_of_the_page_is_longer_than_a_breath() -> None:
    from importlib import resources

    page = resources.files("tomostain.reporting").joinpath(TEMPLATE).read_text(encoding="utf-8")
    body = re.sub(r"<style>.*?</style>|<script>.*?</script>|\{%.*?%\}", " ", page, flags=re.DOTALL)
    body = re.sub(r"\{\{.*?\}\}", "X", body, flags=re.DOTALL)
    paragraphs = re.findall(r"<(?:p|figcaption|footer)[^>]*>(.*?)</(?:p|figcaption|footer)>", body, flags=re.DOTALL)
    _assert_short([re.sub(r"<[^>]+>|&nbsp;", " ", paragraph) for paragraph in paragraphs])


def _assert_short(texts: list[str]) -> None:
    for text in texts:
        for sentence in re.split(r"(?<=[.?!])\s+", text.strip()):
            assert len(sentence.split()) <= LONGEST, sentence


def _pair(**changes: Any) -> Pair:
    rng = np.random.default_rng(0)
    about: dict[str, Any] = {
        "ct": rng.random((1, 8, 9)).astype(np.float32),
        "stain": np.zeros((8, 9, 3), np.uint8),
        "mask": np.ones((8, 9), bool),
        "confidence": np.ones((8, 9), np.float32),
        "grid": Grid((8, 9), (5.0, 5.0)),
        "specimen": "S",
        "name": "p",
    }
    return Pair(**(about | changes))


def test_how_well_a_slide_was_registered_is_said() -> None:
    plane = Plane((8, 9), 5.0, (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    said = words.registration_quality
    assert said(_pair(plane=plane, notes={"expected_tre_um": 4.5, "probability": 0.87})) == (
        "registered with an expected error of 4.5 µm (0.9 px), probability 87%"
    )
    assert said(_pair(plane=plane, notes={"expected_tre_um": 4.5, "check": True})).endswith(". Check by eye")
    assert said(_pair(plane=plane, simulated=("CT", "stain"))) == "true placement of the phantom"
    assert said(_pair(plane=plane)) == "registration not judged"
    assert said(_pair()) == "images that were already aligned"


def test_tissues_of_the_phantoms_stains_are_named_by_their_colour_and_others_are_not() -> None:
    for stain in STAINS:
        shown = to_srgb(palette(STAINS[stain], "Ti"))
        for tissue, word in ((Tissue.LAMELLAR, "lamellar bone"), (Tissue.METAL, "metal implant")):
            css = "#" + "".join(f"{int(v):02x}" for v in shown[tissue])
            one = ColourClass("x", css, 1.0, {})
            assert named_tissues([one], stain)[0].tissue.split(" or ")[0] == word
            assert named_tissues([one], "giemsa")[0].tissue == ""
    assert named_tissues([ColourClass("green", "#00ff00", 1.0, {})], "toluidine blue")[0].tissue == ""
