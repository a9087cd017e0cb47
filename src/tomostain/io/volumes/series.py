"""Which files of a folder are the slices of one scan: natural order, no gap, one stem, numbers that only rise."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tomostain.io.volumes.headers import VolumeError

Number = tuple[int, ...]
_NUMBER = re.compile(r"\d+(?:\.\d+)*")


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key by which slice_2 comes before slice_10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name.lower())]


def check_series(folder: str, files: Sequence[Path]) -> None:
    """Refuse files, in natural order, that are not the slices of one scan, one after another.

    Raises
    ------
    VolumeError
        Several stems, repeated numbers, numbers that run back (two scans, or copies, in one folder), or a gap.
    """
    if len(files) < 2:
        return
    _check_one_stem(folder, files)
    numbers = [[tuple(map(int, text.split("."))) for text in _NUMBER.findall(file.stem)] for file in files]
    _check_numbers(folder, files, numbers)
    last = [found[-1][-1] for found in numbers]
    steps = [after - before for before, after in pairwise(last)]
    usual = max(1, Counter(steps).most_common(1)[0][0])
    for step, file in zip(steps, files[1:], strict=True):
        if len(files) > 2 and step > usual:
            raise VolumeError(f"{folder}: slices are missing before {file.name}; add them or rename the rest")


def _check_one_stem(folder: str, files: Sequence[Path]) -> None:
    """Slices of one scan are named alike but for their numbers."""
    stems: dict[str, list[Path]] = {}
    for file in files:
        stems.setdefault(_NUMBER.sub("#", file.stem.lower()), []).append(file)
    if len(stems) > 1:
        common, *others = sorted(stems.values(), key=len, reverse=True)
        few = ", ".join(f"{group[0].name} ({len(group)})" for group in (common, *others)[:4])
        raise VolumeError(
            f"{folder} holds files of {len(stems)} stems (of each the first and how many: {few}); keep the slices of "
            "one scan, without copies, in a folder of their own"
        )
    if not _NUMBER.search(files[0].stem):
        raise VolumeError(f"{folder}: {files[0].name} has no number; number the slices in their order")


def _check_numbers(folder: str, files: Sequence[Path], numbers: Sequence[Sequence[Number]]) -> None:
    """One number in the names must count the slices; where another one repeats, it must not run back."""
    columns = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    counting = [column for column in columns if all(a < b for a, b in pairwise(column))]
    if not counting:
        first = columns[0] if columns else tuple(found[0] for found in numbers)
        i = next((i for i, (a, b) in enumerate(pairwise(first)) if a >= b), 0)
        raise VolumeError(
            f"{folder}: the number {_text(first[i])} stands in both {files[i].name} and {files[i + 1].name}; keep the "
            "slices of one scan, without copies, in a folder of their own"
        )
    for column in columns:
        falls = [i for i, (a, b) in enumerate(pairwise(column)) if b < a]
        rises = any(a < b for a, b in pairwise(column))
        if falls and rises and len(set(column)) < len(column):
            i = falls[0]
            raise VolumeError(
                f"{folder}: a number runs back from {_text(column[i])} to {_text(column[i + 1])} between "
                f"{files[i].name} and {files[i + 1].name}; keep the slices of one scan in a folder of their own"
            )


def _text(number: Number) -> str:
    return ".".join(map(str, number))
