"""Registration of real images that nobody here made: python benchmarks/registration_real.py SHARED [OUT] [ROWS.jsonl].

SHARED is the folder that holds data/registration and data/pair. Two pairs of stained sections with landmarks (BIRL:
rat_kidney, lesion), each registered in both directions with no start given, are judged by the landmarks that both
images have: relative target registration error, distance over the diagonal of the reference image. The CT plane and the
section of a rat jaw have no landmarks; what is printed is whether they are accepted, and OUT receives their page. ROWS
receives a line for each registration, also of sections of one pair to those of the other (registration_calibration.py).
"""

from __future__ import annotations

import csv
import json
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np

from _results import Figure, save
from tomostain.images.geometry import Grid, Placement
from tomostain.images.image import Slide
from tomostain.io.reference import read_reference
from tomostain.io.slides import read_slide
from tomostain.io.volumes.options import VolumeOptions
from tomostain.registration.align import Registered, align, placement_of
from tomostain.registration.hints import Hints
from tomostain.registration.modality import read_stained, read_target
from tomostain.registration.quality import Score
from tomostain.steps.register import RegisterRecipe, register

BIRL = {
    "rat_kidney": ("Rat-Kidney_HE", "Rat-Kidney_PanCytokeratin", 0.30),
    "lesion": ("Izd2-29-041-w35_HE", "Izd2-29-041-w35_proSPC", 0.55),
}


def landmarks(path: Path) -> np.ndarray:
    with path.open(newline="") as file:
        return np.asarray([[float(row["Y"]), float(row["X"])] for row in csv.DictReader(file)])


def registered(shared: Path, slide: tuple[str, str], reference: tuple[str, str]) -> tuple[Registered, Placement, float]:
    """One section (folder, name) registered to another from no start, its placement, the reference's diagonal, px."""
    (of, name), (onto, plane_name) = slide, reference
    folder = shared / "data" / "registration"
    plane = read_reference(folder / onto / f"{plane_name}.jpg", VolumeOptions(spacing_um=(1.0, 1.0)))
    picture = read_slide(folder / of / f"{name}.jpg", pixel_um=1.0)
    stained = read_stained(Slide(picture[:, :], Grid(picture.shape[:2], (1.0, 1.0)), name=name), 1.0)
    done = align(read_target(plane), stained, Hints(shrinkage=0.0))
    return done, placement_of(done, stained), float(np.linalg.norm(plane.shape[1:3]))


def sections(shared: Path, name: str, slide: str, reference: str) -> tuple[np.ndarray, np.ndarray, float, Score]:
    """Landmark errors before and after (px), the reference's diagonal, and the score."""
    folder = shared / "data" / "registration" / name
    done, placement, size = registered(shared, (name, slide), (name, reference))
    at, true = landmarks(folder / f"{slide}.csv"), landmarks(folder / f"{reference}.csv")
    count = min(len(at), len(true))
    found = placement.slide_to_volume_um(at[:count])[:, 1:]
    score = done.score
    expected = f"detail {score.detail:.2f}, margin {score.margin:.2f}, expected error {score.expected_tre_um:.1f} px"
    print(f"    {expected}, {done.score.fault() or 'accepted'}")
    before, after = (np.linalg.norm(one - true[:count], axis=1) for one in (at[:count], found))
    return before, after, size, score


def others(shared: Path, rows: Path) -> None:
    """Append a line for each section registered to a section of the other pair: placements that must be refused."""
    for name, (first, second, _) in BIRL.items():
        for onto, (*planes, _) in BIRL.items():
            for slide, reference in product((first, second), planes if onto != name else ()):
                try:
                    score = registered(shared, (name, slide), (onto, reference))[0].score
                except ValueError:
                    continue
                write_row(rows, name, slide, score, way="other")


def write_row(rows: Path, name: str, slide: str, score: Score, **more: object) -> None:
    """A line as `registration.py run` writes them."""
    line = {"cohort": "real", "specimen": name, "slide": slide, "probability": score.probability, **vars(score), **more}
    with rows.open("a") as file:
        file.write(json.dumps(line) + "\n")


def main(shared: Path, out: Path | None = None, rows: Path | None = None) -> None:
    figures = []
    for name, (first, second, target) in BIRL.items():
        for slide, reference in ((first, second), (second, first)):
            begun = time.perf_counter()
            before, after, size, score = sections(shared, name, slide, reference)
            if rows is not None:
                write_row(rows, name, slide, score, way="none", tre_um=float(np.median(after)))
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
    if rows is not None:
        others(shared, rows)
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
    main(*map(Path, sys.argv[1:]))
