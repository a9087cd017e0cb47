"""sRGB and light are each other's inverse, by the numbers of IEC 61966-2-1."""

import numpy as np
import pytest

from tomostain.images.srgb import decoded, encoded, to_linear, to_srgb


def test_every_colour_comes_back_from_its_light():
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_srgb(to_linear(values)), values)


@pytest.mark.parametrize(("value", "light"), [(0.0, 0.0), (0.04, 0.04 / 12.92), (0.5, 0.21404114), (1.0, 1.0)])
def test_known_values_of_the_standard(value, light):
    assert decoded(np.array(value)) == pytest.approx(light, rel=1e-6)
    assert encoded(np.array(light)) == pytest.approx(value, abs=1e-6)


def test_single_precision_stays_single_and_what_is_brighter_than_white_is_white():
    light = np.array([-1.0, 0.5, 2.0], np.float32)
    assert encoded(light).dtype == np.float32
    assert encoded(light)[[0, 2]].tolist() == pytest.approx([0.0, 1.0], abs=2e-7)
