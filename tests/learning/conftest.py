"""Small synthetic pairs: shapes whose colour needs their surroundings, not their grey value alone."""

import os

import numpy as np
import pytest
from scipy import ndimage

from tomostain.images.geometry import Grid
from tomostain.pairs.pair import Pair

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before a test module loads torch

COLOURS = np.array([(243, 240, 244), (205, 214, 232), (112, 132, 190), (20, 18, 22)], np.uint8)
"""Resin, old bone, new bone (the rim of old bone beside metal), metal."""
GREYS = np.array([0.3, 1.4, 1.3, 2.4], np.float32)


def synthetic_pair(seed, *, specimen="S00", shape=(96, 112), planes=1, noise=0.15, masked=True):
    rng = np.random.default_rng([seed, 77])
    noise_field = ndimage.gaussian_filter(rng.standard_normal(shape), 5.0)
    bone = noise_field > 0
    y, x = np.indices(shape)
    centre = rng.uniform(0.3, 0.7, 2) * shape
    distance = np.hypot(y - centre[0], x - centre[1]) - min(shape) * 0.15
    label = bone.astype(int)
    label[bone & (distance < 10)] = 2
    label[distance < 0] = 3
    stain = COLOURS[label] + rng.integers(-4, 5, (*shape, 3)) * (label[..., None] > 0)
    ct = ndimage.gaussian_filter(GREYS[label], 0.7) + noise * rng.standard_normal((planes, *shape))
    mask = np.ones(shape, bool)
    if masked:
        mask[:, : shape[1] // 8] = False
        stain[~mask] = rng.integers(0, 256, (*shape, 3))[~mask]
    return Pair(
        ct=ct.astype(np.float32),
        stain=np.clip(stain, 0, 255).astype(np.uint8),
        mask=mask,
        confidence=np.full(shape, 0.9, np.float32),
        grid=Grid(shape, (5.0, 5.0)),
        specimen=specimen,
        name=f"{specimen}-{seed}",
    )


@pytest.fixture
def make_pair():
    return synthetic_pair


@pytest.fixture(scope="session")
def pairs():
    """Six pairs of three specimens."""
    return [synthetic_pair(seed, specimen=f"S{seed // 2:02d}") for seed in range(6)]
