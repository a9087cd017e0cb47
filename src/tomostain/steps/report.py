"""Step: one self-contained page that shows what was trained, how good it is, and where not to believe it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cyclopts import Parameter
from PIL import Image

from tomostain import __version__, runs
from tomostain.images.image import Volume
from tomostain.io.volumes import read_volume
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import load_pair, pairs_in
from tomostain.reporting import words
from tomostain.reporting.cuts import Cut, orthogonal_cuts
from tomostain.reporting.errors import (
    JUST_NOTICEABLE,
    Case,
    by_colour,
    by_intensity,
    colour_difference,
    scale_top,
    worst_regions,
)
from tomostain.reporting.figures import curves_figure, intensity_figure, scores_figure
from tomostain.reporting.page import render
from tomostain.reporting.pictures import error_map, grey, hatched, picture, scale_colours
from tomostain.scoring.baselines import COLOUR_TABLE, Baseline, load_baselines
from tomostain.scoring.metrics import HIGHER_IS_BETTER
from tomostain.scoring.scores import STAINER
from tomostain.steps.evaluate import prediction_name, training_specimens

_LOSSLESS_PIXELS = 2_500_000
"""Pixels of all cases' planes up to which pictures are PNG; beyond, JPEG keeps the page small enough to send."""


@Parameter(name="*")
@dataclass(frozen=True)
class ReportRecipe:
    """What the report shows."""

    cases: int = 24
    """Held-out cases in pictures: always the best and the worst, then evenly between them by rank."""
    classes: int = 6
    """Main colours of the real stain by which errors are told apart."""
    regions: int = 3
    """Worst regions shown enlarged."""
    out_of_range: float = 0.01
    """Share of a section's CT values beyond those met in training, above which the report warns."""

    def __post_init__(self) -> None:
        if self.cases < 2 or self.classes < 1 or self.regions < 0:
            raise ValueError("a report needs cases >= 2, classes >= 1 and regions >= 0")


def report(
    out: Path,
    *,
    stainer: Path,
    evaluation: Path,
    pairs: Path,
    stained: Path | None = None,
    recipe: ReportRecipe = ReportRecipe(),
) -> Path:
    """Write a self-contained report.html: verdict, scores, every held-out case, where not to believe it, provenance.

    Parameters
    ----------
    out
        The page to be written, an .html file.
    stainer
        Folder that `tomostain train` wrote.
    evaluation
        Folder that `tomostain evaluate` wrote.
    pairs
        The pairs that were evaluated.
    stained
        A stained volume, shown in three cuts beside its CT.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    FileNotFoundError
        A step before this one has not finished.
    ValueError
        The evaluation and the pairs do not belong together, or ``out`` exists.

    Example
    -------
    tomostain report report.html --stainer stainer/ --evaluation evaluation/ --pairs pairs/ --stained stained.ome.zarr
    """
    out, stainer, evaluation, pairs = Path(out), Path(stainer), Path(evaluation), Path(pairs)
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is an .html file, not {out.name}")
    inputs = [stainer, evaluation, pairs, stained]
    with runs.output(out, "report", recipe=recipe, inputs=inputs) as made:
        made.results |= _report(out, stainer, evaluation, pairs, stained, recipe)
    return out


