"""Step: score a stainer on specimens it has not seen, always beside what it has to beat."""

from __future__ import annotations

import csv
import functools
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from cyclopts import Parameter
from PIL import Image
from torch import Tensor

from tomostain import runs
from tomostain._imports import pick
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import Pair, load_pair, pairs_in
from tomostain.scoring.baselines import load_baselines
from tomostain.scoring.lpips import Lpips
from tomostain.scoring.metrics import METRICS, lpips
from tomostain.scoring.scores import STAINER, Score, specimen_means, summarise

SCALE_TOLERANCE = 0.05
"""Share by which a pair's pixel size may differ from the one the stainer was trained on."""

Painter = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.uint8]]


@Parameter(name="*")
@dataclass(frozen=True)
class EvaluateRecipe:
    """How a stainer is scored."""

    metrics: tuple[str, ...] = ("ssim", "psnr", "lpips")
    """Metrics by name; `ssim psnr` goes without LPIPS, which needs the published weights on this machine."""
    lpips_net: Literal["alex", "squeeze"] = "alex"
    """Network inside LPIPS; AlexNet is the one that papers report."""
    lpips_folder: Path | None = None
    """Folder with the published LPIPS weights; looked for in the usual places if not given."""
    use_confidence: bool = True
    """Weigh each pixel with the registration's confidence; off, every unmasked pixel counts alike."""
    allow_training_specimens: bool = False
    """Score pairs of specimens that the stainer was trained on too. Such scores say nothing about new specimens."""
    out_of_range: float = 0.01
    """Share of a pair's CT values beyond those met in training, above which a warning is given."""
    resamples: int = 2000
    """Bootstrap resamples behind the 95 % intervals."""
    seed: int = 0
    """Seed of the bootstrap."""


def evaluate(stainer: Path, pairs: Path, out: Path, *, recipe: EvaluateRecipe = EvaluateRecipe()) -> Path:
    """Score a stainer on the pairs of specimens it has not seen, beside the colour table and the mean colour.

    Writes scores.csv (a row for each pair and method), specimens.csv (their means), summary.json (means over specimens
    with 95 % intervals, gains over the baselines, the verdict) and predictions/PAIR.METHOD.png.

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
        All pairs are of training specimens, or a pair is not what the stainer was made for.

    Example
    -------
    tomostain evaluate stainer/ pairs/ evaluation/
    tomostain evaluate stainer/ pairs/ evaluation/ --metrics ssim psnr
    """
    stainer, pairs, out = Path(stainer), Path(pairs), Path(out)
    with runs.output(out, "evaluate", recipe=recipe, inputs=[stainer, pairs], seed=recipe.seed) as made:
        made.results |= _evaluate(stainer, pairs, out, recipe)
    return out


def _evaluate(stainer: Path, pairs: Path, out: Path, recipe: EvaluateRecipe) -> dict[str, Any]:
    """Write the evaluation; returns what the record says of it."""
    model = Stainer.load(stainer)
    metrics = {name: _metric(name, recipe) for name in recipe.metrics}
    painters: dict[str, Painter] = {STAINER: model, **load_baselines(stainer)}
    trained_on = training_specimens(model)
    files, left_out = _held_out(pairs_in(pairs), trained_on, model, recipe)
    (out / "predictions").mkdir(parents=True)
    scores: list[Score] = []
    beyond: dict[str, float] = {}
    for file in runs.progress(files, desc="evaluate", unit="pair"):
        pair = load_pair(file)
        beyond[pair.name] = model.ct_range.outside(pair.central_ct[pair.mask])
        for method, painter in painters.items():
            painted = painter(_planes(pair, model.planes))
            Image.fromarray(painted).save(out / "predictions" / prediction_name(pair.name, method))
            scores.append(_score(pair, method, painted, metrics, recipe))
    _warn_out_of_range(beyond, recipe.out_of_range)
    summary = summarise(scores, resamples=recipe.resamples, seed=recipe.seed)
    both = None if trained_on is None else sorted({s.specimen for s in scores} & set(trained_on))
    summary |= {"trained_on_too": both, "verdict": summary["verdict"] + _caution(both)}
    summary |= {"out_of_range": beyond, "left_out": left_out, "stain": model.stain, "lpips_net": recipe.lpips_net}
    _write_csv(out / "scores.csv", scores, {name: f"{share:.6f}" for name, share in beyond.items()})
    _write_csv(out / "specimens.csv", specimen_means(scores), {})
    (out / "summary.json").write_text(json.dumps(_finite(summary), indent=1) + "\n", encoding="utf-8")
    return {"verdict": summary["verdict"], "pairs": summary["pairs"], "specimens": summary["specimens"]}


def prediction_name(pair: str, method: str) -> str:
    """The file in predictions/ that holds what ``method`` painted for ``pair``."""
    return f"{pair}.{method.replace(' ', '_')}.png"


