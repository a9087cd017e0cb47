"""Writes that fail: every writer, killed or out of disk at a given file operation or byte, leaves nothing that opens.

`PYTHONPATH=tests python -m fuzz.writes [WRITER ... | WRITER FAULT PLACE]` runs all points of all writers or of some, or
replays one. A process that has imported everything forks a child for each point, so that a kill is cheap and real.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.judge import Look, difference, one_sentence
from fuzz.writers import WRITERS, Writer, furnish

FAULTS = ("kill-operation", "kill-byte", "full-operation", "full-byte", "denied")
"""SIGKILL before the n-th file operation, or at the n-th byte of a file; no space at either; a folder not ours."""
_OPERATIONS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "open"}
_NOBODY = 65534
_CHILD_SECONDS = 900.0
"""Other work may take the processor away; no writer takes this long."""


class Laboratory:
    """Inputs and the reference output of every writer, made by children of this process in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "lab").mkdir()
        folder.chmod(0o755)
        self._furnished = False
        self._extent: dict[str, tuple[int, int]] = {}
        self._reference: dict[str, Look] = {}

    def extent(self, name: str) -> tuple[int, int]:
        """How many file operations a writer takes, and its largest file in bytes; makes and opens the reference."""
        if name not in self._extent:
            if WRITERS[name].is_step and not self._furnished:
                self._in_child(lambda: furnish(self.folder / "lab"))
                self._furnished = True
            home = self._empty(f"reference-{name}")

            def write() -> tuple[int, Look]:
                counter = _Operations(home, None, lambda: None)
                WRITERS[name].write(self.folder / "lab", home / WRITERS[name].out)
                return counter.count, WRITERS[name].opens(home / WRITERS[name].out)

            operations, self._reference[name] = self._in_child(write)
            sizes = [file.stat().st_size for file in home.rglob("*") if file.is_file()]
            self._extent[name] = operations, max(sizes)
        return self._extent[name]

    def run(self, name: str, fault: str, place: int) -> str:
        """Let a writer fail at a place; an empty text if all is well, else what is wrong."""
        self.extent(name)
        writer, home = WRITERS[name], self._empty("case")
        if fault == "denied":
            home.chmod(0o555)
        told = self._in_child(lambda: _failing(writer, self.folder / "lab", home, fault, place), dies=True)
        home.chmod(0o755)
        wrong = told if isinstance(told, str) else ""
        return wrong or str(self._in_child(lambda: self._look(writer, name, home)))

    def _look(self, writer: Writer, name: str, home: Path) -> str:
        """Open what was left; a step is then run again where it was left, and must come to its end."""
        reference = self._reference[name]
        try:
            left = writer.opens(home / writer.out)
        except (ValueError, OSError):
            left = None
        wrong = difference(left, reference) if left is not None else ""
        if wrong:
            return f"what was left opens as complete, but {wrong}"
        if left is None and writer.is_step:
            writer.write(self.folder / "lab", home / writer.out)
            wrong = difference(writer.opens(home / writer.out), reference)
        return f"written again, {wrong}" if wrong else ""

    def _empty(self, name: str) -> Path:
        home = self.folder / name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        return home

    def _in_child(self, work: Callable[[], Any], *, dies: bool = False) -> Any:
        """What ``work`` returns, done in a forked child; None if the child was killed and ``dies`` allows it."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(reader)
                result: Any = work()
                os.write(writer, pickle.dumps(result))
                status = 0
            except BaseException as error:
                os.write(writer, pickle.dumps(f"{type(error).__name__}: {error}"))
            finally:
                os._exit(status)
        os.close(writer)
        alarm = threading.Timer(_CHILD_SECONDS, os.kill, (child, signal.SIGKILL))
        alarm.start()
        with os.fdopen(reader, "rb") as stream:
            raw = stream.read()
        _, status = os.waitpid(child, 0)
        alarm.cancel()
        if not raw:
            if dies and os.WIFSIGNALED(status):
                return None
            raise RuntimeError(f"a child ended with {status}")
        result = pickle.loads(raw)
        if status and not dies:
            raise RuntimeError(str(result))
        return result


class _Operations:
    """Counts the file operations below a folder and, at the chosen one, does something about it."""

    def __init__(self, home: Path, place: int | None, then: Callable[[], None]) -> None:
        self.count, self._home, self._place, self._then = 0, str(home), place, then
        sys.addaudithook(self._hear)

    def _hear(self, event: str, about: tuple[Any, ...]) -> None:
        if event not in _OPERATIONS or not about or not isinstance(about[0], str | os.PathLike):
            return
        if event == "open" and not (isinstance(about[2], int) and about[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        if os.fspath(about[0]).startswith(self._home):
            self.count += 1
            if self.count - 1 == self._place:
                self._then()


def _failing(writer: Writer, lab: Path, home: Path, fault: str, place: int) -> str:
    """Write while something goes wrong; an empty text if the writer then says so as it should."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def no_space() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(home))

    if fault == "kill-operation":
        _Operations(home, place, lambda: os.kill(os.getpid(), signal.SIGKILL))
    elif fault == "full-operation":
        _Operations(home, place, no_space)
    elif fault in ("kill-byte", "full-byte"):
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fault == "kill-byte" else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (place, resource.RLIM_INFINITY))
    elif fault == "denied" and os.getuid() == 0:
        codecs.lookup("utf-8-sig")  # imported while the interpreter's own folder can still be read
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    try:
        writer.write(lab, home / writer.out)
    except (ValueError, OSError) as error:
        return "" if one_sentence(str(error)) else f"it says: {error}"
    except BaseException as error:
        return f"it raises {type(error).__name__}: {str(error)[:300]}"
    return "" if fault != "denied" else "it writes into a folder that is not its own"


