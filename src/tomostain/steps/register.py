"""Step: find where in a volume a slide was cut, with a probability and an expected error, or refuse the slide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tomostain import runs
from tomostain._log import say, stages
from tomostain._settings import PIXEL_UM, Within, check_numbers
from tomostain.io.reference import read_reference
from tomostain.io.slides import read_slide
from tomostain.io.volumes.options import AS_STATED, VolumeOptions
from tomostain.pairs.placed import described, write_tables
from tomostain.pairs.recipe import PairRecipe
from tomostain.pairs.table import Row, check_files, in_columns, rows_of_table
from tomostain.registration.hints import NONE, Hints
from tomostain.registration.prior import Known, Near, command_words
from tomostain.registration.slide import register_slide
from tomostain.reporting.registration import is_refused_page, registration_page

SUFFIX = ".placement.json"


@Parameter(name="*")
@dataclass(frozen=True)
class RegisterRecipe:
    """Hints, and how the slide is registered."""

    slide_um: Annotated[float | None, PIXEL_UM] = None
    """Pixel size of the slide in um, where the slide does not state it."""
    prior: Path | None = None
    """A placement to start from (*.placement.json): an earlier one, or that of a neighbouring slide."""
    near: Annotated[Near | None, Within(-1e7, 1e7)] = None
    """Start position: centre z y x in um, tilt towards y and x and rotation in degrees (see a refused page)."""
    landmarks: Path | None = None
    """CSV of at least four landmarks: slide_y_px, slide_x_px, volume_z_um, volume_y_um, volume_x_um."""
    report: Path | None = None
    """Page (*.html) that shows the registration; default: beside OUT."""
    check: bool = False
    """Only check a table and report all of its faults; nothing is written."""
    hints: Annotated[Hints, Parameter(name="*")] = NONE
    reading: Annotated[VolumeOptions, Parameter(name="*")] = AS_STATED

    def __post_init__(self) -> None:
        check_numbers(self)
        if sum(start is not None for start in (self.prior, self.landmarks, self.near)) > 1:
            raise ValueError("use only one of --prior, --landmarks and --near")


def register(*paths: Path, recipe: RegisterRecipe = RegisterRecipe()) -> Path:
    """Find where in a CT volume a stained slide was cut, and how it is bent.

    VOLUME SLIDE OUT.placement.json registers one slide; VOLUME may be one image, whose plane is then known. Depth,
    tilt, rotation, mirroring, shrinkage and elastic deformation are found from the images alone, or with your hints:
    --around, --prior, --near, --landmarks. The page beside OUT shows the placement, its probability and the
    expected error. A slide that does not fit is refused, and its page shows the likely positions. TABLE.csv OUTFOLDER
    registers many slides (columns volume, slide and, as needed, specimen, name, slide_um, spacing_um):
    OUTFOLDER/pairs.csv is the table for `tomostain pair`, registrations.csv lists all slides. --check only checks it.

    Parameters
    ----------
    paths
        VOLUME SLIDE OUT.placement.json, or TABLE.csv OUTFOLDER; TABLE.csv alone with --check.

    Returns
    -------
    Path
        The placement, OUTFOLDER, or the table that was checked.

    Raises
    ------
    ValueError
        Slide and volume do not fit together (only the page is written), or an input is faulty.

    Example
    -------
    tomostain register ct.ome.zarr slide.tif slide.placement.json
    tomostain register ct.ome.zarr slide.tif slide.placement.json --around 420 --tilt-within 5
    tomostain register plane.png section.png jaw.placement.json --spacing-um 10.2 10.2 --slide-um 10.2 --shrinkage 0
    tomostain register slides.csv placements/
    """
    names = [Path(path) for path in paths]
    if len(names) == 2 or (recipe.check and len(names) == 1):
        return _many(names[0], names[-1], recipe)
    if len(names) != 3:
        raise ValueError("pass VOLUME SLIDE OUT.placement.json, or TABLE.csv OUTFOLDER")
    if recipe.check:
        raise ValueError("--check checks a table of slides (TABLE.csv --check); leave it out to register one slide")
    return _one(names[0], names[1], names[2], recipe)


def _one(volume: Path, slide: Path, out: Path, recipe: RegisterRecipe) -> Path:
    if not out.name.endswith(SUFFIX):
        raise ValueError(f"a placement is named NAME{SUFFIX}, not {out.name}")
    report = recipe.report or out.with_suffix(".html")
    inputs = [volume, slide, recipe.prior, recipe.landmarks]
    with runs.output(out, "register", recipe=recipe, inputs=inputs) as made, runs.lock(report, "register"):
        if report.exists() and not is_refused_page(report):
            raise ValueError(f"{report} exists; choose another name or remove it first")
        ct, picture = read_reference(volume, recipe.reading), read_slide(slide, pixel_um=recipe.slide_um)
        start = Known(recipe.hints, recipe.prior, recipe.landmarks, recipe.near)
        options = vars(recipe.reading) | vars(recipe.hints) | {"slide_um": recipe.slide_um}
        command = command_words((volume, slide, out), options)
        with stages(desc=slide.name) as progress:
            found = register_slide(ct, picture, start, progress)
        runs.write_text_atomically(report, registration_page(found, command=command))
        if found.placement is None:
            raise ValueError(f"{found.sentence}. {report} shows the likely positions and the command for each")
        found.placement.save(out)
        made.results |= found.results
    say(f"{found.sentence}; page {report}")
    return out


def _many(table: Path, out: Path, recipe: RegisterRecipe) -> Path:
    """Register every slide of a table; finished slides are kept, a refused or faulty one does not stop the others."""
    rows = rows_of_table(table, PairRecipe(slide_um=recipe.slide_um, reading=recipe.reading), placed=False)
    if recipe.check:
        check_files(rows)
        say(f"{table.name}: {len(rows)} slides, no fault found")
        return table
    lines: list[dict[str, Any]] = []
    with runs.output(out, "register", recipe=recipe, inputs=[table], keep=True, reopen=True) as made:
        out.mkdir(exist_ok=True)
        for number, row in enumerate(rows, start=1):
            say(f"{row.where}: {row.slide.name} ({number} of {len(rows)})")
            lines.append(_line(row, out, recipe))
            write_tables(lines, out)
        made.results |= {"slides": len(lines), "placed": (placed := sum(one["status"] == "placed" for one in lines))}
    say(f"{placed} of {len(lines)} slides were placed; the table for pairs is {out / 'pairs.csv'}")
    return out


def _line(row: Row, out: Path, recipe: RegisterRecipe) -> dict[str, Any]:
    """Register the slide of one row, if that is not done, and describe the result."""
    target = out / f"{row.name}{SUFFIX}"
    settings = replace(recipe, slide_um=row.recipe.slide_um, reading=row.recipe.reading, report=None)
    try:
        if not runs.was_made_by(target, settings):
            _one(row.volume, row.slide, target, settings)
    except BlockingIOError:
        raise
    except (ValueError, OSError) as error:
        say(f"{row.where}: {in_columns(error)}")
        return described(row) | {"status": "refused", "fault": in_columns(error)}
    found: dict[str, Any] = runs.read_record(target)["results"]
    return described(row) | {"placement": target.resolve(), "status": "placed"} | found
