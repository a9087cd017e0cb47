"""Step: make a cohort of specimens whose truth is known."""

from __future__ import annotations

from pathlib import Path

from tomostain import runs
from tomostain.phantom.cohort import CohortRecipe, PhantomRecipe, write_cohort

__all__ = ["PhantomRecipe", "phantom"]


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
    out = Path(out)
    with runs.output(out, "phantom", recipe=recipe, seed=recipe.seed, keep=True) as made:
        out.mkdir(exist_ok=True)
        manifest = write_cohort(out, CohortRecipe(**vars(recipe)))
        made.results |= {
            "specimens": len(manifest["specimens"]),
            "slides": sum(len(specimen["slides"]) for specimen in manifest["specimens"]),
        }
    return out
