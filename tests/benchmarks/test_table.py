"""The page of measurements is what the committed results say, and a benchmark's result holds what the page needs."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def module(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def results():
    return module("_results")


@pytest.fixture
def table():
    return module("table")


def test_the_page_is_made_of_the_results(table):
    assert table.main(["--check"]) == 0


def test_a_result_becomes_rows(results, table, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks/some.py", "--size", "3"])
    figures = [
        results.Figure("speed", "0.3 Mvoxel/s", ratio=2.0, peer="the reference"),
        results.Figure("seams", "0", target="0"),
    ]
    path = results.save("some_speed", figures, peak_gib=1.234, note="beside other work")
    text = json.loads(path.read_text())
    assert text["command"] == "python benchmarks/some.py --size 3"
    assert text["machine"]["cores"] >= 1
    assert text["machine"]["versions"]["torch"]
    page = table.render([text])
    assert "## Some speed" in page
    assert "peak 1.23 GiB; beside other work." in page
    assert "| speed | 0.3 Mvoxel/s | 2.00 x | the reference |  |" in page
    assert "| seams | 0 |  |  | 0 |" in page


def test_every_benchmark_that_is_named_exists():
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        for name in re.findall(r"benchmarks/\w+\.py", json.loads(path.read_text())["command"]):
            assert (ROOT / name).exists(), name


def test_reports_to_libraries_say_that_they_are_not_sent_and_hold_a_script_and_versions():
    reports = list((ROOT / "docs" / "upstream").glob("*.md"))
    assert reports
    for report in reports:
        text = report.read_text()
        assert "**Not sent.**" in text
        assert "Versions: " in text
        compile(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], report.name, "exec")
