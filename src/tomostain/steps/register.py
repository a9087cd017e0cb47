"""Step: find where in a volume a slide was cut, say how sure that is, and refuse when it is not."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from tomostain import runs
from tomostain._settings import PIXEL_UM, Within, check_numbers
from tomostain.images.checking import check_ct
from tomostain.images.geometry import Grid, Placement
from tomostain.images.image import Slide, Volume, warn_if_grey
from tomostain.images.srgb import to_linear
from tomostain.io.planes import PICTURES, read_plane
from tomostain.io.slides import read_picture, read_slide
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import AS_STATED, VolumeOptions
from tomostain.registration.align import SHRINKAGE, Knowledge, align, placement_of, pose_of
from tomostain.registration.landmarks import LandmarkFit, fit_landmarks, read_landmarks
from tomostain.registration.modality import Stained, read_stained, read_target
from tomostain.reporting.registration import registration_page

SUFFIX = ".placement.json"
_LANDMARKS_WITHIN_UM, _LANDMARKS_WITHIN_DEG = 150.0, 6.0


@Parameter(name="*")
@dataclass(frozen=True)
class RegisterRecipe:
    """What is known before, and how the slide is registered."""

    slide_um: Annotated[float | None, PIXEL_UM] = None
    """Pixel size of the slide in um, where the slide does not state it."""
    around: Annotated[float | None, Within(-1e6, 1e6)] = None
    """Height z of the section's centre in the volume, um, give or take around_within."""
    around_within: Annotated[float, Within(0, 1e6, above=True)] = 250.0
    """How far off ``around`` may be, um."""
    tilt_within: Annotated[float, Within(0, 30)] = 15.0
    """Largest angle between the section's normal and the volume's z axis, degrees."""
    prior: Path | None = None
    """A placement to start from (*.placement.json): an earlier, a neighbour's or a guessed one."""
    prior_within_um: Annotated[float, Within(0, 1e6, above=True)] = 250.0
    """How far off the prior may be, um."""
    prior_within_deg: Annotated[float, Within(0, 180, above=True)] = 10.0
    """How far the prior's tilt and rotation may be off, degrees."""
    landmarks: Path | None = None
    """CSV of at least four landmarks: slide_y_px, slide_x_px, volume_z_um, volume_y_um, volume_x_um."""
    mirrored: bool | None = None
    """Whether the section lies upside down on the glass, where that is known."""
    thickness_um: Annotated[float | None, Within(0, 1000)] = None
    """Thickness of the section in um; estimated where it is not given."""
    shrinkage: Annotated[float, Within(-0.3, 0.3)] = SHRINKAGE
    """Share by which the section is expected to have shrunk, give or take 3 %; 0 for an image of the same specimen."""
    elastic: bool = True
    """Whether the section may have been bent; without, one affine map is fitted."""
    report: Path | None = None
    """Page (*.html) that shows the registration."""
    reading: Annotated[VolumeOptions, Parameter(name="*")] = AS_STATED

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.prior is not None and self.landmarks is not None:
            raise ValueError("give --prior or --landmarks, not both")


def register(volume: Path, slide: Path, out: Path, *, recipe: RegisterRecipe = RegisterRecipe()) -> Path:
    """Find where in a CT volume a stained slide was cut, and how it is bent.

    Depth, tilt, rotation, mirroring, shrinkage and elastic deformation are found from the images alone, or from what is
    known: --around, --prior, --landmarks. VOLUME may be one image: then the plane is known. The placement carries a
    confidence for each part of the slide and the error to expect.

    Parameters
    ----------
    volume
        CT volume, or a single plane (PNG, JPEG, or any image with --spacing-um y x).
    slide
        Stained slide.
    out
        NAME.placement.json; displacement and confidence are written beside it.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ValueError
        Slide and volume do not belong together as far as can be told (nothing is written), or an input is faulty.

    Example
    -------
    tomostain register ct.ome.zarr slide.tif slide.placement.json --report slide.html
    tomostain register ct.ome.zarr slide.tif slide.placement.json --around 420 --tilt-within 5
    tomostain register plane.png section.png jaw.placement.json --spacing-um 10.2 10.2 --slide-um 10.2 --shrinkage 0
    """
    out = Path(out)
    if not out.name.endswith(SUFFIX):
        raise ValueError(f"a placement is named NAME{SUFFIX}, not {out.name}")
    inputs = [Path(volume), Path(slide), recipe.prior, recipe.landmarks]
    with runs.output(out, "register", recipe=recipe, inputs=inputs) as made, ExitStack() as page:
        if recipe.report is not None:
            page.enter_context(runs.lock(recipe.report, "register"))
            if recipe.report.exists():
                raise ValueError(f"{recipe.report} exists; choose another name or remove it first")
        made.results |= _register(Path(volume), Path(slide), out, recipe)
    return out


