"""Step: the whole story on a phantom cohort, from specimens to a report."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomostain import runs
from tomostain._settings import SEED, Within, check_numbers
from tomostain.learning.recipe import TrainRecipe
from tomostain.scoring.lpips import find_weights
from tomostain.steps.evaluate import EvaluateRecipe, evaluate
from tomostain.steps.pair import pair
from tomostain.steps.phantom import PhantomRecipe, phantom
from tomostain.steps.report import ReportRecipe, report
from tomostain.steps.stain import StainRecipe, stain
from tomostain.steps.train import train

STARTING_POINT = "phantom-toluidine-blue"
"""The stainer that is fine-tuned; it was trained on other phantoms than any demo makes."""


@Parameter(name="*")
@dataclass(frozen=True)
class DemoRecipe:
    """Size of the demo; the defaults take less than eight minutes on two CPU cores."""

    seed: Annotated[int, SEED] = 0
    """Seed of specimens and training."""
    specimens: Annotated[int, Within(2, 10_000)] = 6
    """Phantom specimens; the last ``held_out`` of them are not used for training."""
    held_out: Annotated[int, Within(1, 10_000)] = 2
    """Specimens that are held out for the evaluation."""
    slides: Annotated[int, Within(1, 1000)] = 3
    """Slides per specimen."""
    size: Annotated[tuple[int, int, int], Within(1, 2**16)] = (64, 192, 192)
    """Voxels z y x of a specimen, 5 um each."""
    steps: Annotated[int, Within(1, 1e9)] = 200
    """Steps of fine-tuning."""

    def __post_init__(self) -> None:
        check_numbers(self)


def demo(out: Path, *, recipe: DemoRecipe = DemoRecipe()) -> Path:
    """Run all steps on a small phantom cohort: specimens, pairs, training, scores, a stained volume, a report.

    A demo that was interrupted continues when it is started again. Where the weights of LPIPS are not on
    this machine it is scored without LPIPS, and a warning says so at the start.

    Parameters
    ----------
    out
        Folder for everything; open report.html in it.

    Returns
    -------
    Path
        The report.

    Example
    -------
    tomostain demo demo/
    """
    out = Path(out)
    if not 0 < recipe.held_out < recipe.specimens:
        raise ValueError(f"held_out must lie between 1 and {recipe.specimens - 1}, not {recipe.held_out}")
    page = out / "report.html"
    with runs.output(out, "demo", recipe=recipe, seed=recipe.seed, keep=True, reopen=True) as made:
        _demo(out, page, recipe)
        made.results["report"] = page.name
    return page


def _demo(out: Path, page: Path, recipe: DemoRecipe) -> None:
    """Take all steps that are not finished."""
    out.mkdir(exist_ok=True)
    scoring = EvaluateRecipe(metrics=_metrics())
    cohort, pairs, stainer = out / "cohort", out / "pairs", out / "stainer"
    evaluation, stained = out / "evaluation", out / "stained.ome.zarr"
    settings = PhantomRecipe(specimens=recipe.specimens, slides=recipe.slides, size=recipe.size, seed=recipe.seed)
    if not runs.is_complete(cohort):
        phantom(cohort, recipe=settings)
    elif not runs.was_made_by(cohort, settings):
        raise ValueError(f"{out} holds a demo of other settings; choose another name or remove it first")
    specimens = json.loads((cohort / "cohort.json").read_text(encoding="utf-8"))["specimens"]
    held_out = tuple(str(specimen["name"]) for specimen in specimens[-recipe.held_out :])
    if not runs.is_complete(pairs):
        pair(cohort, pairs)
    learning = TrainRecipe(
        from_stainer=STARTING_POINT,
        hold_out=held_out,
        steps=recipe.steps,
        precision="32-true",
        seed=recipe.seed,
        ct_units="1/cm",
        validate_every=100,
        resume=True,
    )
    if runs.is_complete(stainer) and not runs.was_made_by(stainer, learning):
        raise ValueError(f"{out} holds a demo of other settings; choose another name or remove it first")
    if not runs.is_complete(stainer):
        train(pairs, stainer, recipe=learning)
    if not runs.is_complete(evaluation):
        evaluate(stainer, pairs, evaluation, recipe=scoring)
    volume = cohort / specimens[-1]["ct"]
    if not runs.is_complete(stained):
        stain(stainer, volume, stained, recipe=StainRecipe(resume=True))
    if not runs.is_complete(page):
        report(page, stainer=stainer, evaluation=evaluation, pairs=pairs, stained=stained, recipe=ReportRecipe())


def _metrics() -> tuple[str, ...]:
    """The usual metrics; LPIPS only where its weights are on this machine."""
    usual = EvaluateRecipe()
    try:
        find_weights(usual.lpips_net, usual.lpips_folder)
    except FileNotFoundError as error:
        warnings.warn(f"the demo continues without LPIPS. {error}", stacklevel=3)
        return tuple(name for name in usual.metrics if name != "lpips")
    return usual.metrics
