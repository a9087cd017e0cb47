"""Where a search starts: an earlier placement, landmarks or a position, as a pose and hints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tomostain.images.geometry import Placement
from tomostain.io.volumes.options import AS_STATED
from tomostain.registration.align import pose_of
from tomostain.registration.coarse import Attitude, Pose
from tomostain.registration.hints import NONE, Hints
from tomostain.registration.landmarks import LandmarkFit, fit_landmarks, read_landmarks
from tomostain.registration.modality import Stained

_LANDMARKS_UM, _LANDMARKS_DEG = 150.0, 6.0
_OF_THE_START = ("around", "around_within", "tilt_within", "prior_within_um", "prior_within_deg", "mirrored")
Near = tuple[float, float, float, float, float, float]
"""Centre z y x (um), tilt towards y and towards x, rotation in the plane (degrees)."""


@dataclass(frozen=True, eq=False)
class Start:
    """A pose to start from, the hints that go with it, and the landmarks it came from."""

    pose: Pose | None
    hints: Hints
    landmarks: LandmarkFit | None = None


@dataclass(frozen=True)
class Known:
    """What a user knows before: hints, and at most one position to start from."""

    hints: Hints = NONE
    placement: Path | None = None
    landmarks: Path | None = None
    near: Near | None = None


NOTHING = Known()


def start_of(stained: Stained, known: Known) -> Start:
    """The start; an empty one if no position is known.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is not there, damaged, or belongs to a slide of another size.
    """
    hints, placement, near = known.hints, known.placement, known.near
    if placement is not None:
        earlier = Placement.load(placement)
        if earlier.slide_shape != stained.slide_shape:
            raise ValueError(
                f"{placement.name} was made for a slide of {earlier.slide_shape[0]} x {earlier.slide_shape[1]} px, "
                f"this one is {stained.slide_shape[0]} x {stained.slide_shape[1]}; use the placement of this slide"
            )
        return Start(pose_of(earlier, stained), hints)
    if known.landmarks is not None:
        points = read_landmarks(known.landmarks)
        found = fit_landmarks(stained.um_of(points.slide_px), points.volume_um, points.names)
        return Start(found.pose, replace(hints, prior_within_um=_LANDMARKS_UM, prior_within_deg=_LANDMARKS_DEG), found)
    if near is not None:
        *centre, tilt_y, tilt_x, turn = near
        lying = Attitude(tilt_y, tilt_x, turn, bool(hints.mirrored))
        return Start(lying.pose(np.asarray(centre), 1 / (1 - hints.shrinkage)), hints)
    return Start(None, hints)


def command_words(paths: Sequence[Path], options: Mapping[str, Any]) -> list[str]:
    """The words of a command that registers a slide with these options, but for where it starts."""
    usual = {**vars(NONE), **vars(AS_STATED), "slide_um": None}
    words = ["tomostain", "register", *map(str, paths)]
    for name, value in options.items():
        if name in _OF_THE_START or value == usual[name]:
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words
