"""Write the results of an experiment into docs/experiment.md, with its figure: every table from results.json.

    tomostain phantom cohort/ --specimens 16 --slides 4 --size 64 160 160 --seed 3001
    python benchmarks/experiment_page.py slides cohort/ slides.csv
    tomostain register slides.csv placements/
    tomostain pair cohort/ pairs/ --placements placements/
    tomostain experiment pairs/ experiment/ --variants benchmarks/experiment_cpu.yaml --hours 0.011 --folds 2 --seeds 3
    python benchmarks/experiment_page.py page experiment/results.json main

``page`` copies the results to benchmarks/results/experiment under that name, and writes the page again from all that is
there, each between the marks of its name: ``main`` whole, others in short.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tomostain.phantom.manifest import read_cohort
from tomostain.reporting.experiment import as_markdown, experiment_parts
from tomostain.scoring.metrics import plain_name

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "benchmarks" / "results" / "experiment", ROOT / "docs" / "experiment.md"
PICTURES = ROOT / "docs" / "images"
WHOLE = "main"
DRAWN = {
    "main": "Scores of every specimen (dots) and their means with 95 % intervals; dashed: the perfect section",
    "sections": "Scores against the number of pairs; bands: 95 % intervals over specimens",
}
SHORT = ("Scores", "Gains")
"""Tables that are shown of the others, by the beginning of their captions."""


def slides(cohort: Path, table: Path) -> None:
    """The table of a cohort's slides for `tomostain register`; it holds no placement."""
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["volume", "slide", "specimen", "name"])
        for specimen in read_cohort(cohort)["specimens"]:
            for slide in specimen["slides"]:
                where = [(cohort / path).resolve() for path in (specimen["ct"], slide["slide"])]
                writer.writerow([*where, specimen["name"], f"{specimen['name']}_{slide['name']}"])


def page(name: str, results: dict[str, Any], text: str) -> tuple[str, dict[str, str]]:
    """The page with the part between the marks of ``name`` written anew, and its figures by file name."""
    begin, end = f"<!-- {name}.json, by python benchmarks/experiment_page.py page -->", f"<!-- end of {name}.json -->"
    if begin not in text or end not in text:
        raise SystemExit(f"{PAGE} lacks the marks of {name}: {begin} and {end}")
    every, figures = experiment_parts(results), {}
    result = next(part for part in every if part.title.startswith("Result"))
    if name in DRAWN:
        svg = curve(results) if name == "sections" else next(iter(result.figures.values()))
        figures[f"experiment_{name}.svg"] = _alone(svg)
    if name == WHOLE:
        shown = as_markdown([*every[:2], result], heading="###")
    else:
        short = replace(result, tables=[table for table in result.tables if table.caption.startswith(SHORT)])
        shown = as_markdown([short]).partition("\n\n")[2]
    links = "".join(f"\n![{DRAWN[name]}](images/{file})\n" for file in figures)
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n\n{shown}{links}\n{end}{after}", figures


def curve(results: dict[str, Any]) -> str:
    """Scores against the number of pairs, for entries named "KIND, PAIRS": a line for each kind, as SVG."""
    (tables,) = results["tables"].values()
    kinds: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in results["set_up"]["methods"]:
        kind, _, count = entry.partition(", ")
        kinds.setdefault(kind, {})[count] = tables["scores"][entry]
    metrics = results["set_up"]["metrics"]
    figure = Figure(figsize=(3.4 * len(metrics), 2.6), layout="constrained")
    for panel, metric in zip(figure.subplots(1, len(metrics)), metrics, strict=True):
        for kind, of in kinds.items():
            low, mean, high = ([one[metric][key] for one in of.values()] for key in ("low", "mean", "high"))
            line = panel.plot([*of], mean, marker="o", label=kind)[0]
            panel.fill_between([*of], low, high, alpha=0.15, color=line.get_color(), lw=0)
        panel.axhline(
            tables["scores"]["colour table"][metric]["mean"], color="0.5", ls="--", lw=1, label="colour table"
        )
        panel.set(title=plain_name(metric), xlabel="pairs")
    figure.legend(*panel.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=len(kinds) + 1)
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "sections", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue().partition("-->")[2] or stream.getvalue()


def _alone(svg: str) -> str:
    """The figure as a file of its own."""
    shown = svg if "xmlns=" in svg[:400] else svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return shown.replace("currentColor", "#444444") + "\n"


def main(words: list[str]) -> None:
    if words[:1] == ["slides"] and len(words) == 3:
        slides(Path(words[1]), Path(words[2]))
        return
    if words[:1] != ["page"] or len(words) not in (1, 3):
        raise SystemExit(__doc__)
    if len(words) == 3:
        KEPT.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(words[1], KEPT / f"{words[2]}.json")
    written = PAGE.read_text(encoding="utf-8")
    for kept in sorted(KEPT.glob("*.json")):
        written, figures = page(kept.stem, json.loads(kept.read_text(encoding="utf-8")), written)
        for name, svg in figures.items():
            (PICTURES / name).write_text(svg, encoding="utf-8")
    PAGE.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
