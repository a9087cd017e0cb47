"""Dye strength and white balance of single slides, and what cannot be estimated."""

from dataclasses import replace

import numpy as np

from learning.conftest import synthetic_pair
from tomostain.images.srgb import to_linear, to_srgb
from tomostain.learning.dye import Dye, dyes_of, normalised


def dyed(pair, strength, balance=(0.0, 0.0, 0.0)):
    light = to_linear(pair.stain) ** strength * 10.0 ** -np.array(balance)
    return replace(pair, stain=to_srgb(light))


def cohort():
    return [synthetic_pair(seed, specimen=f"S{seed}", masked=False, noise=0.05) for seed in range(6)]


def test_a_stronger_dye_is_found_and_removed():
    clean = cohort()
    pairs = [dyed(clean[0], 1.4, (0.05, 0.0, -0.02)), dyed(clean[1], 0.75), *clean[2:]]
    dyes = dyes_of(pairs)
    usual = np.mean([dyes[pair.name].strength for pair in clean[2:]])
    assert abs(dyes[pairs[0].name].strength / usual - 1.4) < 0.12
    assert abs(dyes[pairs[1].name].strength / usual - 0.75) < 0.08
    after = normalised(pairs, dyes)
    bone = np.abs(clean[0].ct[0] - 1.4) < 0.05

    def colour(pair):
        return pair.stain[bone].mean(axis=0)

    assert np.abs(colour(after[0]) - colour(clean[0])).max() < 0.5 * np.abs(colour(pairs[0]) - colour(clean[0])).max()


def test_slides_that_are_dyed_alike_stay_as_they_are():
    pairs = cohort()
    for pair, same in zip(pairs, normalised(pairs, dyes_of(pairs)), strict=True):
        assert np.abs(pair.stain.astype(int) - same.stain)[pair.weight > 0].mean() < 4


def test_what_cannot_be_estimated_is_left_alone(rng):
    pairs = cohort()
    noise = replace(pairs[0], stain=rng.integers(0, 256, pairs[0].stain.shape, dtype=np.uint8))
    assert dyes_of([noise, *pairs[1:]])[noise.name] == Dye()
    assert dyes_of(pairs[:1]) == {pairs[0].name: Dye()}
    assert Dye().removed(pairs[0].stain) is pairs[0].stain
