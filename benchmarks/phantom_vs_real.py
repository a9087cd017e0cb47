"""Phantom beside real images: python benchmarks/phantom_vs_real.py [OUT.png] draws docs/images/phantom_vs_real.png.

The real images are found by TOMOSTAIN_SHARED or in ../shared. Neither states its pixel size: the CT slices are shown
whole, the stained bone is taken to have 1 um per pixel, as its lacunae of 8-15 px tell.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from tomostain.images.geometry import Grid, Placement
from tomostain.phantom.anatomy import make_anatomy
from tomostain.phantom.colours import TOLUIDINE_BLUE
from tomostain.phantom.damage import damage_slide
from tomostain.phantom.recipe import AnatomyRecipe
from tomostain.phantom.sectioning import cut_section, on_slide
from tomostain.phantom.tomography import Tomograph, TomographyRecipe, slabs

SEED = 5
GRID = Grid((64, 512, 512), (5.0, 5.0, 5.0))
SLICES = Grid((2, 512, 512), (5.0, 5.0, 5.0), (160.0, 0.0, 0.0))
CROP_PX = 478
CORNER_UM = (160.0, 1800.0, 700.0)
"""Where the crop of the phantom slide begins: osteons of the cortex."""
BONE_WINDOW = (-0.8, 2.4)
"""Attenuation in 1/cm that is drawn black and white; metal is far beyond it, as in the real slice."""
GREY, BLUE = "ct/implant_slice.tiff", "stain/blue_stained_cortical_bone.png"


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    data = Path(os.environ.get("TOMOSTAIN_SHARED", root.parent / "shared")) / "data"
    if not (data / GREY).is_file():
        raise SystemExit(f"the real images are not at {data}; set TOMOSTAIN_SHARED")
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "docs/images/phantom_vs_real.png"
    ct, slide = phantom_images()
    real_ct = np.asarray(tifffile.imread(data / GREY), dtype=np.float64)
    panels = [
        ("phantom: CT of a titanium pin, 5 um voxels", _grey(ct, *BONE_WINDOW)),
        ("real: synchrotron CT of a titanium implant in goat", _grey(real_ct, *np.percentile(real_ct, (0.5, 99.5)))),
        ("phantom: toluidine blue section, 1 um pixels", slide),
        ("real: blue-stained cortical bone", np.asarray(Image.open(data / BLUE).convert("RGB"))),
    ]
    figure, axes = plt.subplots(2, 2, figsize=(9.0, 9.5), layout="constrained")
    for axis, (title, image) in zip(axes.ravel(), panels, strict=True):
        axis.imshow(image, interpolation="antialiased")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110, metadata={"Software": None})
    print(f"{out.name}: {out.stat().st_size / 2**20:.2f} MiB")


def phantom_images() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """A CT slice (y, x) in 1/cm, and a crop of a slide (y, x, 3) of the same specimen."""
    anatomy = make_anatomy(AnatomyRecipe(material="Ti", weeks=12.0, implant="pin"), GRID, SEED)
    start, fine = next(slabs(anatomy, SLICES, SLICES.shape[0]))
    ct = Tomograph(TomographyRecipe(), SLICES, SEED, "Ti").scan(fine, start)[0].astype(np.float64)
    placement = Placement((CROP_PX, CROP_PX), CORNER_UM, (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), thickness_um=20.0)
    section = cut_section(
        anatomy, GRID, placement, voxel_um=5.0, pixel_um=1.0, stain=TOLUIDINE_BLUE, material="Ti", seed=(SEED,)
    )
    lasting = ("folds", "tears", "missing", "bubbles", "focus", "scratches")
    return ct, damage_slide(on_slide(section, placement), pixel_um=1.0, seed=(SEED,), without=lasting).rgb


def _grey(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Grey values between two ends as three equal colours."""
    grey = np.round(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


if __name__ == "__main__":
    main()
