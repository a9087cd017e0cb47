"""One slide and one volume in, the outcome of their registration out: placed, or refused with the likely reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tomostain.images.geometry import Placement
from tomostain.images.image import Slide, Volume, warn_if_grey
from tomostain.registration.align import NoPlacement, Progress, Registered, align, placement_of
from tomostain.registration.causes import CAUSES, Scaled, better_scale
from tomostain.registration.landmarks import LandmarkFit
from tomostain.registration.modality import Stained, Target, read_stained, read_target
from tomostain.registration.prior import NOTHING, Known, start_of


@dataclass(frozen=True, eq=False)
class Outcome:
    """How the registration of a slide ended. ``done`` is None where no place was found at all."""

    title: str
    target: Target
    stained: Stained
    placement: Placement | None
    done: Registered | None
    landmarks: LandmarkFit | None
    fault: str | None
    """Why the slide is refused; None where it is placed."""
    scaled: Scaled | None = None

    @property
    def hint(self) -> str:
        """What to do about a refusal: another pixel size where one fits better, else the usual causes."""
        if self.scaled is None:
            return f"check these first: {'; '.join(CAUSES)}"
        pixel = self.stained.pixel_um[0]
        return (
            f"the slide fits much better with pixels of {pixel * self.scaled.factor:.4g} um instead of {pixel:.4g} um "
            f"(it then explains {self.scaled.detail:.0%} of the CT's detail, not {max(self.scaled.stated, 0):.0%}): "
            "check the pixel size (--slide-um) and the voxel size (--spacing-um)"
        )

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        if self.placement is None:
            sure = f" (probability of being right {self.done.score.probability:.0%})" if self.done else ""
            text = f"{self.title}: not registered, {self.fault}{sure}"
            return f"{text}; {self.hint}; or use --around, --near or --landmarks (`tomostain landmarks` sets them)"
        notes, expected = self.placement.notes, self.placement.expected_tre_um or 0.0
        mirrored = "mirrored" if notes["mirrored"] else "not mirrored"
        check = "; CHECK BY EYE before you use it" if notes["check"] else ""
        return (
            f"{self.title}: placed, probability {notes['probability']:.0%}, expected error {expected:.1f} um, depth "
            f"{notes['depth_um']:.0f} um, tilt {notes['tilt_deg']:.1f} degrees, {mirrored}{check}"
        )

    @property
    def results(self) -> dict[str, Any]:
        """The results of a placed slide, for its record."""
        if self.placement is None:
            return {}
        found = {"expected_tre_um": self.placement.expected_tre_um, **self.placement.notes}
        if self.landmarks is not None:
            found["landmark_outliers"] = list(self.landmarks.outliers)
        return found


def register_slide(
    ct: Volume, slide: Slide, known: Known = NOTHING, progress: Progress = lambda stage, share: None
) -> Outcome:
    """Register a slide, and where it is refused look for the reason.

    Raises
    ------
    ValueError
        The slide shows next to nothing, or a file that is known before (placement, landmarks) is faulty.
    """
    progress("reading the CT", 0.0)
    target = read_target(ct)
    progress("reading the slide", 0.0)
    stained = read_stained(slide, min(target.grid.spacing_um[1:]))
    warn_if_grey(slide.name, stained.density)
    start = start_of(stained, known)
    title = f"{slide.name} in {ct.name}"
    done, fault = None, None
    try:
        done = align(target, stained, start.hints, prior=start.pose, progress=progress)
        fault = done.score.fault()
    except NoPlacement as error:
        fault = str(error)
    if done is not None and fault is None:
        return Outcome(title, target, stained, placement_of(done, stained), done, start.landmarks, None)
    progress("trying other pixel sizes", 1.0)
    scaled = better_scale(
        target, stained, start.hints, start.pose, stated=done.score.detail if done is not None else 0.0
    )
    return Outcome(title, target, stained, None, done, start.landmarks, fault, scaled)
