"""The table of writers under test: what each writes, and how what it wrote is opened; a writer joins by one line."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import ndimage

from fuzz.formats.common import SHAPE, SPACING_UM, colours, grey
from fuzz.formats.ours import read_pair, read_placement, read_stainer, write_pair, write_placement, write_stainer
from fuzz.judge import Look, look
from tomostain import runs
from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.io.ome_zarr import create_volume
from tomostain.io.slides import read_slide
from tomostain.io.volumes import read_volume
from tomostain.io.writers import FORMATS, write_volume
from tomostain.io.writers.pyramidal_tiff import write_slide
from tomostain.learning.recipe import TrainRecipe
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import Pair, load_pair, pairs_in, save_pair
from tomostain.steps.convert import ConvertRecipe, convert
from tomostain.steps.evaluate import EvaluateRecipe, evaluate
from tomostain.steps.pair import PairRecipe, pair
from tomostain.steps.report import report
from tomostain.steps.stain import StainRecipe, stain
from tomostain.steps.train import train

TINY = TrainRecipe(
    width=4,
    depth=1,
    discriminator_width=4,
    discriminator_depth=1,
    patch_px=32,
    steps=2,
    log_every=1,
    workers=1,
    hold_out=("S2",),
)
RESUMED = StainRecipe(resume=True)
SCORED = EvaluateRecipe(metrics=("ssim", "psnr"))


@dataclass(frozen=True)
class Writer:
    """One way to leave something on disk."""

    out: str
    """Its name below the folder."""
    write: Callable[[Path, Path], Any]
    """From the laboratory's folder of inputs to the path to be written."""
    opens: Callable[[Path], Look]
    """What is in it, refused where it is not whole."""
    is_step: bool = False
    """Whether it is a step: run again, it goes on or begins anew where a broken run ended."""


def furnish(lab: Path) -> None:
    """Write the inputs of the steps: pairs, a stainer, a volume, an evaluation."""
    for number, specimen in enumerate(("S0", "S0", "S1", "S2")):
        save_pair(_pair(specimen, number), lab / "pairs" / f"{specimen}_{number}.pair.zarr")
    train(lab / "pairs", lab / "stainer", recipe=TINY)
    evaluate(lab / "stainer", lab / "pairs", lab / "evaluation", recipe=SCORED)
    write_ct(lab, lab / "ct.ome.zarr")
    write_slide(lab / "slide.tif", colours(), pixel_um=2.0)
    table = "volume,slide,specimen,name,aligned,slide_um\n"
    for name in ("a", "b"):
        _pictures(lab, name)
        table += f"{name}_ct.png,{name}_stain.png,S{name},{name},yes,5\n"
    (lab / "pairs.csv").write_text(table)


def _pair(specimen: str, seed: int) -> Pair:
    rng = np.random.default_rng(seed)
    label = ndimage.gaussian_filter(rng.standard_normal((48, 56)), 3.0) > 0
    ct = label + rng.normal(0, 0.1, (1, 48, 56))
    stained = np.where(label[..., None], np.uint8([180, 190, 220]), np.uint8([240, 240, 240]))
    whole = np.ones((48, 56), bool)
    return Pair(ct.astype(np.float32), stained, whole, whole.astype(np.float32), Grid((48, 56), (5.0, 5.0)), specimen,
                f"{specimen}-{seed}")  # fmt: skip


def _pictures(lab: Path, name: str) -> None:
    from PIL import Image

    Image.fromarray(grey("uint8", (2, 48, 56))[0]).save(lab / f"{name}_ct.png")
    Image.fromarray(colours((48, 56))).save(lab / f"{name}_stain.png")


def write_ct(_: Path, out: Path) -> None:
    values = grey("float32", (70, 80, 90)) / 30_000
    with create_volume(out, Grid(values.shape, (5.0, 5.0, 5.0)), dtype=np.float32) as writer:
        for z in range(0, 70, 64):
            writer[z : min(z + 64, 70), 0:80, 0:90] = values[z : z + 64]


def write_colours(_: Path, out: Path) -> None:
    values = np.repeat(colours((80, 90))[None], 20, axis=0)
    with create_volume(out, Grid(values.shape[:3], (5.0, 5.0, 5.0)), colours=3, stain="toluidine blue") as writer:
        writer[0:20, 0:80, 0:90] = values


