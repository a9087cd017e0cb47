"""Layers as they are run on CPUs equal the layers they stand for."""

import numpy as np
import pytest
import torch
from torch import nn

from tomostain.staining.inference import Mirrored, Phased, RowByRow


def random_image(channels, size):
    torch.manual_seed(1)
    return torch.randn(2, channels, *size).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(8, 9), (14, 15), (40, 60), (41, 61)])
@pytest.mark.parametrize(("seen", "step"), [((3, 3), 1), ((3, 3), 2), ((7, 7), 1), ((5, 5), 3), ((1, 7), 1)])
def test_a_convolution_with_mirrored_bands_is_the_convolution(size, seen, step):
    padding = tuple(n // 2 for n in seen)
    conv = nn.Conv2d(8, 6, seen, step, padding, padding_mode="reflect").requires_grad_(False)
    image = random_image(8, size)
    np.testing.assert_allclose(Mirrored(conv)(image), conv(image), atol=2e-6)


@pytest.mark.parametrize("size", [5, 7])
def test_row_by_row_is_the_convolution(size):
    conv = nn.Conv2d(20, 3, size, padding=size // 2, padding_mode="reflect").requires_grad_(False)
    image = random_image(20, (19, 23))
    np.testing.assert_allclose(RowByRow(conv)(image), conv(image), atol=2e-5)


def test_phases_are_repetition_and_convolution():
    conv = nn.Conv2d(6, 5, 3, padding=1, padding_mode="reflect").requires_grad_(False)
    image = random_image(6, (7, 9))
    whole = nn.Sequential(nn.Upsample(scale_factor=2.0, mode="nearest"), conv)(image)
    np.testing.assert_allclose(Phased(conv)(image), whole, atol=2e-6)
