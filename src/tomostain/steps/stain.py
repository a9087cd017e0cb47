"""Step: stain a whole CT volume with a trained stainer, into OME-Zarr."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tomostain import runs
from tomostain._settings import VOXELS, Within, check_numbers
from tomostain.images.anchors import Anchors
from tomostain.images.checking import check_ct
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import AS_STATED, VolumeOptions
from tomostain.learning.stainer import ALL_SPECIMENS, Stainer, stainer_folder
from tomostain.staining.blocks import Axis, choose_cut
from tomostain.staining.checks import check_scale, scale_of
from tomostain.staining.prepare import Options
from tomostain.staining.run import journal_path
from tomostain.staining.volume import stain_volume


@Parameter(name="*")
@dataclass(frozen=True)
class StainRecipe:
    """How a volume is stained."""

    tile_px: Annotated[tuple[int, int] | None, Within(1, 2**20)] = None
    """Part of a plane (rows, columns) in the network at once; default: what the memory allows. Changes no voxel."""
    any_values: bool = False
    """Stain a volume whose grey values are not those that the stainer was trained on; such colours are not tested."""
    anchors: Annotated[tuple[float, float] | None, Within(-1e30, 1e30)] = None
    """Grey values of soft tissue and of bone in this volume; default: found, and used where its units are others."""
    any_scale: bool = False
    """Stain a volume whose voxel size is not the one the stainer was trained on; such colours are not tested."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto takes the GPUs where there are any."""
    roi: str | None = None
    """Region z0:z1,y0:y1,x0:x1 in voxels; an empty bound is the volume's border. Equals that part of the whole."""
    axis: Axis = "z"
    """Axis that runs through the planes that are stained."""
    every: Annotated[int, VOXELS] = 1
    """Stain only every n-th plane, for a first look."""
    resume: bool = False
    """Continue a run that was interrupted; the result is the same, chunk for chunk."""
    memory_gib: Annotated[float, Within(0, 2**20, above=True)] = 2.0
    """Most memory that the run may use; with more, tiles are larger and their halos cost less."""
    backend: str = "auto"
    """How the network is run (docs/staining.md); auto: the fastest whose colours are those of fp32."""
    skip_background: bool = False
    """Do not run air and empty resin through the network; the output records what was skipped."""
    trust: bool = False
    """Run a network from outside tomostain (package.module:Class), which the stainer names; only if you trust it."""
    cluster: str | None = None
    """Dask workers: local:N, tcp://scheduler:8786, or a slurm.yaml (docs/staining.md)."""
    reading: Annotated[VolumeOptions, Parameter(name="*")] = AS_STATED

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.anchors:
            Anchors(*self.anchors)


def stain(stainer: Path, volume: Path, out: Path, *, recipe: StainRecipe = StainRecipe()) -> Path:
    """Stain a whole CT volume and write it as OME-Zarr.

    Parameters
    ----------
    stainer
        Folder that `tomostain train` wrote, or phantom-toluidine-blue, which is shipped and was trained on phantoms.
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
        or the run to be resumed had other settings.
    OSError
        The volume cannot be read, or the disk is full; the run can be resumed.

    Example
    -------
    tomostain stain stainer/ ct.ome.zarr stained.ome.zarr
    tomostain stain phantom-toluidine-blue ct/ look.ome.zarr --spacing-um 5
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
    stainer, volume = stainer_folder(stainer), Path(volume)
    begun = journal_path(out).exists
    with runs.output(out, "stain", recipe=recipe, inputs=[stainer, volume], keep=begun) as made:
        _stain(stainer, volume, made, recipe)
    journal_path(out).unlink(missing_ok=True)
    return out


def _stain(stainer: Path, volume: Path, made: runs.Output, recipe: StainRecipe) -> None:
    """Write the stained volume."""
    model = Stainer.load(stainer, trust=recipe.trust).on(recipe.device)
    if not model.tile_exact:
        warnings.warn(
            "this stainer is not tile-exact (its normalisation depends on the tile): expect seams", stacklevel=2
        )
    ct = check_ct(read_volume(volume, **vars(recipe.reading)))
    if model.simulated == ALL_SPECIMENS and not ct.simulated:
        warnings.warn(
            f"this stainer was trained on phantoms only: its colours on {ct.name} are a first look, not a result. "
            "Fine-tune it on pairs of your own: tomostain train pairs/ mine/ --from phantom-toluidine-blue",
            stacklevel=2,
        )
    if not recipe.any_scale:
        check_scale(model, ct, recipe.axis)
    anchors = Anchors(*recipe.anchors) if recipe.anchors else None
    grey_map = scale_of(model, ct, anchors=anchors, any_values=recipe.any_values)
    ct = grey_map.of(ct)
    made.results["grey_map"] = grey_map.to_json() if grey_map else None
    depth, rows, columns = ct.shape
    cut = choose_cut((depth, rows, columns), roi=recipe.roi, axis=recipe.axis, every=recipe.every)
    options = Options(**{field.name: getattr(recipe, field.name) for field in fields(Options)})
    made.results |= stain_volume(model, stainer, ct, cut, made.path, options=options, clear=made.clear)
