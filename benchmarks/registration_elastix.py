"""Elastix beside ours on the same real images: its default affine map, then B-splines.

pip install itk-elastix; python benchmarks/registration_elastix.py SHARED

Two pairs of stained sections with landmarks (BIRL), both ways, from the images as they are: relative target
registration error, as `registration_real.py` prints it for ours. The rat jaw (CT plane and section, in rough alignment)
in the variants of `registration_stability.py`: how far each result lies from that of the colour section and from the
rough alignment, on the same points. Elastix sees grey values (luminance); contrast may invert (mutual information).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from _results import Figure, save
from registration_real import BIRL, landmarks
from registration_stability import points_in_tissue, variants
from tomostain.io.slides import read_slide

LUMINANCE = (0.2126, 0.7152, 0.0722)


def registered(slide: np.ndarray, reference: np.ndarray, px: np.ndarray) -> np.ndarray:
    """Where pixels (n, 2; y x) of a grey slide lie in a grey reference, px: elastix' default affine, then B-splines."""
    import itk

    fixed, moving = (
        itk.GetImageFromArray(np.ascontiguousarray(image, dtype=np.float32)) for image in (slide, reference)
    )
    maps = itk.ParameterObject.New()
    for name in ("affine", "bspline"):
        settings = maps.GetDefaultParameterMap(name, 5)
        settings["AutomaticTransformInitialization"] = ["true"]
        settings["AutomaticTransformInitializationMethod"] = ["GeometricalCenter"]
        settings["RandomSeed"] = ["1"]
        maps.AddParameterMap(settings)
    _, found = itk.elastix_registration_method(fixed, moving, parameter_object=maps, log_to_console=False)
    with tempfile.TemporaryDirectory() as folder:
        points = Path(folder) / "points.txt"
        lines = "\n".join(f"{x} {y}" for y, x in px)
        points.write_text(f"point\n{len(px)}\n{lines}\n")
        itk.transformix_filter(
            moving, found, fixed_point_set_file_name=str(points), output_directory=folder, log_to_console=False
        )
        rows = (Path(folder) / "outputpoints.txt").read_text().splitlines()
    at = [row.split("OutputPoint = [")[1].split("]")[0].split() for row in rows]
    return np.asarray(at, dtype=np.float64)[:, ::-1]


def birl(shared: Path) -> list[Figure]:
    figures = []
    for name, (first, second, _) in BIRL.items():
        folder = shared / "data" / "registration" / name
        for slide, reference in ((first, second), (second, first)):
            begun = time.perf_counter()
            images = [np.asarray(read_slide(folder / f"{one}.jpg", pixel_um=1.0)[:, :]) for one in (slide, reference)]
            at, true = (landmarks(folder / f"{one}.csv") for one in (slide, reference))
            count = min(len(at), len(true))
            found = registered(*(image @ LUMINANCE for image in images), at[:count])
            r = 100 * np.linalg.norm(found - true[:count], axis=1) / np.linalg.norm(images[1].shape[:2])
            text = f"median rTRE {np.median(r):.2f} %, 90th percentile {np.percentile(r, 90):.2f} %"
            print(f"elastix, {name}, {slide}: {text}; {time.perf_counter() - begun:.0f} s", flush=True)
            figures.append(Figure(f"elastix, {name}, {slide}", text))
    return figures


def jaw(shared: Path) -> list[Figure]:
    every = variants(shared, 0)
    px, first, figures = points_in_tissue(every[0].rgb), None, []
    for variant in every:
        begun = time.perf_counter()
        offset = np.asarray(variant.offset_px)
        at = registered(variant.rgb @ LUMINANCE, np.asarray(variant.ct.array).squeeze(), px - offset)
        first = at if first is None else first
        moved, rough = (np.linalg.norm(at - other, axis=1) for other in (first, px))
        text = f"from the colour result {_spread(moved)}, from the rough alignment {_spread(rough)}"
        print(f"elastix, rat jaw, {variant.name}: {text}; {time.perf_counter() - begun:.0f} s", flush=True)
        figures.append(Figure(f"elastix, rat jaw, {variant.name}", text))
    return figures


def _spread(distances: np.ndarray) -> str:
    return f"{np.median(distances):.1f}, 90th percentile {np.percentile(distances, 90):.1f} px"


def main(shared: Path) -> None:
    figures: list[Any] = [*jaw(shared), *birl(shared)]
    save("registration_elastix", figures)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
