"""A journal keeps what was noted, in order, and cuts off what a crash tore."""

import pytest

from tomostain.staining.journal import Journal


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "v.journal"
    with Journal.begin(path, {"identity": "a"}) as journal:
        journal.add(level=0, at=[0, 0, 1])
        journal.add(level=1, at=[0, 0, 0])
    return path


def test_what_was_noted_comes_back(written):
    with Journal.resume(written) as journal:
        assert journal.head["identity"] == "a"
        assert journal.entries == [{"level": 0, "at": [0, 0, 1]}, {"level": 1, "at": [0, 0, 0]}]


@pytest.mark.parametrize("cut", [1, 2, 10])
def test_a_torn_last_line_is_cut_off_and_writing_goes_on(written, cut):
    raw = written.read_bytes()
    written.write_bytes(raw[:-cut])
    with Journal.resume(written) as journal:
        assert journal.entries == [{"level": 0, "at": [0, 0, 1]}]
        journal.add(level=2, at=[0, 0, 0])
    with Journal.resume(written) as journal:
        assert [entry["level"] for entry in journal.entries] == [0, 2]


@pytest.mark.parametrize("content", [b"", b'{"format": "tomostain-jour', b"[1]\n", b'{"format": "other"}\n', b"\xff\n"])
def test_without_a_whole_head_there_is_no_journal(tmp_path, content):
    path = tmp_path / "v.journal"
    path.write_bytes(content)
    assert Journal.resume(path) is None
    assert Journal.resume(tmp_path / "none") is None
