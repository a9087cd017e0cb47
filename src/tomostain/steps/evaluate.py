"""Step: score a stainer on specimens it has not seen, always beside what it has to beat."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tomostain import runs
from tomostain._imports import pick
from tomostain._settings import SHARE, check_numbers
from tomostain.images.anchors import GreyMap
from tomostain.learning.ranges import warn_out_of_range
from tomostain.learning.stainer import Stainer, stainer_folder
from tomostain.pairs.pair import grey_values_by_specimen, load_pair, pairs_in
from tomostain.pairs.scale import anchors_by_specimen
from tomostain.scoring.baselines import load_baselines
from tomostain.scoring.judging import Metric, held_out_pairs, judge
from tomostain.scoring.lpips import Lpips
from tomostain.scoring.metrics import METRICS, lpips


@Parameter(name="*")
@dataclass(frozen=True)
class EvaluateRecipe:
    """How a stainer is scored."""

    metrics: tuple[str, ...] = ("ssim", "psnr", "lpips")
    """Metrics by name; `ssim psnr` leaves out LPIPS, which needs its published weights on this machine."""
    lpips_net: Literal["alex", "squeeze"] = "alex"
    """Network inside LPIPS; AlexNet is the one that papers report."""
    lpips_folder: Path | None = None
    """Folder with the published LPIPS weights; default: TOMOSTAIN_LPIPS, else the user's cache folder."""
    use_confidence: bool = True
    """Weight each pixel by the registration's confidence; off: all unmasked pixels have the same weight."""
    allow_training_specimens: bool = False
    """Score pairs of specimens that the stainer was trained on too. Such scores say nothing about new specimens."""
    out_of_range: Annotated[float, SHARE] = 0.01
    """Share of a pair's CT values outside the range of training, above which there is a warning."""
    any_values: bool = False
    """Score pairs whose CT grey values are not those that the stainer was trained on; they are refused otherwise."""
    trust: bool = False
    """Run a network from outside tomostain (package.module:Class), which the stainer names; only if you trust it."""
    json: bool = False
    """Print the summary as one JSON object instead of the table and the verdict."""

    def __post_init__(self) -> None:
        check_numbers(self)


def evaluate(stainer: Path, pairs: Path, out: Path, *, recipe: EvaluateRecipe = EvaluateRecipe()) -> Path:
    """Score a stainer on pairs of held-out specimens, and compare it with the colour table and the mean colour.

    Of a phantom the perfect section is scored too, and each tissue. --verbose prints what else is saved: the scores
    after a dye fit for each section, colour differences (CIEDE2000), colour error and overlap (Dice) of each tissue.

    Writes scores.csv (a row for each pair and method), specimens.csv (their means), summary.json (means over specimens
    with 95 % intervals, gains over the baselines, the verdict) and predictions/PAIR.METHOD.png; prints means and
    verdict.

    Parameters
    ----------
    stainer
        Folder that `tomostain train` wrote.
    pairs
        Folder of *.pair.zarr, or one pair; pairs of training specimens in it are left out.
    out
        Folder to be written.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    FileNotFoundError
        No pairs, no finished stainer, or no LPIPS weights.
    ValueError
        All pairs are of training specimens, or a pair does not fit the stainer.

    Example
    -------
    tomostain evaluate stainer/ pairs/ evaluation/
    tomostain evaluate stainer/ pairs/ evaluation/ --metrics ssim psnr
    """
    stainer, pairs, out = stainer_folder(stainer), Path(pairs), Path(out)
    with runs.output(out, "evaluate", recipe=recipe, inputs=[stainer, pairs]) as made:
        model = Stainer.load(stainer, trust=recipe.trust)
        metrics = {name: _metric(name, recipe) for name in recipe.metrics}
        allowed = recipe.allow_training_specimens
        files, left_out = held_out_pairs(pairs_in(pairs), model, allow_training_specimens=allowed)
        maps = _maps(model, files, any_values=recipe.any_values)
        evaluation = judge(
            files,
            model,
            load_baselines(stainer),
            metrics,
            out,
            use_confidence=recipe.use_confidence,
            left_out=left_out,
            lpips_net=recipe.lpips_net,
            grey_maps=maps,
        )
        evaluation.save(out)
        made.results |= {key: evaluation.summary[key] for key in ("verdict", "pairs", "specimens", "simulated")}
    summary = evaluation.summary
    warn_out_of_range(summary["out_of_range"], summary["learnt_range"], limit=recipe.out_of_range)
    if recipe.json:
        print(json.dumps(summary, indent=1))
    else:
        runs.say(evaluation.describe())
        runs.say_verbosely(evaluation.describe_colours())
    return out


def _maps(model: Stainer, files: Sequence[Path], *, any_values: bool) -> dict[str, GreyMap]:
    """The map of each specimen's grey values onto those that the stainer was trained on."""
    pairs = list(map(load_pair, files))
    anchors = anchors_by_specimen(pairs)
    return {
        specimen: model.scale_of(values, anchors.get(specimen, ()), f"specimen {specimen}", any_values=any_values)
        for specimen, values in grey_values_by_specimen(pairs).items()
    }


def _metric(name: str, recipe: EvaluateRecipe) -> Metric:
    metric: Metric = pick(name, METRICS)
    if metric is lpips:
        return functools.partial(lpips, metric=Lpips.load(recipe.lpips_net, recipe.lpips_folder))
    return metric
