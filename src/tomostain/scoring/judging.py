"""Score a stainer and its baselines on the pairs of held-out specimens: pairs and methods in, Evaluation out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tomostain import runs
from tomostain.images.anchors import GreyMap
from tomostain.images.grid import scale_differs
from tomostain.pairs.pair import Pair, knows_truth, load_pair
from tomostain.pairs.scale import on_scale
from tomostain.scoring.baselines import COLOUR_TABLE, Range
from tomostain.scoring.colours import RGB, fit_dye, mean_difference
from tomostain.scoring.contrast import flaw_of
from tomostain.scoring.evaluation import PREDICTIONS, Evaluation, prediction_path
from tomostain.scoring.scores import PERFECT, STAINER, Score
from tomostain.scoring.tissue_colours import pooled, reference_colours, tally

Method = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.uint8]]
"""CT (planes, y, x) in its own values -> colours (y, x, 3): the stainer, or a baseline."""
Metric = Callable[..., Tensor]


class CTWindow(Range, Protocol):
    """The CT values that a stainer was trained on."""

    @property
    def learnt(self) -> tuple[float, float]:
        """Lowest and highest CT value of the training pairs."""

    def outside(self, values: npt.NDArray[Any]) -> float:
        """The share of values outside those of the training pairs."""


class Judged(Protocol):
    """What scoring needs of a stainer (``tomostain.learning.stainer.Stainer`` is one)."""

    @property
    def ct_range(self) -> CTWindow: ...
    @property
    def stain(self) -> str: ...
    @property
    def um_per_px(self) -> float: ...
    @property
    def within_um(self) -> tuple[float, float] | None: ...
    @property
    def planes(self) -> int: ...
    @property
    def history(self) -> Mapping[str, Any]: ...
    def __call__(self, ct: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]: ...


def training_specimens(stainer: Judged) -> tuple[str, ...] | None:
    """The specimens that a stainer was trained on; None where this is not recorded."""
    known = stainer.history.get("specimens")
    before = (stainer.history.get("from") or {}).get("specimens") or ()
    return None if known is None else tuple(str(name) for name in (*known, *before))


def held_out_pairs(
    files: Sequence[Path], stainer: Judged, *, allow_training_specimens: bool = False
) -> tuple[list[Path], list[str]]:
    """The pairs to be scored, each fit for the stainer, and the names of those left out.

    Raises
    ------
    ValueError
        All pairs are of training specimens, two share a name, or one does not fit the stainer.
    """
    trained_on = training_specimens(stainer)
    if trained_on is None and not allow_training_specimens:
        raise ValueError(
            "the stainer does not record which specimens it was trained on, so these pairs may be among them; "
            "pass --allow-training-specimens if you know that they are not"
        )
    seen = () if allow_training_specimens else trained_on or ()
    kept: dict[str, Path] = {}
    left_out = []
    for file in files:
        pair = load_pair(file)
        if pair.specimen in seen:
            left_out.append(pair.name)
            continue
        if pair.name in kept:
            raise ValueError(f"{kept[pair.name]} and {file} are both named {pair.name}; name each pair once")
        _check_fit(pair, stainer)
        kept[pair.name] = file
    if not kept:
        raise ValueError(
            f"all {len(files)} pairs are of specimens that the stainer was trained on "
            f"({', '.join(sorted(set(seen)))}); use pairs of other specimens, or train with --hold-out"
        )
    return list(kept.values()), left_out


def judge(
    files: Sequence[Path],
    stainer: Judged,
    baselines: Mapping[str, Method],
    metrics: Mapping[str, Metric],
    folder: Path,
    *,
    use_confidence: bool = True,
    left_out: Sequence[str] = (),
    lpips_net: str | None = None,
    grey_maps: Mapping[str, GreyMap] = MappingProxyType({}),
) -> Evaluation:
    """Stain each pair by each method, store the pictures in ``folder``, and score them with the pair's weights.

    Where all pairs know their perfect section it is scored as a method too. ``grey_maps`` bring the CT of
    specimens onto the stainer's scale.

    Raises
    ------
    ValueError
        A metric cannot be computed on a pair.
    """
    (Path(folder) / PREDICTIONS).mkdir(parents=True, exist_ok=True)
    scores: list[Score] = []
    out_of_range: dict[str, float] = {}
    flaws: dict[str, str] = {}
    simulated = []
    tallies: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    known = all(knows_truth(file) for file in files)
    references = reference_colours(map(load_pair, files)) if known else {}
    for file in runs.progress(files, desc="evaluate", unit="pair"):
        pair = load_pair(file)
        pair = on_scale(pair, grey_maps.get(pair.specimen, GreyMap()))
        out_of_range[pair.name] = stainer.ct_range.outside(pair.central_ct[pair.mask])
        if pair.simulated:
            simulated.append(pair.name)
        methods: dict[str, Method] = {STAINER: stainer, **baselines}
        pictures = {name: method(pair.central_planes(stainer.planes)) for name, method in methods.items()}
        pictures |= {PERFECT: pair.truth} if known and pair.truth is not None else {}
        for name, predicted in pictures.items():
            Image.fromarray(predicted).save(prediction_path(folder, pair.name, name))
            scores.append(_score(pair, name, predicted, metrics, use_confidence=use_confidence))
            if known and name in (STAINER, COLOUR_TABLE, PERFECT):
                tallies.setdefault(name, []).append((pair.specimen, tally(pair, predicted, references)))
            if name == STAINER:
                there = pair.weight > 0
                flaw = flaw_of(pair.central_ct[there], predicted[there], pair.stain[there], stainer.ct_range)
                flaws |= {pair.name: flaw} if flaw else {}
    return Evaluation.of(
        scores,
        stain=stainer.stain,
        trained_on=training_specimens(stainer),
        out_of_range=out_of_range,
        learnt_range=stainer.ct_range.learnt,
        without_contrast=flaws,
        simulated=simulated,
        left_out=left_out,
        lpips_net=lpips_net,
        grey_maps={name: grey_map.to_json() for name, grey_map in grey_maps.items() if grey_map},
        tissues={name: pooled(counted) for name, counted in tallies.items()},
    )


def _check_fit(pair: Pair, stainer: Judged) -> None:
    if pair.stain_name != stainer.stain:
        raise ValueError(
            f"pair {pair.name} is stained with {pair.stain_name}, the stainer was trained for {stainer.stain}"
        )
    if scale_differs(pair.grid.spacing_um, stainer.um_per_px, within_um=stainer.within_um):
        raise ValueError(
            f"pair {pair.name} has pixels of {pair.grid.spacing_um[0]:g} um, the stainer was trained at "
            f"{stainer.um_per_px:g} um; make the pair at that size"
        )
    if len(pair.ct) < stainer.planes:
        raise ValueError(
            f"pair {pair.name} has {len(pair.ct)} CT planes, the stainer needs {stainer.planes}; "
            f"make it with `tomostain pair --planes {stainer.planes}`"
        )


def _score(pair: Pair, method: str, predicted: RGB, metrics: Mapping[str, Metric], *, use_confidence: bool) -> Score:
    weight = pair.weight if use_confidence else pair.mask.astype(np.float32)
    fitted = fit_dye(predicted, pair.stain, weight)
    return Score(
        pair.specimen,
        pair.name,
        method,
        values_of(pair, predicted, weight, metrics),
        int((weight > 0).sum()),
        mean_difference(predicted, pair.stain, weight),
        values_of(pair, fitted, weight, metrics),
    )


def values_of(
    pair: Pair, predicted: RGB, weight: npt.NDArray[np.float32], metrics: Mapping[str, Metric]
) -> dict[str, float]:
    """Each metric of a picture (y, x, 3) uint8 against the pair's section, by ``weight`` (y, x).

    Raises
    ------
    ValueError
        A metric cannot be computed on the pair.
    """
    pred, target = (torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None] for rgb in (predicted, pair.stain))
    values = {}
    for name, metric in metrics.items():
        try:
            values[name] = metric(pred, target, data_range=255.0, mask=torch.from_numpy(weight)).item()
        except ValueError as error:
            raise ValueError(f"pair {pair.name} cannot be scored by {name}: {error}") from None
    return values
