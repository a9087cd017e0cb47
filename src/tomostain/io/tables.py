"""CSV tables: read with limits and plain messages, written so that a spreadsheet takes no cell for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

LARGEST_TABLE_BYTES = 64 * 2**20
_FORMULA = ("=", "+", "-", "@", "'")


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a CSV with a heading: its columns, and each line that is not empty as (line number, values by column).

    Columns are separated by commas, or by semicolons or tabs where the heading has more of them. Spaces around a value
    are dropped, and the ``'`` that ``write_table`` puts before a formula; a value that is left out is "". UTF-8, with
    or without a byte order mark; other encodings of European spreadsheets are read as Windows-1252.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The table is too large, has no heading, a column twice, or more values in a line than columns.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {path}")
    if path.stat().st_size > LARGEST_TABLE_BYTES:
        raise ValueError(f"{path.name} is larger than {LARGEST_TABLE_BYTES >> 20} MiB; is it a table?")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")
    if "\0" in text:
        raise ValueError(f"{path.name} holds binary data; save the table as CSV, UTF-8")
    heading = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=heading.count)
    lines = _lines(path.name, text, separator)
    if not lines:
        raise ValueError(f"{path.name} is empty; its first line must name the columns")
    columns = [cell.strip() for cell in lines[0][1]]
    while columns and not columns[-1]:
        columns.pop()
    twice = sorted({column for column in columns if column and columns.count(column) > 1})
    if twice:
        raise ValueError(f"{path.name} has the column {twice[0]!r} twice; remove one")
    rows = []
    for number, cells in lines[1:]:
        values = [_typed_cell(cell.strip()) for cell in cells]
        if any(values[len(columns) :]):
            raise ValueError(
                f"{path.name}, line {number} has more values than the {len(columns)} columns; a value that holds "
                f"{separator!r} must stand in double quotes"
            )
        padded = values + [""] * (len(columns) - len(values))
        rows.append((number, {column: value for column, value in zip(columns, padded, strict=False) if column}))
    return columns, rows


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a CSV, UTF-8, one heading and a line for each row; texts that a spreadsheet would run get a ``'`` before.

    Numbers are written as they are.
    """
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([plain_cell(column) for column in columns])
        table.writerows([plain_cell(cell) for cell in row] for row in rows)
    return Path(path)


def plain_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: ``=1+1`` -> ``'=1+1``; numbers stay numbers.

    Examples
    --------
    >>> plain_cell("=1+1"), plain_cell("-0.25"), plain_cell("S01")
    ("'=1+1", '-0.25', 'S01')
    """
    if not isinstance(value, str) or not value.lstrip(" ").startswith(_FORMULA) or _is_number(value):
        return value
    return f"'{value}"


def _typed_cell(text: str) -> str:
    """A cell as it was before ``plain_cell``."""
    return text[1:] if text.startswith("'") and plain_cell(text[1:]) == text else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lines(name: str, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """(number, cells) of each line that is not empty."""
    before = csv.field_size_limit(LARGEST_TABLE_BYTES)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise ValueError(f"{name} cannot be read as a table, line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(before)
