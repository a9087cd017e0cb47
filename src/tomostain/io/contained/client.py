"""Send requests to the decoding process; a file that crashes it, hangs it or exhausts its memory is an error here."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

TIMEOUT_S = 120.0
"""Wall time of one request, for a disk that does not respond; endless computing is ended much earlier (limits.py)."""

OUT_OF_TIME = -24
"""Exit status of a process that reached its limit of processor time (SIGXCPU)."""


class DecodeError(ValueError):
    """The file cannot be decoded; the message is the second half of a sentence and gives the reason."""


class _Process:
    """One decoding process and the lock that gives it one request at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def request(self, request: dict[str, Any]) -> tuple[dict[str, Any], npt.NDArray[Any] | None]:
        with self._lock:
            while True:
                fresh = self._start()
                try:
                    return self._exchange(request)
                except (OSError, EOFError):
                    status = self.stop()
                if status == OUT_OF_TIME:
                    raise DecodeError("decoding it does not end; the file is damaged")
                if fresh:  # an old process may have failed because of earlier files
                    raise DecodeError("decoding it crashes the decoder; the file is damaged")

    def _start(self) -> bool:
        """Start the decoding process if it is not running; return whether it is a new one."""
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return False
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tomostain.io.contained.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        )
        return True

    def _exchange(self, request: dict[str, Any]) -> tuple[dict[str, Any], npt.NDArray[Any] | None]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        alarm = threading.Timer(TIMEOUT_S, process.kill)
        alarm.start()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line.endswith(b"\n"):
                raise EOFError
            header: dict[str, Any] = json.loads(line)
            if "error" in header:
                raise DecodeError(header["error"])
            if request["op"] == "open":
                return header, None
            values = np.empty(tuple(header["shape"]), dtype=np.dtype(header["dtype"]))
            buffer = values.reshape(-1).view(np.uint8).data
            done = 0
            while done < len(buffer):
                count = process.stdout.readinto(buffer[done:])  # type: ignore[attr-defined]
                if not count:
                    raise EOFError
                done += count
            return header, values
        finally:
            alarm.cancel()

    def stop(self) -> int | None:
        """End the process and return its exit status, None if none was running."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return None
        process.kill()
        status = process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return status


_PROCESS = _Process()
atexit.register(_PROCESS.stop)


def look(kind: str, path: str) -> dict[str, Any]:
    """The metadata of the file at ``path``, opened by the decoder ``kind``.

    Raises
    ------
    DecodeError
        It is not of this kind, is damaged, or needs too much memory or time.
    """
    return _PROCESS.request({"op": "open", "kind": kind, "path": os.path.abspath(path)})[0]


def read(
    kind: str, path: str, level: int, window: tuple[int, int, int, int], *, bytes_per_px: int = 3
) -> npt.NDArray[Any]:
    """The window (top, bottom, left, right) of one level of the file at ``path``.

    Raises
    ------
    DecodeError
        The pixels cannot be decoded.
    """
    request = {"op": "read", "kind": kind, "path": os.path.abspath(path), "level": level, "window": list(window)}
    values = _PROCESS.request(request | {"bytes": bytes_per_px})[1]
    assert values is not None
    return values
