"""What a read of a mutated file may end in: the original, what an independent strict reader sees, or a clear error.

A reader's result is a *look*: its shape, dtype, spacing and a few windows of values. Looks of ours and of others are
compared name by name.
"""

from __future__ import annotations

import os
import stat
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import tomostain

WINDOW_BYTES = 32 * 2**20
"""Largest window that a look asks for; a reader may use 1 GiB above it."""
LONGEST_MESSAGE = 600

GOOD = ("error", "valid", "altered", "found")
"""Clear error; the original; what the altered file says to a strict reader too; a warning."""
BAD = ("traceback", "unclear", "wrong", "wrote", "memory", "crash", "hang")

Look = Mapping[str, Any]
_OURS = str(Path(tomostain.__file__).parent)


@dataclass(frozen=True)
class Format:
    """One reader under test.

    ``write`` makes a small valid file (or folder) in an empty folder with others' code and returns what is opened;
    ``ours`` opens and reads that, ``strict`` does the same with others' code and refuses whatever is not whole.
    """

    write: Callable[[Path], Path]
    ours: Callable[[Path], Look]
    strict: Callable[[Path], Look]
    own: Mapping[str, Callable[[Any], None]] = field(default_factory=dict)
    """Mutations that only this format knows."""
    without: frozenset[str] = frozenset()
    """Mutations of everybody that say nothing here."""
    endless: bool = False
    """Text that says nowhere that it is whole: what is left of it is judged as any other change."""


@dataclass(frozen=True)
class Verdict:
    """How a case ended: one of GOOD or BAD, and why."""

    kind: str
    detail: str = ""

    @property
    def good(self) -> bool:
        return self.kind in GOOD


def look(array: Any, spacing_um: Iterable[float] | None = None) -> dict[str, Any]:
    """Shape, dtype and windows of an array that is read by slices: whole where it is small, else its ends."""
    shape = tuple(int(n) for n in array.shape)
    seen: dict[str, Any] = {"shape": shape, "dtype": np.dtype(array.dtype).newbyteorder("=").str}
    if spacing_um is not None:
        seen["spacing_um"] = np.asarray(tuple(spacing_um), dtype=np.float64)
    itemsize = np.dtype(array.dtype).itemsize
    if int(np.prod(shape, dtype=object)) * itemsize <= 2**22:
        seen["whole"] = _read(array, tuple(slice(0, n) for n in shape))
    rest = [slice(0, n) for n in shape[1:]]
    row_bytes = int(np.prod(shape[1:], dtype=object)) * itemsize
    if row_bytes > WINDOW_BYTES:
        rest = [slice(0, min(n, 512)) for n in shape[1:]]
    for name, start in (("first", 0), ("last", shape[0] - 1)):
        seen[name] = _read(array, (slice(start, start + 1), *rest))
    box = tuple(slice(n // 3, min(n // 3 + 40, n)) for n in shape[: 3 if len(shape) > 2 else 2])
    seen["box"] = _read(array, box)
    return seen


def _read(array: Any, window: tuple[slice, ...]) -> np.ndarray[Any, Any]:
    values = np.asarray(array[window])
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def difference(seen: Look, expected: Look) -> str:
    """The first thing in which two looks differ, empty where they do not."""
    for name, wanted in expected.items():
        if name not in seen:
            return f"{name} is missing"
        if not _same(seen[name], wanted):
            return f"{name}: {_brief(seen[name])} instead of {_brief(wanted)}"
    return ""


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(b, np.ndarray) and b.dtype.kind == "f" and b.ndim == 1 and b.size <= 3:
        return np.shape(a) == b.shape and bool(np.allclose(a, b, rtol=1e-5, atol=0, equal_nan=True))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    return bool(a == b) or (a != a and b != b)


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"{value.dtype} {value.shape} of sum {np.nansum(value.astype(np.float64)):g}"
    return str(value)[:120]


def judged(form: Format, path: Path, original: Look, *, exact: bool, before_strict: Callable[[], None]) -> Verdict:
    """Open a mutated file and say how that ended.

    ``exact``: what was taken away, or lies outside the target, must never be replaced by anything, so only the original
    values are valid, whatever a strict reader thinks.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            seen = form.ours(path)
        except BaseException as error:
            return _of_error(error, path)
    wrong = difference(seen, original)
    if not wrong:
        return Verdict("valid")
    found = [str(one.message) for one in caught if _names(str(one.message), path)]
    if found:
        return Verdict("found", found[0])
    if exact:
        return Verdict("wrong", wrong)
    before_strict()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrong = difference(seen, form.strict(path))
    except Exception as error:
        return Verdict("wrong", f"{wrong}; a strict reader refuses: {type(error).__name__}: {str(error)[:200]}")
    return Verdict("wrong", f"a strict reader sees otherwise: {wrong}") if wrong else Verdict("altered")


def _of_error(error: BaseException, path: Path) -> Verdict:
    text = f"{type(error).__name__}: {error}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return Verdict("memory", text[:LONGEST_MESSAGE])
        cause = cause.__cause__ or cause.__context__
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})"
    ours = frames[-1].filename.startswith(_OURS)
    if not isinstance(error, ValueError | OSError) or not ours:
        return Verdict("traceback", text[:LONGEST_MESSAGE] + place)
    message = str(error)
    if not one_sentence(message):
        return Verdict("unclear", text[:LONGEST_MESSAGE] + place)
    if not _names(message, path):
        return Verdict("unclear", f"names no file: {text[:LONGEST_MESSAGE]}{place}")
    return Verdict("error", message)


def one_sentence(message: str) -> bool:
    """Whether a message is something to show to a user: one line, short, and no library's inside."""
    return (
        bool(message)
        and len(message) <= LONGEST_MESSAGE
        and not any(part in message for part in ("\n", "object at 0x", "Traceback"))
    )


def _names(message: str, path: Path) -> bool:
    if path.name in message:
        return True
    folder = path if path.is_dir() else path.parent
    return any(name in message for _, _, names in os.walk(folder) for name in names)


def snapshot(*folders: Path) -> dict[str, tuple[int, ...]]:
    """Everything below some folders: kind, size and time of change of each name."""
    found = {}
    for folder in folders:
        for here, below, names in os.walk(folder):
            for name in (*below, *names):
                about = os.lstat(os.path.join(here, name))
                kind = stat.S_IFMT(about.st_mode)
                found[os.path.join(here, name)] = (
                    (kind,) if kind == stat.S_IFDIR else (kind, about.st_size, about.st_mtime_ns)
                )
    return found
