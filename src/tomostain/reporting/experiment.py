"""The page of an experiment, as a short paper has it: question, set-up, result, what it means, limits.

The same parts become the HTML report of a user's experiment and the page of the documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tomostain import __version__
from tomostain.reporting.figures import scores_figure
from tomostain.reporting.page import render
from tomostain.scoring.metrics import plain_name
from tomostain.scoring.scores import PERFECT

TEMPLATE = "experiment.html.j2"
_BUDGETS = {"steps": "Equal steps", "time": "Equal time"}
_FEW = 6
"""Specimens below which no test of theirs can show a difference."""

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Part:
    """A section of the page."""

    title: str
    paragraphs: Sequence[str] = ()
    points: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    """SVG by its caption."""


def experiment_parts(results: Results) -> list[Part]:
    """The sections of the page, from ``results.json``."""
    set_up = results["set_up"]
    names = list(set_up["methods"])
    question = (
        f"Which method paints sections of specimens best that it has not seen: {', '.join(names)}? "
        f"Compared on {set_up['pairs']} pairs of CT and {set_up['stain']} sections of "
        f"{len(set_up['specimens'])} specimens."
    )
    parts = [Part("Question", [question]), _set_up(results)]
    parts += [_result(results, budget) for budget in results["tables"]]
    return [*parts, _meaning(results), _limits(results)]


def experiment_page(results: Results) -> str:
    """The report of an experiment, one self-contained HTML page."""
    simulated = results["set_up"]["simulated"]
    return render(
        {"version": __version__, "parts": experiment_parts(results), "simulated": bool(simulated)}, template=TEMPLATE
    )


def as_markdown(parts: Sequence[Part], *, heading: str = "##") -> str:
    """Sections of the page as Markdown, without figures."""
    blocks = []
    for part in parts:
        blocks.append(f"{heading} {part.title}")
        blocks += [*part.paragraphs]
        blocks += ["\n".join(f"- {point}" for point in part.points)] if part.points else []
        for table in part.tables:
            lines = [_line(table.head), "|" + "---|" * len(table.head), *(_line(row) for row in table.rows)]
            blocks += [f"{table.caption}:", "\n".join(lines)]
    return "\n\n".join(blocks) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def _set_up(results: Results) -> Part:
    set_up, timing = results["set_up"], results["timing"]
    folds = set_up["folds"]
    sizes = sorted({len(names) for names in folds})
    error = set_up["expected_error_um"]
    placed = (
        f" The registration expects a median error of {error['median']:.1f} um ({error['pairs']} pairs), "
        f"with pixels of {set_up['um_per_px']:g} um."
        if error
        else f" Pixels are {set_up['um_per_px']:g} um; the placements state no expected error."
    )
    text = (
        f"Specimens are dealt into {len(folds)} folds of {' or '.join(map(str, sizes))}; each is left out once, and "
        f"scored by a stainer that has not seen it. Each training is done with {set_up['seeds']} "
        f"seed{'s' * (set_up['seeds'] != 1)}.{placed}"
    )
    rows = []
    for name, about in set_up["methods"].items():
        steps = ", ".join(f"{count} ({budget})" for budget, count in about["steps"].items())
        took = [
            " / ".join(
                "-" if of[name][key] is None else f"{of[name][key]:.0f}" for key in ("seconds", "processor_seconds")
            )
            for of in timing.values()
            if name in of
        ]
        losses = " ".join(f"{loss} {weight:g}" for loss, weight in about["losses"].items())
        rows.append(
            [
                name,
                about["net"],
                f"{about['weights'] / 1e6:.2f}",
                str(about["planes"] or "all"),
                losses,
                f"{about['batch']} x {about['patch_px']} px",
                steps,
                ", ".join(took),
            ]
        )
    head = [
        "method",
        "network",
        "million weights",
        "CT planes",
        "losses",
        "batch",
        "steps",
        "seconds: clock / processor",
    ]
    alike = set_up["near_duplicates"]
    check = (
        "No two CT planes of different specimens are nearly the same."
        if not alike
        else "Planes of different specimens that are nearly the same, so that scores may be too good: "
        + ", ".join(f"{one['first']} and {one['second']} ({one['correlation']:.2f})" for one in alike[:5])
    )
    return Part("Set-up", [text, check], tables=[Table("Methods", head, rows)])


def _result(results: Results, budget: str) -> Part:
    set_up, tables = results["set_up"], results["tables"][budget]
    metrics, scores = set_up["metrics"], tables["scores"]
    shown = [*metrics, "delta_e"]
    rows = [[name, *(_cell(of.get(metric)) for metric in shown)] for name, of in scores.items()]
    found = [Table("Scores: mean over specimens, with 95 % intervals", ["method", *map(plain_name, shown)], rows)]
    after = [f"{metric}_after_dye_fit" for metric in metrics]
    rows = [[name, *(_cell(of.get(metric)) for metric in after)] for name, of in scores.items()]
    found.append(
        Table("The same after the dye of each section was fitted", ["method", *map(plain_name, metrics)], rows)
    )
    if tables["kid"]:
        rows = [[name, "-" if kid["mean"] is None else f"{kid['mean']:.3f}"] for name, kid in tables["kid"].items()]
        found.append(Table("Kernel distance (KID) of all virtual to all real sections", ["method", "KID"], rows))
    if set_up["tissues"]:
        known = {name: of for name, of in scores.items() if any(key.endswith(": dice") for key in of)}
        rows = [
            [
                tissue,
                *(
                    f"{_mean(of.get(f'{tissue}: delta_e'))}, {_mean(of.get(f'{tissue}: dice'))}"
                    for of in known.values()
                ),
            ]
            for tissue in set_up["tissues"]
        ]
        caption = (
            "Tissues against the perfect section, also off the slide: CIEDE2000, overlap (Dice) of what is read back"
        )
        found.append(Table(caption, ["tissue", *known], rows))
    found += _differences(tables["comparisons"])
    points = {
        name: {m: list(of.get(m, {}).values()) for m in metrics} for name, of in results["specimens"][budget].items()
    }
    spread = {name: {m: of.get(m, _NOTHING) for m in metrics} for name, of in scores.items()}
    lower = set_up["lower_is_better"]
    titles = {m: f"{plain_name(m)}, {'lower' if m in lower else 'higher'} is better" for m in metrics}
    svg = scores_figure(metrics, points, spread, titles, ceiling=PERFECT)
    caption = "Dots: specimens. Bars: means over specimens with 95 % intervals. Dashed: the perfect section."
    return Part(f"Result: {_BUDGETS.get(budget, budget).lower()}", tables=found, figures={caption: svg})


_NOTHING = {"mean": None, "low": None, "high": None}


def _differences(comparisons: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Gains with intervals, and what the tests say of them: a line for every two methods, a column for each metric."""
    by_pair: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in comparisons:
        by_pair.setdefault(f"{one['first']} - {one['second']}", {})[one["metric"]] = one
    metrics = list(dict.fromkeys(one["metric"] for one in comparisons))
    head = ["compared", *map(plain_name, metrics)]

    def rows(cell: Callable[[Mapping[str, Any]], str]) -> list[list[str]]:
        return [[pair, *(cell(of[m]) if m in of else "-" for m in metrics)] for pair, of in by_pair.items()]

    tests = rows(lambda one: f"{one['p_corrected']:.2g}, {one['effect']:.2f}, {one['won']} of {one['specimens']}")
    return [
        Table("Gains over specimens, with 95 % intervals; positive: the first is better", head, rows(_interval)),
        Table("The tests of these gains: p after correction, effect, specimens won", head, tests),
    ]


