"""A small specimen whose every voxel is known: CT rises along x, colours along z, y and x; a slide of two colours."""

import numpy as np
import tifffile

from tomostain import runs
from tomostain.images.geometry import Grid, Placement
from tomostain.io.ome_zarr import create_volume

GRID = Grid((30, 60, 80), (5.0, 5.0, 5.0), (2.5, -5.0, 10.0))
SLIDE_PX = (120, 160)


def colours_of(grid):
    """Colours that say where they are: smooth along z, y and x, apart along each."""
    z, y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in grid.shape), indexing="ij")
    return np.stack([40 + 200 * x, 40 + 200 * y, 40 + 200 * z], axis=-1).round().astype(np.uint8)


def write_specimen(home):
    """CT and stained volume with their records, a slide, and its placement, tilted by 10 degrees about x."""
    values = np.linspace(0.0, 2.0, GRID.shape[2], dtype=np.float32) * np.ones(GRID.shape, np.float32)
    whole = tuple(slice(0, n) for n in GRID.shape)
    ct, stained, stainer = home / "ct.ome.zarr", home / "stained.ome.zarr", home / "stainer"
    stainer.mkdir()
    attributes = {"units": "1/cm"}
    with runs.output(ct, "convert"), create_volume(ct, GRID, dtype=np.float32, attributes=attributes) as volume:
        volume[whole] = values
    with (
        runs.output(stained, "stain", inputs=[stainer, ct]),
        create_volume(stained, GRID, colours=3, stain="giemsa") as volume,
    ):
        volume[whole] = colours_of(GRID)
    slide = np.full((*SLIDE_PX, 3), (250, 220, 20), np.uint8)
    slide[:60, :80] = (20, 180, 60)
    tifffile.imwrite(home / "slide.tif", slide, resolution=(4000, 4000), resolutionunit="CENTIMETER")
    tilt = np.deg2rad(10)
    placement = Placement(
        slide_shape=SLIDE_PX,
        corner_um=(50.0, 0.0, 20.0),
        step_y_um=(2.5 * float(np.sin(tilt)), 2.5 * float(np.cos(tilt)), 0.0),
        step_x_um=(0.0, 0.0, 2.5),
        thickness_um=5.0,
        notes={"depth_um": 75.0, "tilt_deg": 10.0},
    )
    made = home / "slide.placement.json"
    with runs.output(made, "register", inputs=[ct, home / "slide.tif"]):
        placement.save(made)
    return home