def _report(
    out: Path, stainer: Path, evaluation: Path, pairs: Path, stained: Path | None, recipe: ReportRecipe
) -> dict[str, Any]:
    """Write the page; returns what the record says of it."""
    records = {"Training": runs.read_record(stainer), "Evaluation": runs.read_record(evaluation)}
    if stained is not None:
        records["Staining of the volume"] = runs.read_record(stained)
    model, baselines = Stainer.load(stainer), load_baselines(stainer)
    summary = json.loads((evaluation / "summary.json").read_text(encoding="utf-8"))
    scores = _read_scores(evaluation / "scores.csv", summary["metrics"])
    ranked = _ranked(scores, summary["metrics"][0])
    chosen = [ranked[i] for i in np.unique(np.linspace(0, len(ranked) - 1, min(recipe.cases, len(ranked))).astype(int))]
    cases = _load_cases(chosen, pairs_in(pairs), evaluation, list(summary["methods"]))
    lossless = sum(case.mask.size for case in cases) <= _LOSSLESS_PIXELS
    cuts, volume = _volume(stained, records.get("Staining of the volume"), model)
    classes = by_colour(cases, classes=recipe.classes)
    cautions = words.warnings(summary, classes, out_of_range=recipe.out_of_range, volume=volume)
    top = scale_top(cases)
    pictures = [_case_pictures(case, model, top, lossless) for case in cases]
    facts = words.metric_facts(summary["metrics"], HIGHER_IS_BETTER)
    content = {
        "version": __version__,
        "title": words.title(model.stain, summary),
        "finished": str(records["Evaluation"]["finished"])[:16].replace("T", " ") + " UTC",
        "introduction": words.introduction(model.stain, model.um_per_px, training_specimens(model), summary),
        "state": words.state_of(summary),
        "verdict": summary["verdict"],
        "explanation": words.explanation(summary),
        "tiles": words.tiles(summary, HIGHER_IS_BETTER),
        "hero": pictures[len(pictures) // 2],
        "ranked_by": facts[0]["name"],
        "metrics": facts,
        "n_pairs": summary["pairs"],
        "score_rows": words.score_rows(summary, HIGHER_IS_BETTER),
        "gain_rows": words.gain_rows(summary),
        "scores_svg": _scores_svg(scores, summary, facts),
        "unseen": words.unseen(summary),
        "noticeable": JUST_NOTICEABLE,
        "error_top": top,
        "scale_colours": scale_colours(),
        "cases": _badged(pictures, cases, scores, summary["metrics"]),
        "cases_left_out": len(ranked) - len(cases),
        "voxel": f"{model.um_per_px:g} µm",
        "warnings": cautions,
        "classes": classes,
        "class_top": max(max(c.errors.values()) for c in classes),
        "intensity_svg": _intensity_svg(cases, model, baselines[COLOUR_TABLE]),
        "regions": _regions(cases, model, top, recipe.regions),
        "cuts": cuts,
        "volume_words": volume.get("words", ""),
        "training_facts": _training_facts(model, records["Training"]),
        "curves_svg": _curves_svg(stainer / "curves.csv"),
        "provenance": [_provenance(title, record) for title, record in records.items()],
    }
    runs.write_text_atomically(out, render(content))
    return {"verdict": summary["verdict"]}


def _read_scores(path: Path, metrics: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """scores.csv as pair -> method -> metric -> value."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            scores.setdefault(row["pair"], {})[row["method"]] = {metric: float(row[metric]) for metric in metrics}
    return scores


def _ranked(scores: Mapping[str, Mapping[str, Mapping[str, float]]], metric: str) -> list[str]:
    sign = -1.0 if HIGHER_IS_BETTER.get(metric, True) else 1.0
    return sorted(scores, key=lambda pair: sign * scores[pair][STAINER][metric])


def _load_cases(names: Sequence[str], files: Sequence[Path], evaluation: Path, methods: Sequence[str]) -> list[Case]:
    """The named pairs with what was painted for them, in the order of the names."""
    loaded = {}
    for file in runs.progress(files, desc="report", unit="pair"):
        pair = load_pair(file)
        if pair.name not in names:
            continue
        painted = {}
        for method in methods:
            with Image.open(evaluation / "predictions" / prediction_name(pair.name, method)) as image:
                painted[method] = np.asarray(image.convert("RGB"))
            if painted[method].shape != pair.stain.shape:
                raise ValueError(f"{file} is not the pair {pair.name} that {evaluation} was made of: its size differs")
        errors = {method: colour_difference(rgb, pair.stain) for method, rgb in painted.items()}
        y, x = pair.grid.spacing_um
        mask = pair.weight > 0
        loaded[pair.name] = Case(pair.name, pair.specimen, pair.central_ct, pair.stain, painted, errors, mask, (y, x))
    missing = [name for name in names if name not in loaded]
    if missing:
        raise ValueError(
            f"the pairs do not hold {', '.join(missing)}, which {evaluation} was made of; give the same folder"
        )
    return [loaded[name] for name in names]


def _case_pictures(case: Case, model: Stainer, top: float, lossless: bool) -> dict[str, Any]:
    low, high = model.ct_range.low, model.ct_range.high
    shown = {
        "ct": grey(case.ct, low, high),
        "virtual": case.painted[STAINER],
        "real": hatched(case.real, case.mask),
        "table": case.painted[COLOUR_TABLE],
        "error": error_map(case.errors[STAINER], case.mask, top=top),
        "table_error": error_map(case.errors[COLOUR_TABLE], case.mask, top=top),
    }
    pictures: dict[str, Any] = {
        name: picture(image, f"{name.replace('_', ' ')} of {case.name}", spacing_um=case.spacing_um, lossless=lossless)
        for name, image in shown.items()
    }
    means = {m: f"{float(case.errors[m][case.mask].mean()):.1f}" for m in (STAINER, COLOUR_TABLE)}
    about = {"name": case.name, "specimen": case.specimen}
    return pictures | about | {"mean_error": means[STAINER], "mean_table_error": means[COLOUR_TABLE]}


def _badged(
    pictures: Sequence[dict[str, Any]], cases: Sequence[Case], scores: Mapping[str, Any], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """The cases' pictures with their scores, the best and the worst marked."""
    marks = {0: ("best case", "good"), len(cases) - 1: ("worst case", "bad")} if len(cases) > 1 else {}
    shown = []
    for i, (pictured, case) in enumerate(zip(pictures, cases, strict=True)):
        badge, state = marks.get(i, ("", ""))
        ours, table = scores[case.name][STAINER], scores[case.name][COLOUR_TABLE]
        told = [
            f"{words.NAMES.get(m, m)} {words.number(m, _finite(ours[m]))} (table {words.number(m, _finite(table[m]))})"
            for m in metrics
        ]
        shown.append({**pictured, "badge": badge, "state": state, "numbers": " · ".join(told)})
    return shown


def _regions(cases: Sequence[Case], model: Stainer, top: float, count: int) -> list[dict[str, Any]]:
    named = {case.name: case for case in cases}
    shown = []
    for region in worst_regions(cases, STAINER, count=count):
        case, (row, column), edge = named[region.case], region.corner_px, region.edge_px
        inside = (slice(row, row + edge), slice(column, column + edge))
        mask = case.mask[inside]
        images: dict[str, npt.NDArray[np.uint8]] = {
            "ct": grey(case.ct[inside], model.ct_range.low, model.ct_range.high),
            "virtual": case.painted[STAINER][inside],
            "real": hatched(case.real[inside], mask),
            "map": error_map(case.errors[STAINER][inside], mask, top=top),
        }
        y_um, x_um = (n * s for n, s in zip((row, column), case.spacing_um, strict=True))
        shown.append(
            {
                name: picture(image, f"{name}, region of {case.name}", spacing_um=case.spacing_um)
                for name, image in images.items()
            }
            | {"case": case.name, "error": f"{region.error:.1f}"}
            | {"where": f"from {y_um:.0f} µm down and {x_um:.0f} µm right of the upper left corner"}
        )
    return shown


def _volume(stained: Path | None, record: Mapping[str, Any] | None, model: Stainer) -> tuple[list[Cut], dict[str, Any]]:
    """Three cuts of the stained volume beside its CT, where the CT is still where its record says."""
    if stained is None or record is None:
        return [], {}
    painted = read_volume(stained)
    if not painted.is_colour:
        raise ValueError(f"{stained} holds no colours, so it is no stained volume; `tomostain stain` writes one")
    ct = _ct_of(record)
    shape = " \N{MULTIPLICATION SIGN} ".join(str(n) for n in painted.grid.shape)
    voxel = " \N{MULTIPLICATION SIGN} ".join(f"{s:g}" for s in painted.grid.spacing_um)
    told = f"{painted.name}: {shape} voxels (z, y, x) of {voxel} µm, virtual {painted.stain or model.stain}."
    if ct is None:
        told += " Its CT is no longer where it was when it was stained, so the cuts stand alone."
    about: dict[str, Any] = {"words": told}
    results = record.get("results", {})
    low, high = model.ct_range.seen_low, model.ct_range.seen_high
    met = results.get("ct_min"), results.get("ct_max")
    if None not in (*met, low, high) and (met[0] < low or met[1] > high):
        about["outside"] = (
            f"The stained volume's CT values run from {met[0]:g} to {met[1]:g}, those met in training from {low:g} to "
            f"{high:g}; colours of voxels beyond that are a guess."
        )
    return orthogonal_cuts(painted, ct, window=(model.ct_range.low, model.ct_range.high)), about


def _ct_of(record: Mapping[str, Any]) -> Volume | None:
    """The CT volume among a staining's inputs; None where it can no longer be opened."""
    recipe = record.get("recipe") or {}
    spacing, shape = (tuple(recipe[key]) if recipe.get(key) else None for key in ("spacing_um", "shape"))
    for given in reversed(record.get("inputs", [])):
        path = Path(given["path"])
        if not runs.split_inside(path)[0].exists() or (path / "stainer.json").exists():
            continue
        try:
            volume = read_volume(
                path, spacing_um=spacing, shape=shape, dtype=recipe.get("dtype"), offset=recipe.get("offset") or 0
            )
        except (ValueError, OSError):
            continue
        if not volume.is_colour:
            return volume
    return None


def _training_facts(model: Stainer, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    recipe = record.get("recipe") or {}
    seen = training_specimens(model)
    args = ", ".join(f"{key} {value}" for key, value in model.spec.args.items())
    units = f" {model.ct_range.units}" if model.ct_range.units else ""
    facts = [
        ("Trained on", _trained_on(model, seen)),
        ("Method", f"{recipe.get('method', 'not recorded')}, {recipe.get('steps', '?')} steps"),
        ("Generator", f"{model.spec.name} ({args})" if args else model.spec.name),
        ("CT range", f"{model.ct_range.low:g} to {model.ct_range.high:g}{units} becomes -1 to 1, nothing is clipped"),
        ("Pixel", f"{model.um_per_px:g} µm, {model.planes} CT plane{'s' * (model.planes != 1)} at a time"),
        ("Looks around", f"{model.halo_px} px ({model.halo_px * model.um_per_px:g} µm)"),
        (
            "Tiles",
            "tile-exact: a tiled volume equals one painted whole" if model.tile_exact else "not tile-exact: seams",
        ),
    ]
    return facts


def _trained_on(model: Stainer, seen: Sequence[str] | None) -> str:
    if not seen:
        return "not recorded"
    pairs = model.history.get("pairs") or []
    return f"{len(pairs)} sections of {', '.join(seen)}" if pairs else ", ".join(seen)


def _scores_svg(scores: Mapping[str, Any], summary: Mapping[str, Any], facts: Sequence[Mapping[str, Any]]) -> str:
    metrics = summary["metrics"]
    points = {m: {k: [by[m][k] for by in scores.values()] for k in metrics} for m in summary["methods"]}
    names = {fact["key"]: f"{fact['name']}, {fact['direction']} is better" for fact in facts}
    return scores_figure(metrics, points, summary["methods"], names)


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