def training_specimens(model: Stainer) -> tuple[str, ...] | None:
    """The specimens that a stainer was trained on; None where it does not say."""
    known = model.history.get("specimens")
    return None if known is None else tuple(str(name) for name in known)


def _held_out(
    files: Sequence[Path], trained_on: tuple[str, ...] | None, model: Stainer, recipe: EvaluateRecipe
) -> tuple[list[Path], list[str]]:
    """The pairs to be scored, each fit for the stainer, and the names of those left out."""
    if trained_on is None and not recipe.allow_training_specimens:
        raise ValueError(
            "the stainer does not say which specimens it was trained on, so these pairs may be among them; "
            "pass --allow-training-specimens if you know that they are not"
        )
    seen = () if recipe.allow_training_specimens else trained_on or ()
    kept: dict[str, Path] = {}
    left_out = []
    for file in files:
        pair = load_pair(file)
        if pair.specimen in seen:
            left_out.append(pair.name)
            continue
        if pair.name in kept:
            raise ValueError(f"{kept[pair.name]} and {file} are both named {pair.name}; name each pair once")
        _check_fit(pair, model)
        kept[pair.name] = file
    if not kept:
        raise ValueError(
            f"all {len(files)} pairs are of specimens that the stainer was trained on "
            f"({', '.join(sorted(set(seen)))}); give pairs of other specimens, or train with --hold-out"
        )
    return list(kept.values()), left_out


def _check_fit(pair: Pair, model: Stainer) -> None:
    if pair.stain_name != model.stain:
        raise ValueError(f"pair {pair.name} is stained with {pair.stain_name}, the stainer learnt {model.stain}")
    if max(abs(edge / model.um_per_px - 1) for edge in pair.grid.spacing_um) > SCALE_TOLERANCE:
        raise ValueError(
            f"pair {pair.name} has pixels of {pair.grid.spacing_um[0]:g} um, the stainer learnt at "
            f"{model.um_per_px:g} um; make the pair at that size"
        )
    if len(pair.ct) < model.planes:
        raise ValueError(
            f"pair {pair.name} has {len(pair.ct)} CT planes, the stainer needs {model.planes}; "
            f"make it with `tomostain pair --planes {model.planes}`"
        )


def _planes(pair: Pair, planes: int) -> npt.NDArray[np.float32]:
    first = (len(pair.ct) - planes) // 2
    return pair.ct[first : first + planes]


def _metric(name: str, recipe: EvaluateRecipe) -> Callable[..., Tensor]:
    metric: Callable[..., Tensor] = pick(name, METRICS)
    if metric is lpips:
        return functools.partial(lpips, metric=Lpips.load(recipe.lpips_net, recipe.lpips_folder))
    return metric


def _score(
    pair: Pair,
    method: str,
    painted: npt.NDArray[np.uint8],
    metrics: Mapping[str, Callable[..., Tensor]],
    recipe: EvaluateRecipe,
) -> Score:
    weight = torch.from_numpy(pair.weight if recipe.use_confidence else pair.mask.astype(np.float32))
    pred, target = (torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None] for rgb in (painted, pair.stain))
    values = {}
    for name, metric in metrics.items():
        try:
            values[name] = metric(pred, target, data_range=255.0, mask=weight).item()
        except ValueError as error:
            raise ValueError(f"pair {pair.name} cannot be scored by {name}: {error}") from None
    return Score(pair.specimen, pair.name, method, values, int((weight > 0).sum()))


def _caution(trained_on_too: Sequence[str] | None) -> str:
    if trained_on_too is None:
        return " Whether it was trained on these specimens is not recorded."
    return (
        f" It was trained on {', '.join(trained_on_too)}, so this says nothing about new ones."
        if trained_on_too
        else ""
    )


def _warn_out_of_range(beyond: Mapping[str, float], limit: float) -> None:
    far = {name: share for name, share in beyond.items() if share > limit}
    if far:
        worst = max(far, key=lambda name: far[name])
        warnings.warn(
            f"{len(far)} of {len(beyond)} pairs have CT values that no training pixel had (most: {worst}, "
            f"{far[worst]:.1%} of its pixels); do not believe the colours there",
            stacklevel=3,
        )


def _write_csv(path: Path, scores: Sequence[Score], beyond: Mapping[str, str]) -> None:
    metrics = list(scores[0].values)
    last = ["ct_out_of_range"] if beyond else []
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["specimen", *(["pair"] if beyond else []), "method", *metrics, "pixels", *last])
        for s in scores:
            pair = [s.pair] if beyond else []
            values = [f"{s.values[metric]:.6f}" for metric in metrics]
            table.writerow([s.specimen, *pair, s.method, *values, s.pixels, *([beyond[s.pair]] if beyond else [])])


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not have (a perfect PSNR is infinite)."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
