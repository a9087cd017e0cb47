"""Step: make a cohort of specimens whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tomostain import runs
from tomostain._settings import SEED, Within, check_numbers
from tomostain.phantom.cohort import CohortRecipe, write_cohort
from tomostain.phantom.damage import check_names
from tomostain.phantom.deformation import CutRecipe
from tomostain.phantom.recipe import Material
from tomostain.phantom.tomography import TomographyRecipe


@Parameter(name="*")
@dataclass(frozen=True)
class PhantomRecipe:
    """Number and kind of specimens, and how they are scanned, cut and damaged."""

    specimens: Annotated[int, Within(1, 10_000)] = 4
    """Specimens; implant material and weeks in vivo take turns."""
    slides: Annotated[int, Within(0, 1000)] = 2
    """Slides per specimen, spread over its height."""
    size: Annotated[tuple[int, int, int], Within(1, 2**16)] = (128, 256, 256)
    """Voxels z y x of a specimen."""
    seed: Annotated[int, SEED] = 0
    """The same seed gives the same bytes."""
    voxel_um: Annotated[float, Within(0.1, 100)] = 5.0
    """Edge of a voxel in um; 5 is usual for synchrotron micro-CT of bone implants."""
    pixel_um: Annotated[float, Within(0.1, 100)] = 1.0
    """Pixel of the slides in um; 0.5-1 is a slide scanner."""
    materials: tuple[Material, ...] = ("Mg-5Gd", "Mg-10Gd", "Ti", "PEEK")
    """Implant materials that take turns."""
    weeks: Annotated[tuple[float, ...], Within(0, 1000)] = (4.0, 8.0, 12.0)
    """Weeks in vivo that take turns."""
    folds: Annotated[int, Within(1, 10_000)] = 4
    """Groups of specimens of which one at a time is left out in training."""
    stain: str = "toluidine blue"
    """Stain of the slides: toluidine blue, H&E, or package.module:name of your own."""
    scaling: Literal["float32", "uint16", "uint8"] = "float32"
    """How CT values are stored: attenuation in 1/cm, or scaled to integers as many beamlines do."""
    energy_kev: Annotated[float, Within(5, 200)] = 38.0
    """Photon energy of the scan."""
    tilt_deg: Annotated[float, Within(0, 45)] = 15.0
    """Largest tilt of a section against the volume's z axis, in degrees."""
    thickness_um: Annotated[tuple[float, float], Within(0, 1000, above=True)] = (10.0, 60.0)
    """Range of the thickness of ground sections in um."""
    mirror: bool = True
    """Half of the sections lie on the glass upside down."""
    shrinkage: bool = True
    """Sections shrink, about 7 % along and 4 % across the cut."""
    elastic: bool = True
    """Sections bend by 20-80 um when they are mounted."""
    damage: Annotated[float, Within(0, 1000)] = 1.0
    """Factor on how often folds, tears, missing pieces, bubbles, scratches and blur happen."""
    without: tuple[str, ...] = ()
    """Leave out dye grinding scratches folds tears missing bubbles focus illumination white_balance noise jpeg, all."""

    def __post_init__(self) -> None:
        check_numbers(self)


def phantom(out: Path, *, recipe: PhantomRecipe = PhantomRecipe()) -> Path:
    """Make a cohort of bone-implant specimens with CT, stained slides and their ground truth.

    Writes per specimen ct.ome.zarr, labels.ome.zarr, stain_truth.ome.zarr (the stain a perfect section would show at
    each voxel), slides/ (TIFF, true placement, damage mask, true registered picture) and truth.json (histomorphometry);
    then cohort.json. An interrupted run is continued: finished specimens of the same recipe are kept.

    Parameters
    ----------
    out
        Folder for the cohort.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ValueError
        ``out`` exists and is not an interrupted run of this command, or a setting is out of range.

    Example
    -------
    tomostain phantom cohort/ --specimens 16 --slides 4 --size 256 512 512 --seed 0
    """
    settings = _cohort(recipe)
    out = Path(out)
    with runs.output(out, "phantom", recipe=recipe, seed=recipe.seed, keep=True) as made:
        out.mkdir(exist_ok=True)
        manifest = write_cohort(out, settings)
        made.results |= {
            "specimens": len(manifest["specimens"]),
            "slides": sum(len(specimen["slides"]) for specimen in manifest["specimens"]),
        }
    return out


def _cohort(recipe: PhantomRecipe) -> CohortRecipe:
    check_names(recipe.without)
    low_um, high_um = recipe.thickness_um
    if low_um > high_um:
        raise ValueError(f"thickness_um must run from a smaller to a larger number, got {low_um:g} to {high_um:g}")
    if recipe.pixel_um > recipe.voxel_um:
        raise ValueError(f"pixel_um must be at most the voxel size {recipe.voxel_um:g}, got {recipe.pixel_um:g}")
    usual = CutRecipe()
    cut = CutRecipe(
        pixel_um=recipe.pixel_um,
        thickness_um=recipe.thickness_um,
        tilt_deg=recipe.tilt_deg,
        mirror=recipe.mirror,
        shrinkage=usual.shrinkage if recipe.shrinkage else (0.0, 0.0),
        elastic_um=usual.elastic_um if recipe.elastic else (0.0, 0.0),
    )
    return CohortRecipe(
        specimens=recipe.specimens,
        slides=recipe.slides,
        size=recipe.size,
        voxel_um=recipe.voxel_um,
        materials=recipe.materials,
        weeks=recipe.weeks,
        folds=recipe.folds,
        stain=recipe.stain,
        cut=cut,
        without=recipe.without,
        damage=recipe.damage,
        tomography=TomographyRecipe(energy_kev=recipe.energy_kev, scaling=recipe.scaling),
        seed=recipe.seed,
    )
