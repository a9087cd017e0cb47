"""The report is one page that holds everything, says what the numbers say, and can be read by a browser alone."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from tomostain import runs
from tomostain.images.geometry import Grid
from tomostain.io.ome_zarr import create_volume
from tomostain.io.volumes.options import VolumeOptions
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import Pair, save_pair
from tomostain.scoring.baselines import fit_baselines, save_baselines
from tomostain.steps.evaluate import EvaluateRecipe, evaluate
from tomostain.steps.report import ReportRecipe, report
from tomostain.steps.stain import StainRecipe, stain


def _pair(name: str, specimen: str, seed: int, **changes: Any) -> Pair:
    rng = np.random.default_rng(seed)
    shape = (64, 80)
    bone = ndimage.gaussian_filter(rng.standard_normal(shape), 5) > 0
    ct = np.where(bone, 1.3, 0.3) + rng.normal(0, 0.1, shape)
    stain = np.where(bone[..., None], (90, 110, 200), (235, 230, 240)) + rng.integers(-6, 7, (*shape, 3))
    mask = np.ones(shape, bool)
    mask[:, :10] = False
    mask[20:24, 30:40] = False
    inside = np.ones(shape, bool)
    inside[:, :10] = False
    inside[50:] = False
    ct[~inside] = np.median(ct)
    about: dict[str, Any] = {
        "ct": ct[None].astype(np.float32),
        "stain": stain.astype(np.uint8),
        "mask": mask & inside,
        "confidence": np.ones(shape, np.float32),
        "grid": Grid(shape, (5.0, 5.0)),
        "specimen": specimen,
        "name": name,
        "stain_name": "giemsa",
        "inside": inside,
    }
    return Pair(**(about | changes))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stainer with random weights, five pairs of three specimens, an evaluation, and a stained volume with its CT."""
    home = tmp_path_factory.mktemp("lab")
    torch.manual_seed(0)
    spec = NetSpec("resnet", {"width": 4, "depth": 1, "norm": "pixel", "up": "resize"})
    history = {"specimens": ["<S00>"], "pairs": ["a"], "held_out": ["S01", "S02"]}
    net = build_generator(spec, 1, 3).eval()
    for weights in net.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    model = Stainer(net, spec, CTRange(0.0, 2.0, "1/cm", -1.0, 3.0), "giemsa", 5.0, 1, history)
    with runs.output(home / "stainer", "train", recipe={"method": "paired_cyclegan", "steps": 30}, seed=7):
        model.save(home / "stainer")
        save_baselines(fit_baselines([_pair("a", "S00", 0)], model.ct_range), home / "stainer")
        (home / "stainer" / "curves.csv").write_text("step,paired,val_ssim\n10,0.5,\n20,0.4,0.3\n30,0.35,\n")
    for i, specimen in enumerate(("S01", "S01", "S01", "S02", "S02")):
        save_pair(_pair(f"{specimen}_{i}", specimen, i + 1), home / "pairs" / f"{i}.pair.zarr")
    recipe = EvaluateRecipe(metrics=("ssim", "psnr"))
    evaluate(home / "stainer", home / "pairs", home / "evaluation", recipe=recipe)
    grid = Grid((12, 40, 50), (5.0, 5.0, 5.0))
    values = np.random.default_rng(0).random(grid.shape, dtype=np.float32)
    with create_volume(home / "ct.ome.zarr", grid, dtype=np.float32) as ct:
        ct[0:12, 0:40, 0:50] = values
    out, inputs = home / "stained.ome.zarr", [home / "stainer", home / "ct.ome.zarr"]
    with (
        runs.output(out, "stain", inputs=inputs) as made,
        create_volume(out, grid, colours=3, stain="giemsa") as painted,
    ):
        painted[0:12, 0:40, 0:50] = np.repeat((values * 255).astype(np.uint8)[..., None], 3, axis=-1)
        made.results |= {"ct_min": 0.0, "ct_max": 17.5}
    return home


def _report(lab: Path, out: Path, recipe: ReportRecipe = ReportRecipe(), *, stained: bool = True) -> str:
    volume = lab / "stained.ome.zarr" if stained else None
    made = report(
        out,
        stainer=lab / "stainer",
        evaluation=lab / "evaluation",
        pairs=lab / "pairs",
        stained=volume,
        recipe=recipe,
    )
    return made.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(lab: Path) -> str:
    return _report(lab, lab / "report.html")


class _Reader(HTMLParser):
    """Collects what a browser would load, the ids, and whether every element is closed in order."""

    _VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in self._VOID:
            self.open.append(tag)
        self.loaded += [given[name] for name in ("src", "href", "xlink:href", "data", "action") if given.get(name)]
        self.ids += [given["id"]] if "id" in given else []
        if tag == "img" and "data-group" in given:
            self.images.append(given)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self._VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(page: str) -> None:
    reader = _read(page)
    assert all(address.startswith(("data:image/", "#")) for address in reader.loaded)
    assert not re.search(r"@import|url\((?!#)", page)
    assert len(reader.ids) == len(set(reader.ids))
    anchors = {address[1:] for address in reader.loaded if address.startswith("#")}
    assert anchors <= set(reader.ids)


