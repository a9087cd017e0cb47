"""Results of registering the slides of a table: written as the table for ``pair``, and as a table of all slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tomostain.io.tables import write_table
from tomostain.pairs.table import Row

FOUND = ("probability", "expected_tre_um", "check", "depth_um", "tilt_deg", "mirrored", "detail", "inside")
"""Results of a registration, by their names in its record."""
_OF_A_PAIR = (
    "volume", "slide", "specimen", "name", "stain", "slide_um", "spacing_um", "shape", "dtype", "offset", "fill",
    "grey_range", "reader", "anchors", "placement", "checked",
)  # fmt: skip


def described(row: Row) -> dict[str, Any]:
    """A row of the table of slides, with whole paths, as cells of the table of pairs."""
    reading = row.recipe.reading
    cells: dict[str, Any] = {"volume": row.volume.resolve(), "slide": row.slide.resolve(), "name": row.name}
    cells |= {"specimen": row.recipe.specimen, "stain": row.recipe.stain, "slide_um": row.recipe.slide_um}
    cells |= {"spacing_um": reading.spacing_um, "shape": reading.shape, "dtype": reading.dtype, "fill": reading.fill}
    cells |= {"offset": reading.offset or None, "grey_range": reading.grey_range, "reader": reading.reader}
    return cells | {"anchors": row.recipe.anchors}


def write_tables(lines: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write ``folder``/pairs.csv (placed slides; columns that ``pair`` does not read begin with #), registrations.csv.

    The column checked is empty: the user fills it in for placements that are to be checked by eye.

    A line is what ``described`` returns, with ``status`` ("placed" or "refused"), ``placement``, what was ``FOUND`` or
    the ``fault``.
    """
    every = [*_OF_A_PAIR, "status", *FOUND, "fault"]
    write_table(folder / "registrations.csv", every, [[_cell(line.get(key)) for key in every] for line in lines])
    placed = [[_cell(line.get(key)) for key in (*_OF_A_PAIR, *FOUND)] for line in lines if line["status"] == "placed"]
    return write_table(folder / "pairs.csv", [*_OF_A_PAIR, *(f"#{key}" for key in FOUND)], placed)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(f"{v:.12g}" for v in value)
    return str(value) if isinstance(value, Path) else value
