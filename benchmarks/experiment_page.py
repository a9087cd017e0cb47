"""Write the results of an experiment into docs/experiment.md, with its figure: every table from results.json.

    tomostain phantom cohort/ --specimens 16 --slides 4 --size 64 160 160 --seed 3001
    python benchmarks/experiment_page.py slides cohort/ slides.csv
    tomostain register slides.csv placements/
    tomostain pair cohort/ pairs/ --placements placements/
    tomostain experiment pairs/ experiment/ --variants benchmarks/experiment_cpu.yaml --hours 0.017 --folds 2 --seeds 1
    python benchmarks/experiment_page.py page experiment/results.json results

``page`` copies the results to benchmarks/results/experiment under that name, and writes the page again from all that is
there, each between the marks of its name: ``results`` whole, others in short.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tomostain.phantom.manifest import read_cohort
from tomostain.reporting.experiment import Part, as_markdown, experiment_parts

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "benchmarks" / "results" / "experiment", ROOT / "docs" / "experiment.md"
PICTURES = ROOT / "docs" / "images"
WHOLE = "results"


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
    parts, figures = experiment_parts(results), {}
    if name == WHOLE:
        for part in parts:
            for number, svg in enumerate(part.figures.values()):
                figures[f"experiment_{part.title.partition(': ')[2].replace(' ', '_')}_{number}.svg"] = _alone(svg)
    else:
        parts = [_short(part) for part in parts if part.title.startswith(("Result", "What"))]
    links = "".join(f"\n![Scores of every specimen](images/{file})\n" for file in figures)
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n\n{as_markdown(parts, heading='###')}{links}\n{end}{after}", figures


def _short(part: Part) -> Part:
    """Scores, tissues and what is claimed."""
    tables = [table for table in part.tables if table.caption.startswith(("Scores", "Tissues"))]
    return replace(part, paragraphs=(), tables=tables)


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
