"""Step: from pairs to a stainer."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tomostain import runs
from tomostain.learning.before import check_network, introduce
from tomostain.learning.checkpoint import FOLDER, checkpoints
from tomostain.learning.planning import plan
from tomostain.learning.recipe import Settled, TrainRecipe
from tomostain.learning.stainer import Stainer
from tomostain.learning.start import check_start, from_start
from tomostain.learning.training import fit
from tomostain.pairs.alike import check_alike
from tomostain.pairs.pair import Pair, load_pair, pairs_in
from tomostain.pairs.scale import on_one_scale
from tomostain.pairs.splits import few, folds, hold_out
from tomostain.scoring.baselines import fit_baselines, save_baselines

PLAN = "plan.json"

__all__ = ["TrainRecipe", "train"]


def train(pairs: Path, out: Path, *, recipe: TrainRecipe = TrainRecipe()) -> Path:
    """Train a stainer on pairs of CT and stain.

    Writes stainer.json, weights.safetensors, baselines.json (the colour table and mean colour that the stainer has to
    beat), curves.csv, samples/*.png, progress.png with both, and run.json; while it runs, checkpoint/.

    Parameters
    ----------
    pairs
        Folder of *.pair.zarr (folders within it are searched too).
    out
        The stainer: a folder to be written.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    FileNotFoundError
        There are no pairs.
    ValueError
        The pairs do not fit together, a setting is wrong, no specimen is left to train on, or ``out`` exists.

    Example
    -------
    tomostain train pairs/ stainer/ --hold-out S04 --hold-out S05
    tomostain train pairs/ stainer/ --width 16 --depth 4 --discriminator-width 16 --patch-px 128 --steps 2000 --resume
    """
    pairs, out = Path(pairs), Path(out)
    check_network(recipe)
    begun = functools.partial(_begun, out)
    with runs.output(out, "train", recipe=recipe, inputs=[pairs], seed=recipe.seed, keep=begun) as made:
        try:
            made.results |= _train(pairs, out, recipe)
        except KeyboardInterrupt:
            if _begun(out):
                print(
                    f"stopped; the training so far is kept. Continue with the same command and --resume, or end with "
                    f"--finish-now: tomostain train {pairs} {out} ... --resume",
                    file=sys.stderr,
                )
            raise
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    return out


def _train(pairs: Path, out: Path, recipe: TrainRecipe) -> dict[str, Any]:
    """Train and write the stainer; returns the results for its record."""
    loaded = [load_pair(file) for file in runs.progress(_files(pairs), desc="reading pairs", unit="pair")]
    loaded = loaded if recipe.any_values else on_one_scale(loaded)
    check_alike(loaded, any_values=recipe.any_values)
    names = folds(loaded, recipe.folds)[recipe.fold] if recipe.fold is not None else recipe.hold_out
    training, held_out = hold_out(loaded, names)
    recipe = _claim(out, recipe)
    start = Stainer.load(Path(recipe.from_stainer)) if recipe.from_stainer else None
    if start is not None:
        check_start(start, training[0], recipe)
    training = few(training, recipe.most_pairs) if recipe.most_pairs else training
    if planes := start.planes if start is not None else recipe.filled().planes:
        training, held_out = ([replace(p, ct=p.central_planes(planes)) for p in part] for part in (training, held_out))
    settled = _settled(out, recipe if start is None else from_start(recipe, start), training)
    introduce(training, held_out, settled)
    model = fit(training, out, settled, held=held_out, start=start)
    save_baselines(fit_baselines(training, model.ct_range), out)
    return {"specimens": model.history["specimens"], "held_out": model.history["held_out"], "pairs": len(training)}


def _settled(out: Path, recipe: TrainRecipe, pairs: Sequence[Pair]) -> Settled:
    """The recipe with all that it leaves out planned; a training that is gone on with keeps its plan."""
    file = out / PLAN
    if recipe.resume and file.is_file():
        planned = json.loads(file.read_text(encoding="utf-8"))["settled"]
        return replace(recipe.filled(), **planned | {"weights": tuple(planned["weights"])})
    settled, choices = plan(recipe, pairs)
    for choice in choices:
        runs.say(f"plan: {choice}")
    lasting = {name: getattr(settled, name) for name in ("patch_px", "batch", "precision", "steps", "weights")}
    text = {"settled": lasting, "reasons": [str(choice) for choice in choices]}
    runs.write_text_atomically(file, json.dumps(text, indent=1) + "\n")
    return settled


def _files(pairs: Path) -> list[Path]:
    try:
        return pairs_in(pairs)
    except FileNotFoundError:
        if (pairs / "cohort.json").is_file():
            raise FileNotFoundError(
                f"{pairs} is a cohort, not yet paired; make pairs of it with: tomostain pair {pairs} pairs/"
            ) from None
        raise


def _claim(out: Path, recipe: TrainRecipe) -> TrainRecipe:
    """The recipe for ``out``, whose folder is made; ``resume`` stays set only where there is something to resume.

    Raises
    ------
    ValueError
        The folder holds an unfinished training that is not to be resumed.
    """
    begun = _begun(out)
    if begun and not (recipe.resume or recipe.finish_now):
        raise ValueError(
            f"{out} holds an unfinished training; continue it with --resume, end it with --finish-now, or remove it"
        )
    if recipe.finish_now and not begun:
        raise ValueError(f"{out} holds no checkpoint to finish from; train without --finish-now")
    out.mkdir(exist_ok=True)
    return replace(recipe, resume=begun)


def _begun(out: Path) -> bool:
    return bool(checkpoints(out / FOLDER))
