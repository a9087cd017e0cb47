"""Everything that the page of a report shows, from a stainer, its evaluation, its cases and a stained volume."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tomostain import __version__
from tomostain.images.image import Volume
from tomostain.learning.stainer import Stainer
from tomostain.reporting import words
from tomostain.reporting.cases import case_pictures, region_pictures
from tomostain.reporting.cuts import orthogonal_cuts
from tomostain.reporting.errors import JUST_NOTICEABLE, Case, by_colour, by_intensity, scale_top
from tomostain.reporting.figures import curves_figure, intensity_figure, scores_figure
from tomostain.reporting.pictures import scale_colours
from tomostain.reporting.strips import strips
from tomostain.reporting.tissues import named_tissues
from tomostain.scoring.baselines import COLOUR_TABLE, Baseline
from tomostain.scoring.evaluation import Evaluation
from tomostain.scoring.metrics import HIGHER_IS_BETTER
from tomostain.scoring.scores import PERFECT, STAINER

_LOSSLESS_PIXELS = 2_500_000
"""Pixels of all cases' planes up to which pictures are PNG; beyond, JPEG keeps the page small enough to send."""
_TIMES = " \N{MULTIPLICATION SIGN} "


def ranked_pairs(evaluation: Evaluation, count: int) -> list[str]:
    """``count`` pairs from the best to the worst by the first metric: always these two, the others evenly between."""
    metric = evaluation.summary["metrics"][0]
    sign = -1.0 if HIGHER_IS_BETTER.get(metric, True) else 1.0
    judged = [score for score in evaluation.scores if score.method == STAINER]
    ranked = [score.pair for score in sorted(judged, key=lambda score: sign * score.values[metric])]
    chosen = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).astype(int))
    return [ranked[i] for i in chosen]


