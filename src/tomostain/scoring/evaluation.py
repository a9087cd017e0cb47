"""An Evaluation: scores of a stainer and its baselines on held-out pairs, and what they show; saves and loads itself.

On disk it is ``scores.csv`` (a row for each pair and method), ``specimens.csv`` (their means), ``summary.json`` (means
over specimens, intervals, gains, the verdict) and ``predictions/PAIR.METHOD.png``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tomostain.io.tables import read_table, write_table
from tomostain.runs import write_text_atomically
from tomostain.scoring.baselines import COLOUR_TABLE
from tomostain.scoring.metrics import HIGHER_IS_BETTER
from tomostain.scoring.scores import PERFECT, STAINER, Score, specimen_means, summarise
from tomostain.scoring.tissue_colours import TissueScore

_NOT_IN_OLDER: Mapping[str, Any] = MappingProxyType(
    {
        "simulated": [],
        "without_contrast": {},
        "skill": {},
        "delta_e": {},
        "after_dye_fit": {},
        "tissues": {},
        "grey_maps": {},
    }
)
SUMMARY, SCORES, SPECIMENS, PREDICTIONS = "summary.json", "scores.csv", "specimens.csv", "predictions"


@dataclass(frozen=True)
class Evaluation:
    """What a stainer reached on held-out pairs."""

    scores: tuple[Score, ...]
    summary: Mapping[str, Any]
    """What ``summarise`` says of the scores, and: ``stain``; ``out_of_range`` (share of each pair's CT values outside
    ``learnt_range``); ``trained_on_too`` (scored specimens that were trained on; None: not recorded); ``left_out``
    (pairs of training specimens); ``simulated`` (pairs of the phantom); ``lpips_net``; ``tissues`` (by method and
    tissue the fields of a ``TissueScore``, where all pairs know their tissues); ``grey_maps`` (of specimens whose
    CT was mapped onto the stainer's scale)."""

    @classmethod
    def of(
        cls,
        scores: Sequence[Score],
        *,
        stain: str,
        trained_on: Sequence[str] | None,
        out_of_range: Mapping[str, float],
        learnt_range: tuple[float, float],
        without_contrast: Mapping[str, str],
        simulated: Sequence[str],
        left_out: Sequence[str] = (),
        lpips_net: str | None = None,
        tissues: Mapping[str, Mapping[str, TissueScore]] = MappingProxyType({}),
        grey_maps: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    ) -> Evaluation:
        """Summarise scores, with everything that limits what they show in the verdict."""
        summary = summarise(scores, without_contrast=without_contrast)
        both = None if trained_on is None else sorted({s.specimen for s in scores} & set(trained_on))
        summary["verdict"] += _caution(both) + _origin(len(simulated), summary["pairs"])
        summary |= {"trained_on_too": both, "out_of_range": dict(out_of_range), "left_out": list(left_out)}
        summary["learnt_range"] = list(learnt_range)
        summary |= {"simulated": list(simulated), "stain": stain, "lpips_net": lpips_net, "grey_maps": dict(grey_maps)}
        summary["tissues"] = {method: {name: vars(s) for name, s in of.items()} for method, of in tissues.items()}
        return cls(tuple(scores), _finite(summary))

    @property
    def verdict(self) -> str:
        """What the scores show, in plain sentences."""
        return str(self.summary["verdict"])

    def save(self, folder: Path) -> Path:
        """Write the two tables and, last, the summary."""
        folder = Path(folder)
        beyond = {name: f"{share:.6f}" for name, share in self.summary["out_of_range"].items()}
        _write_table(folder / SCORES, self.scores, beyond)
        _write_table(folder / SPECIMENS, specimen_means(self.scores), {})
        write_text_atomically(folder / SUMMARY, json.dumps(self.summary, indent=1) + "\n")
        return folder

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read what ``save`` wrote.

        Raises
        ------
        FileNotFoundError
            The folder holds no evaluation.
        ValueError
            A file is damaged.
        """
        folder = Path(folder)
        for name in (SUMMARY, SCORES):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} holds no {name}; `tomostain evaluate` writes it")
        try:
            summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
            scores = tuple(_score(row, summary["metrics"]) for _, row in read_table(folder / SCORES)[1])
            if {s.pair for s in scores} != set(summary["out_of_range"]) or not isinstance(summary["verdict"], str):
                raise ValueError("its tables and its summary are of different pairs")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            fault = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{folder} cannot be read as an evaluation ({fault}); evaluate again") from None
        return cls(scores, _NOT_IN_OLDER | summary)

    def describe(self) -> str:
        """A table of means over specimens with their 95 % intervals, and the verdict."""
        metrics, methods = self.summary["metrics"], self.summary["methods"]
        gains = self.summary["gains"].get(COLOUR_TABLE)
        head = ["mean over specimens", *(f"{m.upper()} ({_direction(m)} is better)" for m in metrics)]
        rows = [[method, *(_cell(spread[m]) for m in metrics)] for method, spread in methods.items()]
        rows += [["gain over the colour table", *(_cell(gains[m], sign="+") for m in metrics)]] if gains else []
        if skill := self.summary["skill"]:
            rows.append([_SKILL, *(_number(skill[m], ".2f") for m in metrics)])
        count, pairs = self.summary["specimens"], self.summary["pairs"]
        of = f"{pairs} section{'s' * (pairs != 1)} of {count} specimen{'s' * (count != 1)}; 95 % intervals in brackets"
        return "\n".join([of, *_lines(head, rows), self.verdict])

    def describe_colours(self) -> str:
        """Tables of the scores after the dye was fitted, the colour differences, and the tissues; "" without them."""
        tables, metrics = [], self.summary["metrics"]
        if fit := self.summary["after_dye_fit"]:
            rows = [[method, *(_cell(spread[m]) for m in metrics)] for method, spread in fit["methods"].items()]
            if fit["skill"]:
                rows.append([_SKILL, *(_number(fit["skill"][m], ".2f") for m in metrics)])
            tables.append(_lines(["after the dye of each section was fitted", *(m.upper() for m in metrics)], rows))
        if delta_e := self.summary["delta_e"]:
            tables.append(_lines([_DELTA_E, ""], [[method, _cell(spread)] for method, spread in delta_e.items()]))
        if tissues := self.summary["tissues"]:
            head = ["against the perfect section", "share", *(f"{m}: CIEDE2000, Dice" for m in tissues)]
            rows = []
            for name, first in tissues[STAINER].items():
                cells = [
                    f"{_number(of[name]['delta_e'], '.1f')}, {_number(of[name]['dice'], '.2f')}"
                    for of in tissues.values()
                ]
                rows.append([name, f"{first['share']:.1%}", *cells])
            tables.append(_lines(head, rows))
        return "\n\n".join("\n".join(table) for table in tables)


_SKILL = f"skill (table 0, {PERFECT} 1)"
_DELTA_E = "mean colour difference (CIEDE2000) to the section"


def prediction_path(folder: Path, pair: str, method: str) -> Path:
    """The predicted picture in an evaluation's folder, of ``method`` for ``pair``."""
    return Path(folder) / PREDICTIONS / f"{pair}.{method.replace(' ', '_')}.png"


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table with a head as lines of text, its columns aligned."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return [line.rstrip() for line in lines]


def _caution(trained_on_too: Sequence[str] | None) -> str:
    if trained_on_too is None:
        return " Whether the stainer was trained on these specimens is not recorded."
    if trained_on_too:
        return f" It was trained on {', '.join(trained_on_too)}, so this says nothing about new specimens."
    return ""


def _origin(simulated: int, pairs: int) -> str:
    if not simulated:
        return ""
    if simulated == pairs:
        return " All sections are simulated (phantom); this says nothing about real specimens."
    return f" {simulated} of the {pairs} sections are simulated (phantom)."


def _direction(metric: str) -> str:
    return "higher" if HIGHER_IS_BETTER.get(metric, True) else "lower"


def _cell(spread: Mapping[str, Any], *, sign: str = "") -> str:
    def number(value: float | None) -> str:
        return "infinite" if value is None else _number(value, f"{sign}.4g")

    low, high = spread["low"], spread["high"]
    return number(spread["mean"]) + ("" if low is None else f" [{number(low)}, {number(high)}]")


def _number(value: float | None, digits: str) -> str:
    return "undefined" if value is None else f"{value:{digits}}"


def _score(row: Mapping[str, str], metrics: Sequence[str]) -> Score:
    values = {metric: float(row[metric]) for metric in metrics}
    delta_e = float(row["delta_e"]) if row.get("delta_e") else None
    fitted = {metric: float(row[_fitted(metric)]) for metric in metrics if row.get(_fitted(metric))}
    return Score(row["specimen"], row["pair"], row["method"], values, int(row["pixels"]), delta_e, fitted)


def _fitted(metric: str) -> str:
    return f"{metric}_after_dye_fit"


def _write_table(path: Path, scores: Sequence[Score], beyond: Mapping[str, str]) -> None:
    metrics = list(scores[0].values)
    last = ["ct_out_of_range"] if beyond else []
    columns = ["specimen", *(["pair"] if beyond else []), "method", *metrics, "pixels", *last]
    columns += ["delta_e", *map(_fitted, metrics)]
    rows = []
    for s in scores:
        pair = [s.pair] if beyond else []
        values = [f"{s.values[metric]:.6f}" for metric in metrics]
        more = ["" if v is None else f"{v:.6f}" for v in (s.delta_e, *(s.fitted.get(metric) for metric in metrics))]
        rows.append([s.specimen, *pair, s.method, *values, s.pixels, *([beyond[s.pair]] if beyond else []), *more])
    write_table(path, columns, rows)


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not have (a perfect PSNR is infinite)."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
