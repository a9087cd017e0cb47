"""Step: from a lab's folder to the first table of a study, with notes on what to fill in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from tomostain import runs
from tomostain.pairs.first_table import find, write_first_table

_SHOWN = 5


@Parameter(name="*")
@dataclass(frozen=True)
class TableRecipe:
    """What is the same for all slides."""

    stain: str = "toluidine blue"
    """Name of the stain, for the column stain; one stainer learns one stain."""


def table(folder: Path, out: Path | None = None, *, recipe: TableRecipe = TableRecipe()) -> Path:
    """Write a first table for `register` and `pair` from a folder of volumes and slides.

    Volumes (files, Zarr folders, folders of slices) and slides are found by what lies in the files, and matched by
    the words that their names share: rat01_ct.h5 and slides/rat01_a.tif are both of specimen rat01. One line is one
    slide. Cells that are not known stay empty, and the column #note says what to fill in or to check in each line.

    Parameters
    ----------
    folder
        The folder to search; folders within it are searched too. Only headers are read.
    out
        The table to be written, a .csv file; default: table.csv in FOLDER.

    Returns
    -------
    Path
        The table.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    ValueError
        No volume and no slide is in it, or the table exists.

    Example
    -------
    tomostain table lab/
    tomostain table lab/ slides.csv
    """
    folder = Path(folder)
    out = folder / "table.csv" if out is None else Path(out)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if out.suffix.lower() != ".csv":
        raise ValueError(f"a table is a .csv file, not {out.name}")
    volumes, slides, left_out = find(folder)
    if not volumes and not slides:
        raise ValueError(f"{folder} holds no volume and no slide that tomostain reads (docs/formats.md)")
    with runs.output(out, "table", recipe=recipe) as made:
        lines = write_first_table(out, volumes, slides, stain=recipe.stain)
        open_lines = sum("fill in" in line["#note"] or "cannot be read" in line["#note"] for line in lines)
        made.results |= {"volumes": len(volumes), "slides": len(slides), "lines_to_fill_in": open_lines}
    runs.say(
        f"{folder}: {len(volumes)} volumes and {len(slides)} slides; {open_lines} of {len(lines)} lines need "
        f"something filled in, as their #note says. Then check the table with: tomostain register {out} --check"
    )
    if left_out:
        more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
        runs.say(f"not in the table: {', '.join(path.name for path in left_out[:_SHOWN])}{more}")
    return out
