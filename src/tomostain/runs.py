"""Outputs: one run at a time, the record of how it was made written last, half-written ones marked; and progress."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tomostain import __version__
from tomostain._locks import SUFFIX, Mark, read_mark
from tomostain._log import LOGGER, progress, progress_bar, say, say_verbosely

__all__ = [
    "LOGGER",
    "Output",
    "fingerprint",
    "is_complete",
    "lock",
    "output",
    "progress",
    "progress_bar",
    "read_mark",
    "read_record",
    "record_path",
    "say",
    "say_verbosely",
    "split_inside",
    "was_made_by",
    "whole",
    "write_text_atomically",
]

FORMAT = "tomostain-run"
_WATCHED = ("torch", "numpy", "scipy", "zarr", "tifffile")
_HASHED_FIRST = 2**30
"""Bytes of an input up to which it is hashed before the run, beyond at its end."""
_EMPTY_RECORD: Mapping[str, Any] = MappingProxyType(
    {
        "step": "",
        "command": [],
        "finished": "",
        "inputs": [],
        "results": {},
        "versions": {},
        "machine": {"system": "", "processors": None},
    }
)


@dataclasses.dataclass
class Output:
    """What a step writes while it runs: no other run can write there, and the record is written at its end."""

    path: Path
    results: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the record says about the result; filled by the step."""

    def clear(self) -> None:
        """Remove what an earlier run left at ``path``."""
        _remove(self.path)


@contextmanager
def output(
    out: Path,
    step: str,
    *,
    recipe: Any = None,
    inputs: Iterable[Path | None] = (),
    seed: int | None = None,
    keep: bool | Callable[[], bool] = False,
    reopen: bool = False,
) -> Iterator[Output]:
    """Write ``out`` as the only run that does, and record how it was made once it is whole.

    From here to the end ``OUT.unfinished`` lies beside ``out`` and is locked by the operating system, which frees the
    lock when this process ends, however it ends. The record is written last: ``out`` without one is not finished.

    Parameters
    ----------
    out
        File or folder to be written; its folder is made.
    step, recipe, inputs, seed
        What the record holds; inputs are recorded with their SHA-256 (``fingerprint``).
    keep
        Keep what a run that was broken off left (``OUT.unfinished`` marks it), so that the step can go on from it; it
        is removed otherwise. A function is called once ``out`` is locked, and where it is true the mark is not needed.
    reopen
        Go on with a finished ``out`` too; it is unfinished again until the end.

    Raises
    ------
    BlockingIOError
        Another run is writing ``out``, or something inside it.
    ValueError
        ``out`` holds a finished result, or something that no run of ours left; it is a symbolic link; or it lies inside
        an input, or an input inside it.
    """
    out = Path(out)
    sources = [Path(path) for path in inputs if path is not None]
    _check_apart(out, sources)
    with lock(out, step) as mark:
        kept = keep() if callable(keep) else keep and mark.is_written
        _make_room(out, marked=mark.is_written, kept=kept, reopen=reopen)
        mark.write()
        LOGGER.debug("%s: %s is locked and free", step, out)
        known = [_Input(path) for path in sources]
        made = Output(out)
        yield made
        described = {"recipe": recipe, "inputs": [source.record() for source in known], "seed": seed}
        _write_record(out, step, results=made.results, **described)
        LOGGER.debug("%s: %s is finished and recorded", step, out)


@contextmanager
def lock(out: Path, step: str) -> Iterator[Mark]:
    """Lock ``out`` for this process; ``OUT.unfinished`` is removed at the end, or stays where ``out`` is half-written.

    Raises
    ------
    BlockingIOError
        Another run has locked it.
    """
    made = _make_folders(Path(os.path.abspath(out)).parent)
    try:
        with closing(Mark(out, step)) as mark:
            try:
                yield mark
            except BaseException:
                if mark.is_written and _is_empty(out):
                    _remove(out)
                    mark.remove()
                elif not mark.is_written:
                    mark.remove()
                raise
            mark.remove()
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def record_path(out: Path) -> Path:
    """Where the record of ``out`` lies: inside a folder, beside a file."""
    out = Path(out)
    return out / "run.json" if out.is_dir() else out.with_name(out.name + ".run.json")


def read_record(out: Path) -> dict[str, Any]:
    """The record of ``out``; what an older version did not write is empty or None.

    Raises
    ------
    FileNotFoundError
        There is none: the step that writes ``out`` did not finish.
    ValueError
        It is damaged.
    """
    path = record_path(out)
    if not path.is_file():
        raise FileNotFoundError(f"{out} has no {path.name}: the step that writes it has not finished; run it again")
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        text = None
    usual = _EMPTY_RECORD
    if not isinstance(text, dict) or text.get("format", FORMAT) != FORMAT:
        raise ValueError(f"{path} is not a record of tomostain; run the step that writes {out} again")
    wrong = [key for key, value in usual.items() if type(text.get(key, value)) not in (type(value), type(None))]
    inputs = text.get("inputs") or []
    if wrong or not all(isinstance(source, dict) and isinstance(source.get("path"), str) for source in inputs):
        raise ValueError(f"{path} is damaged ({wrong[0] if wrong else 'inputs'}); run the step that writes {out} again")
    read = {**usual, **{key: value for key, value in text.items() if value is not None}}
    read["machine"] = {**usual["machine"], **read["machine"]}
    return {**read, "recipe": text.get("recipe"), "seed": text.get("seed")}


