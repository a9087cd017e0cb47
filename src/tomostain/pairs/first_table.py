"""A lab's folder in, the first table of a study out: volumes and slides, matched by their names."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tomostain.io.names import checked_name
from tomostain.io.slides import is_slide, read_slide
from tomostain.io.tables import write_table
from tomostain.io.volumes import READERS, read_volume
from tomostain.io.volumes.series import natural

COLUMNS = ("volume", "slide", "specimen", "name", "stain", "placement", "slide_um", "spacing_um", "grey_range", "#note")
FEWEST_SLICES = 8
"""Pictures in one folder from which they are tried as the slices of a volume."""
_PICTURES = frozenset({".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg"})
_GENERAL = re.compile(
    r"(u|micro|x)?cts?|microtomography|xct|synchrotron|vol(ume)?s?|scans?|stacks?|slices?|rec(on)?|raw|slides?|sections?|"
    r"histo(logy)?|stain(ed)?|images?|img|data|hdf5|h5|tiff?"
)
"""Words in names that do not say which specimen a file is of."""
_UNITS = "volume: {} values beside other types, fill in grey_range (grey values of 0 and of the largest integer)"
_MASKS = frozenset({"mask", "masks", "exclude"})


@dataclass(frozen=True)
class Found:
    """A volume or a slide in the folder; ``faults``: what its reader misses, as notes for the table."""

    path: Path
    parts: tuple[str, ...]
    """Words of its path below the folder, without general ones."""
    faults: tuple[str, ...] = ()
    dtype: str = ""
    """Type of a volume's values, where it is known."""


def find(folder: Path) -> tuple[list[Found], list[Found], list[Path]]:
    """(volumes, slides, left out) below a folder, in the order of their names; only headers are read.

    A folder of ``FEWEST_SLICES`` or more grey pictures is one volume. Left out are masks, single grey planes and
    whatever tomostain does not read; what its own commands wrote is not searched.
    """
    volumes: list[Found] = []
    slides: list[Found] = []
    left_out: list[Path] = []
    waiting = [folder]
    while waiting:
        for path in sorted(waiting.pop(0).iterdir(), key=lambda one: natural(one.name)):
            parts = tuple(word for word in _words(path.relative_to(folder)) if not _GENERAL.fullmatch(word.lower()))
            if path.name.startswith("."):
                continue
            if path.is_dir():
                known = _faults_of_volume(path) if _may_be_volume(path) else None
                if known is not None:
                    volumes.append(Found(path, parts, *known))
                elif not path.name.endswith(".zarr") and not (path / "run.json").is_file():
                    waiting.append(path)
            elif is_slide(path) and not _MASKS & {word.lower() for word in parts}:
                slides.append(Found(path, parts, _faults_of_slide(path)))
            elif not is_slide(path) and path.name.lower().endswith(tuple(READERS)):
                known = _faults_of_volume(path)
                if known is None:
                    left_out.append(path)
                else:
                    volumes.append(Found(path, parts, *known))
            elif not path.name.endswith((".json", ".csv", ".html", ".txt", ".log")):
                left_out.append(path)
    return volumes, slides, left_out


def write_first_table(
    out: Path, volumes: Sequence[Found], slides: Sequence[Found], *, stain: str
) -> list[dict[str, str]]:
    """Write one line for each slide, and one for each volume without a slide; returns the lines.

    What is not known stays empty, and the column ``#note`` says what to fill in or to check. Paths start at the table.
    """
    lines = []
    used = set()
    several = len({volume.dtype for volume in volumes} - {""}) > 1
    for slide in slides:
        volume, specimen, notes = match(slide, volumes)
        used.add(volume)
        if volume is not None:
            notes += [f"volume: {fault}" for fault in volume.faults]
            notes += [_UNITS.format(volume.dtype)] if several and volume.dtype.startswith("uint") else []
        notes += [f"slide: {fault}" for fault in slide.faults]
        paths = {"volume": "" if volume is None else _from(out, volume.path), "slide": _from(out, slide.path)}
        placed = slide.path.with_name(f"{slide.path.name.split('.')[0]}.placement.json")
        placement = _from(out, placed) if placed.is_file() else ""
        lines.append(paths | {"specimen": specimen, "stain": stain, "placement": placement, "#note": "; ".join(notes)})
    for volume in volumes:
        if volume not in used:
            note = "no slide has the name of this volume: fill in slide, or delete this line"
            lines.append({"volume": _from(out, volume.path), "#note": "; ".join([note, *volume.faults])})
    _name(lines)
    write_table(out, COLUMNS, [[line.get(column, "") for column in COLUMNS] for line in lines])
    return lines


