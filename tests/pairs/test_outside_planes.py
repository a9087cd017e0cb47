"""Planes beside a section that lie outside the volume repeat the nearest one inside, as staining does at its ends."""

import numpy as np

from tomostain.pairs.pair import _repeat_outwards


def test_planes_outside_repeat_the_plane_nearer_to_the_section_and_others_stay():
    ct = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3), np.float32)
    ct[3:, 0] = np.nan
    ct[0, 1] = np.nan
    ct[2, 1, 2] = np.nan
    _repeat_outwards(ct)
    np.testing.assert_array_equal(ct[:, 0, 0], [0, 1, 2, 2, 2])
    np.testing.assert_array_equal(ct[:, 1, 0], [1, 1, 2, 3, 4])
    assert np.isnan(ct[2, 1, 2]), "the section's own plane is not filled"
