"""Make docs/measurements.md of the JSON files in benchmarks/results: python benchmarks/table.py [--check]."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "measurements.md"
HEAD = """# Measurements

Made by `python benchmarks/table.py` from the files in `benchmarks/results`, which the benchmarks write. Do not edit it.
A note says where a figure was taken with earlier code or beside other work.
"""


def main(words: list[str]) -> int:
    page = render([json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))])
    if words == ["--check"]:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page
        print("docs/measurements.md is up to date" if same else "docs/measurements.md is not what the results say")
        return int(not same)
    PAGE.write_text(page, encoding="utf-8")
    return 0


def render(results: list[dict[str, Any]]) -> str:
    """The page: a table for each file of results."""
    parts = [HEAD]
    for result in results:
        figures, machine = result["figures"], result["machine"]
        columns = [name for name in ("what", "value", "ratio", "peer", "target") if any(name in f for f in figures)]
        facts = [result["date"], machine["processor"]]
        facts += [f"{machine['cores']} cores"] if machine.get("cores") else []
        facts += [f"peak {result['peak_gib']:.2f} GiB"] if result.get("peak_gib") else []
        facts += [result["note"]] if result.get("note") else []
        parts.append(
            f"## {result['name'].replace('_', ' ').capitalize()}\n\n`{result['command']}`\n\n{'; '.join(facts)}.\n"
        )
        rows = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        rows += [f"| {' | '.join(_cell(figure.get(name)) for name in columns)} |" for figure in figures]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f} x"
    return "" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
