"""The two jobs on real images: learn the rat jaw's stain on its left part, stain the trabecular-bone stack.

`make real` runs both at full length and writes real/report.html; test_real.py runs the same jobs short;
`python tests/real/run_real.py FOLDER pairs` makes the jaw's pairs only, for `tomostain experiment`.
The images are found through TOMOSTAIN_SHARED, or in ../shared beside the project.
"""

import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tomostain import runs
from tomostain.io.volumes.options import VolumeOptions
from tomostain.steps.evaluate import EvaluateRecipe, evaluate
from tomostain.steps.pair import PairRecipe, pair
from tomostain.steps.report import report
from tomostain.steps.stain import StainRecipe, stain
from tomostain.steps.train import TrainRecipe, train

PIXEL_UM = 10.2
TRABECULAR_UM = 19.5
LEFT_SHARE = 0.6


def jaw_pairs(shared: Path, out: Path) -> Path:
    """Cut the aligned rat-jaw images into a left part (60 %) and a right part and make a pair of each.

    It is one animal: the parts count as two specimens here because no second one is to be had, and no pixel is in both.
    """
    source, cut = shared / "data" / "pair" / "rat_jaw", out / "parts"
    cut.mkdir(parents=True, exist_ok=True)
    names = {"ct": "ct_registered_to_histology.png", "stain": "histology_rgb.png", "markers": "marker_mask.png"}
    images = {name: np.asarray(Image.open(source / file)) for name, file in names.items()}
    # The CT was warped onto the histology; where it shows nothing (0 at the border) there is no pair.
    images["markers"] = np.where((images["markers"] > 0) | (images["ct"] == 0), 255, 0).astype(np.uint8)
    edge = round(images["ct"].shape[1] * LEFT_SHARE)
    for side, part in (("left", slice(None, edge)), ("right", slice(edge, None))):
        for name, values in images.items():
            Image.fromarray(np.ascontiguousarray(values[:, part])).save(cut / f"{side}_{name}.png")
    lines = ["volume,slide,specimen,name,aligned,exclude,slide_um,stain"]
    lines += [
        f"{side}_ct.png,{side}_stain.png,jaw_{side},jaw_{side},yes,{side}_markers.png,{PIXEL_UM},H&E"
        for side in ("left", "right")
    ]
    (cut / "pairs.csv").write_text("\n".join(lines) + "\n")
    return pair(cut / "pairs.csv", out / "pairs", recipe=PairRecipe())


def learn_jaw(shared: Path, out: Path, *, recipe: TrainRecipe) -> tuple[Path, Path, Path]:
    """Train on the left part, score on the right; returns pairs, stainer and evaluation."""
    pairs = jaw_pairs(shared, out)
    stainer, evaluation = out / "stainer", out / "evaluation"
    if not runs.is_complete(stainer):
        train(pairs, stainer, recipe=recipe)
    if not runs.is_complete(evaluation):
        settings = EvaluateRecipe(lpips_folder=shared / "lpips")
        evaluate(stainer, pairs, evaluation, recipe=settings)
    return pairs, stainer, evaluation


def stain_trabeculae(shared: Path, stainer: Path, out: Path) -> Path:
    """Stain the real stack of 200 TIFF slices; its voxels are not the stainer's, which is said with --any-scale."""
    settings = StainRecipe(reading=VolumeOptions(spacing_um=(TRABECULAR_UM,) * 3), any_scale=True)
    return stain(stainer, shared / "data" / "ct" / "trabecular_bone", out, recipe=settings)


def main(out: Path, job: str = "all") -> int:
    stated = os.environ.get("TOMOSTAIN_SHARED")
    shared = Path(stated) if stated else Path(__file__).resolve().parents[3] / "shared"
    if not (shared / "data").is_dir():
        print(f"real images not found: set TOMOSTAIN_SHARED, or put them at {shared}", file=sys.stderr)
        return 1
    if job == "pairs":
        print(jaw_pairs(shared, out))
        return 0
    settings = TrainRecipe(hold_out=("jaw_right",), tone=True, hours=0.25)
    pairs, stainer, evaluation = learn_jaw(shared, out, recipe=settings)
    stained = out / "trabecular.ome.zarr"
    if not runs.is_complete(stained):
        stain_trabeculae(shared, stainer, stained)
    page = out / "report.html"
    if not runs.is_complete(page):
        report(page, stainer=stainer, evaluation=evaluation, pairs=pairs, stained=stained)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "real"), *sys.argv[2:]))
