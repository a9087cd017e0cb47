"""The evaluate step scores unseen specimens only, beside the baselines, and says so in files that add up."""

from __future__ import annotations

import csv
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from tomostain import runs
from tomostain.cli import main
from tomostain.images.anchors import GreyMap
from tomostain.images.geometry import Grid
from tomostain.learning.ranges import CTRange
from tomostain.pairs.pair import Pair, load_pair, save_pair
from tomostain.phantom.tissues import Tissue
from tomostain.scoring.baselines import fit_baselines, save_baselines
from tomostain.scoring.evaluation import Evaluation
from tomostain.scoring.judging import training_specimens
from tomostain.steps import evaluate as step
from tomostain.steps.evaluate import EvaluateRecipe, evaluate

FAST = EvaluateRecipe(metrics=("ssim", "psnr"))


def _pair(name: str, specimen: str, seed: int, **changes: Any) -> Pair:
    """Two tissues of one CT value, told apart by their place alone: a table cannot colour them, a network could."""
    rng = np.random.default_rng(seed)
    shape = (48, 56)
    bright = np.add.outer(np.arange(48), np.arange(56)) // 12 % 2 == 0
    ct = (1.0 + rng.normal(0, 0.02, (3, *shape))).astype(np.float32)
    stain = np.where(bright[..., None], (210, 190, 230), (60, 90, 190)) + rng.integers(-5, 6, (*shape, 3))
    mask = np.ones(shape, bool)
    mask[:8, :9] = False
    about: dict[str, Any] = {
        "ct": ct,
        "stain": stain.astype(np.uint8),
        "mask": mask,
        "confidence": np.ones(shape, np.float32),
        "grid": Grid(shape, (5.0, 5.0)),
        "specimen": specimen,
        "name": name,
    }
    return Pair(**(about | changes))


@dataclass
class Fake:
    """Paints the stripes right, up to a constant, without looking at the CT."""

    ct_range: CTRange = field(default_factory=lambda: CTRange(0.9, 1.1, "", 0.85, 1.15))
    stain: str = "toluidine blue"
    um_per_px: float = 5.0
    within_um: tuple | None = None
    planes: int = 1
    history: dict[str, Any] = field(default_factory=lambda: {"specimens": ["S00"]})
    off: int = 10

    def scale_of(self, new, candidates, name, *, any_values):
        return GreyMap()

    def __call__(self, ct: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        assert ct.shape == (self.planes, 48, 56)
        rows, columns = np.indices(ct.shape[1:])
        bright = (rows + columns) // 12 % 2 == 0
        predicted = np.where(bright[..., None], (210, 190, 230), (60, 90, 190)) + self.off
        return np.clip(predicted, 0, 255).astype(np.uint8)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Fake]:
    """A folder with pairs of three specimens and a stainer that was trained on S00."""
    model = Fake()
    monkeypatch.setattr(step.Stainer, "load", lambda folder, trust: model)
    for number, specimen in enumerate(("S00", "S00", "S01", "S01", "S02")):
        save_pair(
            _pair(f"{specimen}_{number}", specimen, number), tmp_path / "pairs" / f"{specimen}_{number}.pair.zarr"
        )
    (tmp_path / "stainer").mkdir()
    save_baselines(fit_baselines([_pair("x", "S00", 9)], model.ct_range), tmp_path / "stainer")
    return tmp_path, model


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_only_specimens_that_were_not_trained_on_are_scored(lab: tuple[Path, Fake]) -> None:
    home, _ = lab
    out = evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=FAST)
    rows = _rows(out / "scores.csv")
    assert {row["specimen"] for row in rows} == {"S01", "S02"}
    assert len(rows) == 3 * 3
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["specimens"], summary["pairs"]) == (2, 3)
    assert summary["left_out"] == ["S00_0", "S00_1"]
    assert summary["trained_on_too"] == []
    gains = summary["gains"]["colour table"]
    assert gains["ssim"]["mean"] > 0.3
    assert [gains[metric]["pairs_won"] for metric in ("ssim", "psnr")] == [3, 3]
    assert summary["verdict"].endswith("so this is a first sign and no proof.")
    assert runs.is_complete(out)
    assert not list(home.glob("*.unfinished"))


def test_scores_are_those_of_the_stored_predictions_over_unmasked_pixels(lab: tuple[Path, Fake]) -> None:
    home, _ = lab
    out = evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=FAST)
    for row in _rows(out / "scores.csv"):
        pair = load_pair(home / "pairs" / f"{row['pair']}.pair.zarr")
        with Image.open(out / "predictions" / f"{row['pair']}.{row['method'].replace(' ', '_')}.png") as image:
            predicted = np.asarray(image)
        known = peak_signal_noise_ratio(pair.stain[pair.mask], predicted[pair.mask])
        assert float(row["psnr"]) == pytest.approx(known, abs=1e-5)
        assert int(row["pixels"]) == pair.mask.sum()
        assert float(row["ct_out_of_range"]) == 0.0
    by_specimen = {(r["specimen"], r["method"]): float(r["ssim"]) for r in _rows(out / "specimens.csv")}
    ours = [float(r["ssim"]) for r in _rows(out / "scores.csv") if (r["specimen"], r["method"]) == ("S01", "stainer")]
    assert by_specimen["S01", "stainer"] == pytest.approx(np.mean(ours), abs=2e-6)


