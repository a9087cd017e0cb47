"""How fast the networks are: one tile through the backends, in turn, against ResNet-9 with 64 filters in PyTorch.

python benchmarks/networks.py [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from _results import Figure, save
from tomostain.inference.backends import BACKENDS
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer

TILE_PX = 512
NETWORKS = {
    "ResNet-9, 64 filters, 1 plane (the reference's size)": (NetSpec("resnet", {"width": 64, "depth": 9}), 1),
    "the default: sub-pixel U-Net, 32 channels, 7 planes": (NetSpec("subpixel_unet", {"width": 32, "depth": 3}), 7),
    "U-Net, 32 filters, 4 levels, 1 plane": (NetSpec("unet", {"width": 32, "depth": 4}), 1),
}


def runs() -> dict[tuple[str, str], Callable[[], object]]:
    """Every network on every backend that is quick to set up and that this processor has, by both names."""
    rng = np.random.default_rng(0)
    made: dict[tuple[str, str], Callable[[], object]] = {}
    for name, (spec, planes) in NETWORKS.items():
        torch.manual_seed(0)
        net = build_generator(spec, planes, 3).eval().to(memory_format=torch.channels_last)
        model = Stainer(net, spec, CTRange(0.0, 2.0), "toluidine blue", 5.0, planes)
        tile = rng.uniform(0, 2, (1, planes, TILE_PX, TILE_PX)).astype(np.float32)
        for backend in ("torch", "openvino", "openvino-bf16"):
            if BACKENDS[backend].available(model):
                predict = BACKENDS[backend].make(model, lambda tile=tile: tile)
                made[name, backend] = lambda predict=predict, tile=tile: predict(tile)
    return made


def main() -> None:
    """Run all in turn, so that other work on the machine meets all alike."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    made = runs()
    for run in made.values():
        run()
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in made}
    for _ in range(asked.rounds):
        for key, run in made.items():
            begun = time.perf_counter()
            run()
            seconds[key].append(time.perf_counter() - begun)
    first = next(iter(made))
    figures = []
    for key, took in seconds.items():
        ratios = [reference / own for reference, own in zip(seconds[first], took, strict=True)]
        speed = TILE_PX**2 / statistics.median(took) / 1e6
        figures.append(
            Figure(", ".join(key), f"{speed:.2f} Mpixel/s", ratio=round(statistics.median(ratios), 1), peer=first[0])
        )
        print(figures[-1])
    save("networks", figures, note=f"one tile of {TILE_PX} px, no halo, {asked.threads} threads, medians")


if __name__ == "__main__":
    main()
