"""Step: from volumes, slides and placements (or aligned images) to pairs on disk."""

from __future__ import annotations

import csv
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tomostain import runs
from tomostain._imports import nearest
from tomostain.images.checking import check_ct
from tomostain.images.geometry import Grid, Placement
from tomostain.io.slides import read_grey, read_mask, read_picture, read_slide
from tomostain.io.volumes import read_volume
from tomostain.pairs.pair import SUFFIX, Pair, make_pair, pairs_in, save_pair

PATH_COLUMNS = ("volume", "slide", "placement", "exclude")


@dataclass(frozen=True)
class PairRecipe:
    """How a pair is made; a table gives these as columns, for each pair its own."""

    specimen: str = ""
    """The animal or sample the slide comes from. Required: a specimen is never on both sides of a split."""
    placement: Path | None = None
    """Where in the volume the slide was cut (*.placement.json)."""
    aligned: bool = False
    """VOLUME and SLIDE are two images that already lie pixel on pixel; no placement is needed."""
    planes: int = 1
    """CT planes in the pair, a voxel apart, centred on the section; an odd number."""
    exclude: Path | None = None
    """Mask picture of the slide: non-zero where it must not be believed (markers, folds, dirt)."""
    stain: str = "toluidine blue"
    """Name of the stain; one stainer learns one stain."""
    spacing_um: tuple[float, float, float] | None = None
    """Voxel size z y x in um, where the volume does not state it."""
    shape: tuple[int, int, int] | None = None
    """Voxels z y x of a volume of raw values."""
    dtype: str | None = None
    """Type of a volume's raw values: uint8, uint16, int16, float32; big-endian as uint16be."""
    offset: int = 0
    """Bytes before the first of a volume's raw values."""
    slide_um: float | None = None
    """Pixel size in um, where the slide (or the aligned images) does not state it."""

    def __post_init__(self) -> None:
        if self.planes < 1 or self.planes % 2 == 0:
            raise ValueError(f"planes must be an odd number, not {self.planes}")


def pair(*paths: Path, recipe: PairRecipe = PairRecipe()) -> Path:
    """Make pairs of CT and stain.

    VOLUME SLIDE OUT.pair.zarr makes one. TABLE.csv OUT makes many: one line a pair, with the columns volume, slide,
    specimen and, as needed, name, placement, aligned, planes, exclude, stain, spacing_um ("z y x"), slide_um, and for
    raw values shape ("z y x"), dtype, offset; paths are relative to the table. COHORT OUT does the same for a phantom
    cohort, with its true placements and damage masks.

    Parameters
    ----------
    paths
        VOLUME SLIDE OUT, or TABLE.csv OUT, or COHORT OUT.

    Returns
    -------
    Path
        OUT.

    Raises
    ------
    ValueError
        Anything that makes a pair worthless; the message names the file or the line.

    Example
    -------
    tomostain pair ct.ome.zarr slide.tif S01_a.pair.zarr --placement slide.placement.json --specimen S01
    tomostain pair ct.png stain.png jaw.pair.zarr --aligned --specimen rat1 --slide-um 10.2 --exclude markers.png
    tomostain pair pairs.csv pairs/
    """
    if len(paths) == 3:
        volume, slide, out = (Path(path) for path in paths)
        if not out.name.endswith(SUFFIX):
            raise ValueError(f"a pair is named NAME{SUFFIX}, not {out.name}")
        with runs.output(out, "pair", recipe=recipe, inputs=[volume, slide, recipe.placement, recipe.exclude]):
            save_pair(_make(volume, slide, out.name.removesuffix(SUFFIX), recipe), out)
        return out
    if len(paths) != 2:
        raise ValueError("give VOLUME SLIDE OUT.pair.zarr, or TABLE.csv OUT, or COHORT OUT")
    source, out = (Path(path) for path in paths)
    rows = _cohort_rows(source, recipe) if source.is_dir() else _table_rows(source, recipe)
    table = source / "cohort.json" if source.is_dir() else source
    with runs.output(out, "pair", recipe=recipe, inputs=[table], keep=True, reopen=True) as made:
        out.mkdir(exist_ok=True)
        _make_many(rows, out)
        made.results["pairs"] = len(pairs_in(out))
    return out


def _make_many(rows: list[dict[str, Any]], out: Path) -> None:
    for row in runs.progress(rows, desc="pairs", unit="pair"):
        target = out / f"{row['name']}{SUFFIX}"
        asked = row["recipe"]
        if runs.was_made_by(target, asked):
            continue
        try:
            with runs.output(
                target, "pair", recipe=asked, inputs=[row["slide"]], keep=target.exists, reopen=True
            ) as one:
                one.clear()
                save_pair(_make(row["volume"], row["slide"], row["name"], asked), target)
        except BlockingIOError:
            raise
        except (ValueError, OSError) as error:
            raise type(error)(f"{row['where']}: {error}") from None


