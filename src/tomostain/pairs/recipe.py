"""How one pair is made: every setting, with unit and reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomostain._settings import PIXEL_UM, Within, check_numbers
from tomostain.images.anchors import Anchors
from tomostain.io.names import checked_name
from tomostain.io.volumes.options import AS_STATED, VolumeOptions

MOST_PLANES = 101
USUAL_PLANES = 7
"""Neighbouring planes show what lies below the noise of one: fat beside marrow, layer beside metal."""


@Parameter(name="*")
@dataclass(frozen=True)
class PairRecipe:
    """How a pair is made; in a table these are columns, one value for each pair."""

    specimen: str = ""
    """The animal or sample the slide comes from. Required: a specimen is never on both sides of a split."""
    placement: Path | None = None
    """Where in the volume the slide was cut (*.placement.json)."""
    checked: bool = False
    """You looked at the placement's page and it is right; needed where `register` says CHECK BY EYE."""
    aligned: bool = False
    """VOLUME and SLIDE are two images that already lie pixel on pixel; no placement is needed."""
    planes: Annotated[int | None, Within(1, MOST_PLANES)] = None
    """CT planes in the pair, a voxel apart, centred on the section; an odd number. Default: 7; 1 for aligned images."""
    exclude: Path | None = None
    """Mask picture of the slide: non-zero where the slide must not be used (markers, folds, dirt)."""
    stain: str = "toluidine blue"
    """Name of the stain; one stainer learns one stain."""
    slide_um: Annotated[float | None, PIXEL_UM] = None
    """Pixel size in um, where the slide (or the aligned images) does not state it."""
    anchors: Annotated[tuple[float, float] | None, Within(-1e30, 1e30)] = None
    """Grey values of soft tissue and of bone in the CT, where they are not found or wrong (`tomostain inspect`)."""
    placements: Path | None = None
    """Of a phantom cohort: the folder that `tomostain register` wrote for its slides, named SPECIMEN_SLIDE, instead of
    the true placements and damage masks. Slides that were refused make no pair."""
    check: bool = False
    """Only check the table and report all of its faults; nothing is written."""
    reading: Annotated[VolumeOptions, Parameter(name="*")] = AS_STATED

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.planes is not None and self.planes % 2 == 0:
            raise ValueError(f"planes must be an odd number from 1 to {MOST_PLANES}, got {self.planes}")
        if self.aligned and (self.planes or 1) > 1:
            raise ValueError("two aligned images are one CT plane; leave planes out")
        if self.anchors:
            Anchors(*self.anchors)
        if self.specimen:
            checked_name(self.specimen, "specimen")
        if not self.stain.strip() or not self.stain.isprintable() or len(self.stain) > 120:
            raise ValueError(f"stain must be a short text, got {self.stain[:40]!r}")
