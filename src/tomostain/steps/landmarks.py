"""Step: set landmarks on a slide and its CT by hand, in the browser, for ``register --landmarks``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomostain import runs
from tomostain._settings import PIXEL_UM, Within, check_numbers
from tomostain.io.reference import read_reference
from tomostain.io.slides import read_slide
from tomostain.io.volumes.options import AS_STATED, VolumeOptions
from tomostain.registration.landmarks import read_landmarks
from tomostain.viewing.landmarks import LandmarkPage
from tomostain.viewing.server import serve_until_stopped


@Parameter(name="*")
@dataclass(frozen=True)
class LandmarksRecipe:
    """How slide and CT are read, and where the page is served."""

    slide_um: Annotated[float | None, PIXEL_UM] = None
    """Pixel size of the slide in um, where the slide does not state it."""
    port: Annotated[int, Within(0, 65535)] = 0
    """Port on this machine; 0 takes a free one."""
    reading: Annotated[VolumeOptions, Parameter(name="*")] = AS_STATED

    def __post_init__(self) -> None:
        check_numbers(self)


def landmarks(ct: Path, slide: Path, points: Path, *, recipe: LandmarksRecipe = LandmarksRecipe()) -> Path | None:
    """Set landmarks on a slide and its CT by hand, in the browser.

    Click a place on one side and the same place on the other. From the third pair on the page shows how far each pair
    is off, the fitted plane of the CT, and the slide laid over it. Points that are in POINTS are loaded; Save writes
    them. Ctrl-C ends it. For slides that `tomostain register` refuses.

    Parameters
    ----------
    ct
        CT volume, or one image of the plane.
    slide
        The stained slide.
    points
        The landmarks, a .csv file: loaded if it exists, written by Save.

    Returns
    -------
    Path or None
        ``points``; None where nothing was saved.

    Raises
    ------
    FileNotFoundError
        CT or slide is not there.
    ValueError
        An input is faulty, or ``points`` is not a file of landmarks.
    BlockingIOError
        Another page is open for the same file.

    Example
    -------
    tomostain landmarks ct.ome.zarr slide.tif points.csv
    tomostain register ct.ome.zarr slide.tif slide.placement.json --landmarks points.csv
    """
    ct, slide, points = Path(ct), Path(slide), Path(points)
    if points.suffix.lower() != ".csv":
        raise ValueError(f"landmarks are a .csv file, not {points.name}")
    if points.exists():
        read_landmarks(points, fewest=1)
    page = LandmarkPage(read_reference(ct, recipe.reading), read_slide(slide, pixel_um=recipe.slide_um), points)
    with runs.lock(points, "landmarks"):
        serve_until_stopped(page.site, f"landmarks of {page.slide.name} in {page.ct.name}", port=recipe.port)
    if not points.exists():
        return None
    runs.say(f"next: tomostain register {ct} {slide} {slide.stem}.placement.json --landmarks {points}")
    return points