def _meaning(results: Results) -> Part:
    points = []
    for budget, tables in results["tables"].items():
        of = f"{_BUDGETS.get(budget, budget)}: " if len(results["tables"]) > 1 else ""
        points += [of + line for line in tables["claims"]]
    text = (
        "Gains are such that more is better. A difference is claimed where its interval excludes zero and the test, "
        "corrected over all comparisons of the table, has p < 0.05. Everything else is left open, which is not to say "
        "that two methods are equal."
    )
    return Part("What it means", [text], points)


def _limits(results: Results) -> Part:
    set_up, runs = results["set_up"], results["runs"]
    count = len(set_up["specimens"])
    points = []
    if runs["done"] < runs["of"]:
        points.append(f"Only {runs['done']} of {runs['of']} runs are finished; what is missing is left out.")
    if set_up["simulated"]:
        every = set_up["simulated"] == set_up["pairs"]
        points.append(
            f"{'All' if every else set_up['simulated']} pairs are simulated (phantom). What holds here need not hold "
            "for real specimens."
        )
    if count < _FEW:
        points.append(f"With {count} specimens no test over specimens can show a difference.")
    points += [
        "Intervals are bootstrap intervals (BCa) over specimens, tests are Wilcoxon's signed-rank tests, corrected "
        "after Benjamini and Hochberg; the effect is the rank-biserial correlation, from -1 to 1.",
        "Seeds are averaged within a specimen: intervals do not say how much one training differs from the next.",
        "What needs more time than the budget gave is not seen here.",
        f"KID here is computed from other features than the published one ({set_up['kid_features']}). Its values "
        "compare the methods of this table only. FID is not given: it is biased for so few pictures.",
    ]
    return Part("Limits", points=points)


def _cell(spread: Mapping[str, Any] | None) -> str:
    return "-" if spread is None else _interval({"gain": spread["mean"], **spread})


def _interval(one: Mapping[str, Any]) -> str:
    gain, low, high = one["gain"], one["low"], one["high"]
    digits = _digits(gain)
    return f"{gain:.{digits}f}" + ("" if low is None else f" ({low:.{digits}f} to {high:.{digits}f})")


def _mean(spread: Mapping[str, Any] | None) -> str:
    return "-" if spread is None else f"{spread['mean']:.{min(2, _digits(spread['mean']))}f}"


def _digits(value: float) -> int:
    """Decimals that leave about three digits."""
    return 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