def test_every_held_out_case_is_shown_at_full_resolution_from_best_to_worst(lab: Path, page: str) -> None:
    rows = [line.split(",") for line in (lab / "evaluation" / "scores.csv").read_text().splitlines()[1:]]
    ranked = sorted((row for row in rows if row[2] == "stainer"), key=lambda row: -float(row[3]))
    titles = re.findall(r'<article class="case" id="case-\d+">\s*<header><h3>(.*?)</h3>', page)
    assert titles == [row[1] for row in ranked]
    badges = dict(
        re.findall(
            r'<h3>([^<]*)</h3><span class="soft">specimen [^<]*</span><span class="badge \w+">(.*?)</span>', page
        )
    )
    assert badges == {titles[0]: "best case", titles[-1]: "worst case"}
    images = _read(page).images
    for name in titles:
        sizes = [(image["width"], image["height"]) for image in images if image["data-group"] == name]
        assert sizes == [("80", "64")] * 6


def test_the_shown_pictures_are_the_ct_the_prediction_and_the_real_stain(lab: Path, page: str) -> None:
    shown = {}
    for image in _read(page).images:
        if image["data-group"] == "S01_0":
            with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as file:
                shown[image["data-caption"].partition(":")[0].partition(",")[0]] = np.asarray(file)
    pair = _pair("S01_0", "S01", 1)
    inside = pair.inside
    assert inside is not None
    grey = np.floor(np.clip(pair.ct[0].astype(np.float64) / 2.0, 0, 1) * 255 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(shown["CT"][inside], np.repeat(grey[..., None], 3, axis=2)[inside])
    with Image.open(lab / "evaluation" / "predictions" / "S01_0.stainer.png") as file:
        np.testing.assert_array_equal(shown["Virtual stain"][inside], np.asarray(file)[inside])
    np.testing.assert_array_equal(shown["Real stain"][pair.mask], pair.stain[pair.mask])
    assert (shown["Real stain"][~pair.mask] != pair.stain[~pair.mask]).mean() > 0.9
    for outside_the_volume in ("CT", "Virtual stain", "Colour table"):
        assert {tuple(rgb) for rgb in shown[outside_the_volume][~inside]} == {(176,) * 3, (128,) * 3}


def test_a_network_with_random_weights_is_not_called_better(lab: Path, page: str) -> None:
    text = html.unescape(page)
    verdict = json.loads((lab / "evaluation" / "summary.json").read_text())["verdict"]
    assert f'<p class="big">{verdict}</p>' in text
    assert not re.search(r"\bbetter than the colour table in|class=\"(verdict|tile) good", text)
    assert "<title>Virtual giemsa, judged on 2 unseen specimens · tomostain report</title>" in page
    assert "phantom" not in text.lower()


def _judged(lab: Path, home: Path, simulated: Sequence[tuple[str, ...]]) -> str:
    """A report on one pair a specimen, of which the named parts were simulated."""
    for i, parts in enumerate(simulated):
        save_pair(_pair(f"P{i}", f"P{i}", i, simulated=parts), home / "pairs" / f"{i}.pair.zarr")
    recipe = EvaluateRecipe(metrics=("ssim",))
    evaluate(lab / "stainer", home / "pairs", home / "evaluation", recipe=recipe)
    places = {"stainer": lab / "stainer", "evaluation": home / "evaluation", "pairs": home / "pairs"}
    return report(home / "report.html", **places).read_text(encoding="utf-8")


def test_simulated_sections_are_called_so_in_title_and_captions_and_nothing_is_called_real(
    lab: Path, tmp_path: Path
) -> None:
    page = _judged(lab, tmp_path, [("CT", "stain")] * 3)
    text = html.unescape(page)
    assert "<h1>Virtual giemsa, judged on 3 unseen simulated specimens (phantom)</h1>" in text
    assert "Simulated stain (phantom): computed, not seen in a microscope" in text
    captions = [image["data-caption"] for image in _read(page).images]
    assert captions.count("Simulated (phantom) stain") == captions.count("Simulated (phantom) CT") == 6
    assert not re.findall(r"real (?!specimens)\w+", text, flags=re.IGNORECASE)


def test_a_mixture_of_real_and_simulated_sections_is_named_case_by_case(lab: Path, tmp_path: Path) -> None:
    page = _judged(lab, tmp_path, [(), ("CT", "stain"), ("stain",)])
    text = html.unescape(page)
    assert "judged on 3 unseen specimens, 2 of 3 sections simulated (phantom)</h1>" in text
    assert "2 of the 3 sections are simulated by tomostain's phantom: P1 and P2." in text
    kinds: dict[str, set[str]] = {}
    for image in _read(page).images:
        kinds.setdefault(image["data-group"], set()).add(image["data-caption"])
    assert {"CT", "Real stain"} <= kinds["P0"]
    assert {"Simulated (phantom) CT", "Simulated (phantom) stain"} <= kinds["P1"]
    assert {"CT", "Simulated (phantom) stain"} <= kinds["P2"]


def test_scores_and_provenance_are_the_files_own(lab: Path, page: str) -> None:
    summary = json.loads((lab / "evaluation" / "summary.json").read_text())
    for spread in summary["methods"].values():
        assert f"{spread['ssim']['mean']:.3f}" in page
        assert f"{spread['psnr']['low']:.2f} to {spread['psnr']['high']:.2f}" in page
    for folder in ("stainer", "evaluation", "stained.ome.zarr"):
        for given in runs.read_record(lab / folder)["inputs"]:
            assert given["sha256"] in page


def test_what_lies_outside_the_trained_range_is_warned_of(page: str) -> None:
    assert "run from 0 to 17.5, those of training from -1 to 3" in html.unescape(page)


def test_names_from_files_cannot_become_markup(page: str) -> None:
    assert "<S00>" not in page
    assert "&lt;S00&gt;" in page


def test_the_volume_is_cut_three_ways_beside_its_ct(page: str) -> None:
    cuts = [image for image in _read(page).images if image["data-group"].startswith("cut")]
    assert [(i["data-caption"], i["height"], i["width"]) for i in cuts] == [
        (caption, *size) for size in (("40", "50"), ("12", "50"), ("12", "40")) for caption in ("CT", "Virtual stain")
    ]


def test_without_a_volume_there_is_no_such_section(lab: Path, tmp_path: Path) -> None:
    page = _report(lab, tmp_path / "short.html", ReportRecipe(cases=2, regions=0), stained=False)
    assert 'id="volume"' not in page
    assert "The worst regions" not in page
    assert len(re.findall(r'<article class="case" id="case-', page)) == 2
    assert "3 further cases" in page


def test_the_same_files_give_the_same_page(lab: Path, tmp_path: Path, page: str) -> None:
    assert _report(lab, tmp_path / "again.html") == page


def test_what_is_missing_or_does_not_belong_is_named(lab: Path, tmp_path: Path) -> None:
    save_pair(_pair("other", "S09", 3), tmp_path / "pairs" / "other.pair.zarr")
    places = {"stainer": lab / "stainer", "evaluation": lab / "evaluation", "pairs": lab / "pairs"}
    with pytest.raises(ValueError, match=r"the pairs S0\d_\d.* are missing"):
        report(tmp_path / "a.html", **{**places, "pairs": tmp_path / "pairs"})
    with pytest.raises(FileNotFoundError, match="nowhere has no"):
        report(tmp_path / "b.html", **{**places, "evaluation": tmp_path / "nowhere"})
    with pytest.raises(ValueError, match=r"\.html file, not report\.pdf"):
        report(tmp_path / "report.pdf", **places)
    with pytest.raises(ValueError, match=r"report\.html exists"):
        report(lab / "report.html", **places)


def test_the_ct_of_a_volume_stained_from_raw_values_is_found_again(lab: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((8, 20, 24), dtype=np.float32)
    values.tofile(tmp_path / "ct.raw")
    options = VolumeOptions(spacing_um=(5.0, 5.0, 5.0), shape=(8, 20, 24), dtype="float32")
    stained = stain(
        lab / "stainer",
        tmp_path / "ct.raw",
        tmp_path / "stained.ome.zarr",
        recipe=StainRecipe(reading=options, backend="torch"),
    )
    places = {"stainer": lab / "stainer", "evaluation": lab / "evaluation", "pairs": lab / "pairs"}
    page = report(tmp_path / "report.html", **places, stained=stained).read_text(encoding="utf-8")
    cuts = [image["data-caption"] for image in _read(page).images if image["data-group"].startswith("cut")]
    assert cuts == ["CT", "Virtual stain"] * 3
    assert "no longer where it was" not in page


def test_names_that_a_spreadsheet_would_run_stay_names(lab: Path, tmp_path: Path) -> None:
    for i in range(2):
        save_pair(_pair(f"=1+{i}", "+S", i), tmp_path / "pairs" / f"{i}.pair.zarr")
    out = evaluate(
        lab / "stainer", tmp_path / "pairs", tmp_path / "evaluation", recipe=EvaluateRecipe(metrics=("ssim",))
    )
    for line in (out / "scores.csv").read_text().splitlines()[1:]:
        assert line.startswith("'+S,'=1+")
    places = {"stainer": lab / "stainer", "evaluation": out, "pairs": tmp_path / "pairs"}
    page = report(tmp_path / "report.html", **places).read_text(encoding="utf-8")
    assert set(re.findall(r"<h3>(=1\+\d)</h3>", page)) == {"=1+0", "=1+1"}
