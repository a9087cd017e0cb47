"""The elastic field: cubic B-splines that are exact for what cubics can be, on lattices that may be exchanged."""

import numpy as np
import pytest

from tomostain.registration.field import Field

EXTENT = (900.0, 700.0)


def bent(step_um=60.0):
    """A field whose coefficients are those of a plane: cubic B-splines reproduce it exactly."""
    flat = Field.flat(EXTENT, step_um)
    rows, columns = np.indices(flat.coefficients.shape[:2])
    y, x = (first + n * step_um for first, n in zip(flat.first_um, (rows, columns), strict=True))
    return Field(np.stack([0.1 * y - 0.02 * x + 3, 0.05 * x], axis=-1), step_um, flat.first_um)


def test_field_of_a_plane_is_that_plane_everywhere_on_the_slide(rng):
    points = rng.uniform(-0.5, 0.5, (500, 2)) * EXTENT
    at = bent().at(points)
    np.testing.assert_allclose(at[:, 0], 0.1 * points[:, 0] - 0.02 * points[:, 1] + 3, atol=1e-9)
    np.testing.assert_allclose(at[:, 1], 0.05 * points[:, 1], atol=1e-9)


def test_weights_of_every_point_sum_to_one_and_touch_sixteen_nodes(rng):
    weights = bent().basis(rng.uniform(-0.5, 0.5, (200, 2)) * EXTENT)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    assert (np.diff(weights.indptr) == 16).all()


@pytest.mark.parametrize("step_um", [40.0, 25.0])
def test_refined_field_displaces_as_before(rng, step_um):
    field = Field.flat(EXTENT, 150.0)
    field = Field(rng.normal(0, 10, field.coefficients.shape), 150.0, field.first_um)
    points = rng.uniform(-0.45, 0.45, (300, 2)) * EXTENT
    np.testing.assert_allclose(field.refined(EXTENT, step_um).at(points), field.at(points), atol=0.6)