def format_writer(kind: str) -> Writer:
    """One of the formats that `tomostain convert` writes."""
    form = FORMATS[kind]
    out = f"out{form.suffixes[0]}" if any(form.suffixes) else "out"
    source = Volume(grey(), Grid(SHAPE, SPACING_UM), name="ct")

    def opens(path: Path) -> Look:
        raw = {"shape": SHAPE, "dtype": "uint16"} if kind == "raw" else {}
        opened = read_volume(path, spacing_um=SPACING_UM, **raw)
        return look(opened)

    if kind == "ome-tiff-planes":
        source = Volume(
            np.repeat(colours((80, 90))[None], 3, axis=0), Grid((3, 80, 90), (5.0, 5.0, 5.0)), name="stained"
        )
        return Writer(out, lambda _, path: write_volume(path, source, kind), open_planes)
    return Writer(out, lambda _, path: write_volume(path, source, kind), opens)


def open_planes(path: Path) -> Look:
    files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    return {file.name: look(read_slide(file).array) for file in files}


def open_volume(path: Path) -> Look:
    opened = read_volume(path)
    return look(opened, opened.grid.spacing_um)


def open_slide(path: Path) -> Look:
    opened = read_slide(path)
    return look(opened.array, opened.grid.spacing_um)


def open_pairs(path: Path) -> Look:
    runs.read_record(path)
    return {file.name: load_pair(file).ct for file in pairs_in(path)}


def open_stainer(path: Path) -> Look:
    return {name: tensor.numpy() for name, tensor in Stainer.load(path).net.state_dict().items()}


def open_evaluation(path: Path) -> Look:
    runs.read_record(path)
    with (path / "scores.csv").open(newline="") as file:
        return {
            "scores": list(csv.DictReader(file)),
            "pictures": sorted(p.name for p in (path / "predictions").iterdir()),
        }


def open_report(path: Path) -> Look:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    text = path.read_text()
    return {"begins": text[:15], "ends": text.rstrip()[-7:]}


def write_report(lab: Path, out: Path) -> None:
    report(out, stainer=lab / "stainer", evaluation=lab / "evaluation", pairs=lab / "pairs")


WRITERS = MappingProxyType(
    {
        "create-volume": Writer("ct.ome.zarr", write_ct, open_volume),
        "create-volume-colours": Writer("stained.ome.zarr", write_colours, open_volume),
        "write-slide": Writer("slide.tif", lambda _, out: write_slide(out, colours(), pixel_um=2.0), open_slide),
        "write-slide-ome": Writer(
            "slide.ome.tif", lambda _, out: write_slide(out, colours(), pixel_um=2.0, ome=True), open_slide
        ),
        "save-pair": Writer("S01_a.pair.zarr", lambda _, out: write_pair(out.parent), read_pair),
        "save-placement": Writer("a.placement.json", lambda _, out: write_placement(out.parent), read_placement),
        "save-stainer": Writer("stainer", lambda _, out: write_stainer(out.parent), read_stainer),
        **{f"write-{kind}": format_writer(kind) for kind in FORMATS},
        "convert": Writer(
            "ct.tif",
            lambda lab, out: convert(lab / "ct.ome.zarr", out, recipe=ConvertRecipe(planes=(0, 9))),
            open_volume,
            True,
        ),
        "convert-slide": Writer("out.ome.tif", lambda lab, out: convert(lab / "slide.tif", out), open_slide, True),
        "pair": Writer("pairs", lambda lab, out: pair(lab / "pairs.csv", out, recipe=PairRecipe()), open_pairs, True),
        "train": Writer(
            "stainer", lambda lab, out: train(lab / "pairs", out, recipe=replace(TINY, resume=True)), open_stainer, True
        ),
        "evaluate": Writer(
            "evaluation",
            lambda lab, out: evaluate(lab / "stainer", lab / "pairs", out, recipe=SCORED),
            open_evaluation,
            True,
        ),
        "stain": Writer(
            "s.ome.zarr",
            lambda lab, out: stain(lab / "stainer", lab / "ct.ome.zarr", out, recipe=RESUMED),
            open_volume,
            True,
        ),
        "report": Writer("report.html", write_report, open_report, True),
    }
)
