"""What a phantom voxel can be: the label values, and the sets of labels that belong together."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Tissue(IntEnum):
    """Label values of the phantom; uint8 in every label volume."""

    RESIN = 0
    LAMELLAR = 1
    WOVEN = 2
    OSTEOID = 3
    MARROW = 4
    ADIPOCYTE = 5
    VESSEL = 6
    FIBROUS = 7
    METAL = 8
    """The implant, whatever its material."""
    DEGRADATION = 9
    GAS = 10
    CRACK = 11
    LACUNA = 12
    CANAL = 13
    """Haversian or Volkmann canal."""
    CEMENT = 14
    """Cement line, the rim of an osteon."""


BONE = frozenset({Tissue.LAMELLAR, Tissue.WOVEN, Tissue.LACUNA, Tissue.CEMENT})
"""Mineralised bone as histomorphometry counts it: matrix with its lacunae, without osteoid and canals."""

IMPLANT = frozenset({Tissue.METAL, Tissue.DEGRADATION})
"""The implant and what has become of it."""

SOFT = frozenset({Tissue.MARROW, Tissue.ADIPOCYTE, Tissue.VESSEL, Tissue.FIBROUS, Tissue.CANAL})
"""Unmineralised living tissue."""


def is_any(labels: npt.NDArray[np.uint8], tissues: frozenset[Tissue]) -> npt.NDArray[np.bool_]:
    """Where ``labels`` (any shape, uint8) is one of ``tissues``: bool, same shape."""
    table = np.zeros(256, dtype=bool)
    table[[int(tissue) for tissue in tissues]] = True
    return table[labels]
