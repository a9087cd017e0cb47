"""What is known before about where a section lies: the settings of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tomostain._settings import Within, check_numbers


@dataclass(frozen=True)
class Hints:
    """What the user knows before; by default nothing. One group of options for the command and for Python."""

    around: Annotated[float | None, Within(-1e6, 1e6)] = None
    """Height z of the section's centre in the volume, um, give or take around_within."""
    around_within: Annotated[float, Within(0, 1e6, above=True)] = 250.0
    """How far off ``around`` may be, um."""
    tilt_within: Annotated[float, Within(0, 30)] = 15.0
    """Largest angle between the section's normal and the volume's z axis, degrees."""
    prior_within_um: Annotated[float, Within(0, 1e6, above=True)] = 250.0
    """How far off a prior (--prior, --near) may be, um."""
    prior_within_deg: Annotated[float, Within(0, 180, above=True)] = 10.0
    """How far the prior's tilt and rotation may be off, degrees."""
    mirrored: bool | None = None
    """Whether the section lies upside down on the glass, where that is known."""
    thickness_um: Annotated[float | None, Within(0, 1000)] = None
    """Thickness of the section in um; estimated by default."""
    shrinkage: Annotated[float, Within(-0.3, 0.3)] = 0.05
    """Share by which the section is expected to have shrunk, give or take 3 %; 0 for an image of the same specimen.
    Sections shrink by 3 to 9 % (Museyko et al. 2015)."""
    elastic: bool = True
    """Whether the section may have been bent; without, one affine map is fitted."""

    def __post_init__(self) -> None:
        check_numbers(self)


NONE = Hints()
"""Nothing is known."""
