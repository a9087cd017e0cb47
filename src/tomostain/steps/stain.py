"""Step: stain a whole CT volume with a trained stainer, into OME-Zarr."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy.typing as npt
from cyclopts import Parameter

from tomostain import runs
from tomostain._settings import VOXELS, Within, check_numbers
from tomostain.images.checking import check_ct
from tomostain.images.grey_values import GreyValues
from tomostain.images.image import Volume
from tomostain.images.intensity import sample_of
from tomostain.inference.backends import BACKENDS
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import AS_STATED, VolumeOptions
from tomostain.learning.stainer import Stainer
from tomostain.staining.blocks import Axis, choose_cut
from tomostain.staining.cluster import Job, processes_of, stain_on_cluster, threads_of, workers_of
from tomostain.staining.journal import Journal
from tomostain.staining.local import stain_here
from tomostain.staining.memory import give_back_freed
from tomostain.staining.prepare import Options, Settings, identity, predictors_of, settle, settled_before
from tomostain.staining.run import Run, begin, go_on, journal_path
from tomostain.staining.work import Work

_WORTH_SAYING = 0.01
"""Share of voxels outside the training's grey values from which on it is said."""
SCALE_TOLERANCE = 0.05
"""Share by which the volume's voxel size may differ from the one the stainer was trained on."""


@Parameter(name="*")
@dataclass(frozen=True)
class StainRecipe:
    """How a volume is stained."""

    tile_px: Annotated[tuple[int, int] | None, Within(1, 2**20)] = None
    """Piece of a plane (rows, columns) in the network at once; default: what the memory allows. Changes no voxel."""
    any_values: bool = False
    """Stain a volume whose grey values are not those that the stainer was trained on; the colours are then a guess."""
    any_scale: bool = False
    """Stain a volume whose voxel size is not the one the stainer was trained on; the colours are then a guess."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto takes the GPUs where there are any."""
    roi: str | None = None
    """Region z0:z1,y0:y1,x0:x1 in voxels; an empty bound is the volume's border. Equals that cut of the whole."""
    axis: Axis = "z"
    """Axis that runs through the planes that are painted."""
    every: Annotated[int, VOXELS] = 1
    """Paint only each so-many-th plane, for a first look."""
    resume: bool = False
    """Go on with a run that was broken off; the result is the same, chunk for chunk."""
    memory_gib: Annotated[float, Within(0, 2**20, above=True)] = 2.0
    """Most memory the run may take; with more, tiles are larger and their halos cost less."""
    backend: str = "auto"
    """How the network is run (docs/staining.md); auto: the fastest that keeps to the fp32 result."""
    skip_background: bool = False
    """Do not paint air and empty resin through the network; the output says what was skipped."""
    trust: bool = False
    """Run a network from outside tomostain (package.module:Class), which the stainer names; only if you trust it."""
    cluster: str | None = None
    """Dask workers: local:N, tcp://scheduler:8786, or a slurm.yaml (docs/staining.md)."""
    reading: Annotated[VolumeOptions, Parameter(name="*")] = AS_STATED

    def __post_init__(self) -> None:
        check_numbers(self)