def is_complete(out: Path) -> bool:
    """Whether the step that writes ``out`` came to its end."""
    return Path(out).exists() and record_path(out).is_file()


def unfinished(out: Path) -> dict[str, Any] | None:
    """Step, command and process of the run that writes ``out``, or was interrupted; None where none did."""
    return read_mark(out)


def is_running(about: Mapping[str, Any]) -> bool:
    """Whether the process that ``unfinished`` names runs on this machine; of another machine it cannot be known."""
    try:
        os.kill(int(about["process"]), 0)
    except PermissionError:
        return bool(about.get("machine") == platform.node())
    except (OSError, KeyError, TypeError, ValueError, OverflowError):
        return False
    return bool(about.get("machine") == platform.node())


def was_made_by(out: Path, recipe: Any) -> bool:
    """Whether ``out`` is finished and was made by this recipe."""
    return is_complete(out) and bool(read_record(out)["recipe"] == json.loads(_json(_plain(recipe))))


def split_inside(path: Path | str) -> tuple[Path, str]:
    """A path and what it chooses inside its file: ``scan.h5::/entry/data`` -> (scan.h5, ``/entry/data``)."""
    if Path(path).exists():
        return Path(path), ""
    file, _, inside = str(path).partition("::")
    return Path(file), inside


def fingerprint(path: Path | str, *, whole_below: int = 64 * 2**20) -> str:
    """SHA-256 of a file, or of a folder's names, sizes and (where a file is below ``whole_below`` bytes) contents."""
    path = split_inside(path)[0]
    digest = hashlib.sha256()
    if path.is_file():
        _feed(digest, path)
        return digest.hexdigest()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path).as_posix()}:{size};".encode())
        if size < whole_below:
            _feed(digest, file)
    return digest.hexdigest()


def write_text_atomically(path: Path, text: str) -> Path:
    """Write ``text`` beside ``path`` and rename it there: a reader sees the old file or the whole new one."""
    path = Path(path)
    with whole(path) as part, part.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Yield a hidden sibling of ``out`` to be written, file or folder, and rename it to ``out`` at the end.

    What is left without an error is ``out``; after an error nothing is left, and after a kill only the hidden sibling,
    which the next attempt clears.
    """
    out = Path(out)
    part = out.with_name(f".{out.name}.part")
    _remove(part)
    try:
        yield part
        part.replace(out)
    except BaseException:
        _remove(part)
        raise


class _Input:
    """An input of a run: hashed when the run begins, or, where that would take long, at its end if it is unchanged."""

    def __init__(self, path: Path) -> None:
        self._path, self._state = path, _state(path)
        small = sum(size for _, size, _ in self._state) < _HASHED_FIRST
        self._sha256 = fingerprint(path) if small else None

    def record(self) -> dict[str, Any]:
        changed = _state(self._path) != self._state
        if changed:
            warnings.warn(f"{self._path} was changed while it was read; the record says so", stacklevel=4)
        elif self._sha256 is None:
            self._sha256 = fingerprint(self._path)
        about = {"path": str(self._path), "sha256": self._sha256}
        return about | {"changed_during_the_run": True} if changed else about


def _write_record(out: Path, step: str, **described: Any) -> None:
    """Write the record of a finished step, atomically."""
    text = {
        "format": FORMAT,
        "step": step,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **described,
        "recipe": _plain(described["recipe"]),
        "versions": {"tomostain": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in _WATCHED},
        "machine": {"system": platform.platform(), "processors": os.cpu_count()},
    }
    write_text_atomically(record_path(out), _json(text) + "\n")


def _plain(recipe: Any) -> Any:
    if dataclasses.is_dataclass(recipe) and not isinstance(recipe, type):
        return dataclasses.asdict(recipe)
    return recipe


def _json(values: Any) -> str:
    return json.dumps(values, indent=1, default=str)


def _check_apart(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse an output that is an input, lies inside one, or has one inside it."""
    if out.is_symlink():
        raise ValueError(f"{out} is a symbolic link; choose another name, or pass the name it points to")
    there = out.resolve()
    for path in inputs:
        source = split_inside(path)[0].resolve()
        if source == there:
            raise ValueError(f"{out} is the input itself; choose another name")
        if source in there.parents:
            raise ValueError(f"{out} lies inside the input {path}; choose a place outside it")
        if there in source.parents:
            raise ValueError(f"the input {path} lies inside {out}, which is to be written; choose another name")


def _make_room(out: Path, *, marked: bool, kept: bool, reopen: bool) -> None:
    """Make sure that ``out`` is free to be written; the lock is ours."""
    if is_complete(out):
        if not reopen:
            raise ValueError(f"{out} exists; choose another name or remove it first")
        record_path(out).unlink()
        return
    if not (marked or kept or _is_empty(out)):
        raise ValueError(f"{out} exists; choose another name or remove it first")
    record_path(out).unlink(missing_ok=True)  # of a file that was removed without it
    if not kept:
        for other in out.glob("*" + SUFFIX) if out.is_dir() else ():
            Mark(other.with_name(other.name.removesuffix(SUFFIX)), "").close()
        _remove(out)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns those that were missing, the innermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _state(path: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a file or of a folder's files."""
    path = split_inside(path)[0]
    files = [path] if path.is_file() else (file for file in path.rglob("*") if file.is_file())
    return sorted((str(file), (at := file.stat()).st_size, at.st_mtime_ns) for file in files)


def _is_empty(out: Path) -> bool:
    return not any(out.iterdir()) if out.is_dir() else not out.exists()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _feed(digest: Any, file: Path) -> None:
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
