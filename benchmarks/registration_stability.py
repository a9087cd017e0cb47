"""How far a registration moves when its images are changed in ways that must not matter.

python benchmarks/registration_stability.py SHARED [--variants colour grey ...] [--starts 20]

The CT plane and the section of a rat jaw (shared data) are registered as they are; then with the section grey,
inverted, cropped by a fifth, with noise added to the CT, and near priors that are displaced by up to 250 um along each
axis and 10 degrees (`--variants start` measures these alone). Printed is how far each result lies from that of the
colour section, which has no prior, on a grid of points in tissue, px. The landmarks of this pair are not here, so that
nothing is tuned to them; the distance from the images' own rough alignment is a check of sanity, no error. Elastix on
the same images: registration_elastix.py.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _results import Figure, save
from tomostain.images.geometry import Grid
from tomostain.images.image import Slide, Volume
from tomostain.io.reference import read_reference
from tomostain.io.slides import read_slide
from tomostain.io.volumes.options import VolumeOptions
from tomostain.registration.align import align, placement_of
from tomostain.registration.coarse import Attitude
from tomostain.registration.hints import Hints
from tomostain.registration.modality import read_stained, read_target
from tomostain.registration.quality import Score

PIXEL_UM = 10.2
CROP = 0.2
NOISE = 0.5
"""Standard deviation of the added noise, over that of the CT plane's own values."""


@dataclass(frozen=True)
class Variant:
    """One way to show the same pair; ``offset_px`` is where its first pixel lies in the whole section."""

    name: str
    ct: Volume
    rgb: np.ndarray
    offset_px: tuple[int, int] = (0, 0)
    start: int | None = None


def variants(shared: Path, starts: int) -> list[Variant]:
    folder = shared / "data" / "pair" / "rat_jaw"
    plane = read_reference(folder / "ct.mha", VolumeOptions(spacing_um=(PIXEL_UM, PIXEL_UM)))
    ct = Volume(np.asarray(plane[:]), plane.grid, name="ct")
    rgb = np.asarray(read_slide(folder / "histology_rgb.png", pixel_um=PIXEL_UM)[:, :])
    grey = np.repeat(rgb.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
    columns = rgb.shape[1]
    rng = np.random.default_rng(0)
    values = ct.array.astype(np.float32)
    noisy = values + NOISE * values.std() * rng.standard_normal(values.shape, dtype=np.float32)
    return [
        Variant("colour", ct, rgb),
        Variant("grey", ct, grey),
        Variant("inverted", ct, 255 - grey),
        Variant("cropped", ct, rgb[:, int(CROP * columns) :], (0, int(CROP * columns))),
        Variant("noise", Volume(noisy, ct.grid, name="ct"), rgb),
        *(Variant(f"start {n}", ct, rgb, start=n) for n in range(starts)),
    ]


def registered(variant: Variant) -> tuple[Callable[[Any], Any], Score, float]:
    """Where whole-section pixels (n, 2) lie in the CT (n, 2) um, the score, and the seconds it took."""
    begun = time.perf_counter()
    slide = Slide(variant.rgb, Grid(variant.rgb.shape[:2], (PIXEL_UM, PIXEL_UM)), name=variant.name)
    stained = read_stained(slide, PIXEL_UM)
    offset, prior = np.asarray(variant.offset_px), None
    if variant.start is not None:
        rng = np.random.default_rng(variant.start)
        middle = (stained.centre_px + offset) * PIXEL_UM + rng.uniform(-250, 250, 2)
        prior = Attitude(0.0, 0.0, float(rng.uniform(-10, 10)), False).pose(np.asarray([0.0, *middle]), 1.0)
    done = align(read_target(variant.ct), stained, Hints(shrinkage=0.0), prior=prior)
    placement = placement_of(done, stained)
    return lambda px: placement.slide_to_volume_um(px - offset)[:, 1:], done.score, time.perf_counter() - begun


def points_in_tissue(rgb: np.ndarray) -> np.ndarray:
    """A grid (n, 2) px over what is darker than glass, in the part that the cropped section shows too."""
    rows, columns = rgb.shape[:2]
    grid = np.stack(
        np.meshgrid(np.arange(10, rows, 20), np.arange(int(CROP * columns) + 10, columns, 20), indexing="ij"), -1
    )
    px = grid.reshape(-1, 2)
    return px[rgb[px[:, 0], px[:, 1]].mean(axis=1) < 220]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("shared", type=Path)
    words.add_argument("--variants", nargs="*", default=None)
    words.add_argument("--starts", type=int, default=3)
    asked = words.parse_args()
    every = variants(asked.shared, asked.starts)
    px, reference, figures = points_in_tissue(every[0].rgb), None, []
    for variant in every:
        if asked.variants and variant.name.split()[0] not in asked.variants and variant.name != "colour":
            continue
        place, score, seconds = registered(variant)
        at = place(px) / PIXEL_UM
        reference = at if reference is None else reference
        apart, given = (np.linalg.norm(at - other, axis=1) for other in (reference, px))
        text = f"median {np.median(apart):.1f} px, 90th percentile {np.percentile(apart, 90):.1f} px"
        text += f"; expected error {score.expected_tre_um / PIXEL_UM:.1f} px, probability {score.probability:.0%}"
        rough = f"from the images' own alignment {np.median(given):.1f}, {np.percentile(given, 90):.1f} px"
        print(f"{variant.name}: {text}; {rough}; {seconds:.0f} s", flush=True)
        print("   ", {k: round(float(v), 3) for k, v in vars(score).items()}, flush=True)
        figures.append(Figure(variant.name, text, target="2 px"))
    save(f"registration_stability{'_starts' if asked.variants == ['start'] else ''}", figures)


if __name__ == "__main__":
    main()