def report_content(
    model: Stainer,
    evaluation: Evaluation,
    cases: Sequence[Case],
    baselines: Mapping[str, Baseline],
    records: Mapping[str, Mapping[str, Any]],
    *,
    classes: int,
    regions: int,
    out_of_range: float,
    curves: Path,
    volume: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The entries of the page's template; ``records`` are those of training, evaluation and staining by their titles.

    ``curves`` is the file that training wrote, ``volume`` what ``volume_content`` returned.
    """
    summary, window = evaluation.summary, (model.ct_range.low, model.ct_range.high)
    volume = volume or {}
    lossless = sum(case.mask.size for case in cases) <= _LOSSLESS_PIXELS
    found, top = by_colour(cases, classes=classes), scale_top(cases)
    if all("stain" in case.simulated for case in cases):
        found = named_tissues(found, model.stain)
    pictures = [case_pictures(case, window, top, lossless=lossless) for case in cases]
    facts = words.metric_facts(summary["metrics"], HIGHER_IS_BETTER)
    trained_on = model.history.get("specimens")
    return {
        "version": __version__,
        "title": words.title(model.stain, summary),
        "finished": str(records["Evaluation"]["finished"])[:16].replace("T", " ") + " UTC",
        "introduction": words.introduction(model.stain, model.um_per_px, trained_on, summary, phantoms=model.simulated),
        "truth": words.truth(summary),
        "state": words.state_of(summary),
        "verdict": evaluation.verdict,
        "explanation": words.explanation(summary),
        "tiles": words.tiles(summary, HIGHER_IS_BETTER),
        "hero": pictures[len(pictures) // 2],
        "ranked_by": facts[0]["name"],
        "metrics": facts,
        "n_pairs": summary["pairs"],
        "score_rows": words.score_rows(summary),
        "gain_rows": words.gain_rows(summary),
        "skill_row": words.skill_row(summary["skill"], summary["metrics"]),
        "fitted_rows": words.fitted_rows(summary),
        "fitted_skill_row": words.skill_row(summary["after_dye_fit"].get("skill", {}), summary["metrics"]),
        "tissue_rows": words.tissue_rows(summary),
        "scores_svg": _scores_svg(evaluation, facts),
        "unseen": words.unseen(summary),
        "noticeable": JUST_NOTICEABLE,
        "error_top": top,
        "scale_colours": scale_colours(),
        "ct_scale": [f"{value:.3g}" for value in window],
        "ct_units": model.ct_range.units,
        "cases": _badged(pictures, cases, evaluation),
        "cases_left_out": summary["pairs"] - len(cases),
        "voxel": f"{model.um_per_px:g} µm",
        "warnings": words.warnings(summary, found, out_of_range=out_of_range, volume=volume),
        "classes": found,
        "class_top": max(max(c.errors.values()) for c in found),
        "intensity_svg": _intensity_svg(cases, model, baselines[COLOUR_TABLE]),
        "regions": region_pictures(cases, window, top, regions),
        "cuts": volume.get("cuts", []),
        "strips": volume.get("strips"),
        "volume_words": volume.get("words", ""),
        "training_facts": _training_facts(model, records["Training"]),
        "curves_svg": _curves_svg(curves),
        "provenance": [_provenance(title, record) for title, record in records.items()],
    }


def volume_content(stained: Volume, ct: Volume | None, record: Mapping[str, Any], model: Stainer) -> dict[str, Any]:
    """A stained volume to scroll through and its three cuts, beside its CT; what it is in words, and warnings."""
    shape, voxel = _TIMES.join(map(str, stained.grid.shape)), _TIMES.join(f"{s:g}" for s in stained.grid.spacing_um)
    about: dict[str, Any] = {
        "words": f"{stained.name}: {shape} voxels (z, y, x) of {voxel} µm, virtual {stained.stain or model.stain}."
    }
    if stained.simulated:
        about["words"] += f" Simulated: {stained.simulated}."
    if ct is None:
        about["words"] += " Its CT is no longer where it was when it was stained, so the cuts stand alone."
    (low, high), results = model.ct_range.learnt, record.get("results", {})
    found = results.get("ct_min"), results.get("ct_max")
    if None not in found and (found[0] < low or found[1] > high):
        about["outside"] = (
            f"The stained volume's CT values run from {found[0]:g} to {found[1]:g}, those of training from {low:g} to "
            f"{high:g}. The colours outside have not been tested."
        )
    window = (model.ct_range.low, model.ct_range.high)
    about |= {"cuts": orthogonal_cuts(stained, ct, window=window), "strips": strips(stained, ct, window=window)}
    return about


def _badged(pictures: Sequence[dict[str, Any]], cases: Sequence[Case], evaluation: Evaluation) -> list[dict[str, Any]]:
    """The cases' pictures with their scores, the best and the worst marked."""
    marks = {0: ("best case", "good"), len(cases) - 1: ("worst case", "bad")} if len(cases) > 1 else {}
    scores = {(score.pair, score.method): score.values for score in evaluation.scores}
    shown = []
    for i, (pictured, case) in enumerate(zip(pictures, cases, strict=True)):
        badge, state = marks.get(i, ("", ""))
        ours, table = ({m: _finite(v) for m, v in scores[case.name, by].items()} for by in (STAINER, COLOUR_TABLE))
        numbers = [
            f"{words.NAMES.get(m, m)} {words.number(m, ours[m])} (table {words.number(m, table[m])})"
            for m in evaluation.summary["metrics"]
        ]
        shown.append({**pictured, "badge": badge, "state": state, "numbers": " · ".join(numbers)})
    return shown


def _training_facts(model: Stainer, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    recipe = record.get("recipe") or {}
    args = ", ".join(f"{key} {value}" for key, value in model.spec.args.items())
    units = f" {model.ct_range.units}" if model.ct_range.units else ""
    return [
        ("Trained on", _trained_on(model)),
        ("Method", f"{recipe.get('method', 'not recorded')}, {model.history.get('steps', '?')} steps"),
        ("Network", f"{model.spec.name} ({args})" if args else model.spec.name),
        ("CT range", f"{model.ct_range.low:g} to {model.ct_range.high:g}{units} becomes -1 to 1, nothing is clipped"),
        ("Pixel", f"{model.um_per_px:g} µm, {model.planes} CT plane{'s' * (model.planes != 1)} at a time"),
        ("Context", f"{model.halo_px} px ({model.halo_px * model.um_per_px:g} µm) around each pixel"),
        ("Tiles", "tiles do not show" if model.tile_exact else "tiles may show as seams"),
    ]


def _trained_on(model: Stainer) -> str:
    seen = model.history.get("specimens")
    if not seen:
        return "not recorded"
    pairs = model.history.get("pairs") or []
    words_of = f"{len(pairs)} sections of {', '.join(seen)}" if pairs else ", ".join(seen)
    start = model.history.get("from")
    words_of += f"; fine-tuned from {start['name']} ({len(start['specimens'])} specimens)" if start else ""
    return words_of + (f"; simulated (phantom): {model.simulated}" if model.simulated else "")


def _scores_svg(evaluation: Evaluation, facts: Sequence[Mapping[str, Any]]) -> str:
    metrics, methods = evaluation.summary["metrics"], evaluation.summary["methods"]
    points = {
        method: {m: [s.values[m] for s in evaluation.scores if s.method == method] for m in metrics}
        for method in methods
    }
    names = {fact["key"]: f"{fact['name']}, {fact['direction']} is better" for fact in facts}
    return scores_figure(metrics, points, methods, names, ceiling=PERFECT)


def _curves_svg(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if len(rows) < 2 or "step" not in rows[0]:
        return ""
    return curves_figure({name: [_float(row[name]) for row in rows] for name in rows[0]})


def _intensity_svg(cases: Sequence[Case], model: Stainer, table: Baseline) -> str:
    centres, share, errors = by_intensity(cases, model.ct_range.low, model.ct_range.high)
    colours = table(centres[None, None, :].astype(np.float32))[0]
    shown = {method: errors[method] for method in (STAINER, COLOUR_TABLE)}
    return intensity_figure(centres, share, shown, colours, unit=model.ct_range.units, threshold=JUST_NOTICEABLE)


def _provenance(title: str, record: Mapping[str, Any]) -> dict[str, Any]:
    machine = record["machine"]
    return {
        "title": title,
        "finished": record.get("finished", ""),
        "command": " ".join(str(word) for word in record.get("command", [])),
        "seed": "none" if record.get("seed") is None else record["seed"],
        "versions": ", ".join(
            f"{name} {version}" for name, version in (record.get("versions") or {}).items() if version
        ),
        "machine": f"{machine['system']}, {machine['processors']} processors" if machine["processors"] else "",
        "inputs": record.get("inputs", []),
        "recipe": json.dumps(record["recipe"], indent=1) if record.get("recipe") else "",
    }


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
