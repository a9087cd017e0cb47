"""Write a cohort: a recipe and a seed in; per specimen its CT, labels, stain truth, slides and measured truth out.

A specimen is streamed slab by slab. Its ``truth.json`` is written last: a folder without one is not a specimen, and one
that was made from the same recipe is kept when a broken run is started again.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from PIL import Image

from tomostain._imports import pick
from tomostain._settings import SEED, Within, check_numbers
from tomostain.images.geometry import Grid
from tomostain.images.simulated import SIMULATED
from tomostain.io.ome_zarr import create_volume
from tomostain.io.writers.pyramidal_tiff import write_slide
from tomostain.phantom.anatomy import Anatomy, make_anatomy
from tomostain.phantom.colours import STAINS, Stain, palette, voxel_colours
from tomostain.phantom.damage import check_names, damage_slide
from tomostain.phantom.deformation import CutRecipe, draw_placement
from tomostain.phantom.manifest import FILE
from tomostain.phantom.morphometry import Morphometer
from tomostain.phantom.recipe import AnatomyRecipe, Material
from tomostain.phantom.sectioning import cut_section, on_slide
from tomostain.phantom.tomography import Tomograph, TomographyRecipe, majority, slabs
from tomostain.runs import progress, write_text_atomically

_USUAL_CUT, _USUAL_SCAN = CutRecipe(), TomographyRecipe()
SLAB = 64
"""Planes that are made and written at once: one shard of the files."""


@Parameter(name="*")
@dataclass(frozen=True)
class PhantomRecipe:
    """How many specimens of what, how they are scanned, cut and damaged."""

    specimens: Annotated[int, Within(1, 10_000)] = 4
    """Specimens; implant material and weeks in vivo go round in turn."""
    slides: Annotated[int, Within(0, 1000)] = 2
    """Slides per specimen, spread over its height."""
    size: Annotated[tuple[int, int, int], Within(1, 2**16)] = (128, 256, 256)
    """Voxels z y x of a specimen."""
    seed: Annotated[int, SEED] = 0
    """The same seed gives the same bytes."""
    voxel_um: Annotated[float, Within(0.1, 100)] = 5.0
    """Edge of a voxel in um; 5 is usual for synchrotron micro-CT of bone implants."""
    materials: tuple[Material, ...] = ("Mg-5Gd", "Mg-10Gd", "Ti", "PEEK")
    """Implant materials to go round."""
    weeks: Annotated[tuple[float, ...], Within(0, 1000)] = (4.0, 8.0, 12.0)
    """Weeks in vivo to go round."""
    folds: Annotated[int, Within(1, 10_000)] = 4
    """Groups of specimens of which one at a time is left out in training."""
    stain: str = "toluidine blue"
    """Stain of the slides: toluidine blue, H&E, or package.module:name of your own."""
    damage: Annotated[float, Within(0, 1000)] = 1.0
    """Factor on how often folds, tears, missing pieces, bubbles, scratches and blur happen."""
    without: tuple[str, ...] = ()
    """Leave out dye grinding scratches folds tears missing bubbles focus illumination white_balance noise jpeg, all."""
    cut: Annotated[CutRecipe, Parameter(name="*")] = _USUAL_CUT
    tomography: Annotated[TomographyRecipe, Parameter(name="*")] = _USUAL_SCAN

    def __post_init__(self) -> None:
        check_numbers(self)
        check_names(self.without)
        if not self.materials or not self.weeks:
            raise ValueError("a cohort needs at least one material and one number of weeks")
        if self.cut.pixel_um > self.voxel_um:
            raise ValueError(f"pixel_um must be at most the voxel size {self.voxel_um:g}, got {self.cut.pixel_um:g}")
        if min(Grid(self.size, (self.voxel_um,) * 3).extent_um) < 60:
            raise ValueError(
                f"{self.size} voxels of {self.voxel_um:g} um hold no tissue; make every edge 60 um or more"
            )
        find_stain(self.stain)


@dataclass(frozen=True)
class CohortRecipe(PhantomRecipe):
    """What a cohort is made of, its tissues too. Dose and fractions of tissues vary from specimen to specimen."""

    anatomy: AnatomyRecipe = field(default_factory=AnatomyRecipe)
    """What all specimens share; material, weeks and some fractions vary."""


@dataclass(frozen=True)
class SpecimenPlan:
    """One specimen before it is made."""

    name: str
    index: int
    fold: int
    anatomy: AnatomyRecipe
    tomography: TomographyRecipe
    slides: int
    grid: Grid
    stain: str
    cut: CutRecipe
    without: tuple[str, ...]
    damage: float
    seed: int


def plan_cohort(recipe: CohortRecipe) -> list[SpecimenPlan]:
    """What each specimen of a cohort will be.

    Materials go round in turn, weeks after each round of materials, and folds are shifted by one after each round, so
    that every fold holds every material.
    """
    materials, grid = recipe.materials, Grid(recipe.size, (recipe.voxel_um,) * 3)
    plans = []
    for index in range(recipe.specimens):
        round_ = index // len(materials)
        rng = np.random.default_rng([recipe.seed, index, 0])
        anatomy = dataclasses.replace(
            recipe.anatomy,
            material=materials[index % len(materials)],
            weeks=float(recipe.weeks[round_ % len(recipe.weeks)]),
            trabecular_fraction=min(recipe.anatomy.trabecular_fraction * float(rng.uniform(0.8, 1.2)), 0.6),
            woven_fraction=min(recipe.anatomy.woven_fraction * float(rng.uniform(0.85, 1.15)), 1.0),
            adipocyte_fraction=min(recipe.anatomy.adipocyte_fraction * float(rng.uniform(0.7, 1.3)), 1.0),
            fibrous_fraction=min(recipe.anatomy.fibrous_fraction * float(rng.uniform(0.5, 1.5)), 1.0),
        )
        tomography = dataclasses.replace(
            recipe.tomography, photons=recipe.tomography.photons * float(rng.uniform(0.8, 1.25))
        )
        plans.append(
            SpecimenPlan(
                name=f"S{index:02d}",
                index=index,
                fold=(index + round_) % recipe.folds,
                anatomy=anatomy,
                tomography=tomography,
                slides=recipe.slides,
                grid=grid,
                stain=recipe.stain,
                cut=recipe.cut,
                without=recipe.without,
                damage=recipe.damage,
                seed=recipe.seed,
            )
        )
    return plans


def write_cohort(out: Path, recipe: CohortRecipe) -> dict[str, Any]:
    """Write all specimens of ``recipe`` into ``out`` and ``cohort.json`` last; return what that holds.

    Specimens that are already whole and made from the same recipe are kept.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    specimens = [_entry(write_specimen(out, plan), plan) for plan in plan_cohort(recipe)]
    manifest = {
        "format": "tomostain-cohort",
        "version": 1,
        "seed": recipe.seed,
        "stain": find_stain(recipe.stain).name,
        "specimens": specimens,
    }
    write_text_atomically(out / FILE, json.dumps(manifest, indent=1) + "\n")
    return manifest


