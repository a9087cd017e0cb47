"""A training step of the classical CycleGAN: ours against the same step as a plain PyTorch loop, and its memory.

    python benchmarks/training_step.py [--rounds 2] [--threads 2] [--reference CLONE]

256 px, 64 filters, batch 1, identity on, the same losses. The plain loop has the reference implementation's order of
work and PyTorch's default settings; with --reference, its networks come from a clone of pytorch-CycleGAN-and-pix2pix.
Each variant runs in a process of its own, in turn, so that other work on the machine meets all alike.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from _results import Figure, save
from tomostain.learning.nets import NetSpec, build_discriminator, build_generator
from tomostain.learning.patches import Patch
from tomostain.learning.recipe import TrainRecipe
from tomostain.learning.state import ImagePool, State
from tomostain.learning.step import take_step

VARIANTS = ("plain fp32", "ours fp32", "ours bf16")
PX, WARM, TIMED = 256, 1, 2


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """A CT plane and a stain, (1, 1, y, x) and (1, 3, y, x), in [-1, 1]."""
    torch.manual_seed(0)
    return torch.rand(1, 1, PX, PX) * 2 - 1, torch.rand(1, 3, PX, PX) * 2 - 1


def plain(reference: str | None) -> Callable[[], None]:
    """Zhu et al. 2017 as it is usually written: generators, then each discriminator."""
    if reference:
        sys.path.insert(0, reference)
        from models import networks

        made = {
            "to_stain": networks.define_G(1, 3, 64, "resnet_9blocks", "instance"),
            "to_ct": networks.define_G(3, 1, 64, "resnet_9blocks", "instance"),
            "stain_critic": networks.define_D(3, 64, "basic", norm="instance"),
            "ct_critic": networks.define_D(1, 64, "basic", norm="instance"),
        }
    else:
        made = {
            "to_stain": build_generator(NetSpec("reference_resnet"), 1, 3),
            "to_ct": build_generator(NetSpec("reference_resnet"), 3, 1),
            "stain_critic": build_discriminator(NetSpec("patchgan"), 3),
            "ct_critic": build_discriminator(NetSpec("patchgan"), 1),
        }
    nets = nn.ModuleDict(made).train()
    to_stain, to_ct, stain_critic, ct_critic = nets.values()
    generators = torch.optim.Adam(chain(to_stain.parameters(), to_ct.parameters()), 2e-4, betas=(0.5, 0.999))
    critics = torch.optim.Adam(chain(stain_critic.parameters(), ct_critic.parameters()), 2e-4, betas=(0.5, 0.999))
    pools, rng = (ImagePool(50), ImagePool(50)), np.random.default_rng(0)
    ct, stain = images()

    def towards(verdict: torch.Tensor, value: float) -> torch.Tensor:
        return functional.mse_loss(verdict, torch.full_like(verdict, value))

    def step() -> None:
        fake_stain, fake_ct = to_stain(ct), to_ct(stain)
        again_ct, again_stain = to_ct(fake_stain), to_stain(fake_ct)
        for critic in (stain_critic, ct_critic):
            critic.requires_grad_(False)
        generators.zero_grad()
        same = functional.l1_loss(to_stain(stain.mean(1, True)), stain)
        same = same + functional.l1_loss(to_ct(ct.expand(-1, 3, -1, -1)), ct)
        loss = towards(stain_critic(fake_stain), 1) + towards(ct_critic(fake_ct), 1) + 5 * same
        loss = loss + 10 * (functional.l1_loss(again_ct, ct) + functional.l1_loss(again_stain, stain))
        loss.backward()
        generators.step()
        critics.zero_grad()
        for critic, pool, real, fake in (
            (stain_critic, pools[0], stain, fake_stain),
            (ct_critic, pools[1], ct, fake_ct),
        ):
            critic.requires_grad_(True)
            shown = pool.exchange(fake, rng).contiguous()
            (0.5 * (towards(critic(real), 1) + towards(critic(shown), 0))).backward()
        critics.step()

    return step


def ours(precision: str) -> Callable[[], None]:
    """The same step through ``take_step``."""
    settled = TrainRecipe(method="cyclegan", precision=precision, patch_px=PX, batch=1).filled()  # type: ignore[arg-type]
    method, fabric = settled.chosen_method(), Fabric(accelerator="cpu", devices=1, precision=settled.precision)
    state, count = State(settled, method, 1, fabric.device), iter(range(1000))
    ct, stain = images()
    patch = Patch(ct, stain, torch.ones(1, 1, PX, PX))

    def step() -> None:
        take_step(fabric, state, patch, patch, settled, method, next(count))

    return step


def worker(variant: str, reference: str | None) -> dict[str, object]:
    """Times of a few steps in this process, and its largest memory."""
    step = plain(reference) if variant.startswith("plain") else ours("bf16-mixed" if "bf16" in variant else "32-true")
    took = []
    for _ in range(WARM + TIMED):
        begun = time.perf_counter()
        step()
        took.append(time.perf_counter() - begun)
    return {"seconds": took[WARM:], "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=2)
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    words.add_argument("--reference", help="folder of a clone of pytorch-CycleGAN-and-pix2pix")
    words.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.worker:
        print(json.dumps(worker(asked.worker, asked.reference)))
        return
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in VARIANTS}
    for _ in range(asked.rounds):
        for name in VARIANTS:
            more = ["--reference", asked.reference] if asked.reference else []
            command = [sys.executable, __file__, "--worker", name, "--threads", str(asked.threads), *more]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, rows[name][-1], flush=True)
    seconds = {name: statistics.median(chain.from_iterable(row["seconds"] for row in rows[name])) for name in VARIANTS}
    peaks = {name: max(row["peak_gib"] for row in rows[name]) for name in VARIANTS}
    figures = [
        Figure(name, f"{seconds[name]:.2f} s, {peaks[name]:.2f} GiB", round(seconds[VARIANTS[0]] / seconds[name], 2))
        for name in VARIANTS
    ]
    source = "networks of the clone" if asked.reference else "our networks of the reference's sizes"
    save("training_step", figures, note=f"{PX} px, 64 filters, batch 1, {asked.threads} threads; plain loop: {source}")


if __name__ == "__main__":
    main()
