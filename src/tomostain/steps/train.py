"""Step: from pairs to a stainer."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tomostain import runs
from tomostain.images.grey_values import check_together
from tomostain.learning.checkpoint import FOLDER, checkpoints
from tomostain.learning.nets import build_generator
from tomostain.learning.recipe import TrainRecipe
from tomostain.learning.training import fit
from tomostain.pairs.pair import Pair, grey_values_by_specimen, load_pair, pairs_in
from tomostain.pairs.splits import folds, hold_out
from tomostain.scoring.baselines import fit_baselines, save_baselines

__all__ = ["SCALE_TOLERANCE", "TrainRecipe", "train"]

SCALE_TOLERANCE = 0.01
"""Share by which the pixel sizes of pairs may differ, and a pixel's two edges."""


def train(pairs: Path, out: Path, *, recipe: TrainRecipe = TrainRecipe()) -> Path:
    """Train a stainer on pairs of CT and stain.

    Writes stainer.json, weights.safetensors, baselines.json (the colour table and mean colour that the stainer has to
    beat), curves.csv, samples/*.png and run.json; while it runs, checkpoint/.

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
        The pairs do not belong together, a setting does not fit, no specimen is left to train on, or ``out`` exists.

    Example
    -------
    tomostain train pairs/ stainer/ --hold-out S04 --hold-out S05
    tomostain train pairs/ stainer/ --width 16 --depth 4 --critic-width 16 --patch-px 128 --steps 2000 --resume
    """
    pairs, out = Path(pairs), Path(out)
    _check_network(recipe)
    begun = functools.partial(_begun, out)
    with runs.output(out, "train", recipe=recipe, inputs=[pairs], seed=recipe.seed, keep=begun) as made:
        made.results |= _train(pairs, out, recipe)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    return out


def _train(pairs: Path, out: Path, recipe: TrainRecipe) -> dict[str, Any]:
    """Train and write the stainer; returns what the record says of it."""
    loaded = [load_pair(file) for file in runs.progress(_files(pairs), desc="reading pairs", unit="pair")]
    _check_alike(loaded)
    check_together(grey_values_by_specimen(loaded), any_values=recipe.any_values)
    held_names = folds(loaded, recipe.folds)[recipe.fold] if recipe.fold is not None else recipe.hold_out
    learnt, held = hold_out(loaded, held_names)
    recipe = _claim(out, recipe)
    model = fit(learnt, out, recipe, held=held)
    save_baselines(fit_baselines(learnt, model.ct_range), out)
    return {"specimens": model.history["specimens"], "held_out": model.history["held_out"], "pairs": len(learnt)}


def _files(pairs: Path) -> list[Path]:
    try:
        return pairs_in(pairs)
    except FileNotFoundError:
        if (pairs / "cohort.json").is_file():
            raise FileNotFoundError(
                f"{pairs} is a cohort, not yet paired; make pairs of it with: tomostain pair {pairs} pairs/"
            ) from None
        raise


def _check_network(recipe: TrainRecipe) -> None:
    """Refuse unknown names and misfitting sizes before anything is read; builds no weights."""
    recipe.chosen_method()
    recipe.augmentation()
    with torch.device("meta"):
        stride = int(build_generator(recipe.generator(), 1, 3).stride_px)  # type: ignore[arg-type]
    if recipe.patch_px % stride:
        raise ValueError(f"patch_px must be a multiple of the network's stride {stride}, it is {recipe.patch_px}")


def _check_alike(pairs: Sequence[Pair]) -> None:
    """Refuse pairs that one stainer cannot learn together.

    Raises
    ------
    ValueError
        They differ in stain, pixel size or CT planes, share a name, or nothing in one of them is believed.
    """
    first = pairs[0]
    traits: dict[str, Callable[[Pair], Any]] = {
        "stain": lambda pair: pair.stain_name,
        "number of CT planes": lambda pair: len(pair.ct),
    }
    seen: set[str] = set()
    for pair in pairs:
        for what, trait in traits.items():
            if trait(pair) != trait(first):
                raise ValueError(
                    f"pairs differ in {what}: {first.name} has {trait(first)!r}, {pair.name} has {trait(pair)!r}; "
                    "train one stainer for each"
                )
        size = first.grid.spacing_um[0]
        if max(abs(edge / size - 1.0) for edge in pair.grid.spacing_um) > SCALE_TOLERANCE:
            raise ValueError(
                f"pair {pair.name} has pixels of {pair.grid.spacing_um} um, {first.name} of {size:g} um; "
                "make the pairs at one size"
            )
        if not (pair.weight > 0).any():
            raise ValueError(
                f"pair {pair.name} has no pixel of positive confidence; check its registration, or remove it"
            )
        if pair.name in seen:
            raise ValueError(f"two pairs are named {pair.name}; name each pair once")
        seen.add(pair.name)


def _claim(out: Path, recipe: TrainRecipe) -> TrainRecipe:
    """The recipe for ``out``, whose folder is made; ``resume`` stays set only where there is something to resume.

    Raises
    ------
    ValueError
        The folder holds an unfinished training that is not to be resumed.
    """
    begun = _begun(out)
    if begun and not recipe.resume:
        raise ValueError(f"{out} holds an unfinished training; continue it with --resume, or remove it first")
    out.mkdir(exist_ok=True)
    return replace(recipe, resume=begun)


def _begun(out: Path) -> bool:
    return bool(checkpoints(out / FOLDER))
