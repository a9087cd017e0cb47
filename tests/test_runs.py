"""One run at a time, recorded last; what a broken run left is cleared, what others made is kept."""

import contextlib
import fcntl
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import pytest

from tomostain import runs


def make(out, text="bone", **given):
    with runs.output(out, "test", **given) as made:
        out.mkdir()
        (out / "result").write_text(text)
        made.results["pixels"] = 3
    return out


def break_off(out):
    """Leave what a run leaves that fails half-way."""
    with contextlib.suppress(InterruptedError), runs.output(out, "test"):
        out.mkdir()
        (out / "half").write_text("x")
        raise InterruptedError


def test_record_names_inputs_by_content(tmp_path):
    source, out = tmp_path / "in.txt", tmp_path / "out"
    source.write_text("bone")
    make(out, recipe={"steps": 3}, inputs=[source, None], seed=7)
    record = runs.read_record(out)
    assert record["inputs"] == [{"path": str(source), "sha256": runs.fingerprint(source)}]
    assert (record["recipe"], record["seed"], record["step"]) == ({"steps": 3}, 7, "test")
    assert record["results"] == {"pixels": 3}
    source.write_text("bonf")
    assert record["inputs"][0]["sha256"] != runs.fingerprint(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out"]


def test_no_record_no_result(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError, match="has not finished"):
        runs.read_record(tmp_path / "out")


@pytest.mark.parametrize("size", [10, 100])
def test_an_input_that_changes_during_the_run_is_recorded_as_what_was_read(tmp_path, monkeypatch, size):
    monkeypatch.setattr(runs, "_HASHED_FIRST", 50)
    source, out = tmp_path / "weights", tmp_path / "out"
    source.write_text("a" * size)
    first = runs.fingerprint(source)

    def replaced_meanwhile():
        with runs.output(out, "test", inputs=[source]):
            out.write_text("x")
            source.write_text("b" * size)
            os.utime(source, ns=(0, 0))

    with pytest.warns(UserWarning, match="weights was changed while it was read"):
        replaced_meanwhile()
    (about,) = runs.read_record(out)["inputs"]
    assert about["changed_during_the_run"] is True
    assert about["sha256"] == (first if size < 50 else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "null",
        '{"format": "other"}',
        '{"inputs": 3}',
        '{"inputs": ["a"]}',
        '{"inputs": [{"sha256": "x"}]}',
        '{"machine": "mine"}',
        '{"results": []}',
        '{"finished": 2026}',
        "[" * 100_000,
    ],
)
def test_a_damaged_record_is_named(tmp_path, text):
    make(tmp_path / "out")
    (tmp_path / "out" / "run.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"out/run\.json is (damaged|not a record).*; run the step that writes .*/out again"
    ):
        runs.read_record(tmp_path / "out")


def test_a_record_without_optional_facts_reads_as_empty_ones(tmp_path):
    make(tmp_path / "out")
    (tmp_path / "out" / "run.json").write_text('{"machine": {"system": "Linux"}, "versions": null}')
    record = runs.read_record(tmp_path / "out")
    assert record["machine"] == {"system": "Linux", "processors": None}
    assert (record["command"], record["versions"], record["seed"], record["finished"]) == ([], {}, None, "")


def test_broken_run_is_cleared_and_foreign_files_are_kept(tmp_path):
    out = tmp_path / "out"
    break_off(out)
    assert (tmp_path / "out.unfinished").exists()
    make(out)
    assert sorted(path.name for path in out.iterdir()) == ["result", "run.json"]
    with pytest.raises(ValueError, match="out exists; choose another name"):
        make(out)
    assert (out / "result").read_text() == "bone"
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.tex").write_text("dear")
    with pytest.raises(ValueError, match="thesis exists"):
        make(foreign)
    assert (foreign / "chapter1.tex").read_text() == "dear"
    assert not list(tmp_path.glob("*.unfinished"))


