"""Formats of the house: pair, placement, stainer, recipe; strictly read by zarr, json, safetensors and yaml alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zarr

from fuzz.bombs import zstd_bomb
from fuzz.formats.common import colours, grey
from fuzz.judge import Format, Look
from fuzz.mutations import Target
from tomostain import _recipes
from tomostain.images.geometry import Grid, Placement
from tomostain.pairs.pair import Pair, load_pair, save_pair

_PAIR_SHAPE = (61, 83)


def write_pair(folder: Path) -> Path:
    made = Pair(
        ct=grey("float32", (3, *_PAIR_SHAPE)),
        stain=colours(_PAIR_SHAPE),
        mask=grey("uint8", (2, *_PAIR_SHAPE))[0] > 40,
        confidence=(grey("float32", (2, *_PAIR_SHAPE))[0] / 40_000).astype(np.float32),
        grid=Grid(_PAIR_SHAPE, (5.0, 5.0)),
        specimen="S01",
        name="S01_a",
        notes={"by": "fuzz"},
    )
    return save_pair(made, folder / "S01_a.pair.zarr")


def read_pair(path: Path) -> Look:
    pair = load_pair(path)
    return {
        "ct": pair.ct,
        "stain": pair.stain,
        "mask": pair.mask,
        "confidence": pair.confidence,
        "spacing_um": pair.grid.spacing_um,
        "origin_um": pair.grid.origin_um,
        "words": (pair.specimen, pair.name, pair.stain_name),
        "notes": dict(pair.notes),
        "shape": pair.grid.shape,
    }


def strict_pair(path: Path) -> Look:
    root = zarr.open_group(path, mode="r")
    about = dict(root.attrs)
    arrays: dict[str, Any] = {name: root[name] for name in ("ct", "stain", "mask", "confidence")}
    for name, array in arrays.items():
        if array.nchunks_initialized < array.nchunks:
            raise ValueError(f"{name} is not whole")
    if about["format"] != "tomostain-pair":
        raise ValueError("no pair")
    seen = {name: np.asarray(array[...]) for name, array in arrays.items()}
    return {
        **seen,
        "mask": seen["mask"].astype(bool),
        "spacing_um": tuple(about["spacing_um"]),
        "origin_um": tuple(about["origin_um"]),
        "words": (about["specimen"], about["name"], about["stain_name"]),
        "notes": about["notes"],
        "shape": seen["mask"].shape,
    }


def pair_bomb(t: Target) -> None:
    """A chunk claims to unfold to much."""
    t.exact = True
    file = t.pick(file for file in t.files() if not file.name.startswith("zarr."))
    file.write_bytes(zstd_bomb(claimed=t.pick((None, 2**40, 2**63))))


def write_placement(folder: Path) -> Path:
    moved = np.random.default_rng(5).standard_normal((6, 7, 2)).astype(np.float32)
    place: dict[str, Any] = {"corner_um": (1.0, 2.0, 3.0), "step_y_um": (0.0, 5.0, 0.0), "step_x_um": (0.0, 0.0, 5.0)}
    moved_by: dict[str, Any] = {"lattice_px": 120.0, "displacement_um": moved}
    made = Placement((600, 700), **place, thickness_um=30.0, **moved_by, notes={"by": "fuzz"})
    return made.save(folder / "a.placement.json")


def read_placement(path: Path) -> Look:
    made = Placement.load(path)
    return {
        "shape": made.slide_shape,
        "vectors": np.asarray([made.corner_um, made.step_y_um, made.step_x_um]),
        "numbers": (made.thickness_um, made.lattice_px),
        "displacement": made.displacement_um,
        "notes": made.notes,
    }


def strict_placement(path: Path) -> Look:
    text = json.loads(path.read_text())
    if text["format"] != "tomostain-placement":
        raise ValueError("no placement")
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
        moved = np.asarray(stored["displacement_um"])
    vectors = np.asarray([text["corner_um"], text["step_y_um"], text["step_x_um"]], dtype=float)
    return {
        "shape": tuple(text["slide_shape"]),
        "vectors": vectors,
        "numbers": (float(text["thickness_um"]), float(text["lattice_px"])),
        "displacement": moved,
        "notes": text["notes"],
    }


def write_stainer(folder: Path) -> Path:
    import torch

    from tomostain.learning.nets import NetSpec, build_generator
    from tomostain.learning.ranges import CTRange
    from tomostain.learning.stainer import Stainer

    torch.manual_seed(3)
    spec = NetSpec("resnet", {"width": 8, "depth": 1, "norm": "pixel", "up": "resize"})
    made = Stainer(build_generator(spec, 1, 3).eval(), spec, CTRange(0.0, 2.0, "1/cm"), "toluidine blue", 5.0)
    return made.save(folder / "stainer")


def read_stainer(path: Path) -> Look:
    from tomostain.learning.stainer import Stainer

    made = Stainer.load(path)
    return {
        "words": (made.stain, made.um_per_px, made.planes, made.spec.name),
        "args": dict(made.spec.args),
        "range": (made.ct_range.low, made.ct_range.high, made.ct_range.units),
        "weights": {name: tensor.numpy() for name, tensor in made.net.state_dict().items()},
        "history": dict(made.history),
    }


def strict_stainer(path: Path) -> Look:
    from safetensors.numpy import load

    text = json.loads((path / "stainer.json").read_text())
    if text["format"] != "tomostain-stainer" or text["version"] != 1:
        raise ValueError("no stainer")
    return {
        "words": (text["stain"], text["um_per_px"], text["planes"], text["net"]["name"]),
        "args": text["net"]["args"],
        "range": (text["ct_range"]["low"], text["ct_range"]["high"], text["ct_range"]["units"]),
        "weights": dict(load((path / "weights.safetensors").read_bytes())),
        "history": text["history"],
    }


def write_recipe(folder: Path) -> Path:
    path = folder / "train.yaml"
    path.write_text("# small\nsteps: 2000\nwidth: 16\npatch_px: 128\nhold_out: [S07, S08]\nlr: 0.0002\naugment: true\n")
    return path


def read_recipe(path: Path) -> Look:
    from tomostain.steps.train import train

    return dict(_recipes.read_recipe(path, train))


def strict_recipe(path: Path) -> Look:
    """Every value as its text, as if it was typed; those that YAML takes for nothing are left out."""
    text = path.read_text(encoding="utf-8")
    typed, meant = yaml.load(text, yaml.BaseLoader), yaml.safe_load(text)
    return {key.replace("-", "_"): value for key, value in typed.items() if meant[yaml.safe_load(key)] is not None}


def yaml_bomb(t: Target) -> None:
    """Aliases of aliases that unfold to 10^9 items, tags that would build objects, nesting without end."""
    t.exact = True
    laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
    )
    lies = (
        laughs + "steps: *a9\n",
        "steps: !!python/object/apply:os.system ['touch hurt']\n",
        "steps: " + "[" * 20_000,
        "&a steps: *a\n",
        "steps: &a [*a]\n",
        "hold_out: &a [*a]\n",
        "\0\0steps",
        "- steps",
        "steps: 9" + "9" * 5000 + "\n",
    )
    t.path.write_text(t.pick(lies))


_NO_SIZES = frozenset({"lie-about-size"})

OURS = {
    "pair": Format(write_pair, read_pair, strict_pair, {"pair-bomb": pair_bomb}),
    "placement": Format(write_placement, read_placement, strict_placement),
    "stainer": Format(write_stainer, read_stainer, strict_stainer, without=_NO_SIZES),
    "recipe": Format(
        write_recipe,
        read_recipe,
        strict_recipe,
        {"yaml-bomb": yaml_bomb},
        _NO_SIZES | {"lie-about-dtype", "lie-in-json", "deep-json"},
        endless=True,
    ),
}
