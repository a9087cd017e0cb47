"""Pairs whose sections are misplaced by so many pixels, each in a direction of its own.

python benchmarks/misplace.py pairs/ misplaced/ 4
tomostain experiment misplaced/ experiment/ --score-on pairs/ --variants benchmarks/experiment_cpu.yaml --hours 0.011
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from tomostain.pairs.pair import Pair, load_pair, pairs_in, save_pair


def misplaced(pair: Pair, far_px: float, rng: np.random.Generator) -> Pair:
    """The pair with its section beside its place, by the nearest whole pixels; CT and truth stay where they are."""
    angle = rng.uniform(0, 2 * np.pi)
    move = (round(far_px * np.sin(angle)), round(far_px * np.cos(angle)))
    stain, mask, confidence = (np.roll(image, move, (0, 1)) for image in (pair.stain, pair.mask, pair.confidence))
    for axis, by in enumerate(move):  # what came round from the other side
        edge = [slice(None)] * 2
        edge[axis] = slice(0, by) if by > 0 else slice(mask.shape[axis] + by, None)
        mask[tuple(edge)] = False
    inside = np.isfinite(pair.central_ct) if pair.inside is None else pair.inside
    return replace(pair, stain=stain, mask=mask & inside, confidence=confidence)


def main(pairs: Path, out: Path, far_px: float) -> None:
    """Write the misplaced pairs."""
    rng = np.random.default_rng(15)
    for file in pairs_in(pairs):
        save_pair(misplaced(load_pair(file), far_px, rng), out / file.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
