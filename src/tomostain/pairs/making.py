"""From the files of one pair and its recipe to a Pair."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tomostain.images.anchors import Anchors, anchors_of, find_anchors
from tomostain.images.checking import check_ct
from tomostain.images.geometry import Grid, Placement
from tomostain.images.image import warn_if_grey
from tomostain.io.planes import read_plane
from tomostain.io.slides import read_mask, read_picture, read_slide
from tomostain.io.volumes import read_volume
from tomostain.pairs.pair import Pair, make_pair
from tomostain.pairs.recipe import USUAL_PLANES, PairRecipe
from tomostain.pairs.truth import TruthFiles, with_truth


def make(volume: Path, slide: Path, name: str, recipe: PairRecipe, *, truth: TruthFiles | None = None) -> Pair:
    """Read a volume and a slide and make the pair that a recipe describes; ``truth`` is what a phantom knows of it.

    Raises
    ------
    ValueError, FileNotFoundError
        A required setting is missing, or a file cannot be used; the message names it.
    """
    if faults := missing(recipe):
        raise ValueError(f"pair {name}: {'; '.join(faults)}")
    if recipe.aligned:
        return _aligned(volume, slide, name, recipe)
    assert recipe.placement is not None  # `missing` has looked
    placement = Placement.load(recipe.placement)
    if is_unchecked(placement, recipe):
        raise ValueError(unchecked(slide.name, placement))
    if recipe.checked:
        placement = dataclasses.replace(placement, notes=placement.notes | {"check": False})
    ct = check_ct(read_volume(volume, **vars(recipe.reading)))
    made = make_pair(
        ct,
        read_slide(slide, pixel_um=recipe.slide_um),
        placement,
        specimen=recipe.specimen,
        name=name,
        planes=recipe.planes or USUAL_PLANES,
        exclude=read_mask(recipe.exclude) if recipe.exclude else None,
        stain_name=recipe.stain,
    )
    warn_if_grey(slide.name, made.stain[made.mask])
    made = dataclasses.replace(made, anchors=_given(recipe) or anchors_of(ct))
    return made if truth is None else with_truth(made, truth)


def missing(recipe: PairRecipe) -> list[str]:
    """What is missing to make a pair, as messages for users of tables and of commands."""
    faults = []
    if not recipe.specimen:
        faults.append("no specimen is named (--specimen NAME); it keeps one animal out of both training and evaluation")
    if recipe.aligned and recipe.slide_um is None:
        faults.append("aligned images do not state their pixel size; fill in slide_um (--slide-um)")
    if not recipe.aligned and recipe.placement is None:
        faults.append(
            "there is no placement (--placement FILE); `tomostain register` writes one, or say that the two images "
            "are aligned (--aligned)"
        )
    return faults


def is_unchecked(placement: Placement, recipe: PairRecipe) -> bool:
    """Whether a placement is to be checked by eye, and nobody says that it was."""
    return bool(placement.notes.get("check")) and not recipe.checked


def unchecked(slide: str, placement: Placement, way: str = "pass --checked") -> str:
    """What to do about a slide whose placement is to be checked by eye."""
    return (
        f"the placement of {slide} is to be checked by eye (probability {placement.notes.get('probability', 0):.0%}, "
        f"expected error {placement.expected_tre_um or float('nan'):.0f} um): "
        f"look at its page; if the structures match {way}, if not register it again with --landmarks"
    )


def _given(recipe: PairRecipe) -> tuple[Anchors, ...]:
    return (Anchors(*recipe.anchors),) if recipe.anchors else ()


def _aligned(ct_file: Path, stain_file: Path, name: str, recipe: PairRecipe) -> Pair:
    assert recipe.slide_um is not None  # `missing` has looked
    plane = read_plane(ct_file, (recipe.slide_um, recipe.slide_um), recipe.reading)
    ct, stain = plane[0], read_picture(stain_file)
    if ct.shape != stain.shape[:2]:
        raise ValueError(
            f"aligned images must have one shape: {ct_file.name} is {ct.shape}, {stain_file.name} {stain.shape[:2]}"
        )
    confidence = np.ones(ct.shape, dtype=np.float32)
    if recipe.exclude:
        left_out = read_mask(recipe.exclude)
        if left_out.shape != ct.shape:
            raise ValueError(f"{recipe.exclude.name} is {left_out.shape}, the images it belongs to are {ct.shape}")
        confidence[left_out > 0] = 0.0
    if not np.isfinite(ct).all():
        raise ValueError(f"{ct_file.name} has NaN or infinite values; pass --fill VALUE (that of air)")
    warn_if_grey(stain_file.name, stain)
    return Pair(
        ct=ct[None].astype(np.float32),
        stain=stain,
        mask=confidence > 0,
        confidence=confidence,
        grid=Grid(ct.shape, (recipe.slide_um, recipe.slide_um)),
        specimen=recipe.specimen,
        name=name,
        stain_name=recipe.stain,
        anchors=_given(recipe) or find_anchors([ct]),
    )
