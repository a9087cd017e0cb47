"""Pairs of other units are brought onto one scale by their anchors; pairs that belong together keep every bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from tomostain.images.anchors import Anchors, find_anchors
from tomostain.images.geometry import Grid
from tomostain.pairs.alike import check_alike
from tomostain.pairs.pair import Pair, load_pair, save_pair
from tomostain.pairs.scale import median_anchors, on_one_scale

SOFT, BONE = 0.28, 1.44


def made(name, seed, *, slope=1.0, intercept=0.0):
    """A pair of soft tissue and bone, its CT on a scale of its own."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal((160, 160)), 6.0)
    ct = ndimage.gaussian_filter(np.where(field > 0, BONE, SOFT) - 0.23 * (abs(field - 0.02) < 0.01), 0.7)
    ct = (ct + 0.08 * rng.standard_normal(ct.shape)) * slope + intercept
    mask = np.ones(ct.shape, bool)
    return Pair(
        ct=ct[None].astype(np.float32),
        stain=rng.integers(0, 256, (*ct.shape, 3), dtype=np.uint8),
        mask=mask,
        confidence=mask.astype(np.float32),
        grid=Grid(ct.shape, (5.0, 5.0)),
        specimen=name,
        name=name,
        anchors=find_anchors([ct]),
    )


def test_a_specimen_in_other_units_is_mapped_onto_the_others_and_those_keep_every_bit(caplog):
    pairs = [made("S0", 0), made("S1", 1), made("S2", 2, slope=61.0, intercept=29.0)]
    with pytest.raises(ValueError, match="S2"):
        check_alike(pairs)
    with caplog.at_level("INFO", logger="tomostain"):
        together = on_one_scale(pairs)
    assert together[0] is pairs[0]
    assert together[1] is pairs[1]
    np.testing.assert_allclose(together[2].ct, made("S2", 2).ct, atol=0.03 * (BONE - SOFT))
    check_alike(together)
    assert "specimen S2: CT grey values are mapped onto those of S0, S1" in caplog.text
    found = median_anchors(together)
    assert (found.soft, found.bone) == (pytest.approx(SOFT, abs=0.03), pytest.approx(BONE, abs=0.03))


def test_without_anchors_other_units_stay_and_are_refused():
    pairs = [made("S0", 0), made("S1", 1), dataclasses.replace(made("S2", 2, slope=61.0), anchors=())]
    assert on_one_scale(pairs)[2] is pairs[2]
    with pytest.raises(ValueError, match="S2"):
        check_alike(on_one_scale(pairs))


def test_anchors_survive_the_disk(tmp_path):
    pair = dataclasses.replace(made("S0", 0), anchors=(Anchors(41, 127), Anchors(41, 200)))
    assert load_pair(save_pair(pair, tmp_path / "a.pair.zarr")).anchors == pair.anchors