def test_uncertain_pixels_count_by_their_confidence(lab: tuple[Path, Fake]) -> None:
    home, _ = lab
    confidence = np.ones((48, 56), np.float32)
    confidence[20:] = 0.0
    stain = _pair("x", "S03", 3).stain.copy()
    stain[20:] = 255
    save_pair(_pair("odd", "S03", 3, confidence=confidence, stain=stain), home / "odd.pair.zarr")
    psnr = {}
    for use in (True, False):
        recipe = EvaluateRecipe(metrics=("psnr",), use_confidence=use)
        out = evaluate(home / "stainer", home / "odd.pair.zarr", home / f"use-{use}", recipe=recipe)
        psnr[use] = float(_rows(out / "scores.csv")[0]["psnr"])
    assert psnr[True] > psnr[False] + 5


def test_pairs_of_training_specimens_alone_are_refused_unless_allowed(lab: tuple[Path, Fake]) -> None:
    home, model = lab
    model.history = {"specimens": ["S00", "S01", "S02"]}
    with pytest.raises(
        ValueError, match=r"all 5 pairs are of specimens that the stainer was trained on \(S00, S01, S02\)"
    ):
        evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=FAST)
    assert not (home / "evaluation").exists()
    allowed = EvaluateRecipe(metrics=("psnr",), allow_training_specimens=True)
    out = evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=allowed)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["trained_on_too"] == ["S00", "S01", "S02"]
    assert "says nothing about new specimens" in summary["verdict"]


def test_a_stainer_without_record_of_its_training_specimens_is_refused(lab: tuple[Path, Fake]) -> None:
    home, model = lab
    model.history = {}
    with pytest.raises(ValueError, match="does not record which specimens"):
        evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=FAST)


def test_ct_values_never_met_in_training_are_warned_of(lab: tuple[Path, Fake]) -> None:
    home, _ = lab
    far = _pair("far", "S04", 1)
    far.ct[:, 10:20] = 9.0
    save_pair(far, home / "far.pair.zarr")
    warning = r"CT values outside those of training \(0\.85 to 1\.15\): far 21\.4%\. The colours there"
    with pytest.warns(UserWarning, match=warning):
        out = evaluate(home / "stainer", home / "far.pair.zarr", home / "evaluation", recipe=FAST)
    share = json.loads((out / "summary.json").read_text())["out_of_range"]["far"]
    assert share == pytest.approx(10 * 56 / far.mask.sum(), abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stain_name": "giemsa"}, "stained with giemsa, the stainer was trained for toluidine blue"),
        ({"grid": Grid((48, 56), (5.3, 5.3))}, r"pixels of 5\.3 um, the stainer was trained at 5 um"),
        ({"grid": Grid((48, 56), (5.0, 4.7))}, r"pixels of 5 um, the stainer was trained at 5 um"),
        ({"ct": _pair("x", "S03", 0).ct[:1]}, "has 1 CT planes, the stainer needs 3"),
        ({"name": "S01_2"}, "both named S01_2"),
    ],
)
def test_pairs_that_do_not_fit_the_stainer_are_refused(
    lab: tuple[Path, Fake], change: dict[str, Any], message: str
) -> None:
    home, model = lab
    model.planes = 3
    save_pair(
        _pair("strange", "S03", 0, **change) if "name" not in change else _pair("S01_2", "S03", 0),
        home / "pairs" / "strange.pair.zarr",
    )
    with pytest.raises(ValueError, match=message):
        evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=FAST)


def test_missing_lpips_weights_are_reported_before_any_work(
    lab: tuple[Path, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _ = lab
    recipe = EvaluateRecipe(lpips_folder=home / "empty")
    with pytest.raises(FileNotFoundError, match="--metrics ssim psnr"):
        evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=recipe)
    with pytest.raises(ValueError, match="'sim' is not known here; did you mean 'ssim'"):
        evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=EvaluateRecipe(metrics=("sim",)))
    assert not (home / "evaluation").exists()


def test_a_finished_evaluation_is_not_overwritten(lab: tuple[Path, Fake]) -> None:
    home, _ = lab
    evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=FAST)
    with pytest.raises(ValueError, match="evaluation exists"):
        evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=FAST)


