"""Make the stainer that is shipped: phantoms of many kinds, truth at every voxel, one network for slabs of CT planes.

    python benchmarks/pretrain.py OUT --steps 19000         (from nothing; not tried at this length)
    python benchmarks/pretrain.py OUT --steps 10000 --lr 1.2e-3 --start STAINER         (what is shipped; see its card)

Every third specimen is scanned as the phantom's default; the others differ in voxel size (3 to 8 um), photon energy,
dose, phase contrast, rings, blur, anatomy, weeks in vivo. A run that was broken off goes on from its last checkpoint.
Seeds 5000 and above make the specimens; no figure is reported on them.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from tomostain.images.anchors import Anchors, find_anchors
from tomostain.images.grey_values import GreyValues
from tomostain.io.volumes import read_volume
from tomostain.learning.augment import Augment, flaw_ct
from tomostain.learning.losses import Translation, paired, squared, ssim_loss
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.patches import Patch, stack
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer
from tomostain.learning.start import take_over
from tomostain.phantom.attenuation import attenuation
from tomostain.phantom.cohort import CohortRecipe, write_cohort
from tomostain.phantom.recipe import AnatomyRecipe, Material
from tomostain.phantom.tissues import Tissue
from tomostain.phantom.tomography import TomographyRecipe

PLANES, PATCH_PX, SIZE = 7, 128, (64, 224, 224)
MATERIALS: tuple[Material, ...] = ("Mg-5Gd", "Mg-10Gd", "Ti", "PEEK")
RANGE = CTRange(-0.2, 1.8, "1/cm", -1.0, 16.0)
FLAWS = Augment(ct_gain=0.04, ct_offset=0.02, ct_noise=0.03, ct_blur_px=0.5)
SPEC = NetSpec("subpixel_unet", {"width": 32, "depth": 3, "norm": "pixel", "up": "resize", "tone": False})


@dataclass(frozen=True)
class Specimen:
    """CT mapped onto the default scan's 1/cm and its perfect stain, as torch wants them: (1, c, z, y, x)."""

    ct: torch.Tensor
    rgb: torch.Tensor


def recipe_of(number: int) -> CohortRecipe:
    """Specimen ``number``; a pure function of it."""
    rng = np.random.default_rng([4242, number])
    usual = number % 3 == 0
    voxel_um = 5.0 if usual else float(np.exp(rng.uniform(np.log(3.0), np.log(8.0))))
    scan = (
        TomographyRecipe()
        if usual
        else TomographyRecipe(
            energy_kev=float(rng.uniform(28, 60)),
            photons=float(4e5 * np.exp(rng.uniform(-1.2, 0.7))),
            phase_contrast=float(rng.uniform(0.0, 0.2)),
            gain_error=float(rng.uniform(0, 0.0009)),
            psf_sigma_px=float(rng.uniform(0.4, 0.9)),
        )
    )
    anatomy = AnatomyRecipe(
        implant="pin" if rng.random() < 0.25 else "screw",
        trabecular_fraction=float(rng.uniform(0.2, 0.36)),
        adipocyte_fraction=float(rng.uniform(0.3, 0.75)),
        woven_um=float(rng.uniform(180, 340)),
        cortex=bool(rng.random() < 0.8),
    )
    weeks = float(rng.choice([3, 4, 6, 8, 10, 12, 16]))
    return CohortRecipe(
        specimens=1,
        slides=0,
        size=SIZE,
        voxel_um=voxel_um,
        materials=(MATERIALS[number % 4],),
        weeks=(weeks,),
        anatomy=anatomy,
        tomography=scan,
        seed=5000 + number,
    )


def read_specimen(folder: Path, number: int) -> Specimen:
    """A specimen, made if it is not there; its CT has soft tissue and bone where the default scan has them."""
    recipe, place = recipe_of(number), folder / f"P{number:03d}"
    if not (place / "cohort.json").exists():
        write_cohort(place, recipe)
    ct = np.asarray(read_volume(place / "S00" / "ct.ome.zarr")[:], np.float32)
    here = attenuation(recipe.materials[0], recipe.tomography.energy_kev)
    usual = attenuation(recipe.materials[0], TomographyRecipe().energy_kev)
    (soft, bone), (to_soft, to_bone) = ((t[Tissue.MARROW], t[Tissue.LAMELLAR]) for t in (here, usual))
    ct = np.float32(to_soft) + (ct - np.float32(soft)) * np.float32((to_bone - to_soft) / (bone - soft))
    rgb = np.asarray(read_volume(place / "S00" / "stain_truth.ome.zarr")[:])
    return Specimen(torch.from_numpy(ct)[None, None], torch.from_numpy(np.moveaxis(rgb, -1, 0).copy())[None])


