"""Speed of each backend on one tile: preparing, network, conversion to uint8; and how far its colours are from fp32.

python benchmarks/staining_backends.py [--rounds 5] [--threads 2] [--size 512] [--backends torch openvino compile]

Each round runs all backends in turn, so that a machine whose speed drifts, or that other programs use, slows them all
alike. The ratio is the median over rounds of processor times of `torch` and the backend. Weights are random: the speed
does not depend on them, and differences from fp32 mean little (tests/inference measures them on trained networks).
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch

from _results import Figure, save
from tomostain.inference.backends import BACKENDS
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer

NETS = {
    "ResNet-9, 64 filters": NetSpec("resnet", {"norm": "batch", "skips": False}),
    "the demo's net (16 filters, 4 blocks)": NetSpec(
        "resnet", {"width": 16, "depth": 4, "norm": "batch", "tone": True}
    ),
    "U-Net, 32 filters, 4 levels": NetSpec("unet", {"width": 32, "depth": 4, "norm": "batch"}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument(
        "--backends", nargs="*", default=["torch", "openvino", "openvino-bf16", "compile", "compile-bf16"]
    )
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rng = np.random.default_rng(0)
    tile = rng.random((1, 1, asked.size, asked.size), dtype=np.float32)
    figures = []
    for net_name, spec in NETS.items():
        torch.manual_seed(0)
        net = build_generator(spec, 1, 3).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        model = Stainer(net, spec, CTRange(0.0, 1.0), "giemsa", 5.0)
        names = [name for name in asked.backends if BACKENDS[name].available(model)]
        predictors = {name: BACKENDS[name].make(model, lambda: tile) for name in names}
        for predict in predictors.values():
            predict(tile)
        clock: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for _ in range(asked.rounds):
            for name, predict in predictors.items():
                wall, cpu = time.perf_counter(), time.process_time()
                predict(tile)
                clock[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        reference = np.array(clock["torch"])[:, 1]
        for name in names:
            seconds = np.array(clock[name])
            per_cpu, best = tile.size / 1e6 / np.median(seconds[:, 1]), tile.size / 1e6 / seconds[:, 0].min()
            value = f"{per_cpu:.3f} Mpixel per second of processor time, at best {best:.3f} per second"
            ratio = float(np.median(reference / seconds[:, 1]))
            print(f"{net_name}, {name}: {value}, {ratio:.2f} x torch", flush=True)
            figures.append(Figure(f"{net_name}, {name}", value, ratio=ratio, peer="torch"))
    save("staining_backends", figures, note=f"tile of {asked.size} px, {asked.threads} threads, {asked.rounds} rounds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
