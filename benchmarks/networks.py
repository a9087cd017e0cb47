"""Ten networks trained alike on phantoms, with truth at every voxel: how good, how fast to stain with and to learn.

    python benchmarks/networks.py OUT [--seconds 240] [--rounds 3]        (OUT/specimens may be those of pretrain.py)

Each learns for the same seconds of processor time on one thread, on patches of the same specimens; then one tile goes
through the backends in turn. Skill is the share of the way from the colour table to the truth, on specimens not learnt
from. What is done is not done again. Writes docs/images/networks.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as Drawing
from torch import Tensor, nn
from torch.nn import functional

from _results import Figure, save
from pretrain import PLANES, RANGE, Specimen, draw, read_specimen
from tomostain.inference.backends import BACKENDS
from tomostain.learning.losses import Translation, paired, squared, ssim_loss
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.patches import Patch, stack
from tomostain.learning.stainer import Stainer
from tomostain.scoring.metrics import psnr, ssim

TILE_PX, BATCH, LEARNT, HELD_OUT, EVERY = 512, 4, 36, (48, 51, 54, 57), 4
BINS = 256


class Block(nn.Module):
    """ConvNeXt block (Liu et al. 2022): 7 x 7 by channel, norm, four times the channels, back, added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.space = nn.Conv2d(channels, channels, 7, 1, 3, groups=channels)
        self.norm = nn.GroupNorm(1, channels)
        self.mix = nn.Sequential(nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1))

    def forward(self, image: Tensor) -> Tensor:
        return image + self.mix(self.norm(self.space(image)))


