"""What SkyScan / Bruker's NRecon leaves beside its slices: a log with the pixel size, and previews among the slices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tomostain.io.units import number_of
from tomostain.io.volumes.headers import VolumeError

_LOG_BYTES = 2**20
_PIXEL_KEYS = ("pixel size (um)", "scaled image pixel size (um)", "image pixel size (um)")
_NO_SLICE = re.compile(r"(_spr|_preview|_ir|_arc|~spr)$", re.IGNORECASE)


def log_in(folder: Path) -> tuple[Path, dict[str, str]] | None:
    """The log of a SkyScan folder and its entries, those of the reconstruction before those of the acquisition.

    Raises
    ------
    VolumeError
        There are several reconstructions in the folder.
    """
    logs = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".log" and file.is_file())
    found = []
    for log in logs:
        entries = _entries(log)
        if any(key in entries for key in _PIXEL_KEYS):
            found.append((log, entries))
    if len(found) > 1:
        reconstructed = [pair for pair in found if pair[0].stem.lower().endswith("_rec")]
        found = reconstructed if len(reconstructed) == 1 else found
    if len(found) > 1:
        names = ", ".join(log.name for log, _ in found[:3])
        raise VolumeError(f"{folder.name} holds several SkyScan logs ({names}); keep one reconstruction a folder")
    return found[0] if found else None


def slices_of(files: Sequence[Path], log: Path) -> list[Path]:
    """The slices among a SkyScan folder's pictures: numbered, named as the log is where any are; no previews."""
    numbered = [file for file in files if re.search(r"\d$", file.stem) and not _NO_SLICE.search(file.stem)]
    named = [file for file in numbered if re.fullmatch(re.escape(log.stem) + r"_?\d+", file.stem, re.IGNORECASE)]
    return named or numbered


def spacing_in(entries: Mapping[str, str]) -> tuple[tuple[float, float, float] | None, str]:
    """Voxel size in um: the reconstruction's pixel size, and as many of it as there are sections between slices.

    None where the log does not state it well; the second value says what it states.
    """
    key = next(key for key in _PIXEL_KEYS if key in entries)
    step_text = entries.get("section to section step", "1")
    edge, step = number_of(entries[key]), number_of(step_text)
    if edge is None or step is None or edge <= 0 or step < 1 or step != int(step):
        return None, f"its SkyScan log states a pixel of {entries[key]!r} um and a step of {step_text!r} sections"
    return (edge * step, edge, edge), ""


def words_of(entries: Mapping[str, str]) -> dict[str, str]:
    """How NRecon scaled attenuation to grey values, where the log says it."""
    low, high = (entries.get(f"{end} for cs to image conversion") for end in ("minimum", "maximum"))
    return {"units": f"grey values over attenuation {low} to {high} (NRecon)"} if low and high else {}


def _entries(log: Path) -> dict[str, str]:
    """The ``key=value`` lines of a log; a last line without its end was cut off."""
    with log.open("rb") as file:
        text = file.read(_LOG_BYTES).decode("latin-1")
    entries: dict[str, str] = {}
    for line in text.splitlines(keepends=True):
        key, mark, value = line.partition("=")
        if mark and line.endswith(("\n", "\r")):
            entries[key.strip().lower()] = value.strip()
    return entries
