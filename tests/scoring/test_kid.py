"""The kernel distance is the published estimate, and pictures of one kind are nearer than those of two."""

import itertools

import numpy as np
import pytest
import torch

from tomostain.scoring.kid import features, kernel_distance, stacked
from tomostain.scoring.lpips import Lpips


def test_it_is_the_unbiased_estimate_of_binkowski_et_al(rng):
    first, second = rng.standard_normal((5, 3)), rng.standard_normal((4, 3)) + 0.5

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    own = np.mean([kernel(x, y) for x, y in itertools.permutations(first, 2)])
    own += np.mean([kernel(x, y) for x, y in itertools.permutations(second, 2)])
    expected = own - 2 * np.mean([kernel(x, y) for x in first for y in second])
    assert kernel_distance(first, second) == pytest.approx(expected)
    with pytest.raises(ValueError, match="two pictures on each side"):
        kernel_distance(first[:1], second)


def test_it_has_no_bias_for_few_pictures(rng):
    values = [kernel_distance(rng.standard_normal((6, 4)), rng.standard_normal((6, 4))) for _ in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


def test_textures_of_one_kind_are_near_and_masked_pixels_are_not_seen(rng):
    torch.manual_seed(0)
    net = Lpips("alex")

    def picture(fine):
        small = rng.integers(0, 256, (128 // fine, 128 // fine, 3))
        return np.kron(small, np.ones((fine, fine, 1))).astype(np.uint8)

    weight = np.ones((128, 128), np.float32)
    fine, more, coarse = (stacked(features(picture(n), weight, net) for _ in range(6)) for n in (2, 2, 32))
    assert fine.shape == (24, 512)
    assert abs(kernel_distance(fine, more)) < 0.2 * kernel_distance(fine, coarse)
    weight[:, 40:64] = 0
    seen = picture(4)
    changed = seen.copy()
    changed[:, 40:64] = 0
    np.testing.assert_array_equal(features(seen, weight, net), features(changed, weight, net))
    assert features(seen[:60], weight[:60], net).shape == (0, 1)
