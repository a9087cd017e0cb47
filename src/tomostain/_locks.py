"""One run at a time: a mark beside an output, locked by the operating system for as long as its process lives."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

SUFFIX = ".unfinished"
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})


def marker_path(out: Path) -> Path:
    """Where the mark of ``out`` lies: beside it."""
    there = Path(os.path.abspath(out))
    return there.with_name(there.name + SUFFIX)


def read_mark(out: Path) -> dict[str, Any] | None:
    """Who writes, or wrote, a half-written ``out``: step, process, machine, command; None where it is not marked.

    The mark is only read, not locked: no run is kept from starting.
    """
    try:
        about = json.loads(marker_path(out).read_bytes()[:65536])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


class Mark:
    """The locked file ``OUT.unfinished``; it has content from the moment on when ``out`` may be half-written."""

    def __init__(self, out: Path, step: str) -> None:
        self.path, self._step = marker_path(out), step
        while True:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._lock(out)
                if _same_file(self._file, self.path):  # it may have been removed while we waited for the lock
                    break
            except BaseException:
                os.close(self._file)
                raise
            os.close(self._file)
        self.is_written = os.fstat(self._file).st_size > 0
        """Whether ``out`` may be half-written, by this run or by one that was broken off."""

    def write(self) -> None:
        """Note who writes; from here on, what lies at ``out`` was left by us."""
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
        about = {"step": self._step, "process": os.getpid(), "machine": platform.node(), "command": command}
        self.is_written = True
        os.ftruncate(self._file, os.pwrite(self._file, json.dumps(about).encode() + b"\n", 0))
        os.fsync(self._file)

    def remove(self) -> None:
        """Remove the mark; the lock is still ours."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Free the lock, for processes too that were forked from this one."""
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_UN)
        os.close(self._file)

    def _lock(self, out: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS and not self._writer_lives():
                warnings.warn(
                    f"the file system of {out} has no locks; make sure that no other run writes there", stacklevel=2
                )
            elif isinstance(error, BlockingIOError) or error.errno in _NO_LOCKS:
                raise BlockingIOError(
                    f"another run is writing {out}{self._writer()}; wait for its end, or choose another name"
                ) from None
            else:
                raise

    def _writer(self) -> str:
        about = self._read()
        return f" (tomostain {about['step']}, process {about['process']} on {about['machine']})" if about else ""

    def _writer_lives(self) -> bool:
        """Whether the process that wrote the mark runs on this machine; of another machine it cannot be known."""
        about = self._read()
        return about.get("machine") == platform.node() and Path(f"/proc/{about['process']}").exists()

    def _read(self) -> dict[str, Any]:
        try:
            about = json.loads(os.pread(self._file, 4096, 0))
        except ValueError:
            return {}
        complete = isinstance(about, dict) and {"step", "process", "machine"} <= about.keys()
        return about if complete else {}


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