def stain(stainer: Path, volume: Path, out: Path, *, recipe: StainRecipe = StainRecipe()) -> Path:
    """Stain a whole CT volume and write it as OME-Zarr.

    Parameters
    ----------
    stainer
        Folder that `tomostain train` wrote.
    volume
        CT volume: OME-Zarr, TIFF, HDF5, NRRD, MHA, NIfTI, Scanco, raw, a folder of slices ... (docs/formats.md);
        FILE::/entry/data chooses inside it.
    out
        The stained volume to be written, NAME.ome.zarr: uint8 sRGB, c z y x, with its pyramid.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ValueError
        Stainer or volume cannot be used, the volume's voxel size is not the stainer's, the run does not fit the memory,
        or a run to be resumed was another one.
    OSError
        The volume cannot be read, or the disk is full; the run can be resumed.

    Example
    -------
    tomostain stain stainer/ ct.ome.zarr stained.ome.zarr
    tomostain stain stainer/ slices/ stained.ome.zarr --spacing-um 5 5 5
    tomostain stain stainer/ scan.raw stained.ome.zarr --shape 900 1024 1024 --dtype uint16 --spacing-um 5 5 5
    tomostain stain stainer/ ct.ome.zarr look.ome.zarr --roi 0:200,:,: --every 10
    tomostain stain stainer/ ct.ome.zarr stained.ome.zarr --resume
    """
    out = Path(out)
    if recipe.resume and runs.is_complete(out):
        journal_path(out).unlink(missing_ok=True)
        runs.say(f"{out} is finished; there is nothing to resume")
        return out
    stainer, volume = Path(stainer), Path(volume)
    begun = journal_path(out).exists
    with runs.output(out, "stain", recipe=recipe, inputs=[stainer, volume], keep=begun) as made:
        _stain(stainer, volume, made, recipe)
    journal_path(out).unlink(missing_ok=True)
    return out


def _stain(stainer: Path, volume: Path, made: runs.Output, recipe: StainRecipe) -> None:
    """Write the stained volume."""
    out = made.path
    model = Stainer.load(stainer, trust=recipe.trust)
    ct = check_ct(read_volume(volume, **vars(recipe.reading)))
    if not recipe.any_scale:
        check_scale(model, ct, recipe.axis)
    values = sample_of(ct)
    model.check_values(GreyValues.of(values), ct.name, any_values=recipe.any_values)
    _warn_out_of_range(model, values, ct.name)
    if not model.tile_exact:
        warnings.warn("this stainer is not tile-exact (its normalisation sees the tile): expect seams", stacklevel=2)
    model = model.on(recipe.device)
    depth, rows, columns = ct.shape
    cut = choose_cut((depth, rows, columns), roi=recipe.roi, axis=recipe.axis, every=recipe.every)
    options = Options(
        recipe.backend,
        recipe.tile_px,
        recipe.memory_gib,
        recipe.skip_background,
        workers=workers_of(recipe.cluster),
        processes=processes_of(recipe.cluster),
    )
    found = identity(model, ct, cut, options)
    journal = _journal_to_resume(out, resume=recipe.resume)
    if journal is None:
        settled = settle(model, ct, cut, options)
        made.clear()
        writer, journal = begin(out, settled.plan, {"identity": found, **settled.to_json()})
    else:
        try:
            settled = settled_before(model, cut, journal.head, found, options)
        except ValueError:
            journal.close()
            raise
        writer = go_on(out, settled.plan)
    _tell(settled, ct)
    work = Work(ct, settled.plan, writer, settled.background, batch=BACKENDS[settled.backend].batch)
    with Run(settled.plan, writer, journal) as run:
        if recipe.cluster:
            device, threads = model.device.type, threads_of(recipe.cluster)
            job = Job(work, Path(stainer), model.sha256, settled.backend, device, threads, recipe.trust)
            stain_on_cluster(job, run, recipe.cluster)
        else:
            predictors = predictors_of(model, ct, settled)
            give_back_freed()
            stain_here(work, run, predictors)
        results = _results(settled, run, journal.head)
    about: dict[str, Any] = {"stainer_sha256": model.sha256, "ct": ct.name, "backend": settled.backend}
    simulated = simulated_parts(model, ct)
    if simulated:
        about["simulated"] = results["simulated"] = simulated
    if settled.background is not None:
        about["background"] = {**settled.background.to_json(), "tiles_skipped": run.facts.skipped}
    writer.declare(cut.grid(ct.grid), stain=model.stain, attributes=about)
    made.results |= results


