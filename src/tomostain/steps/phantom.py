"""Step: make a cohort of specimens whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import Parameter

from tomostain import runs
from tomostain.phantom.cohort import CohortRecipe, write_cohort
from tomostain.phantom.damage import check_names
from tomostain.phantom.deformation import CutRecipe
from tomostain.phantom.recipe import Material
from tomostain.phantom.tomography import TomographyRecipe


@Parameter(name="*")
@dataclass(frozen=True)
class PhantomRecipe:
    """How many specimens of what, how they are scanned, cut and damaged."""

    specimens: int = 4
    """Specimens; implant material and weeks in vivo go round in turn."""
    slides: int = 2
    """Slides per specimen, spread over its height."""
    size: tuple[int, int, int] = (128, 256, 256)
    """Voxels z y x of a specimen."""
    seed: int = 0
    """The same seed gives the same bytes."""
    voxel_um: float = 5.0
    """Edge of a voxel in um; 5 is usual for synchrotron micro-CT of bone implants."""
    pixel_um: float = 1.0
    """Pixel of the slides in um; 0.5-1 is a slide scanner."""
    materials: tuple[Material, ...] = ("Mg-5Gd", "Mg-10Gd", "Ti", "PEEK")
    """Implant materials to go round."""
    weeks: tuple[float, ...] = (4.0, 8.0, 12.0)
    """Weeks in vivo to go round."""
    folds: int = 4
    """Groups of specimens of which one at a time is left out in training."""
    stain: str = "toluidine blue"
    """Stain of the slides: toluidine blue, H&E, or package.module:name of your own."""
    scaling: Literal["float32", "uint16", "uint8"] = "float32"
    """How CT values are stored: attenuation in 1/cm, or scaled to integers as many beamlines do."""
    energy_kev: float = 38.0
    """Photon energy of the scan."""
    tilt_deg: float = 15.0
    """Largest tilt of a section against the volume's z axis, in degrees."""
    thickness_um: tuple[float, float] = (10.0, 60.0)
    """Range of the thickness of ground sections in um."""
    mirror: bool = True
    """Half of the sections lie on the glass upside down."""
    shrinkage: bool = True
    """Sections shrink, about 7 % along and 4 % across the cut."""
    elastic: bool = True
    """Sections bend by 20-80 um when they are mounted."""
    damage: float = 1.0
    """Factor on how often folds, tears, missing pieces, bubbles, scratches and blur happen."""
    without: tuple[str, ...] = ()
    """Leave out dye grinding scratches folds tears missing bubbles focus illumination white_balance noise jpeg, all."""


def phantom(out: Path, *, recipe: PhantomRecipe = PhantomRecipe()) -> Path:
    """Make a cohort of bone-implant specimens with CT, stained slides and everything that is true about them.

    Writes per specimen ct.ome.zarr, labels.ome.zarr, stain_truth.ome.zarr (the stain a perfect section would show at
    each voxel), slides/ (TIFF, true placement, damage mask, true registered picture) and truth.json (histomorphometry);
    then cohort.json. A run that was broken off is continued: whole specimens of the same recipe are kept.

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
        ``out`` exists and is no broken run of this command, or a setting is out of range.

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
    if not 0 < low_um <= high_um:
        raise ValueError(
            f"thickness_um must run from a positive to a larger number, not from {low_um:g} to {high_um:g}"
        )
    if not 0 <= recipe.tilt_deg <= 45:
        raise ValueError(f"tilt_deg must lie between 0 and 45, not at {recipe.tilt_deg:g}")
    if not 0.1 <= recipe.pixel_um <= recipe.voxel_um:
        raise ValueError(
            f"pixel_um must lie between 0.1 and the voxel size {recipe.voxel_um:g}, not at {recipe.pixel_um:g}"
        )
    if not 0 <= recipe.damage < float("inf"):
        raise ValueError(f"damage is a factor and cannot be {recipe.damage:g}")
    if not 5 <= recipe.energy_kev <= 200:
        raise ValueError(f"energy_kev must lie between 5 and 200, not at {recipe.energy_kev:g}")
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