def _make(volume: Path, slide: Path, name: str, recipe: PairRecipe) -> Pair:
    if not recipe.specimen:
        raise ValueError(
            f"pair {name} names no specimen; pass --specimen, so that no animal is on both sides of a split"
        )
    if recipe.aligned:
        return _aligned(volume, slide, name, recipe)
    if recipe.placement is None:
        raise ValueError(f"{slide.name} has no placement; pass --placement FILE, or --aligned for two aligned images")
    return make_pair(
        check_ct(
            read_volume(
                volume, spacing_um=recipe.spacing_um, shape=recipe.shape, dtype=recipe.dtype, offset=recipe.offset
            )
        ),
        read_slide(slide, pixel_um=recipe.slide_um),
        Placement.load(recipe.placement),
        specimen=recipe.specimen,
        name=name,
        planes=recipe.planes,
        exclude=read_mask(recipe.exclude) if recipe.exclude else None,
        stain_name=recipe.stain,
    )


def _aligned(ct_file: Path, stain_file: Path, name: str, recipe: PairRecipe) -> Pair:
    if recipe.slide_um is None:
        raise ValueError(f"aligned images do not state their pixel size; pass --slide-um for {ct_file.name}")
    ct, stain = read_grey(ct_file), read_picture(stain_file)
    if ct.shape != stain.shape[:2]:
        raise ValueError(
            f"aligned images must have one shape: {ct_file.name} is {ct.shape}, {stain_file.name} {stain.shape[:2]}"
        )
    confidence = np.ones(ct.shape, dtype=np.float32)
    if recipe.exclude:
        left_out = read_mask(recipe.exclude)
        if left_out.shape != ct.shape:
            raise ValueError(f"{recipe.exclude.name} is {left_out.shape}, the images it belongs to are {ct.shape}")
        confidence[left_out > 0] = 0.0
    mask = (confidence > 0) & np.isfinite(ct)
    if not np.isfinite(ct).all():
        raise ValueError(f"{ct_file.name} has NaN or infinite values; replace them with air's value")
    return Pair(
        ct=ct[None].astype(np.float32),
        stain=stain,
        mask=mask,
        confidence=confidence,
        grid=Grid(ct.shape, (recipe.slide_um, recipe.slide_um)),
        specimen=recipe.specimen,
        name=name,
        stain_name=recipe.stain,
    )


def _cohort_rows(folder: Path, recipe: PairRecipe) -> list[dict[str, Any]]:
    """One row for each slide of a phantom cohort, with its true placement and damage mask."""
    file = folder / "cohort.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no cohort.json; give a finished phantom cohort, or a table")
    cohort = json.loads(file.read_text())
    rows = []
    for specimen in cohort["specimens"]:
        for slide in specimen["slides"]:
            asked = dataclasses.replace(
                recipe,
                specimen=specimen["name"],
                placement=folder / slide["placement"],
                exclude=folder / slide["damage"],
                stain=cohort.get("stain", recipe.stain),
            )
            name = f"{specimen['name']}_{slide['name']}"
            where = f"{file.name}, {name}"
            volume, picture = folder / specimen["ct"], folder / slide["slide"]
            rows.append({"volume": volume, "slide": picture, "name": name, "recipe": asked, "where": where})
    return rows


def _table_rows(table: Path, recipe: PairRecipe) -> list[dict[str, Any]]:
    """One row for each line of a CSV; what it leaves empty is taken from the recipe."""
    if not table.is_file():
        raise FileNotFoundError(f"there is no table {table}")
    with table.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    fields = {field.name for field in dataclasses.fields(PairRecipe)}
    known = {"volume", "slide", "name", *fields}
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=2):
        where = f"{table.name}, line {number}"
        for column in line:
            if column not in known:
                raise ValueError(f"{table.name} has an unknown column {column!r}; {nearest(str(column), known)}")
        given = {key: text.strip() for key, text in line.items() if text and text.strip()}
        missing = [column for column in ("volume", "slide") if column not in given]
        if missing:
            raise ValueError(f"{where} gives no {' and no '.join(missing)}")
        settings = {key: _value(key, text, table.parent, where) for key, text in given.items() if key in fields}
        volume, slide = table.parent / given["volume"], table.parent / given["slide"]
        name = given.get("name") or f"{settings.get('specimen', 'pair')}_{slide.name.split('.')[0]}"
        if name in [row["name"] for row in rows]:
            raise ValueError(f"{where}: the name {name} is taken; give the column name")
        asked = dataclasses.replace(recipe, **settings)
        rows.append({"volume": volume, "slide": slide, "name": name, "recipe": asked, "where": where})
    if not rows:
        raise ValueError(f"{table.name} lists no pairs")
    return rows


def _value(key: str, text: str, folder: Path, where: str) -> Any:
    try:
        if key in PATH_COLUMNS:
            return folder / text
        if key in ("planes", "offset"):
            return int(text)
        if key == "slide_um":
            return float(text)
        if key == "spacing_um":
            z, y, x = (float(part) for part in text.replace(",", " ").split())
            return (z, y, x)
        if key == "shape":
            depth, height, width = (int(part) for part in text.replace(",", " ").split())
            return (depth, height, width)
        if key == "aligned":
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
    except (ValueError, KeyError):
        raise ValueError(f"{where}: {text!r} is no value for {key}") from None
    return text