def test_a_perfect_score_is_kept_in_json_that_others_can_read(lab: tuple[Path, Fake]) -> None:
    home, model = lab
    perfect = _pair("perfect", "S05", 0, stain=Fake(off=0)(np.zeros((1, 48, 56), np.float32)))
    model.off = 0
    save_pair(perfect, home / "perfect.pair.zarr")
    out = evaluate(home / "stainer", home / "perfect.pair.zarr", home / "evaluation", recipe=FAST)
    text = (out / "summary.json").read_text()
    summary = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert summary["methods"]["stainer"]["psnr"]["mean"] is None
    assert summary["gains"]["colour table"]["psnr"]["mean"] is None
    assert summary["beats_colour_table"]["psnr"] is None


def test_the_table_and_the_verdict_are_shown_and_are_those_of_the_summary(
    lab: tuple[Path, Fake], caplog: pytest.LogCaptureFixture
) -> None:
    home, _ = lab
    with caplog.at_level("INFO", logger="tomostain"):
        out = evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=FAST)
    lines = caplog.messages[-1].splitlines()
    summary = json.loads((out / "summary.json").read_text())
    assert lines[0] == "3 sections of 2 specimens; 95 % intervals in brackets"
    assert lines[-1] == summary["verdict"]
    means = {line.split("  ")[0]: line.split("  ", 1)[1].split()[0] for line in lines[2:-1]}
    for method in ("stainer", "colour table", "mean colour"):
        assert float(means[method]) == pytest.approx(summary["methods"][method]["ssim"]["mean"], rel=1e-3)
    gain = summary["gains"]["colour table"]["ssim"]["mean"]
    assert float(means["gain over the colour table"]) == pytest.approx(gain, rel=1e-3)


def test_where_all_pairs_know_their_perfect_section_the_skill_is_that_of_the_stored_scores(
    lab: tuple[Path, Fake], caplog: pytest.LogCaptureFixture
) -> None:
    home, _ = lab
    for number in range(2):
        pair = _pair(f"k{number}", f"K{number}", number)
        known = Fake(off=4)(pair.ct[:1])
        tissues = np.where(known[..., 0] > 120, Tissue.MARROW, Tissue.LAMELLAR).astype(np.uint8)
        pair = dataclasses.replace(pair, truth=known, tissues=tissues)
        save_pair(pair, home / "known" / f"{number}.pair.zarr")
    with caplog.at_level("DEBUG", logger="tomostain"):
        out = evaluate(home / "stainer", home / "known", home / "evaluation", recipe=FAST)
    found = Evaluation.load(out)
    mean = {
        method: np.mean([float(row["psnr"]) for row in _rows(out / "specimens.csv") if row["method"] == method])
        for method in ("stainer", "colour table", "perfect section")
    }
    way = (mean["stainer"] - mean["colour table"]) / (mean["perfect section"] - mean["colour table"])
    assert 0.5 < way < 0.9
    assert found.summary["skill"]["psnr"] == pytest.approx(way, abs=1e-5)
    (line,) = [line for text in caplog.messages for line in text.splitlines() if line.startswith("skill")][:1]
    assert float(line.split("  ")[-1]) == pytest.approx(way, abs=0.005)
    fitted = found.summary["after_dye_fit"]["methods"]
    for method in ("stainer", "perfect section"):
        noise = np.mean(np.arange(-5, 6) ** 2)
        assert fitted[method]["psnr"]["mean"] == pytest.approx(10 * np.log10(255**2 / noise), abs=0.1)
    means = [float(row["delta_e"]) for row in _rows(out / "specimens.csv") if row["method"] == "colour table"]
    assert found.summary["delta_e"]["colour table"]["mean"] == pytest.approx(np.mean(means), abs=1e-5)
    tissues = found.summary["tissues"]
    assert tissues["stainer"]["soft tissue"]["dice"] == 1.0
    assert tissues["colour table"]["soft tissue"]["dice"] < 0.8
    assert tissues["perfect section"]["old bone"]["delta_e"] == 0.0
    (line,) = [line for text in caplog.messages for line in text.splitlines() if line.startswith("soft tissue")]
    assert line.split()[3:5] == [f"{tissues['stainer']['soft tissue']['delta_e']:.1f},", "1.00"]
    save_pair(_pair("k2", "K2", 2), home / "known" / "2.pair.zarr")
    mixed = Evaluation.load(evaluate(home / "stainer", home / "known", home / "mixed", recipe=FAST))
    assert mixed.summary["skill"] == {}
    assert "perfect section" not in mixed.summary["methods"]