def match(slide: Found, volumes: Sequence[Found]) -> tuple[Found | None, str, list[str]]:
    """(volume, specimen, notes) of a slide: the volume that shares most words with it which not all volumes have."""
    if not volumes:
        return None, "", ["no volume was found: fill in volume and specimen"]
    common = set.intersection(*({_plain(word) for word in one.parts} for one in volumes)) if volumes[1:] else set()
    ranked = sorted(((_shared(slide, one, common), one) for one in volumes), key=lambda pair: pair[0], reverse=True)
    (best, volume), others = ranked[0], ranked[1:]
    if others and (not best[0] or best == others[0][0]):
        rivals = [one.path.name for rank, one in ranked if rank == best][:3]
        why = f"{' and '.join(rivals)} fit its name alike" if any(best) else "no volume shares a word of its name"
        return None, "", [f"{why}: fill in volume and specimen"]
    have = {_plain(word) for word in slide.parts}
    words = list(dict.fromkeys(word for word in volume.parts if _plain(word) in have))
    own = [word for word in words if _plain(word) not in common]
    specimen = "_".join(words if all(word.isdigit() for word in own) else own)
    if not _is_name(specimen):
        return volume, "", ["the only volume" if not others else "matched by its name", "fill in specimen"]
    return volume, specimen, [f"matched by {specimen!r}: check that this is the animal"]


def _shared(slide: Found, volume: Found, common: set[str]) -> tuple[int, int]:
    """Words that two names share and not all volumes have, and with how many words both begin."""
    one, other = [_plain(word) for word in slide.parts], [_plain(word) for word in volume.parts]
    leading = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return len((set(one) & set(other)) - common), leading


def _may_be_volume(folder: Path) -> bool:
    if folder.name.endswith(".pair.zarr"):
        return False
    pictures = (file for file in folder.iterdir() if file.suffix.lower() in _PICTURES)
    return folder.name.endswith(".zarr") or sum(1 for _ in pictures) >= FEWEST_SLICES


def _faults_of_volume(path: Path, *, spacing_um: tuple[float, ...] | None = None) -> tuple[tuple[str, ...], str] | None:
    """What a volume's reader misses, and the type of its values; None for one plane, colours, or other folders."""
    try:
        with warnings.catch_warnings(action="ignore"):
            volume = read_volume(path, spacing_um=spacing_um)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if "--shape" in str(error) and path.is_file():
            return ("fill in spacing_um, and add the columns shape and dtype, as it holds raw values",), ""
        if (
            "--spacing-um" in str(error)
            and spacing_um is None
            and (found := _faults_of_volume(path, spacing_um=(1.0,) * 3))
        ):
            return ("fill in spacing_um (z y x in um), the file does not state its voxel size", *found[0]), found[1]
        return None if path.is_dir() else ((f"cannot be read: {error}",), "")
    return None if volume.is_colour or volume.shape[0] == 1 else ((), volume.dtype.name)


def _faults_of_slide(path: Path) -> tuple[str, ...]:
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read_slide(path)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        size = "fill in slide_um, the file does not state a plausible pixel size"
        return (size if "--slide-um" in str(error) else f"cannot be read: {error}",)
    return tuple(str(one.message) for one in caught)


def _name(lines: Sequence[dict[str, str]]) -> None:
    """Name each pair after its slide's file, and after the folders too where two files have one name."""
    slides = [line for line in lines if "slide" in line]
    names = [Path(line["slide"]).name.split(".")[0] for line in slides]
    for name, line in zip(names, slides, strict=True):
        line["name"] = name if Counter(names)[name] == 1 else "_".join(_words(Path(line["slide"])))


def _words(path: Path) -> list[str]:
    """Words of a path, without the endings of its file."""
    places = [*path.parts[:-1], path.name.split(".")[0]]
    return [word for place in places for word in re.split(r"[^0-9A-Za-z]+", place) if word]


def _plain(word: str) -> str:
    """A word as it is compared: small letters, numbers without leading zeros."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", word.lower())


def _is_name(text: str) -> bool:
    try:
        return bool(text) and bool(checked_name(text, "specimen"))
    except ValueError:
        return False


def _from(table: Path, path: Path) -> str:
    return os.path.relpath(path, table.parent)