def _register(volume: Path, slide: Path, out: Path, recipe: RegisterRecipe) -> dict[str, Any]:
    """Write the placement, and its page where one is asked for; returns what the record says of it."""
    ct, picture = read_reference(volume, recipe.reading), read_slide(slide, pixel_um=recipe.slide_um)
    target = read_target(ct)
    stained = read_stained(picture, min(target.grid.spacing_um[1:]))
    warn_if_grey(picture.name, stained.density)
    known, landmarks = _known(recipe, picture, stained)
    done = align(target, stained, known)
    fault = done.score.fault()
    if fault is not None:
        raise ValueError(
            f"{picture.name} was not registered to {ct.name}: {fault} (probability of being right "
            f"{done.score.probability:.0%}); check that they belong together, or give --around, --prior or --landmarks"
        )
    placement = placement_of(done, stained)
    placement.save(out)
    if recipe.report is not None:
        title = f"{picture.name} in {ct.name}"
        page = registration_page(done, target, stained, placement, title=title, landmarks=landmarks)
        runs.write_text_atomically(recipe.report, page)
    return _results(placement, landmarks)


def read_reference(path: Path, options: VolumeOptions = AS_STATED) -> Volume:
    """A CT volume, or one image as a volume of one plane; a coloured image is read as its mean optical density.

    Raises
    ------
    ValueError
        Whatever is wrong with the volume, or an image without a pixel size.
    """
    spacing_um, picture = options.spacing_um, path.suffix.lower() in PICTURES
    if not picture and (spacing_um is None or len(spacing_um) != 2):
        return check_ct(read_volume(path, **vars(options)))
    if spacing_um is None or not (len(spacing_um) == 2 or len(set(spacing_um)) == 1):
        raise ValueError(f"{path.name} is one image and states no pixel size; pass --spacing-um y x")
    y_um, x_um = spacing_um[-2:]
    try:
        plane = read_plane(path, (y_um, x_um), options)
    except ValueError as fault:
        try:
            light = to_linear(read_picture(path)).astype(np.float32)
        except ValueError:
            raise fault from None
        density = -np.log10(np.clip(light, 1e-3, 1.0)).mean(axis=2)
        plane = Volume(density[None], Grid((1, *density.shape), (max(y_um, x_um), y_um, x_um)), name=path.name)
    return check_ct(plane)


def _known(recipe: RegisterRecipe, slide: Slide, stained: Stained) -> tuple[Knowledge, LandmarkFit | None]:
    """What the recipe says about where to look."""
    prior, landmarks = None, None
    within_um, within_deg = recipe.prior_within_um, recipe.prior_within_deg
    if recipe.prior is not None:
        earlier = Placement.load(recipe.prior)
        if earlier.slide_shape != stained.slide_shape:
            raise ValueError(
                f"{recipe.prior.name} was made for a slide of {earlier.slide_shape[0]} x {earlier.slide_shape[1]} px, "
                f"{slide.name} is {slide.shape[0]} x {slide.shape[1]}"
            )
        prior = pose_of(earlier, stained)
    if recipe.landmarks is not None:
        points = read_landmarks(recipe.landmarks)
        landmarks = fit_landmarks(stained.um_of(points.slide_px), points.volume_um, points.names)
        prior, within_um, within_deg = landmarks.pose, _LANDMARKS_WITHIN_UM, _LANDMARKS_WITHIN_DEG
    known = Knowledge(
        around_um=recipe.around,
        around_within_um=recipe.around_within,
        tilt_within_deg=recipe.tilt_within,
        prior=prior,
        within_um=within_um,
        within_deg=within_deg,
        mirrored=recipe.mirrored,
        thickness_um=recipe.thickness_um,
        shrinkage=recipe.shrinkage,
        elastic=recipe.elastic,
    )
    return known, landmarks


def _results(placement: Placement, landmarks: LandmarkFit | None) -> dict[str, Any]:
    found = {"expected_tre_um": placement.expected_tre_um, **placement.notes}
    if landmarks is not None:
        found["landmark_outliers"] = list(landmarks.outliers)
    return found