def simulated_parts(model: Stainer, ct: Volume) -> str | None:
    """What of a stained volume comes from the phantom and not from a real specimen, in words."""
    parts = [f"the CT ({ct.simulated})"] if ct.simulated else []
    parts += [f"{model.simulated} that the stainer was trained on"] if model.simulated else []
    return " and ".join(parts) or None


def _journal_to_resume(out: Path, *, resume: bool) -> Journal | None:
    """The journal of an unfinished run that is to go on; None where the run begins.

    Raises
    ------
    ValueError
        There is an unfinished run that is not to be resumed.
    """
    journal = Journal.resume(journal_path(out))
    if journal is not None and not resume:
        journal.close()
        raise ValueError(f"{out} holds an unfinished staining; continue it with --resume, or remove it first")
    return journal


def _tell(settled: Settings, ct: Volume) -> None:
    """Say on stderr what was settled, before the first block."""
    for trial in settled.trials:
        runs.say(f"backend {trial}")
    plan = settled.plan
    cost = plan.network_px() / plan.stained_px
    runs.say(
        f"{ct.name}: {plan.stained_px / 1e6:.1f} Mvoxel in {len(plan.blocks())} blocks, tiles of {plan.tile_px[0]} x "
        f"{plan.tile_px[1]} px, halos cost {cost:.2f} x, backend {settled.backend}"
    )
    if settled.memory is not None:
        runs.say(f"predicted peak memory: {settled.memory}")


def check_scale(model: Stainer, ct: Volume, axis: Axis) -> None:
    """Compare the pixels of the planes that are stained with those of the training; warn of planes farther apart.

    Raises
    ------
    ValueError
        They differ by more than ``SCALE_TOLERANCE``.
    """
    through = "zyx".index(axis)
    apart = ct.grid.spacing_um[through]
    in_plane = [edge for i, edge in enumerate(ct.grid.spacing_um) if i != through]
    if max(abs(edge / model.um_per_px - 1) for edge in in_plane) > SCALE_TOLERANCE:
        raise ValueError(
            f"the planes of {ct.name} across {axis} have pixels of {in_plane[0]:g} x {in_plane[1]:g} um, "
            f"the stainer was trained on {model.um_per_px:g} um; resample the volume, or pass "
            "--any-scale to accept colours that have not been tested"
        )
    if abs(apart / model.um_per_px - 1) <= SCALE_TOLERANCE:
        return
    if model.planes > 1:
        raise ValueError(
            f"the planes of {ct.name} lie {apart:g} um apart along {axis}, and the stainer sees {model.planes} planes "
            f"{model.um_per_px:g} um apart at once; resample the volume, or pass --any-scale to accept colours that "
            "have not been tested"
        )
    runs.say(
        f"{ct.name}: planes are {apart:g} um apart along {axis}, their pixels {in_plane[0]:g} x {in_plane[1]:g} um; "
        "each plane is stained by itself"
    )


def _results(settled: Settings, run: Run, head: Mapping[str, Any]) -> dict[str, Any]:
    facts = run.facts
    return {
        "ct_min": facts.ct_min,
        "ct_max": facts.ct_max,
        "backend": settled.backend,
        "self_test": head["trials"],
        "tile_px": settled.plan.tile_px,
        "network_px_per_voxel": settled.plan.network_px() / settled.plan.stained_px,
        "tiles": facts.tiles,
        "tiles_constant": facts.constant,
        "tiles_skipped": facts.skipped,
        "background": None if settled.background is None else settled.background.to_json(),
    }


def _warn_out_of_range(model: Stainer, values: npt.NDArray[Any], name: str) -> None:
    """Say how much of the volume has values that no training pixel had, before it is stained."""
    share = model.ct_range.outside(values)
    low, high = model.ct_range.seen_low, model.ct_range.seen_high
    if share > _WORTH_SAYING and low is not None and high is not None:
        warnings.warn(
            f"{share:.1%} of the voxels of {name} are outside the grey values met in training, {low:g} to {high:g}; "
            "the colours there have not been tested",
            stacklevel=3,
        )
