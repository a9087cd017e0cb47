"""The journal of a staining run: what is finished, one line each, on disk before the next step relies on it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

FORMAT = "tomostain-journal"


class Journal:
    """An append-only file of JSON lines; the first says what run it belongs to.

    A line that a crash tore is cut off when the journal is opened again. ``add`` may be called from several threads.
    """

    def __init__(self, path: Path, head: Mapping[str, Any], entries: list[dict[str, Any]]) -> None:
        self.path, self.head, self.entries = path, dict(head), entries
        self._lock = threading.Lock()
        self._file = path.open("ab")

    @classmethod
    def begin(cls, path: Path, head: Mapping[str, Any]) -> Journal:
        """A new journal; ``head`` is kept in its first line."""
        path.unlink(missing_ok=True)
        journal = cls(path, {"format": FORMAT, "version": 1, **head}, [])
        journal._append(journal.head)
        _sync_folder(path.parent)
        return journal

    @classmethod
    def resume(cls, path: Path) -> Journal | None:
        """The journal that a run left at ``path``; None where there is none, or not even its first line is whole."""
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        lines, whole = [], 0
        for line in raw.splitlines(keepends=True):
            try:
                text = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                text = None
            if not isinstance(text, dict):
                break
            lines.append(text)
            whole += len(line)
        if not lines or lines[0].get("format") != FORMAT or lines[0].get("version") != 1:
            return None
        if whole < len(raw):
            os.truncate(path, whole)
        return cls(path, lines[0], lines[1:])

    def add(self, **entry: Any) -> None:
        """Note that something is finished; on return it is on disk."""
        with self._lock:
            self._append(entry)
            self.entries.append(entry)

    def close(self) -> None:
        """Close the file; its lines stay."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def sync_file(path: Path) -> None:
    """Wait until a file and its name in its folder are on disk; a missing file has nothing to wait for."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
