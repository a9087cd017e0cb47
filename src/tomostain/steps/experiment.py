"""Step: compare methods on one's own pairs: methods x folds x seeds, and what may be claimed from them."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tomostain import runs
from tomostain.experiment.ceilings import shifted_perfect
from tomostain.experiment.leakage import near_duplicates, warn_of
from tomostain.experiment.outcomes import FILE as OUTCOME
from tomostain.experiment.outcomes import save_outcome
from tomostain.experiment.plan import FILE as PLAN
from tomostain.experiment.plan import Plan, Run, make_plan
from tomostain.experiment.recipe import ExperimentRecipe
from tomostain.experiment.results import FILE, collect
from tomostain.experiment.variants import variants_of
from tomostain.pairs.pair import Pair, load_pair, pairs_in
from tomostain.reporting.experiment import experiment_page
from tomostain.scoring.lpips import Lpips
from tomostain.scoring.metrics import METRICS
from tomostain.steps.evaluate import EvaluateRecipe, evaluate
from tomostain.steps.train import train

__all__ = ["ExperimentRecipe", "experiment"]


def experiment(pairs: Path, out: Path, *, recipe: ExperimentRecipe = ExperimentRecipe()) -> Path:
    """Compare methods on specimens left out: methods x folds x seeds, with intervals and tests over specimens.

    Writes plan.json, runs/BUDGET/METHOD/FOLD/SEED/ (stainer, evaluation, outcome.json), results.json and report.html.
    The same command goes on with what was broken off, within a training too. Started again with more methods or seeds,
    it adds them.

    Parameters
    ----------
    pairs
        Folder of *.pair.zarr.
    out
        Folder of the experiment.

    Returns
    -------
    Path
        The report, plan.json (--plan-only), or the folder of the run (--only).

    Raises
    ------
    ValueError
        A method, a setting or the pairs are faulty, or ``out`` holds another experiment.

    Example
    -------
    tomostain experiment pairs/ experiment/ --methods pix2pix cyclegan paired_cyclegan supervised --hours 1
    tomostain experiment pairs/ ablation/ --methods supervised supervised:-ssim --against supervised --steps 2000
    """
    pairs, out = Path(pairs), Path(out)
    loaded = _loaded(pairs)
    variants = variants_of(recipe.words, recipe.variants, recipe.base)
    seeds, hours, steps = recipe.seeds, recipe.hours, recipe.steps
    plan = make_plan(loaded, variants, out, count=recipe.folds, seeds=seeds, hours=hours, steps=steps)
    if recipe.plan_only:
        return out / PLAN
    metrics, lpips = _metrics(recipe)
    scored = recipe.score_on or pairs
    bench = _Bench(pairs, scored, out, loaded if scored == pairs else _loaded(scored), metrics, lpips)
    if recipe.only:
        run = plan.run_named(recipe.only)
        _one(run, bench)
        return run.folder(out)
    report = out / "report.html"
    with runs.output(out, "experiment", recipe=recipe, inputs=[pairs], keep=(out / PLAN).is_file, reopen=True) as made:
        alike = near_duplicates(loaded)
        warn_of(alike)
        _all(plan, bench)
        ceiling = shifted_perfect(bench.held, {name: METRICS[name] for name in metrics})
        results = collect(
            plan, out, bench.held, metrics=metrics, against=recipe.against, alike=alike, ceiling=ceiling, lpips=lpips
        )
        runs.write_text_atomically(out / FILE, json.dumps(results, indent=1) + "\n")
        runs.write_text_atomically(report, experiment_page(results))
        made.results |= {"runs": results["runs"], "report": report.name}
    return report


@dataclass(frozen=True)
class _Bench:
    """What all runs have in common."""

    pairs: Path
    scored: Path
    out: Path
    held: Sequence[Pair]
    metrics: tuple[str, ...]
    lpips: Lpips | None


def _all(plan: Plan, bench: _Bench) -> None:
    """Do all runs that are not finished, and say what is left."""
    todo = [run for run in plan.runs if not (run.folder(bench.out) / OUTCOME).is_file()]
    took: list[float] = []
    for number, run in enumerate(todo):
        left = f", about {(len(todo) - number) * sum(took) / len(took) / 60:.0f} min" if took else ""
        runs.say(f"run {number + 1} of {len(todo)}: {run.name}; {len(todo) - number} left{left}")
        begun = time.monotonic()
        _one(run, bench)
        took.append(time.monotonic() - begun)


def _one(run: Run, bench: _Bench) -> None:
    """Train and score what one run is, as far as that is not done."""
    folder = run.folder(bench.out)
    stainer, evaluation = folder / "stainer", folder / "evaluation"
    if not runs.was_made_by(stainer, run.recipe):
        train(bench.pairs, stainer, recipe=run.recipe)
    if not runs.is_complete(evaluation):
        evaluate(stainer, bench.scored, evaluation, recipe=EvaluateRecipe(metrics=bench.metrics))
    save_outcome(folder, bench.held, bench.lpips)


def _loaded(pairs: Path) -> list[Pair]:
    return [load_pair(file) for file in runs.progress(pairs_in(pairs), desc="reading pairs", unit="pair")]


def _metrics(recipe: ExperimentRecipe) -> tuple[tuple[str, ...], Lpips | None]:
    """The metrics, without LPIPS where its weights are not on this machine, and its network."""
    try:
        return recipe.metrics, Lpips.load("alex")
    except FileNotFoundError as error:
        warnings.warn(f"the experiment goes on without LPIPS and KID. {error}", stacklevel=3)
        return tuple(name for name in recipe.metrics if name != "lpips"), None
