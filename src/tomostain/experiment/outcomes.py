"""What one run reached, specimen by specimen; kept beside it as ``outcome.json`` and ``features.npy``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tomostain.pairs.pair import Pair
from tomostain.runs import write_text_atomically
from tomostain.scoring.evaluation import Evaluation, prediction_path
from tomostain.scoring.kid import features, stacked
from tomostain.scoring.lpips import Lpips
from tomostain.scoring.scores import STAINER, Score, specimen_means
from tomostain.scoring.tissue_colours import FEWEST_PX, GROUPS, reference_colours, tally

FILE, FEATURES_FILE = "outcome.json", "features.npy"

Values = Mapping[str, Mapping[str, float]]
"""By metric and specimen."""


def save_outcome(folder: Path, pairs: Sequence[Pair], lpips: Lpips | None) -> Path:
    """Collect the results of a finished run from its ``stainer`` and ``evaluation``; ``pairs`` are those scored.

    ``methods`` holds the values of the stainer and of each baseline by metric and specimen: the scores, those after a
    dye fit, CIEDE2000, and (phantoms) colour error and overlap of each tissue. ``losses`` are those that it was trained
    with, ``seconds`` and ``processor_seconds`` the time that took.
    """
    evaluation = Evaluation.load(folder / "evaluation")
    scored = {score.pair for score in evaluation.scores}
    held = [pair for pair in pairs if pair.name in scored]
    methods = {method: _values(evaluation.scores, method) for method in evaluation.summary["methods"]}
    pictures = {pair.name: _picture(folder, pair.name, STAINER) for pair in held}
    if held and all(pair.truth is not None for pair in held):
        for method in methods:
            stained = [_picture(folder, pair.name, method) for pair in held]
            methods[method] |= tissue_values(held, stained)
    if lpips is not None:
        found = stacked(features(pictures[pair.name], pair.weight, lpips) for pair in held)
        np.save(folder / FEATURES_FILE, found)
    history = json.loads((folder / "stainer" / "stainer.json").read_text(encoding="utf-8"))["history"]
    text = {"methods": methods, "losses": history["losses"], **training_times(folder / "stainer")}
    return write_text_atomically(folder / FILE, json.dumps(text, indent=1) + "\n")


def load_outcome(folder: Path) -> tuple[dict[str, Any], npt.NDArray[np.float64] | None] | None:
    """What ``save_outcome`` wrote: its values and the features of its pictures; None where the run is not finished."""
    if not (folder / FILE).is_file():
        return None
    about: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return about, np.load(folder / FEATURES_FILE) if (folder / FEATURES_FILE).is_file() else None


def real_features(pairs: Iterable[Pair], lpips: Lpips) -> npt.NDArray[np.float64]:
    """The features of the real sections."""
    return stacked(features(pair.stain, pair.weight, lpips) for pair in pairs)


def tissue_values(pairs: Sequence[Pair], stained: Sequence[npt.NDArray[np.uint8]]) -> dict[str, dict[str, float]]:
    """``TISSUE: delta_e`` and ``TISSUE: dice`` by specimen, of what was stained for pairs of the phantom."""
    references = reference_colours(pairs)
    sums: dict[str, dict[str, Any]] = {}
    for pair, picture in zip(pairs, stained, strict=True):
        counted = tally(pair, picture, references)
        before = sums.setdefault(pair.specimen, {name: np.zeros(4) for name in GROUPS})
        sums[pair.specimen] = {name: before[name] + counted[name] for name in GROUPS}
    values: dict[str, dict[str, float]] = {}
    for specimen, of in sums.items():
        for name, (there, error, read, both) in of.items():
            if there >= FEWEST_PX:
                values.setdefault(f"{name}: delta_e", {})[specimen] = float(error / there)
                values.setdefault(f"{name}: dice", {})[specimen] = float(2 * both / (there + read))
    return values


def training_times(stainer: Path) -> dict[str, float]:
    """``seconds`` by the clock and ``processor_seconds`` of all steps of a training, from its curves."""
    with (stainer / "curves.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    counts = np.diff([0, *(int(row["step"]) for row in rows)])
    columns = {"seconds": "s_per_step", "processor_seconds": "processor_s_per_step"}
    return {
        name: float(sum(count * float(row[column]) for count, row in zip(counts, rows, strict=True)))
        for name, column in columns.items()
    }


def _values(scores: Sequence[Score], method: str) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, float]] = {}
    for score in specimen_means([one for one in scores if one.method == method]):
        named = dict(score.values) | {f"{name}_after_dye_fit": value for name, value in score.fitted.items()}
        named |= {} if score.delta_e is None else {"delta_e": score.delta_e}
        for name, value in named.items():
            values.setdefault(name, {})[score.specimen] = value
    return values


def _picture(folder: Path, pair: str, method: str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(prediction_path(folder / "evaluation", pair, method)).convert("RGB"))
