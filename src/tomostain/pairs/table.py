"""The table of a study: one line a pair in, all faults of all lines are reported at once; also of a phantom cohort."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tomostain._imports import nearest
from tomostain.io.names import checked_name
from tomostain.io.reference import read_reference
from tomostain.io.slides import read_slide
from tomostain.io.tables import read_table
from tomostain.io.volumes.options import VolumeOptions
from tomostain.pairs.making import missing
from tomostain.pairs.recipe import PairRecipe
from tomostain.pairs.truth import TruthFiles
from tomostain.phantom.manifest import FILE, read_cohort
from tomostain.runs import split_inside

COMMENTS = frozenset({"comment", "comments", "note", "notes", "remark", "remarks"})
"""Columns that are not read; so is every column whose name begins with #."""
_MOST_FAULTS = 20


@dataclass(frozen=True)
class Row:
    """One pair to be made."""

    volume: Path
    slide: Path
    name: str
    recipe: PairRecipe
    where: str
    """Table and line, for messages."""
    truth: TruthFiles | None = None
    """What is known of a phantom's section."""


def _flag(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]


def _number(text: str) -> float:
    """A number, its decimal point also a comma."""
    return float(text.replace(",", "."))


def _numbers(text: str) -> tuple[float, ...]:
    """One number, or three for z y x, between spaces, semicolons or x; commas too between three numbers."""
    parts = text.replace(";", " ").replace("x", " ").split()
    if len(parts) == 1 and text.count(",") == 2:
        parts = text.split(",")
    if len(parts) not in (1, 3):
        parts = text.replace(",", " ").split()
    if len(parts) not in (1, 3):
        raise ValueError
    return tuple(_number(part) for part in parts)


def _two_numbers(text: str) -> tuple[float, float]:
    low, high = text.replace(";", " ").split()
    return _number(low), _number(high)


def _voxels(text: str) -> tuple[int, ...]:
    depth, rows, columns = text.replace(",", " ").replace(";", " ").replace("x", " ").split()
    return int(depth), int(rows), int(columns)


_READ: Mapping[str, tuple[Callable[[str], Any], str]] = MappingProxyType(
    {
        "specimen": (str, ""),
        "stain": (str, ""),
        "placement": (Path, ""),
        "exclude": (Path, ""),
        "aligned": (_flag, "yes or no"),
        "checked": (_flag, "yes or no"),
        "planes": (int, "an odd number"),
        "slide_um": (_number, "a number of um"),
        "anchors": (_two_numbers, "two grey values, of soft tissue and of bone"),
        "spacing_um": (_numbers, "one number of um, or three for z y x"),
        "shape": (_voxels, "three numbers of voxels, z y x"),
        "dtype": (str, ""),
        "offset": (int, "a number of bytes"),
        "fill": (_number, "a number"),
        "grey_range": (_two_numbers, "two numbers, low and high"),
        "reader": (str, ""),
    }
)
"""How the text of a column is read, and what it should have been."""
_OF_THE_VOLUME = frozenset(field.name for field in dataclasses.fields(VolumeOptions))
COLUMNS = ("volume", "slide", "name", *_READ)


def rows_of_table(table: Path, recipe: PairRecipe, *, placed: bool = True) -> list[Row]:
    """One row for each line of a CSV; what a line leaves empty is taken from the recipe. Paths start at the table.

    Without ``placed`` the slides are still to be registered, and need neither specimen nor placement.

    Raises
    ------
    FileNotFoundError
        There is no table.
    ValueError
        One sentence with every fault of every line.
    """
    columns, lines = read_table(table)
    unread = {column for column in columns if column.lower() in COMMENTS or column.startswith("#")}
    faults = [
        f"unknown column {column!r}; {nearest(column, COLUMNS)}"
        for column in columns
        if column and column not in unread and column not in COLUMNS
    ]
    faults += [f"the column {column} is missing" for column in ("volume", "slide") if column not in columns]
    if faults:
        raise ValueError(_message(table.name, faults))
    rows: list[Row] = []
    for number, line in lines:
        cells = {column: text for column, text in line.items() if text and column not in unread}
        row, wrong = _row(table, number, cells, recipe, placed=placed)
        if row is not None and row.name in {other.name for other in rows}:
            wrong = [*wrong, f"the name {row.name} is taken; fill in the column name"]
        faults += [f"line {number}: {fault}" for fault in wrong]
        rows += [row] if row is not None else []
    if faults:
        raise ValueError(_message(table.name, faults))
    if not rows:
        raise ValueError(f"{table.name} lists no {'pairs' if placed else 'slides'}; write one line for each")
    return rows


