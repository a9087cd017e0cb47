"""Run cases in child processes that may hang or die: one worker each core, replaced when a case kills it."""

from __future__ import annotations

import json
import os
import queue
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.judge import Verdict

SECONDS = 10.0
"""A case that takes longer hangs: this much of the processor, or of the clock CLOCK times as much."""
CLOCK = 3
"""Other work may take the processor away from a case for a while."""
PREPARATION_SECONDS = 120.0
CASES_PER_WORKER = 400
"""A worker is replaced after so many, so that what a library keeps open does not spoil the measure of others."""
FORMATS = "fuzz.formats:FORMATS"


@dataclass(frozen=True)
class Case:
    """A mutated file, made again from these three."""

    format: str
    mutation: str
    seed: int

    def __str__(self) -> str:
        return f"{self.format} {self.mutation} {self.seed}"

    @property
    def replay(self) -> str:
        return f"PYTHONPATH=tests python -m fuzz {self}"


@dataclass(frozen=True)
class Outcome:
    """How a case ended, how long it took and the memory it took at most beyond what was taken before."""

    case: Case
    verdict: Verdict
    seconds: float
    mib: float

    def __str__(self) -> str:
        return f"{self.verdict.kind}: {self.case}: {self.verdict.detail}\n    {self.case.replay}"


class Worker:
    """A child process that judges one case after the other; started again after it died or hung."""

    def __init__(self, table: str = FORMATS) -> None:
        self.table = table
        self.process: subprocess.Popen[bytes] | None = None
        self.folder = Path()
        self.done = 0
        self.prepared: set[str] = set()

    def run(self, case: Case) -> Outcome:
        """Judge a case; one that is not answered is asked once more: only what repeats is the file's doing."""
        outcome = self._run(case)
        return self._run(case) if self.process is None else outcome

    def _run(self, case: Case) -> Outcome:
        if self.done >= CASES_PER_WORKER:
            self.close()
        if self.process is None:
            self._start()
        if case.format not in self.prepared:
            reply, _ = self._ask({"format": case.format}, PREPARATION_SECONDS)
            if "ready" not in reply:
                said = self._last_words()
                self.close()
                raise RuntimeError(f"the valid file of {case.format} cannot be made or read: {said}")
            self.prepared.add(case.format)
        begun = time.monotonic()
        asked = {"format": case.format, "mutation": case.mutation, "seed": case.seed}
        reply, phase = self._ask(asked, SECONDS)
        seconds = time.monotonic() - begun
        self.done += 1
        if "kind" in reply:
            return Outcome(case, Verdict(reply["kind"], reply["detail"]), seconds, reply["mib"])
        verdict = self._unanswered(phase)
        self.close()
        return Outcome(case, verdict, seconds, 0.0)

    def _unanswered(self, phase: str) -> Verdict:
        assert self.process is not None
        code = self.process.poll()
        if phase == "strict":
            return Verdict("wrong", "ours reads what kills or stalls the strict reader")
        if code is None:
            return Verdict("hang", f"no answer within {SECONDS:g} s of processor time or {CLOCK * SECONDS:g} s")
        return Verdict("crash", f"the interpreter ended with {code}: {self._last_words()}")

    def _start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tomostain-fuzz-"))
        tests = Path(__file__).resolve().parents[1]
        settings = {
            "PYTHONPATH": os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")]),
            "TMPDIR": str(self.folder / "tmp"),
            "MALLOC_ARENA_MAX": "2",
            "OMP_NUM_THREADS": "1",
        }
        self.errors = (self.folder / "stderr.txt").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.worker", self.table, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what a buffer holds, select does not see: two lines at once would pass for a hang
            stderr=self.errors,
            env=os.environ | settings,
        )
        self.done, self.prepared = 0, set()

    def _ask(self, message: dict[str, Any], seconds: float) -> tuple[dict[str, Any], str]:
        """The reply, empty where none came, and the phase that was told last."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        phase, waited = "", 0.0
        self.spent = 0.0
        self.spent = self._processor_seconds()
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {}, phase
        while waited < CLOCK * seconds:
            if not select.select([self.process.stdout], [], [], seconds / 10)[0]:
                waited += seconds / 10  # counted, not timed: both of us may be stopped together for a while
                if self._processor_seconds() > seconds:
                    break
                continue
            line = self.process.stdout.readline()
            if not line:
                self.process.wait()
                break
            reply: dict[str, Any] = json.loads(line)
            if "phase" not in reply:
                return reply, phase
            phase, waited = reply["phase"], 0.0
        return {}, phase

    def _processor_seconds(self) -> float:
        """Processor time that the case has taken."""
        assert self.process is not None
        stat = Path(f"/proc/{self.process.pid}/stat")
        fields = stat.read_text().rpartition(")")[2].split() if stat.exists() else ["0"] * 13
        return sum(int(ticks) for ticks in fields[11:13]) / os.sysconf("SC_CLK_TCK") - self.spent

    def _last_words(self) -> str:
        lines = (self.folder / "stderr.txt").read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[:1] + lines[-6:])[:600]

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.errors.close()
            shutil.rmtree(self.folder, ignore_errors=True)
        self.process = None


def run_all(
    cases: Iterable[Case], *, workers: int = 1, table: str = FORMATS, told: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Judge all cases, in as many child processes as asked; the outcomes in the order of the cases."""
    waiting: queue.SimpleQueue[tuple[int, Case]] = queue.SimpleQueue()
    for item in enumerate(cases):
        waiting.put(item)
    outcomes: dict[int, Outcome] = {}
    faults: list[BaseException] = []

    def work() -> None:
        worker = Worker(table)
        try:
            for index, case in _until_empty(waiting):
                outcomes[index] = worker.run(case)
                told(outcomes[index])
        except BaseException as fault:
            faults.append(fault)
        finally:
            worker.close()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return [outcomes[index] for index in sorted(outcomes)]


def _until_empty(waiting: queue.SimpleQueue[tuple[int, Case]]) -> Iterator[tuple[int, Case]]:
    while True:
        try:
            yield waiting.get_nowait()
        except queue.Empty:
            return
