"""Train the network of the staining benchmarks for a few minutes: differences from fp32 mean little on random weights.

python benchmarks/staining_net.py PAIRS STAINER [--steps 250]        (PAIRS of a demo: OUT/pairs)

ResNet-9 with 64 filters in its tile-exact form (batch norm, enlargement by repetition), the generator alone, L1 and
squared error on patches of 96 px of all pairs. It is no good stainer; its layers have the spread that training gives.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange, RGBRange
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import load_pair, pairs_in

EXACT = NetSpec("resnet", {"norm": "batch", "skips": False})
PATCH_PX, BATCH = 96, 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("stainer", type=Path)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    pairs = [load_pair(file) for file in pairs_in(asked.pairs)]
    ct_range = CTRange.fit([pair.ct for pair in pairs], units="1/cm")
    torch.manual_seed(asked.seed)
    chance = np.random.default_rng(asked.seed)
    net = build_generator(EXACT, 1, 3).train().to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), lr=5e-4)
    begun, late = time.monotonic(), 0.0
    for step in range(asked.steps):
        ct, stain = patches(pairs, ct_range, chance)
        off = net(ct) - stain
        loss = off.abs().mean() + off.square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        late += float(loss.detach()) * (step >= asked.steps - 25) / 25
        if step % 25 == 0:
            print(f"step {step}: loss {float(loss.detach()):.3f}, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"loss of the last 25 steps {late:.3f}")
    Stainer(net.eval(), EXACT, ct_range, pairs[0].stain_name, pairs[0].grid.spacing_um[0]).save(asked.stainer)
    return 0


def patches(pairs: list, ct_range: CTRange, chance: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """CT (b, 1, y, x) and stain (b, 3, y, x) in [-1, 1]."""
    ct, stain = [], []
    for _ in range(BATCH):
        pair = pairs[int(chance.integers(len(pairs)))]
        y, x = (int(chance.integers(n - PATCH_PX + 1)) for n in pair.mask.shape)
        window = slice(y, y + PATCH_PX), slice(x, x + PATCH_PX)
        ct.append(ct_range.to_unit(pair.central_ct[window])[None])
        stain.append(np.moveaxis(RGBRange.to_unit(pair.stain[window]), -1, 0))
    return torch.from_numpy(np.stack(ct)), torch.from_numpy(np.stack(stain))


if __name__ == "__main__":
    sys.exit(main())
