"""The harness itself: every fault of a reader is found, a sound reader is left in peace, a case comes back the same."""

import pytest

from fuzz import pool
from fuzz.cases import cases_for
from fuzz.formats import FORMATS
from fuzz.mutations import MUTATIONS
from fuzz.pool import Case, Worker


@pytest.fixture(scope="module")
def worker():
    faulty = Worker("fuzz.faulty:FAULTY")
    yield faulty
    faulty.close()


@pytest.mark.parametrize(
    ("reader", "found"),
    [
        ("names-the-file", "error"),
        ("raises", "traceback"),
        ("names-nothing", "unclear"),
        ("zeros", "wrong"),
        ("zeros-reported", "found"),
        ("dies", "crash"),
        ("memory", "memory"),
        ("memory-hidden", "memory"),
        ("writes", "wrote"),
        ("rubbish", "wrote"),
    ],
)
def test_each_fault_has_its_name(worker, reader, found):
    assert worker.run(Case(reader, "truncate", 1)).verdict.kind == found


def test_a_hang_is_ended_and_the_next_case_runs(worker, monkeypatch):
    monkeypatch.setattr(pool, "SECONDS", 0.5)
    assert worker.run(Case("hangs", "truncate", 1)).verdict.kind == "hang"
    monkeypatch.undo()
    assert worker.run(Case("names-the-file", "truncate", 1)).verdict.kind == "error"


def test_what_the_altered_file_says_to_a_strict_reader_is_a_valid_read(worker):
    assert worker.run(Case("honest", "flip", 3)).verdict.kind == "altered"


def test_what_was_cut_off_is_never_made_up_even_if_a_strict_reader_agrees(worker):
    assert worker.run(Case("zeros", "empty", 0)).verdict.kind == "wrong"


def test_a_case_is_made_again_by_its_name(worker):
    first, second = (worker.run(Case("raises", "noise", 5)).verdict for _ in range(2))
    assert first == second


def test_every_format_is_given_its_mutations_in_turn():
    for name, form in FORMATS.items():
        given = {case.mutation for case in cases_for(name, 30)}
        assert given == ({*MUTATIONS, *form.own} - form.without)