def test_what_a_broken_run_left_is_kept_where_the_step_goes_on(tmp_path):
    out = tmp_path / "out"
    break_off(out)
    with runs.output(out, "test", keep=True) as made:
        assert (out / "half").read_text() == "x"
        made.clear()
        assert not out.exists()
        out.mkdir()
    foreign = tmp_path / "copied"
    foreign.mkdir()
    (foreign / "checkpoint").touch()
    with pytest.raises(ValueError, match="copied exists"), runs.output(foreign, "test", keep=True):
        pass
    with runs.output(foreign, "test", keep=(foreign / "checkpoint").exists):
        assert (foreign / "checkpoint").exists()


def test_a_finished_output_that_is_reopened_is_unfinished_until_the_end(tmp_path):
    out = make(tmp_path / "out")
    with runs.output(out, "test", reopen=True, keep=True):
        assert not runs.is_complete(out)
        assert (out / "result").read_text() == "bone"
    assert runs.is_complete(out)


def test_a_run_that_fails_before_it_writes_leaves_nothing(tmp_path):
    out = tmp_path / "new" / "folder" / "out"
    with contextlib.suppress(InterruptedError), runs.output(out, "test"):
        out.mkdir()
        raise InterruptedError
    assert not any(tmp_path.iterdir())


def test_a_record_without_its_file_does_not_make_the_next_one_finished(tmp_path):
    out = tmp_path / "page.html"
    with runs.output(out, "test"):
        out.write_text("first")
    out.unlink()
    assert not runs.is_complete(out)
    with runs.output(out, "test"):
        out.write_text("second")
        assert not runs.is_complete(out)
    assert runs.is_complete(out)


def test_an_output_is_apart_from_its_inputs(tmp_path):
    scan = tmp_path / "scan"
    scan.mkdir()
    (scan / "0001.tif").touch()
    for out, inputs, why in [
        (scan, [scan], "is the input itself"),
        (tmp_path / "x" / ".." / "scan", [scan], "is the input itself"),
        (scan / "out", [scan], "lies inside the input"),
        (tmp_path, [scan], "lies inside .*, which is to be written"),
        (scan, [f"{scan}::/entry"], "is the input itself"),
    ]:
        with pytest.raises(ValueError, match=why), runs.output(out, "test", inputs=inputs):
            pass
    assert [path.name for path in scan.iterdir()] == ["0001.tif"]


@pytest.mark.parametrize("target", ["there", "missing"])
def test_a_symbolic_link_is_not_written_through(tmp_path, target):
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match="out is a symbolic link; choose another name"):
        make(tmp_path / "out")
    assert not any((tmp_path / "there").iterdir())


@pytest.mark.parametrize("name", [".", "folder/..", "folder/../out/", "./out"])
def test_the_mark_lies_beside_the_output_however_it_is_spelt(tmp_path, monkeypatch, name):
    (tmp_path / "desk" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "desk")
    place = tmp_path / "desk" / name
    with runs.lock(place, "test"):
        marks = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.unfinished")]
    assert marks == ["desk/out.unfinished" if "out" in name else "desk.unfinished"]


def test_a_second_run_is_refused_whichever_way_it_spells_the_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alias").symlink_to(tmp_path)
    out = tmp_path / "out"
    with runs.output(out, "first"):
        out.mkdir()
        (out / "half").write_text("first")
        for spelt in ("out", "./out", "alias/out", out):
            with (
                pytest.raises(
                    BlockingIOError, match=rf"another run is writing .*out \(tomostain first, process {os.getpid()} on"
                ),
                runs.output(spelt, "second", keep=True, reopen=True),
            ):
                pass
        assert (out / "half").read_text() == "first"
    assert runs.read_record(out)["step"] == "first"


def test_what_another_run_writes_inside_a_broken_output_is_not_cleared(tmp_path):
    out = tmp_path / "demo"
    break_off(out)
    with runs.output(out / "stainer", "train"):
        with pytest.raises(BlockingIOError, match=r"another run is writing .*demo/stainer"):
            make(out)
        (out / "stainer").mkdir()
    assert runs.is_complete(out / "stainer")


