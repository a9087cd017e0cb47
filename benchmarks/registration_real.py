"""Registration of real images that nobody here made: python benchmarks/registration_real.py SHARED [OUT].

SHARED is the folder that holds data/registration and data/pair. Two pairs of stained sections with landmarks (BIRL:
rat_kidney, lesion), each registered in both directions with no start given, are judged by the landmarks that both
images have: relative target registration error, distance over the diagonal of the reference image. The CT plane and the
section of a rat jaw have no landmarks; what is printed is whether they are accepted, and OUT receives their page.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import numpy as np

from _results import Figure, save
from tomostain.images.geometry import Grid
from tomostain.images.image import Slide
from tomostain.io.reference import read_reference
from tomostain.io.slides import read_slide
from tomostain.io.volumes.options import VolumeOptions
from tomostain.registration.align import align, placement_of
from tomostain.registration.hints import Hints
from tomostain.registration.modality import read_stained, read_target
from tomostain.steps.register import RegisterRecipe, register

BIRL = {
    "rat_kidney": ("Rat-Kidney_HE", "Rat-Kidney_PanCytokeratin", 0.30),
    "lesion": ("Izd2-29-041-w35_HE", "Izd2-29-041-w35_proSPC", 0.55),
}


def landmarks(path: Path) -> np.ndarray:
    with path.open(newline="") as file:
        return np.asarray([[float(row["Y"]), float(row["X"])] for row in csv.DictReader(file)])


def sections(folder: Path, slide: str, reference: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Landmark errors before and after (px), and the reference's diagonal."""
    plane = read_reference(folder / f"{reference}.jpg", VolumeOptions(spacing_um=(1.0, 1.0)))
    picture = read_slide(folder / f"{slide}.jpg", pixel_um=1.0)
    stained = read_stained(Slide(picture[:, :], Grid(picture.shape[:2], (1.0, 1.0)), name=slide), 1.0)
    done = align(read_target(plane), stained, Hints(shrinkage=0.0))
    at, true = landmarks(folder / f"{slide}.csv"), landmarks(folder / f"{reference}.csv")
    count = min(len(at), len(true))
    found = placement_of(done, stained).slide_to_volume_um(at[:count])[:, 1:]
    size = float(np.linalg.norm(plane.shape[1:3]))
    score = done.score
    told = f"detail {score.detail:.2f}, lead {score.margin:.2f}, expected error {score.expected_tre_um:.1f} px"
    print(f"    {told}, {done.score.fault() or 'accepted'}")
    return (
        np.linalg.norm(at[:count] - true[:count], axis=1),
        np.linalg.norm(found - true[:count], axis=1),
        size,
    )


def main(shared: Path, out: Path | None) -> None:
    figures = []
    for name, (first, second, target) in BIRL.items():
        folder = shared / "data" / "registration" / name
        for slide, reference in ((first, second), (second, first)):
            begun = time.perf_counter()
            before, after, size = sections(folder, slide, reference)
            r = 100 * after / size
            print(
                f"{name}: {slide} onto {reference}: median rTRE {np.median(r):.2f} % (target {target:.2f}), "
                f"90th percentile {np.percentile(r, 90):.2f} %, {np.median(after):.1f} px "
                f"({np.median(before):.1f} before), {time.perf_counter() - begun:.0f} s",
                flush=True,
            )
            value = f"{np.median(r):.2f} %"
            figures.append(Figure(f"{name}, {slide}, median rTRE", value, target=f"{target:.2f} %"))
    save("registration_real", figures)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        jaw = shared / "data" / "pair" / "rat_jaw"
        known = RegisterRecipe(
            reading=VolumeOptions(spacing_um=(10.2, 10.2)),
            slide_um=10.2,
            hints=Hints(shrinkage=0.0),
            report=out / "rat_jaw.html",
        )
        begun = time.perf_counter()
        register(jaw / "ct.mha", jaw / "histology_rgb.png", out / "rat_jaw.placement.json", recipe=known)
        print(f"rat_jaw: accepted, {time.perf_counter() - begun:.0f} s; look at {out / 'rat_jaw.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