def write_specimen(out: Path, plan: SpecimenPlan) -> dict[str, Any]:
    """Write one specimen into ``out / plan.name``, unless it is there; return its ``truth.json``."""
    folder, made_from = Path(out) / plan.name, json.loads(json.dumps(dataclasses.asdict(plan)))
    kept = _whole(folder, made_from)
    if kept is not None:
        return kept
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "slides").mkdir(parents=True)
    anatomy = make_anatomy(plan.anatomy, plan.grid, _seed(plan, 1))
    measured = _write_volumes(folder, plan, anatomy)
    slides = [
        _write_slide(folder, plan, anatomy, number)
        for number in progress(range(plan.slides), desc=f"{plan.name} slides", unit="slide")
    ]
    truth = {"format": "tomostain-truth", "made_from": made_from, "morphometry": measured, "slides": slides}
    write_text_atomically(folder / "truth.json", json.dumps(truth, indent=1) + "\n")
    return truth


def _write_volumes(folder: Path, plan: SpecimenPlan, anatomy: Anatomy) -> dict[str, Any]:
    """Scan, label and colour the volume in one pass over its slabs; return the morphometry."""
    stain, grid = find_stain(plan.stain), plan.grid
    tomograph = Tomograph(plan.tomography, grid, _seed(plan, 2), plan.anatomy.material)
    light, measured = palette(stain, plan.anatomy.material), Morphometer(grid)
    mark: dict[str, Any] = {"simulated": SIMULATED}
    with (
        create_volume(
            folder / "ct.ome.zarr", grid, dtype=tomograph.dtype, attributes=mark | tomograph.attributes
        ) as ct,
        create_volume(folder / "labels.ome.zarr", grid, reduce="nearest", attributes=mark) as labels,
        create_volume(folder / "stain_truth.ome.zarr", grid, colours=3, stain=stain.name, attributes=mark) as truth,
    ):
        steps = progress(
            slabs(anatomy, grid, SLAB), total=-(-grid.shape[0] // SLAB), desc=f"{plan.name} volume", unit="slab"
        )
        for first, labels2x in steps:
            planes = slice(first, first + labels2x.shape[0] // 2)
            tissue = majority(labels2x)
            measured.add(tissue)
            for columns in _shards(grid.shape, labels.shard):
                labels[planes, *columns] = tissue[:, *columns]
                fine = tuple(slice(2 * part.start, 2 * part.stop) for part in columns)
                truth[planes, *columns] = voxel_colours(labels2x[:, *fine], light)
            scanned = tomograph.scan(labels2x, first)
            for columns in _shards(grid.shape, ct.shard):
                ct[planes, *columns] = scanned[:, *columns]
    return measured.result()


def _write_slide(folder: Path, plan: SpecimenPlan, anatomy: Anatomy, number: int) -> dict[str, Any]:
    """Cut, mount, damage and scan one slide; return its entry, file names relative to the specimen."""
    stain, cut, name = find_stain(plan.stain), plan.cut, f"slide_{number}"
    depth = (0.05 + 0.9 * number / plan.slides, 0.05 + 0.9 * (number + 1) / plan.slides)
    placement = draw_placement(plan.grid, cut, np.random.default_rng([plan.seed, plan.index, 3, number]), depth=depth)
    section = cut_section(
        anatomy,
        plan.grid,
        placement,
        voxel_um=plan.grid.spacing_um[0],
        pixel_um=cut.pixel_um,
        stain=stain,
        material=plan.anatomy.material,
        seed=(plan.seed, plan.index, 5, number),
    )
    damaged = damage_slide(
        on_slide(section, placement),
        pixel_um=cut.pixel_um,
        seed=(plan.seed, plan.index, 4, number),
        without=plan.without,
        amount=plan.damage,
    )
    slide_path = folder / "slides" / f"{name}.tif"
    settings: dict[str, Any] = {"pixel_um": cut.pixel_um, "jpeg_quality": damaged.jpeg_quality}
    write_slide(slide_path, damaged.rgb, description=SIMULATED, **settings)
    placement.save(slide_path.with_name(f"{name}.placement.json"))
    Image.fromarray(damaged.lost.astype(np.uint8) * 255).save(slide_path.with_name(f"{name}.damage.png"))
    Image.fromarray(section.registered()).save(slide_path.with_name(f"{name}.registered.png"))
    return {
        "name": name,
        "slide": f"slides/{name}.tif",
        "placement": f"slides/{name}.placement.json",
        "damage": f"slides/{name}.damage.png",
        "damaged_fraction": float(damaged.lost.mean()),
        "registered": f"slides/{name}.registered.png",
        "registered_plane": section.coarse.to_json(),
        "thickness_um": placement.thickness_um,
    }


def _entry(truth: dict[str, Any], plan: SpecimenPlan) -> dict[str, Any]:
    """A specimen's part of ``cohort.json``, paths relative to the cohort."""
    files = ("slide", "placement", "damage", "registered")
    slides = [s | {key: f"{plan.name}/{s[key]}" for key in files} for s in truth["slides"]]
    return {
        "name": plan.name,
        "folder": plan.name,
        "material": plan.anatomy.material,
        "weeks": plan.anatomy.weeks,
        "fold": plan.fold,
        "ct": f"{plan.name}/ct.ome.zarr",
        "labels": f"{plan.name}/labels.ome.zarr",
        "stain_truth": f"{plan.name}/stain_truth.ome.zarr",
        "truth": f"{plan.name}/truth.json",
        "slides": slides,
    }


def _whole(folder: Path, made_from: dict[str, Any]) -> dict[str, Any] | None:
    """The truth of a specimen that is whole and was made from this, None otherwise."""
    path = folder / "truth.json"
    if not path.is_file():
        return None
    truth: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return truth if truth.get("made_from") == made_from else None


def find_stain(name: str) -> Stain:
    """The stain of this name in ``STAINS``, or the one that ``"package.module:name"`` is.

    Raises
    ------
    ValueError
        There is none; the message suggests the nearest known name.
    """
    stain = pick(name, STAINS)
    if not isinstance(stain, Stain):
        raise ValueError(f"{name!r} is not a stain but {type(stain).__name__}")
    return stain


def _seed(plan: SpecimenPlan, purpose: int) -> int:
    return int(np.random.SeedSequence([plan.seed, plan.index, purpose]).generate_state(1)[0])


def _shards(shape: tuple[int, ...], shard: tuple[int, int, int]) -> Iterator[tuple[slice, slice]]:
    """Windows (y, x) that cover a plane, one file of the volume each."""
    for y in range(0, shape[1], shard[1]):
        for x in range(0, shape[2], shard[2]):
            yield slice(y, min(y + shard[1], shape[1])), slice(x, min(x + shard[2], shape[2]))
