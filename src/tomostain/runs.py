"""Provenance: what was run on what, written last, so that nothing half-written looks whole; and progress."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from tomostain import __version__

Item = TypeVar("Item")
_WATCHED = ("torch", "numpy", "scipy", "zarr", "tifffile")


def record_path(out: Path) -> Path:
    """Where the record of ``out`` lies: inside a folder, beside a file."""
    out = Path(out)
    return out / "run.json" if out.is_dir() else out.with_name(out.name + ".run.json")


def record(
    out: Path,
    step: str,
    *,
    recipe: Any = None,
    inputs: Sequence[Path] = (),
    seed: int | None = None,
    results: Mapping[str, Any] | None = None,
) -> Path:
    """Write the record of a finished step, last and atomically, and return ``out``.

    The record holds the command, the recipe, versions, inputs with SHA-256 (of a folder: of its files' names, sizes and
    the contents of its small files), the seed and the results.
    """
    out = Path(out)
    text = {
        "format": "tomostain-run",
        "step": step,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "recipe": dataclasses.asdict(recipe) if dataclasses.is_dataclass(recipe) else recipe,  # type: ignore[arg-type]
        "seed": seed,
        "inputs": [{"path": str(path), "sha256": fingerprint(path)} for path in inputs],
        "results": dict(results or {}),
        "versions": {"tomostain": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in _WATCHED},
        "machine": {"system": platform.platform(), "processors": os.cpu_count()},
    }
    write_text_atomically(record_path(out), json.dumps(text, indent=1, default=str) + "\n")
    _marker(out).unlink(missing_ok=True)
    return out


def read_record(out: Path) -> dict[str, Any]:
    """The record that ``record`` wrote for ``out``.

    Raises
    ------
    FileNotFoundError
        There is none: the step that writes ``out`` did not finish.
    """
    path = record_path(out)
    if not path.is_file():
        raise FileNotFoundError(f"{out} has no {path.name}: the step that writes it has not finished; run it again")
    text: dict[str, Any] = json.loads(path.read_text())
    return text


def is_complete(out: Path) -> bool:
    """Whether the step that writes ``out`` came to its end."""
    return record_path(out).is_file()


def check_new(out: Path, *, keep: bool = False) -> Path:
    """Make sure that ``out`` is free to be written, and mark it ``OUT.unfinished`` until ``record`` is called.

    What a broken run of ours left (the mark tells it) is cleared, or kept where the step can go on from it (``keep``).

    Raises
    ------
    ValueError
        ``out`` holds a finished result, or something that no broken run of ours left.
    """
    out = Path(out)
    ours = _marker(out).exists()
    if is_complete(out) or (out.exists() and not ours and not (out.is_dir() and not any(out.iterdir()))):
        raise ValueError(f"{out} exists; choose another name or remove it first")
    if out.is_dir() and not keep:
        shutil.rmtree(out)
    elif out.is_file() and not keep:
        out.unlink()
    out.parent.mkdir(parents=True, exist_ok=True)
    _marker(out).touch()
    return out


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
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Hand out a hidden sibling of ``out`` to be written, file or folder, and rename it to ``out`` at the end.

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


def progress(items: Iterable[Item], *, total: int | None = None, desc: str = "", unit: str = "it") -> Iterator[Item]:
    """Pass items on and show on stderr how far it is and how long it will take; one line in ten seconds in a log."""
    live = sys.stderr.isatty()
    yield from tqdm(
        items, total=total, desc=desc, unit=unit, file=sys.stderr, mininterval=0.2 if live else 10.0, dynamic_ncols=live
    )


def progress_bar(*, total: int, initial: int = 0, desc: str = "", unit: str = "it") -> tqdm[Any]:
    """A bar as ``progress`` shows it, to be moved by hand (``update``) and closed; ``initial`` was done before."""
    live = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        desc=desc,
        unit=unit,
        unit_scale=True,
        file=sys.stderr,
        mininterval=0.2 if live else 10.0,
        dynamic_ncols=live,
    )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _marker(out: Path) -> Path:
    return out.with_name(out.name + ".unfinished")


def _feed(digest: Any, file: Path) -> None:
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