def draw(specimens: list[Specimen], seed: int, index: int) -> Patch:
    """Patch ``index``: half straight planes as a volume is stained, half oblique ones as slides are cut."""
    rng = np.random.default_rng([seed, index])
    usual = specimens[::3] if rng.random() < 0.5 else specimens
    one = usual[int(rng.integers(len(usual)))]
    half = (PLANES - 1) / 2
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (PLANES, PATCH_PX, PATCH_PX)), indexing="ij")
    offsets = np.stack([z, y, x], axis=-1).astype(np.float32)
    shape = np.array(one.ct.shape[2:])
    if rng.random() < 0.5:
        offsets = offsets @ turned(rng) * np.float32(np.exp(rng.uniform(-0.15, 0.15)))
        centre = rng.uniform([half, 55, 55], shape - np.array([half + 1, 56, 56]))
    else:
        low = np.array([half, PATCH_PX / 2 - 0.5, PATCH_PX / 2 - 0.5])
        centre = low + np.array([rng.integers(0, n) for n in (shape - 2 * low).astype(int)])
    where = torch.from_numpy(((offsets + centre.astype(np.float32)) / (shape - 1) * 2 - 1).astype(np.float32))
    grid = where.flip(-1)[None]
    ct = functional.grid_sample(one.ct, grid, align_corners=True, padding_mode="reflection")[0, 0].numpy()
    middle = grid[:, PLANES // 2 : PLANES // 2 + 1]
    corner, box = around(one.rgb, where[PLANES // 2])
    rgb = functional.grid_sample(box.float(), corner(middle), align_corners=True, padding_mode="border")[
        0, :, 0
    ].numpy()
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    ct, rgb = (np.rot90(a, turns, axes=(-2, -1)) for a in (ct, rgb / 127.5 - 1.0))
    if mirrored:
        ct, rgb = ct[..., ::-1], rgb[..., ::-1]
    unit = flaw_ct(rng, RANGE.to_unit(ct), FLAWS)
    weight = torch.ones(1, PATCH_PX, PATCH_PX)
    return Patch(*(torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in (unit, rgb)), weight)


def around(volume: torch.Tensor, where: torch.Tensor):
    """The box of a volume that holds the places, and the map of grid_sample's numbers into it."""
    shape = torch.tensor(volume.shape[2:])
    at = (where.reshape(-1, 3) + 1) / 2 * (shape - 1)
    low = at.min(0).values.floor().long().clamp(min=torch.zeros(3, dtype=torch.long), max=shape - 2)
    high = torch.minimum(at.max(0).values.ceil().long().clamp(min=0) + 1, shape).maximum(low + 2)
    box = volume[:, :, low[0] : high[0], low[1] : high[1], low[2] : high[2]]

    def mapped(grid: torch.Tensor) -> torch.Tensor:
        voxels = (grid.flip(-1) + 1) / 2 * (shape - 1)
        return ((voxels - low) / (high - low - 1) * 2 - 1).flip(-1)

    return mapped, box


def turned(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A free rotation about the planes' normal after a tilt of up to 25 degrees, or planes along another axis."""
    spin, tilt, heading = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(0, 25)), rng.uniform(0, 2 * np.pi)

    def about(axis: int, angle: float) -> npt.NDArray[np.float64]:
        a, b = [k for k in range(3) if k != axis]
        matrix = np.eye(3)
        matrix[a, a] = matrix[b, b] = np.cos(angle)
        matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
        return matrix

    return (about(0, spin) @ about(1, tilt) @ about(0, heading)).astype(np.float32)


@dataclass(frozen=True)
class Settings:
    """How it is trained; ``start`` is a stainer to go on from."""

    steps: int
    batch: int
    lr: float
    seed: int
    start: Path | None
    bf16: bool


def train(out: Path, specimens: list[Specimen], settings: Settings) -> None:
    """Adam with a short warm-up and a cosine to 0; running mean of the weights; a checkpoint every 250 steps."""
    steps, batch, lr, seed = settings.steps, settings.batch, settings.lr, settings.seed
    torch.manual_seed(seed)
    net = build_generator(SPEC, PLANES, 3).to(memory_format=torch.channels_last)
    if settings.start:
        print("tensors taken over, of how many:", take_over(net, Stainer.load(settings.start).net))
    mean = build_generator(SPEC, PLANES, 3)
    mean.load_state_dict(net.state_dict())
    adam = torch.optim.AdamW(net.parameters(), lr, betas=(0.9, 0.99), weight_decay=1e-4)
    first, file, lines = 0, out / "checkpoint.pt", out / "curve.jsonl"
    if file.exists():
        kept = torch.load(file, weights_only=True)
        net.load_state_dict(kept["net"])
        mean.load_state_dict(kept["mean"])
        adam.load_state_dict(kept["adam"])
        first = kept["step"]
    begun, shown = time.monotonic(), []
    with ThreadPoolExecutor(1) as helper:
        ahead = [helper.submit(draw_batch, specimens, seed, step, batch) for step in range(first, first + 3)]
        for step in range(first, steps):
            here = ahead.pop(0).result()
            ahead.append(helper.submit(draw_batch, specimens, seed, step + 3, batch))
            adam.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / steps))
            ct = here.ct.to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
                fake = net(ct)
            t = Translation(here, here, stain_generator=lambda _, fake=fake.float(): fake)
            loss = paired(t) + squared(t) + 0.2 * ssim_loss(t)
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            adam.step()
            with torch.no_grad():
                keep = min(0.999, (step + 1) / (step + 10))
                for old, new in zip(mean.state_dict().values(), net.state_dict().values(), strict=True):
                    old.lerp_(new, 1 - keep)
            shown.append(float(loss.detach()))
            if (step + 1) % 100 == 0:
                seconds = (time.monotonic() - begun) / (step + 1 - first)
                line = {"step": step + 1, "loss": float(np.mean(shown)), "s_per_step": round(seconds, 3)}
                with lines.open("a") as stream:
                    stream.write(json.dumps(line) + "\n")
                shown.clear()
            if (step + 1) % 250 == 0 or step + 1 == steps:
                kept = {"net": net.state_dict(), "mean": mean.state_dict(), "adam": adam.state_dict(), "step": step + 1}
                torch.save(kept, out / "checkpoint.part")
                (out / "checkpoint.part").replace(file)
    save(out / "stainer", mean, specimens, steps)


def draw_batch(specimens: list[Specimen], seed: int, step: int, batch: int) -> Patch:
    """Patches of one step."""
    return stack([draw(specimens, seed, step * batch + i) for i in range(batch)])


def save(folder: Path, net: torch.nn.Module, specimens: list[Specimen], steps: int) -> None:
    """The stainer, its weights in half precision."""
    names = [f"phantom_{5000 + number}" for number in range(len(specimens))]
    grey = {n: GreyValues.of(s.ct.numpy()) for n, s in list(zip(names, specimens, strict=True))[::3]}
    history = {
        "method": "pretrained on phantoms",
        "specimens": names,
        "simulated": names,
        "held_out": [],
        "steps": steps,
        "made_by": "benchmarks/pretrain.py",
    }
    values = {n: g for n, g in grey.items() if g}
    usual = [find_anchors(list(one.ct[0, 0, 8::16].numpy()), units="1/cm") for one in specimens[::3]]
    anchors = Anchors.median([found[0] for found in usual if found])
    facts: dict[str, Any] = {"grey_values": values, "anchors": anchors, "within_um": (3.0, 8.0)}
    Stainer(copy.deepcopy(net).eval(), SPEC, RANGE, "toluidine blue", 5.0, PLANES, history, **facts).save(
        folder, half=True
    )


def main() -> None:
    """Read the command line and train."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("out", type=Path)
    words.add_argument("--steps", type=int, default=9_000)
    words.add_argument("--specimens", type=int, default=60)
    words.add_argument("--batch", type=int, default=4)
    words.add_argument("--lr", type=float, default=1.5e-3)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--start", type=Path, help="a stainer whose weights are gone on from")
    words.add_argument("--bf16", action="store_true", help="bfloat16, where the processor is faster with it")
    given = words.parse_args()
    (given.out / "specimens").mkdir(parents=True, exist_ok=True)
    specimens = [read_specimen(given.out / "specimens", number) for number in range(given.specimens)]
    train(given.out, specimens, Settings(given.steps, given.batch, given.lr, given.seed, given.start, given.bf16))


if __name__ == "__main__":
    main()
