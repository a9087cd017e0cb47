"""Step: say what a file or folder is, whether it can be used, and what to type next."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tomostain._settings import PIXEL_UM, check_numbers
from tomostain.io.slides import is_slide
from tomostain.io.volumes.options import AS_STATED, VolumeOptions
from tomostain.reporting.facts import as_text, slide_facts, volume_facts
from tomostain.reporting.recognise import recognise


@Parameter(name="*")
@dataclass(frozen=True)
class InspectRecipe:
    """How a file is inspected."""

    json: bool = False
    """Print one JSON object instead of text."""
    slide_um: Annotated[float | None, PIXEL_UM] = None
    """Pixel size in um, where the slide does not state it."""
    reading: Annotated[VolumeOptions, Parameter(name="*")] = AS_STATED

    def __post_init__(self) -> None:
        check_numbers(self)


def inspect(path: Path, *, recipe: InspectRecipe = InspectRecipe()) -> None:
    """Print what a file or folder is: grid, type, units, grey values, memory, and what to type next.

    For a volume: shape, type, voxel size and where it was found, orientation if stated, and a histogram of a bounded
    sample. Its peaks are named (air, resin or soft tissue, bone, metal) only where the values allow it. For
    slides, and for the outputs of tomostain, finished or not: a short summary.

    Parameters
    ----------
    path
        A volume, a slide, or a file or folder that a command wrote.

    Raises
    ------
    ValueError
        tomostain cannot read it; the message says why.

    Example
    -------
    tomostain inspect ct.h5
    tomostain inspect slide.svs --json
    """
    facts = facts_of(Path(path), recipe)
    print(json.dumps(facts, indent=1, default=str) if recipe.json else as_text(facts))


def facts_of(path: Path, recipe: InspectRecipe = InspectRecipe()) -> dict[str, Any]:
    """What ``inspect`` prints, as plain JSON values; ``kind`` comes first and ``next`` is what to type.

    Raises
    ------
    ValueError
        tomostain cannot read it.
    FileNotFoundError
        There is no such file.
    """
    path = Path(path)
    ours = recognise(path)
    if ours is not None:
        return ours
    return slide_facts(path, recipe.slide_um) if is_slide(path) else volume_facts(path, recipe.reading)
