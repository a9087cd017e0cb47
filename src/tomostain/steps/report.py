"""Step: one self-contained page that shows what was trained, its scores, and where it is not reliable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tomostain import runs
from tomostain._settings import SHARE, Within, check_numbers
from tomostain.images.anchors import GreyMap
from tomostain.images.image import Volume
from tomostain.io.volumes import read_volume
from tomostain.learning.stainer import Stainer, stainer_folder
from tomostain.pairs.pair import pairs_in
from tomostain.reporting.cases import load_cases
from tomostain.reporting.content import ranked_pairs, report_content, volume_content
from tomostain.reporting.page import render
from tomostain.scoring.baselines import load_baselines
from tomostain.scoring.evaluation import Evaluation

_STAINING = "Staining of the volume"


@Parameter(name="*")
@dataclass(frozen=True)
class ReportRecipe:
    """What the report shows."""

    cases: Annotated[int, Within(2, 10_000)] = 24
    """Held-out cases in pictures: always the best and the worst, then evenly between them by rank."""
    classes: Annotated[int, Within(1, 64)] = 6
    """Main colours of the real stain by which errors are grouped."""
    regions: Annotated[int, Within(0, 1000)] = 3
    """Worst regions shown enlarged."""
    out_of_range: Annotated[float, SHARE] = 0.01
    """Share of a section's CT values outside the range of training, above which the report warns."""
    trust: bool = False
    """Run a network from outside tomostain (package.module:Class), which the stainer names; only if you trust it."""

    def __post_init__(self) -> None:
        check_numbers(self)


def report(
    out: Path,
    *,
    stainer: Path,
    evaluation: Path,
    pairs: Path,
    stained: Path | None = None,
    recipe: ReportRecipe = ReportRecipe(),
) -> Path:
    """Write a self-contained report.html: verdict, scores, every held-out case, where it is not reliable, provenance.

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
    out, stainer, evaluation, pairs = Path(out), stainer_folder(stainer), Path(evaluation), Path(pairs)
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is an .html file, not {out.name}")
    inputs = [stainer, evaluation, pairs, stained]
    with runs.output(out, "report", recipe=recipe, inputs=inputs) as made:
        made.results |= _report(out, stainer, evaluation, pairs, stained, recipe)
    return out


def _report(
    out: Path, stainer: Path, evaluation: Path, pairs: Path, stained: Path | None, recipe: ReportRecipe
) -> dict[str, Any]:
    """Write the page; returns the results for its record."""
    records = {"Training": runs.read_record(stainer), "Evaluation": runs.read_record(evaluation)}
    if stained is not None:
        records[_STAINING] = runs.read_record(stained)
    model = Stainer.load(stainer, trust=recipe.trust)
    judged, baselines = Evaluation.load(evaluation), load_baselines(stainer)
    files = pairs_in(pairs)
    volumes = None if stained is None else _volumes(stained, records[_STAINING])
    names = ranked_pairs(judged, recipe.cases)
    cases = load_cases(names, files, evaluation, list(judged.summary["methods"]), judged.summary["grey_maps"])
    content = report_content(
        model,
        judged,
        cases,
        baselines,
        records,
        classes=recipe.classes,
        regions=recipe.regions,
        out_of_range=recipe.out_of_range,
        curves=stainer / "curves.csv",
        volume=None if volumes is None else volume_content(*volumes, records[_STAINING], model),
    )
    runs.write_text_atomically(out, render(content))
    return {"verdict": judged.verdict, "simulated": judged.summary["simulated"]}


def _volumes(stained: Path, record: Mapping[str, Any]) -> tuple[Volume, Volume | None]:
    """The stained volume and its CT."""
    volume = read_volume(stained)
    if not volume.is_colour:
        raise ValueError(f"{stained} holds no colours, so it is not a stained volume; `tomostain stain` writes one")
    return volume, _ct_of(record)


def _ct_of(record: Mapping[str, Any]) -> Volume | None:
    """The CT volume among a staining's inputs; None where it can no longer be opened."""
    recipe = record.get("recipe") or {}
    options = dict(recipe.get("reading") or {})
    for source in reversed(record.get("inputs", [])):
        path = Path(source["path"])
        if not runs.split_inside(path)[0].exists() or (path / "stainer.json").exists():
            continue
        try:
            volume = read_volume(path, **options)
        except (ValueError, OSError, TypeError):
            continue
        if not volume.is_colour:
            return GreyMap(**(record.get("results", {}).get("grey_map") or {})).of(volume)
    return None