def rows_of_cohort(folder: Path, recipe: PairRecipe) -> list[Row]:
    """One row for each slide of a phantom cohort, with its true placement, damage mask, stain and tissues.

    With ``recipe.placements``, those of its slides that were registered, without damage masks.

    Raises
    ------
    FileNotFoundError, ValueError
        The folder is not a finished cohort, a damaged one, or none of its slides was registered.
    """
    cohort = read_cohort(folder)
    rows = []
    for specimen in cohort["specimens"]:
        truth = TruthFiles(folder / specimen["stain_truth"], folder / specimen["labels"])
        for slide in specimen["slides"]:
            name = checked_name(f"{specimen['name']}_{slide['name']}", "pair")
            placement, exclude = folder / slide["placement"], folder / slide["damage"]
            if recipe.placements is not None:
                placement, exclude = recipe.placements / f"{name}.placement.json", None
                if not placement.is_file():
                    continue
            stain = cohort.get("stain", recipe.stain)
            made = dataclasses.replace(
                recipe, specimen=specimen["name"], placement=placement, exclude=exclude, stain=stain
            )
            volume, picture = folder / specimen["ct"], folder / slide["slide"]
            rows.append(Row(volume, picture, name, made, f"{FILE}, {name}", truth))
    if not rows:
        raise ValueError(
            f"{recipe.placements} holds no placement of a slide of {folder}, such as S00_slide_0.placement.json"
        )
    return rows


def check_files(rows: Sequence[Row]) -> None:
    """Open the volume and the slide of each row, to find what is wrong with them before the work begins.

    Raises
    ------
    ValueError
        One sentence with the faults of all rows.
    """
    faults = []
    for row in rows:
        if row.recipe.aligned:
            continue
        checks = (
            partial(read_reference, row.volume, row.recipe.reading),
            partial(read_slide, row.slide, pixel_um=row.recipe.slide_um),
        )
        for check in checks:
            try:
                with warnings.catch_warnings(action="ignore"):
                    check()
            except (ValueError, OSError, ModuleNotFoundError) as error:
                faults.append(f"{row.where.rpartition(', ')[2]}: {in_columns(error)}")
    if faults:
        raise ValueError(_message(rows[0].where.partition(",")[0], faults))


def in_columns(error: Exception) -> str:
    """The message of an error, with columns of the table instead of options of a command."""

    def column(found: re.Match[str]) -> str:
        name = found[2].replace("-", "_")
        return f"{'fill in ' if found[1] else ''}{name}" if name in COLUMNS else found[0]

    return re.sub(r"(pass )?--([a-z][a-z-]*[a-z])", column, str(error))


def _row(
    table: Path, number: int, cells: Mapping[str, str], recipe: PairRecipe, *, placed: bool
) -> tuple[Row | None, list[str]]:
    """The pair of one line, None where it is not clear, and all faults of the line."""
    faults, settings = [], {}
    for column, (read, should) in _READ.items():
        if column in cells:
            try:
                settings[column] = read(cells[column])
            except (ValueError, KeyError):
                faults.append(f"{cells[column][:40]!r} is not a value for {column}; it takes {should}")
    faults += [f"the column {column} is empty" for column in ("volume", "slide") if column not in cells]
    for column in ("placement", "exclude"):
        if column in settings:
            settings[column] = table.parent / settings[column]
    files = {column: table.parent / cells[column] for column in ("volume", "slide") if column in cells}
    for column, path in (files | {c: settings[c] for c in ("placement", "exclude") if c in settings}).items():
        if not _exists(path):
            kind = "picture" if column == "exclude" else column
            faults.append(f"there is no {kind} {str(path)[:200]}")
    made = None
    try:
        of_volume = {key: value for key, value in settings.items() if key in _OF_THE_VOLUME}
        others = {key: value for key, value in settings.items() if key not in _OF_THE_VOLUME}
        made = dataclasses.replace(recipe, reading=dataclasses.replace(recipe.reading, **of_volume), **others)
    except ValueError as error:
        faults.append(str(error))
    if made is not None and placed:
        faults += missing(made)
    if len(files) < 2 or made is None:
        return None, faults
    name = cells.get("name") or f"{made.specimen or 'pair'}_{files['slide'].name.split('.')[0]}"
    try:
        checked_name(name, "pair")
    except ValueError as error:
        return None, [*faults, str(error)]
    return Row(files["volume"], files["slide"], name, made, f"{table.name}, line {number}"), faults


def _exists(path: Path) -> bool:
    try:
        return split_inside(path)[0].exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _message(table: str, faults: list[str]) -> str:
    if len(faults) == 1:
        return f"{table}, {faults[0]}"
    more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
    return f"{table} has {len(faults)} faults: {'; '.join(faults[:_MOST_FAULTS])}{more}"