def test_the_lock_dies_with_its_process_and_not_with_its_children(tmp_path):
    out = tmp_path / "out"
    code = f"""
import subprocess, sys, time
from pathlib import Path
from tomostain import runs
out = Path({str(out)!r})
with runs.output(out, "killed"):
    out.mkdir()
    (out / "half").touch()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(child.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        child = int(first.stdout.readline())
        with pytest.raises(BlockingIOError, match="tomostain killed, process"):
            make(out)
        first.kill()
    try:
        make(out)
    finally:
        os.kill(child, signal.SIGKILL)
    assert runs.is_complete(out)


def write_slowly(out, name, start):
    """Write 20 files one after the other as ``name``, then read them back."""
    while time.time() < start:
        pass
    try:
        with runs.output(out, name, recipe={"who": name}):
            out.mkdir()
            for number in range(20):
                (out / f"{number}.txt").write_text(name)
    except (BlockingIOError, ValueError):
        sys.exit(3)


def test_of_two_runs_that_start_at_once_one_is_refused_and_none_is_mixed(tmp_path):
    context = multiprocessing.get_context("fork")
    for trial in range(20):
        out, start = tmp_path / f"out{trial}", time.time() + 0.02
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
            both = [context.Process(target=write_slowly, args=(out, name, start + trial * delay)) for name, delay in
                    [("A", 0.0), ("B", 0.0003)]]  # fmt: skip
            for process in both:
                process.start()
        for process in both:
            process.join()
        assert sorted(process.exitcode for process in both) == [0, 3]
        who = runs.read_record(out)["recipe"]["who"]
        assert {file.read_text() for file in out.glob("*.txt")} == {who}
        assert who == "AB"[[process.exitcode for process in both].index(0)]


@pytest.mark.parametrize("error", [38, 95, 37])
def test_without_locks_on_the_file_system_a_living_writer_is_still_found(tmp_path, monkeypatch, error):
    def no_locks(*_):
        raise OSError(error, "no locks here")

    def twice():
        with runs.output(tmp_path / "out", "first"):
            make(tmp_path / "out")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with (
        pytest.warns(UserWarning, match="out has no locks"),
        pytest.raises(BlockingIOError, match=f"another run is writing .*tomostain first, process {os.getpid()}"),
    ):
        twice()
    mark = tmp_path / "late.unfinished"
    mark.write_text(json.dumps({"step": "x", "process": 2**22 + 5, "machine": os.uname().nodename}))
    with pytest.warns(UserWarning, match="late has no locks"):
        make(tmp_path / "late")


def test_other_faults_of_the_lock_are_said(tmp_path):
    folder = tmp_path / "file"
    folder.touch()
    with pytest.raises(OSError, match=re.escape(str(folder))):
        make(folder / "out")


def test_a_choice_inside_a_file_is_split_off_and_the_file_is_what_is_hashed(tmp_path):
    (tmp_path / "scan.h5").write_bytes(b"data")
    assert runs.split_inside(f"{tmp_path}/scan.h5::/entry/data") == (tmp_path / "scan.h5", "/entry/data")
    assert runs.fingerprint(f"{tmp_path}/scan.h5::/entry") == runs.fingerprint(tmp_path / "scan.h5")
    (tmp_path / "odd::name.raw").write_bytes(b"")
    assert runs.split_inside(tmp_path / "odd::name.raw") == (tmp_path / "odd::name.raw", "")


def test_a_text_whose_writing_was_killed_leaves_nothing_once_it_is_written(tmp_path):
    code = "import os, sys; from tomostain import runs; os.fsync = lambda _: os._exit(9); "
    code += "runs.write_text_atomically(sys.argv[1], 'half')"
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.json")], check=False)
    assert killed.returncode == 9
    assert len(list(tmp_path.iterdir())) == 1
    runs.write_text_atomically(tmp_path / "a.json", "whole")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "whole"
