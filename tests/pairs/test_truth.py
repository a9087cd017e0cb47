"""A phantom's pair carries the colours and the tissues that lie at its own pixels."""

import dataclasses

import numpy as np
import pytest

from tomostain.images.geometry import Plane
from tomostain.io.ome_zarr import create_volume
from tomostain.pairs.pair import OUTSIDE, Pair, knows_truth, load_pair, save_pair
from tomostain.pairs.truth import TruthFiles, with_truth

TILTED = Plane((30, 40), 5.0, (100.0, 20.0, 35.0), (0.28, 0.96, 0.0), (0.0, 0.0, 1.0))


@pytest.fixture
def pair(rng):
    shape = TILTED.shape
    return Pair(
        ct=rng.random((1, *shape), dtype=np.float32),
        stain=rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        mask=np.ones(shape, bool),
        confidence=np.ones(shape, np.float32),
        grid=TILTED.grid,
        specimen="S01",
        name="S01_slide_0",
        plane=TILTED,
    )


@pytest.fixture
def files(tmp_path, ct_grid):
    """Volumes whose colours and labels are their own coordinates."""
    z, y, x = np.indices(ct_grid.shape)
    with create_volume(tmp_path / "stain_truth.ome.zarr", ct_grid, colours=3, stain="toluidine blue") as colours:
        colours[0:40, 0:70, 0:90] = np.stack([5 * z, 3 * y, 2 * x], axis=-1).astype(np.uint8)
    with create_volume(tmp_path / "labels.ome.zarr", ct_grid, reduce="nearest") as labels:
        labels[0:40, 0:70, 0:90] = z.astype(np.uint8)
    return TruthFiles(tmp_path / "stain_truth.ome.zarr", tmp_path / "labels.ome.zarr")


def test_the_truth_is_that_of_the_pairs_own_pixels(pair, files, ct_grid, tmp_path):
    known = with_truth(pair, files)
    at = ct_grid.index_of(TILTED.points_um())
    inside = (at > 0).all(axis=-1) & (at < np.asarray(ct_grid.shape) - 1).all(axis=-1)
    np.testing.assert_allclose(known.truth[inside], (at * [5, 3, 2])[inside], atol=0.5 + 1e-3)
    off = np.abs(known.tissues[inside] - at[inside][:, 0])
    assert off.max() <= 0.5 + 1e-6
    assert (known.tissues[~inside & (known.tissues > 39)] == OUTSIDE).all()
    loaded = load_pair(save_pair(known, tmp_path / "a.pair.zarr"))
    np.testing.assert_array_equal(loaded.truth, known.truth)
    np.testing.assert_array_equal(loaded.tissues, known.tissues)
    assert knows_truth(tmp_path / "a.pair.zarr")


def test_what_lies_outside_the_volume_has_no_tissue(pair, files):
    beyond = dataclasses.replace(TILTED, corner_um=(100.0, 20.0, 300.0))
    known = with_truth(dataclasses.replace(pair, plane=beyond), files)
    outside = beyond.points_um()[..., 2] > 10.0 + 89.5 * 5.0
    assert 0.1 < outside.mean() < 0.9
    np.testing.assert_array_equal(known.tissues == OUTSIDE, outside)
    assert (known.truth[outside] == 255).all()


def test_a_real_pair_has_no_truth(pair, tmp_path):
    path = save_pair(pair, tmp_path / "a.pair.zarr")
    assert (load_pair(path).truth, load_pair(path).tissues, knows_truth(path)) == (None, None, False)


def test_truth_of_another_size_is_refused(pair):
    with pytest.raises(ValueError, match=r"S01_slide_0: CT and stain must share one raster.*truth"):
        dataclasses.replace(pair, truth=np.zeros((30, 41, 3), np.uint8))
    with pytest.raises(ValueError, match="S01_slide_0: the perfect section and its tissues belong together"):
        dataclasses.replace(pair, truth=np.zeros((30, 40, 3), np.uint8))
