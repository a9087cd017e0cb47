"""Write the results of an experiment into docs/experiment.md, with its figure: every table from results.json.

    tomostain phantom cohort/ --specimens 16 --slides 4 --size 64 160 160 --seed 3001
    python benchmarks/experiment_page.py slides cohort/ slides.csv
    tomostain register slides.csv placements/
    tomostain pair cohort/ pairs/ --placements placements/
    tomostain experiment pairs/ experiment/ --variants benchmarks/experiment_cpu.yaml --hours 0.017 --folds 2 --seeds 1
    python benchmarks/experiment_page.py page experiment/results.json

``page`` copies the results to benchmarks/results/experiment, from where ``page`` without a file writes the page again.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tomostain.phantom.manifest import read_cohort
from tomostain.reporting.experiment import as_markdown, experiment_parts

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "benchmarks" / "results" / "experiment" / "results.json", ROOT / "docs" / "experiment.md"
PICTURES = ROOT / "docs" / "images"
BEGIN, END = "<!-- from results.json: python benchmarks/experiment_page.py page -->", "<!-- end -->"


def slides(cohort: Path, table: Path) -> None:
    """The table of a cohort's slides for `tomostain register`; it holds no placement."""
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["volume", "slide", "specimen", "name"])
        for specimen in read_cohort(cohort)["specimens"]:
            for slide in specimen["slides"]:
                where = [(cohort / path).resolve() for path in (specimen["ct"], slide["slide"])]
                writer.writerow([*where, specimen["name"], f"{specimen['name']}_{slide['name']}"])


def page(results: dict[str, Any], text: str) -> tuple[str, dict[str, str]]:
    """The page with the part between its marks written anew, and its figures by file name."""
    figures = {}
    for part in experiment_parts(results):
        for number, svg in enumerate(part.figures.values()):
            figures[f"experiment_{part.title.partition(': ')[2].replace(' ', '_')}_{number}.svg"] = _alone(svg)
    links = "\n\n".join(f"![Scores of every specimen](images/{name})" for name in figures)
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{as_markdown(results, heading='###')}\n{links}\n\n{END}{after}", figures


def _alone(svg: str) -> str:
    """The figure as a file of its own."""
    shown = svg if "xmlns=" in svg[:400] else svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return shown.replace("currentColor", "#444444") + "\n"


def main(words: list[str]) -> None:
    if words[:1] == ["slides"] and len(words) == 3:
        slides(Path(words[1]), Path(words[2]))
        return
    if words[:1] != ["page"] or len(words) > 2:
        raise SystemExit(__doc__)
    if len(words) == 2:
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(words[1], KEPT)
    results = json.loads(KEPT.read_text(encoding="utf-8"))
    written, figures = page(results, PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(written, encoding="utf-8")
    for name, svg in figures.items():
        (PICTURES / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