def serve() -> None:
    """Answer requests for extents and cases, a line of JSON each, until there are no more."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(prefix="tomostain-writes-") as folder:
        laboratory = Laboratory(Path(folder))
        for line in sys.stdin:
            name, *rest = json.loads(line)
            answer = laboratory.run(name, *rest) if rest else laboratory.extent(name)
            replies.write(json.dumps(answer) + "\n")
            replies.flush()


def points(extent: tuple[int, int], count: int, seed: int = 0) -> list[tuple[str, int]]:
    """``count`` faults for a writer, spread over its operations and bytes; every kind in turn."""
    operations, size = extent
    chosen = []
    for i in range(count):
        fault = FAULTS[i % len(FAULTS)]
        share = (
            ((i // len(FAULTS) * 0.618 + 0.5 + seed * 0.382 + i * 0.137) % 1.0) if i >= len(FAULTS) else 0.9 - 0.2 * i
        )
        chosen.append((fault, int(share * (operations if "operation" in fault else size))))
    return chosen


def main(words: list[str]) -> int:
    faults = 0
    replayed = len(words) == 3 and words[1] in FAULTS
    with tempfile.TemporaryDirectory(prefix="tomostain-writes-") as folder:
        laboratory = Laboratory(Path(folder))
        for name in (words[:1] if replayed else words) or WRITERS:
            extent = laboratory.extent(name)
            count = 10 if WRITERS[name].is_step else 40
            chosen = [(words[1], int(words[2]))] if replayed else points(extent, count)
            wrong = {point: text for point in chosen if (text := laboratory.run(name, *point))}
            print(
                f"{name:24} {extent[0]:5} operations {extent[1]:9} bytes {len(chosen):4} faults {len(wrong):4} wrong",
                flush=True,
            )
            for (fault, place), text in wrong.items():
                print(f"  {text}\n    PYTHONPATH=tests python -m fuzz.writes {name} {fault} {place}")
            faults += len(wrong)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(serve() if sys.argv[1:] == ["--serve"] else main(sys.argv[1:]))
