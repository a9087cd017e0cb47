"""A short slice of the fuzz, the same every time: no mutated file hurts, no failed write leaves what opens.

`make fuzz` runs it whole; docs/robustness.md tells what that gave.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.cases import sample
from fuzz.formats import FORMATS
from fuzz.pool import Worker
from fuzz.writes import FAULTS

EACH = 3


@pytest.fixture(scope="module")
def worker():
    one = Worker()
    yield one
    one.close()


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files_end_in_a_clear_error_or_a_valid_read(worker, name):
    outcomes = [worker.run(case) for case in sample(name, EACH)]
    assert [str(one) for one in outcomes if not one.verdict.good and one.verdict.kind != "skipped"] == []
    assert any(one.verdict.kind != "skipped" for one in outcomes)


@pytest.fixture(scope="module")
def laboratory():
    """Ask the process that lets writers fail: a question, an answer."""
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "fuzz.writes", "--serve"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    )

    def ask(*question):
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield ask
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.wait(30)
    process.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="kills and limits are set as Linux has them")
@pytest.mark.parametrize("writer", ["write-ome-zarr", "write-hdf5", "write-slide"])
def test_a_write_that_fails_leaves_nothing_that_opens_as_complete(laboratory, writer):
    operations, size = laboratory(writer)
    assert operations > 1
    for fault in FAULTS:
        place = operations // 2 if "operation" in fault else size // 2
        assert laboratory(writer, fault, place) == "", fault