def test_an_evaluation_comes_back_as_it_was_saved(lab: tuple[Path, Fake], tmp_path: Path) -> None:
    home, _ = lab
    out = evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=FAST)
    loaded = Evaluation.load(out)
    (tmp_path / "again").mkdir()
    again = Evaluation.load(loaded.save(tmp_path / "again"))
    assert again == loaded
    assert {(s.pair, s.method) for s in loaded.scores} == {
        (row["pair"], row["method"]) for row in _rows(out / "scores.csv")
    }
    (out / "summary.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read as an evaluation"):
        Evaluation.load(out)


def test_a_flat_picture_gets_no_verdict_however_good_its_scores_are(lab: tuple[Path, Fake]) -> None:
    home, model = lab
    for number in range(3):
        save_pair(_pair(f"f{number}", f"F{number}", number), home / "flat" / f"{number}.pair.zarr")
    good = Evaluation.load(evaluate(home / "stainer", home / "flat", home / "good", recipe=FAST))
    assert good.summary["beats_colour_table"] == {"ssim": True, "psnr": True}
    assert good.verdict == "The stainer is better than the colour table in SSIM and PSNR."
    model.ct_range = CTRange(0.0, 255.0, "", 0.0, 65535.0)
    grey = Evaluation.load(evaluate(home / "stainer", home / "flat", home / "grey", recipe=FAST))
    assert grey.summary["out_of_range"] == {"f0": 0.0, "f1": 0.0, "f2": 0.0}
    assert grey.summary["beats_colour_table"] == {"ssim": None, "psnr": None}
    assert grey.verdict.startswith("No verdict: in pair f0 (and 2 more) the CT has no contrast in the stainer's range")


@pytest.mark.parametrize(
    ("parts", "ending"),
    [
        ([(), (), ()], "in SSIM and PSNR."),
        ([("CT", "stain")] * 3, "All sections are simulated (phantom); this says nothing about real specimens."),
        ([(), ("stain",), ()], "1 of the 3 sections are simulated (phantom)."),
    ],
)
def test_simulated_sections_are_named_in_the_verdict(
    lab: tuple[Path, Fake], parts: list[tuple[str, ...]], ending: str
) -> None:
    home, _ = lab
    for number, simulated in enumerate(parts):
        pair = _pair(f"p{number}", f"P{number}", number, simulated=simulated)
        save_pair(pair, home / "origin" / f"{number}.pair.zarr")
    found = Evaluation.load(evaluate(home / "stainer", home / "origin", home / "evaluation", recipe=FAST))
    assert found.summary["simulated"] == [f"p{i}" for i, simulated in enumerate(parts) if simulated]
    assert found.verdict.endswith(ending)
    assert runs.read_record(home / "evaluation")["results"]["simulated"] == found.summary["simulated"]


def test_a_pixel_size_within_the_tolerance_is_scored(lab: tuple[Path, Fake]) -> None:
    home, _ = lab
    save_pair(_pair("near", "S03", 3, grid=Grid((48, 56), (5.2, 4.8))), home / "near.pair.zarr")
    out = evaluate(home / "stainer", home / "near.pair.zarr", home / "evaluation", recipe=FAST)
    assert {row["pair"] for row in _rows(out / "scores.csv")} == {"near"}


def test_the_stainer_gets_the_planes_in_the_middle_of_the_slab(
    lab: tuple[Path, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _ = lab
    ct = _pair("x", "S03", 3).ct
    slab = np.concatenate([ct + 0.01 * i for i in range(5)])[[0, 3, 6, 9, 12]]
    save_pair(_pair("slab", "S03", 3, ct=slab), home / "slab.pair.zarr")
    seen: list[npt.NDArray[np.float32]] = []

    class Watched(Fake):
        def __call__(self, ct: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
            seen.append(ct)
            return super().__call__(ct)

    for planes, expected in ((1, slab[2:3]), (3, slab[1:4])):
        monkeypatch.setattr(step.Stainer, "load", lambda folder, trust=False, planes=planes: Watched(planes=planes))
        evaluate(home / "stainer", home / "slab.pair.zarr", home / f"evaluation{planes}", recipe=FAST)
        np.testing.assert_array_equal(seen[-1], expected)


def test_json_prints_the_summary_and_nothing_else(lab: tuple[Path, Fake], capsys: pytest.CaptureFixture[str]) -> None:
    home, _ = lab
    words = ["evaluate", str(home / "stainer"), str(home / "pairs"), str(home / "evaluation")]
    assert main([*words, "--metrics", "ssim", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((home / "evaluation" / "summary.json").read_text())
    assert printed["methods"]["stainer"]["ssim"]["mean"] > 0.5


def test_specimens_of_the_stainer_that_was_fine_tuned_count_as_trained_on():
    history = {"specimens": ["S00"], "from": {"specimens": ["S01"]}}
    assert training_specimens(Fake(history=history)) == ("S00", "S01")
    assert training_specimens(Fake(history={"specimens": ["S00"], "from": None})) == ("S00",)
