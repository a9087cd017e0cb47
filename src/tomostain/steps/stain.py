"""Step: stain a whole CT volume with a trained stainer, into OME-Zarr."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tomostain import runs
from tomostain.images import check_ct, read_volume
from tomostain.images.ome_zarr import create_volume
from tomostain.learning.stainer import Stainer
from tomostain.staining.blocks import plan_blocks
from tomostain.staining.local import stain_volume

SCALE_TOLERANCE = 0.05
"""Share by which the volume's voxel size may differ from the one the stainer was trained on."""


@dataclass(frozen=True)
class StainRecipe:
    """How a volume is stained."""

    tile_px: tuple[int, int] | None = None
    """Piece of a plane (y, x) in the network at once; default: 512 x 512. Never changes the result."""
    spacing_um: tuple[float, float, float] | None = None
    """Voxel size z y x in um, where the volume does not state it."""
    shape: tuple[int, int, int] | None = None
    """Voxels z y x of a volume of raw values."""
    dtype: str | None = None
    """Type of a volume's raw values: uint8, uint16, int16, float32; big-endian as uint16be."""
    offset: int = 0
    """Bytes before the first of a volume's raw values."""
    any_scale: bool = False
    """Stain a volume whose voxel size is not the one the stainer was trained on; the colours are then a guess."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto takes a GPU where there is one."""


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
        Stainer or volume cannot be used, or the volume's voxel size is not the stainer's.

    Example
    -------
    tomostain stain stainer/ ct.ome.zarr stained.ome.zarr
    tomostain stain stainer/ slices/ stained.ome.zarr --spacing-um 5 5 5
    tomostain stain stainer/ scan.raw stained.ome.zarr --shape 900 1024 1024 --dtype uint16 --spacing-um 5 5 5
    """
    out = Path(out)
    model = Stainer.load(stainer)
    ct = check_ct(
        read_volume(volume, spacing_um=recipe.spacing_um, shape=recipe.shape, dtype=recipe.dtype, offset=recipe.offset)
    )
    worst = max(abs(edge / model.um_per_px - 1) for edge in ct.grid.spacing_um)
    if worst > SCALE_TOLERANCE and not recipe.any_scale:
        raise ValueError(
            f"{ct.name} has voxels of {ct.grid.spacing_um} um but the stainer learnt at {model.um_per_px:g} um; "
            "resample the volume, or pass --any-scale if you accept colours that nothing vouches for"
        )
    if not model.tile_exact:
        warnings.warn("this stainer is not tile-exact (its normalisation sees the tile): expect seams", stacklevel=2)
    model = model.on(recipe.device)
    z, y, x = ct.shape
    plan = plan_blocks(
        (z, y, x), halo_px=model.halo_px, stride_px=model.stride_px, planes=model.planes, tile_px=recipe.tile_px
    )
    runs.check_new(out)
    about = {"stainer_sha256": runs.fingerprint(Path(stainer) / "weights.safetensors"), "ct": ct.name}
    with create_volume(out, ct.grid, colours=3, stain=model.stain, attributes=about) as painted:
        met = stain_volume(model.paint_rgb, ct, plan, painted)
    _warn_out_of_range(model, met)
    return runs.record(out, "stain", recipe=recipe, inputs=[Path(stainer), Path(volume)], results=met)


def _warn_out_of_range(model: Stainer, met: dict[str, float]) -> None:
    low, high = model.ct_range.low, model.ct_range.high
    reach = 0.5 * (high - low)
    if met["ct_min"] < low - reach or met["ct_max"] > high + reach:
        warnings.warn(
            f"the volume's values run from {met['ct_min']:g} to {met['ct_max']:g}, the stainer learnt on "
            f"{low:g} to {high:g}; do not believe the colours of what lies far outside",
            stacklevel=3,
        )