class ConvNextUNet(nn.Module):
    """A 2.5-D U-Net of ConvNeXt blocks, after what VisCy uses: planes folded into channels by the first convolution."""

    halo_px, stride_px, tile_exact = 128, 16, False

    def __init__(self, in_channels: int, out_channels: int, *, width: int = 32) -> None:
        super().__init__()
        sizes = [width, 2 * width, 4 * width]
        self.stem = nn.Conv2d(in_channels, sizes[0], 4, 4)
        self.down = nn.ModuleList([nn.Sequential(Block(c), Block(c)) for c in sizes])
        self.halve = nn.ModuleList([nn.Conv2d(a, b, 2, 2) for a, b in itertools.pairwise(sizes)])
        self.join = nn.ModuleList([nn.Conv2d(b + a, a, 1) for a, b in itertools.pairwise(sizes)])
        self.up = nn.ModuleList([Block(c) for c in sizes[:-1]])
        self.head = nn.Sequential(
            nn.Conv2d(sizes[0], 16 * 16, 1), nn.PixelShuffle(4), nn.Conv2d(16, out_channels, 3, 1, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        kept = []
        image = self.stem(image)
        for number, blocks in enumerate(self.down):
            image = blocks(image)
            if number < len(self.halve):
                kept.append(image)
                image = self.halve[number](image)
        for number in reversed(range(len(self.up))):
            larger = functional.interpolate(image, scale_factor=2.0, mode="nearest")
            image = self.up[number](self.join[number](torch.cat([larger, kept[number]], dim=1)))
        return torch.tanh(self.head(image))


SUBPIXEL = NetSpec("subpixel_unet", {"width": 32, "depth": 3})
NETWORKS = {
    "ResNet-9, 64 filters, 1 plane": (NetSpec("resnet", {"width": 64, "depth": 9}), 1),
    "ResNet-4, 16 filters, 1 plane": (NetSpec("resnet", {"width": 16, "depth": 4}), 1),
    "U-Net, 32 filters, 1 plane": (NetSpec("unet", {"width": 32, "depth": 4}), 1),
    "U-Net, 32 filters, 7 planes": (NetSpec("unet", {"width": 32, "depth": 4}), 7),
    "ConvNeXt U-Net, 32, 7 planes": (NetSpec("networks:ConvNextUNet", {"width": 32}), 7),
    "sub-pixel U-Net, 1 plane": (SUBPIXEL, 1),
    "sub-pixel U-Net, 3 planes": (SUBPIXEL, 3),
    "sub-pixel U-Net, 5 planes": (SUBPIXEL, 5),
    "sub-pixel U-Net, 7 planes (default)": (SUBPIXEL, 7),
    "sub-pixel U-Net, 16 channels, 7 planes": (NetSpec("subpixel_unet", {"width": 16, "depth": 3}), 7),
}


def central(ct: Tensor, planes: int) -> Tensor:
    """The middle ``planes`` of a slab (b, PLANES, y, x)."""
    first = (PLANES - planes) // 2
    return ct[:, first : first + planes].contiguous(memory_format=torch.channels_last)


def learn(spec: NetSpec, planes: int, specimens: list[Specimen], seconds: float) -> tuple[nn.Module, int, list[Any]]:
    """Adam for so many seconds of this process; the net, its steps, and (seconds, loss) every 20 steps.

    The learning rate falls with the seconds, so that each network ends at rest, whatever its speed.
    """
    torch.manual_seed(0)
    net = build_generator(spec, planes, 3).to(memory_format=torch.channels_last)
    usual = 2e-4 if spec.name in ("resnet", "unet") else 1e-3
    adam = torch.optim.AdamW(net.parameters(), usual, betas=(0.9, 0.99), weight_decay=1e-4)
    step, spent, losses, curve = 0, 0.0, [], []
    while spent < seconds:
        here = stack([draw(specimens, 1, step * BATCH + i) for i in range(BATCH)])
        begun = time.process_time()
        adam.param_groups[0]["lr"] = usual * min(1.0, 2 * (1 - spent / seconds))
        fake = net(central(here.ct, planes))
        t = Translation(here, here, stain_generator=lambda _, fake=fake: fake)
        loss = paired(t) + squared(t) + 0.2 * ssim_loss(t)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        spent, step = spent + time.process_time() - begun, step + 1
        losses.append(float(loss.detach()))
        if step % 20 == 0:
            curve.append((round(spent, 1), round(float(np.mean(losses[-20:])), 4)))
    return net.eval(), step, curve


def planes_of(specimen: Specimen) -> Patch:
    """Every fourth plane of a specimen with its neighbours, and its truth."""
    half = PLANES // 2
    middles = range(half, specimen.ct.shape[2] - half, EVERY)
    ct = torch.stack([specimen.ct[0, 0, z - half : z + half + 1] for z in middles])
    rgb = torch.stack([specimen.rgb[0, :, z].float() for z in middles])
    return Patch(torch.from_numpy(RANGE.to_unit(ct.numpy())), rgb, torch.ones(len(rgb), 1, *rgb.shape[2:]))


def scores(shown: list[Tensor], held: list[Patch]) -> dict[str, float]:
    """Mean SSIM and PSNR against the truth, values of 0 to 255."""
    each = [
        (ssim(a, b.stain, data_range=255.0).mean(), psnr(a, b.stain, data_range=255.0).mean())
        for a, b in zip(shown, held, strict=True)
    ]
    return {name: float(np.mean([pair[k] for pair in each])) for k, name in enumerate(("ssim", "psnr"))}


def table(specimens: list[Specimen], held: list[Patch]) -> list[Tensor]:
    """The mean colour of each of 256 grey values, learnt on the same specimens."""
    total, count = np.zeros((BINS, 3)), np.zeros(BINS)
    for one in specimens:
        values = _bins(RANGE.to_unit(one.ct[0, 0, ::4].numpy()).ravel())
        count += np.bincount(values, minlength=BINS)
        for colour in range(3):
            total[:, colour] += np.bincount(values, one.rgb[0, colour, ::4].numpy().ravel(), minlength=BINS)
    colours = torch.from_numpy((total / np.maximum(count, 1)[:, None]).astype(np.float32))
    return [colours[torch.from_numpy(_bins(one.ct[:, PLANES // 2].numpy()))].movedim(-1, 1) for one in held]


def _bins(unit: np.ndarray) -> np.ndarray:
    return np.clip((unit + 1.2) / 2.4 * BINS, 0, BINS - 1).astype(int)


def stained(net: nn.Module, planes: int, held: list[Patch]) -> list[Tensor]:
    """What a network makes of the held-out planes, one at a time."""
    with torch.inference_mode():
        return [torch.cat([(net(central(ct[None], planes)).clamp(-1, 1) + 1) * 127.5 for ct in one.ct]) for one in held]


def speeds(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds a tile: network -> backend -> each round; all in turn, so that other work meets all alike."""
    rng, runs = np.random.default_rng(0), {}
    for name, (spec, planes) in NETWORKS.items():
        torch.manual_seed(0)
        net = build_generator(spec, planes, 3).eval().to(memory_format=torch.channels_last)
        model = Stainer(net, spec, RANGE, "toluidine blue", 5.0, planes)
        tile = rng.uniform(0, 2, (1, planes, TILE_PX, TILE_PX)).astype(np.float32)
        for backend in ("torch", "openvino", "openvino-bf16"):
            if BACKENDS[backend].available(model):
                runs[name, backend] = BACKENDS[backend].make(model, lambda tile=tile: tile), tile
    found: dict[str, dict[str, list[float]]] = {name: {} for name in NETWORKS}
    for number in range(rounds + 1):
        for (name, backend), (predict, tile) in runs.items():
            begun = time.perf_counter()
            predict(tile)
            if number:
                found[name].setdefault(backend, []).append(time.perf_counter() - begun)
    return found


def once(file: Path, make: Callable[[], Any]) -> Any:
    """What a file holds, or what is made and then written there."""
    if not file.exists():
        file.write_text(json.dumps(make()))
    return json.loads(file.read_text())


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("out", type=Path)
    words.add_argument("--seconds", type=float, default=240.0)
    words.add_argument("--rounds", type=int, default=3)
    asked = words.parse_args()
    sys.modules.setdefault("networks", sys.modules[__name__])
    (asked.out / "specimens").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    specimens = [read_specimen(asked.out / "specimens", number) for number in range(LEARNT)]
    held = [planes_of(read_specimen(asked.out / "specimens", number)) for number in HELD_OUT]
    lowest = scores(table(specimens, held), held)

    def trained(name: str) -> dict[str, Any]:
        spec, planes = NETWORKS[name]
        net, steps, curve = learn(spec, planes, specimens, asked.seconds)
        return {"steps": steps, "curve": curve, **scores(stained(net, planes, held), held)}

    rows = {}
    for number, name in enumerate(NETWORKS):
        rows[name] = once(asked.out / f"network_{number}.json", lambda name=name: trained(name))
        print(name, {key: value for key, value in rows[name].items() if key != "curve"}, flush=True)
    took = once(asked.out / "network_speeds.json", lambda: speeds(asked.rounds))
    first = next(iter(NETWORKS))
    figures = [Figure("colour table: SSIM, PSNR against the truth", f"{lowest['ssim']:.3f}, {lowest['psnr']:.1f} dB")]
    for name, row in rows.items():
        skill = (row["ssim"] - lowest["ssim"]) / (1 - lowest["ssim"])
        row["skill"] = skill
        value = f"skill in SSIM {skill:.2f}, {row['psnr'] - lowest['psnr']:+.1f} dB, {row['steps']} steps"
        figures.append(Figure(f"{name}: learnt in {asked.seconds:.0f} s", value))
        for backend, seconds in took[name].items():
            ratio = statistics.median(a / b for a, b in zip(took[first]["torch"], seconds, strict=True))
            speed = TILE_PX**2 / statistics.median(seconds) / 1e6
            figures.append(
                Figure(f"{name}: {backend}", f"{speed:.2f} Mpixel/s", ratio=round(ratio, 1), peer=f"{first}, torch")
            )
    save(
        "networks",
        figures,
        note=f"tiles of {TILE_PX} px, no halo, 1 thread, medians; trained on {LEARNT} phantoms, 4 held out",
    )
    drawing(rows, took).savefig(Path(__file__).parents[1] / "docs" / "images" / "networks.png", dpi=110)


def drawing(rows: dict[str, Any], took: dict[str, dict[str, list[float]]]) -> Drawing:
    """Skill against speed, and loss against seconds of training."""
    figure = Drawing(figsize=(12, 5), layout="constrained")
    speed, time_ = figure.subplots(1, 2)
    for number, (name, row) in enumerate(rows.items()):
        colour, mark = f"C{number}", "os^Dv<>P*X"[number]
        for backend, filled in (("torch", "none"), ("openvino", colour)):
            fast = TILE_PX**2 / statistics.median(took[name][backend]) / 1e6
            speed.plot(fast, row["skill"], mark, color=colour, mfc=filled, label=name if filled != "none" else None)
        time_.plot(*zip(*row["curve"], strict=True), color=colour, label=name)
    speed.set(xscale="log", xlabel="Mpixel/s on one thread (open: PyTorch, filled: OpenVINO)", ylabel="skill in SSIM")
    speed.legend(fontsize="x-small")
    time_.set(xlabel="seconds of training on one thread", ylabel="loss", yscale="log")
    return figure


if __name__ == "__main__":
    main()
