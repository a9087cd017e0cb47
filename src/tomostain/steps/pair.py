"""Step: from volumes, slides and placements (or aligned images) to pairs on disk."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

from tomostain import runs
from tomostain.images.geometry import Placement
from tomostain.images.grey_values import check_together
from tomostain.io.names import checked_name
from tomostain.pairs.making import is_unchecked, make, unchecked
from tomostain.pairs.pair import SUFFIX, grey_values_in, pairs_in, save_pair
from tomostain.pairs.recipe import PairRecipe
from tomostain.pairs.scale import maps_onto_one
from tomostain.pairs.table import Row, check_files, in_columns, rows_of_cohort, rows_of_table
from tomostain.phantom.manifest import FILE

__all__ = ["PairRecipe", "pair"]


def pair(*paths: Path, recipe: PairRecipe = PairRecipe()) -> Path:
    """Make pairs of CT and stain.

    VOLUME SLIDE OUT.pair.zarr makes one. TABLE.csv OUT makes many: one line a pair, with the columns volume, slide,
    specimen and, as needed, name, placement, checked, aligned, planes, exclude, stain, spacing_um ("z y x", or one
    number), slide_um, and for raw values shape ("z y x"), dtype, offset; paths are relative to the table, a column
    named comment is not read. A placement marked CHECK BY EYE is left out until checked says yes. TABLE.csv --check
    only checks it. COHORT OUT makes the pairs of a phantom cohort, with its true placements and damage masks
    (--placements: those that were registered), the perfect section and the tissue labels.

    Parameters
    ----------
    paths
        VOLUME SLIDE OUT, or TABLE.csv OUT, or COHORT OUT; TABLE.csv alone with --check.

    Returns
    -------
    Path
        OUT, or the table that was checked.

    Raises
    ------
    ValueError
        A file, a setting or a line of the table is faulty; the message names it. All faults of a table are reported
        before the first pair is made.

    Example
    -------
    tomostain pair ct.ome.zarr slide.tif S01_a.pair.zarr --placement slide.placement.json --specimen S01
    tomostain pair ct.png stain.png jaw.pair.zarr --aligned --specimen rat1 --slide-um 10.2 --exclude markers.png
    tomostain pair pairs.csv --check
    tomostain pair pairs.csv pairs/
    """
    names = [Path(path) for path in paths]
    if recipe.check and 1 <= len(names) <= 2:
        rows = _rows(names[0], recipe)
        check_files(rows)
        specimens = {row.recipe.specimen for row in rows}
        runs.say(f"{names[0].name}: {len(rows)} pairs of {len(specimens)} specimens, no fault found")
        return names[0]
    if len(names) == 2:
        source, out = names
        rows = _rows(source, recipe)
        table = source / FILE if source.is_dir() else source
        with runs.output(out, "pair", recipe=recipe, inputs=[table], keep=True, reopen=True) as made:
            out.mkdir(exist_ok=True)
            _make_many(_checked(rows), out)
            _compare_grey_values(out)
            made.results["pairs"] = len(pairs_in(out, even_unfinished=True))
        return out
    if len(names) != 3:
        raise ValueError("pass VOLUME SLIDE OUT.pair.zarr, or TABLE.csv OUT, or COHORT OUT")
    volume, slide, out = names
    if not out.name.endswith(SUFFIX):
        raise ValueError(f"a pair is named NAME{SUFFIX}, not {out.name}")
    name = checked_name(out.name.removesuffix(SUFFIX), "pair")
    with runs.output(out, "pair", recipe=recipe, inputs=[volume, slide, recipe.placement, recipe.exclude]):
        save_pair(make(volume, slide, name, recipe), out)
    return out


def _rows(source: Path, recipe: PairRecipe) -> list[Row]:
    settings = dataclasses.replace(recipe, check=False)
    return rows_of_cohort(source, settings) if source.is_dir() else rows_of_table(source, settings)


def _checked(rows: Sequence[Row]) -> list[Row]:
    """The rows without those whose placement is still to be checked by eye; each of these is named.

    Raises
    ------
    ValueError
        None is left.
    """
    kept = []
    for row in rows:
        try:
            placement = None if row.recipe.placement is None else Placement.load(row.recipe.placement)
        except (ValueError, OSError):  # reported with its line when the pair is made
            placement = None
        if placement is None or not is_unchecked(placement, row.recipe):
            kept.append(row)
            continue
        way = "write yes in its column checked (or pass --checked for all)"
        warnings.warn(f"{row.where}: left out, {unchecked(row.slide.name, placement, way)}", stacklevel=3)
    if not kept:
        raise ValueError("no pair is left: look at the pages of these placements, and write yes in the column checked")
    return kept


def _make_many(rows: Sequence[Row], out: Path) -> None:
    for row in runs.progress(rows, desc="pairs", unit="pair"):
        target = out / f"{row.name}{SUFFIX}"
        if runs.was_made_by(target, row.recipe):
            continue
        try:
            with runs.output(
                target, "pair", recipe=row.recipe, inputs=[row.slide], keep=target.exists, reopen=True
            ) as one:
                one.clear()
                save_pair(make(row.volume, row.slide, row.name, row.recipe, truth=row.truth), target)
        except BlockingIOError:
            raise
        except (ValueError, OSError) as error:
            raise type(error)(f"{row.where}: {in_columns(error)}") from None


def _compare_grey_values(out: Path) -> None:
    """Report the CT grey values of each specimen, and warn where one stainer cannot learn them together.

    Nothing is mapped here: training maps what can be mapped.
    """
    specimens, anchors = grey_values_in(pairs_in(out, even_unfinished=True))
    for name, values in specimens.items():
        known = f", anchors {anchors[name][0]}" if name in anchors else ", anchors not found"
        runs.say(f"specimen {name}: CT grey values {values}{known}")
    maps = maps_onto_one(specimens, anchors)
    mapped = {name: maps[name].of_values(values) if name in maps else values for name, values in specimens.items()}
    check_together(mapped, any_values=True)
