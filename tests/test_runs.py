"""A record is written last; what a broken run left is cleared, what others made is kept."""

import pytest

from tomostain import runs


def test_record_tells_inputs_by_content(tmp_path):
    source, out = tmp_path / "in.txt", tmp_path / "out"
    source.write_text("bone")
    out.mkdir()
    runs.record(out, "test", recipe={"steps": 3}, inputs=[source], seed=7)
    told = runs.read_record(out)
    assert told["inputs"][0]["sha256"] == runs.fingerprint(source)
    assert (told["recipe"], told["seed"], told["step"]) == ({"steps": 3}, 7, "test")
    source.write_text("bonf")
    assert told["inputs"][0]["sha256"] != runs.fingerprint(source)


def test_no_record_no_result(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError, match="has not finished"):
        runs.read_record(tmp_path / "out")


def test_broken_run_is_cleared_and_foreign_files_are_kept(tmp_path):
    out = tmp_path / "out"
    runs.check_new(out)
    out.mkdir()
    (out / "half").write_text("x")
    runs.check_new(out)
    assert not out.exists()
    out.mkdir()
    runs.record(out, "test")
    with pytest.raises(ValueError, match="out exists; choose another name"):
        runs.check_new(out)
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.tex").write_text("dear")
    with pytest.raises(ValueError, match="thesis exists"):
        runs.check_new(foreign)
    assert (foreign / "chapter1.tex").read_text() == "dear"


def test_a_choice_inside_a_file_is_split_off_and_the_file_is_what_is_hashed(tmp_path):
    (tmp_path / "scan.h5").write_bytes(b"data")
    assert runs.split_inside(f"{tmp_path}/scan.h5::/entry/data") == (tmp_path / "scan.h5", "/entry/data")
    assert runs.fingerprint(f"{tmp_path}/scan.h5::/entry") == runs.fingerprint(tmp_path / "scan.h5")
    (tmp_path / "odd::name.raw").write_bytes(b"")
    assert runs.split_inside(tmp_path / "odd::name.raw") == (tmp_path / "odd::name.raw", "")
