"""What colour a tissue has: a stain's optical densities in, transmitted light and sRGB out.

Beer-Lambert holds for light, not for display values. So densities are tabulated as they read on a screen (log10 of
white over value, both sRGB, which is how they were measured), turned once into densities of linear light; everything
after that (layers, subvoxels, pixels) is reckoned in linear light and encoded as sRGB (IEC 61966-2-1) at the very end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from tomostain.images.srgb import decoded, to_srgb
from tomostain.phantom.recipe import Material
from tomostain.phantom.tissues import Tissue

Triple = tuple[float, float, float]
Linear = npt.NDArray[np.float32]

NOMINAL_UM = 30.0
"""Section thickness to which the tabulated densities belong; the middle of what is ground."""
PENETRATION_UM = 20.0
"""How deep the dye reaches into plastic: past that, a thicker section hardly gets darker."""
WHITE = 235.0
"""sRGB value of the empty slide; where scanners put their white point."""
MEASURED_WHITE = 205.0
"""White point of the picture in which the densities were measured."""
STRAY_LIGHT = 0.003
"""Share of the lamp's light that reaches the camera even behind metal."""
NUCLEI: Mapping[Tissue, float] = MappingProxyType({Tissue.MARROW: 0.14, Tissue.VESSEL: 0.08, Tissue.FIBROUS: 0.07})
"""Share of a tissue's area that its nuclei cover, counted on sections of three phantom specimens."""
_OPAQUE = 60.0
"""Linear density of ``NOMINAL_UM`` of metal: one thin layer of it stops all light."""


@dataclass(frozen=True)
class Stain:
    """A dye and what it does to each tissue.

    ``dyed`` holds the display density (R, G, B) of a tissue in a nominal section: log10(white / value) of sRGB values
    with the white point ``MEASURED_WHITE``. Tissues that are not named stay clear. ``nucleus`` is what a cell nucleus
    adds to the tissue it lies in, ``rim`` what a bone surface towards a canal or the marrow adds to the bone.
    """

    name: str
    dyed: Mapping[Tissue, Triple]
    nucleus: Triple
    rim: Triple


TOLUIDINE_BLUE = Stain(
    name="toluidine blue",
    dyed=MappingProxyType(
        {
            Tissue.RESIN: (0.010, 0.008, 0.008),
            Tissue.LAMELLAR: (0.430, 0.290, 0.058),
            Tissue.WOVEN: (0.660, 0.440, 0.098),
            Tissue.OSTEOID: (0.950, 0.640, 0.170),
            Tissue.MARROW: (0.120, 0.150, 0.035),
            Tissue.ADIPOCYTE: (0.014, 0.014, 0.010),
            Tissue.VESSEL: (0.060, 0.085, 0.040),
            Tissue.FIBROUS: (0.230, 0.235, 0.065),
            Tissue.GAS: (0.025, 0.025, 0.025),
            Tissue.CRACK: (0.050, 0.045, 0.035),
            Tissue.LACUNA: (0.780, 0.560, 0.180),
            Tissue.CANAL: (0.030, 0.020, 0.020),
            Tissue.CEMENT: (0.850, 0.500, 0.120),
        }
    ),
    nucleus=(0.420, 0.440, 0.130),
    rim=(0.850, 0.420, 0.100),
)
"""Matrix, cement lines, canal walls and canals as measured in the blue-stained cortical bone of the FABCORT repository
(artorg-unibe-ch/FABCORT, MIT); the other tissues in the order in which the stain is known to take: woven bone darker
than lamellar, the osteoid seam darkest, nuclei and marrow metachromatically violet, fat clear."""

HAEMATOXYLIN_EOSIN = Stain(
    name="H&E",
    dyed=MappingProxyType(
        {
            Tissue.RESIN: (0.008, 0.010, 0.008),
            Tissue.LAMELLAR: (0.060, 0.300, 0.150),
            Tissue.WOVEN: (0.100, 0.380, 0.190),
            Tissue.OSTEOID: (0.040, 0.230, 0.100),
            Tissue.MARROW: (0.090, 0.160, 0.090),
            Tissue.ADIPOCYTE: (0.014, 0.016, 0.012),
            Tissue.VESSEL: (0.060, 0.260, 0.200),
            Tissue.FIBROUS: (0.060, 0.240, 0.130),
            Tissue.GAS: (0.025, 0.025, 0.025),
            Tissue.CRACK: (0.040, 0.045, 0.040),
            Tissue.LACUNA: (0.350, 0.450, 0.230),
            Tissue.CANAL: (0.020, 0.030, 0.020),
            Tissue.CEMENT: (0.250, 0.420, 0.200),
        }
    ),
    nucleus=(0.520, 0.480, 0.180),
    rim=(0.060, 0.100, 0.050),
)
"""Eosin pink matrix and blue-violet nuclei (stain directions after Ruifrok & Johnston 2001)."""

STAINS: Mapping[str, Stain] = MappingProxyType({s.name: s for s in (TOLUIDINE_BLUE, HAEMATOXYLIN_EOSIN)})

DEGRADED: Triple = (0.430, 0.470, 0.560)
"""Display density of a nominal section of degradation layer: dull grey-brown of its own, hardly dyed."""
PEEK: Triple = (0.060, 0.085, 0.170)
"""Display density of a nominal section of PEEK: beige, light passes."""


def to_linear_density(display: Triple) -> npt.NDArray[np.float64]:
    """Display density (see ``Stain``) -> density of linear light, (3,) log10."""
    value = MEASURED_WHITE * 10.0 ** -np.asarray(display, dtype=np.float64)
    return np.asarray(np.log10(_decoded(MEASURED_WHITE)) - np.log10(_decoded(value)))


def dye_share(thickness_um: float) -> float:
    """Dye in a section of this thickness over that in a nominal one; dye enters from the surface and fades inwards."""
    return math.expm1(-thickness_um / PENETRATION_UM) / math.expm1(-NOMINAL_UM / PENETRATION_UM)


def densities(stain: Stain, material: Material, thickness_um: float = NOMINAL_UM) -> Linear:
    """Linear-light density of a section that is one tissue all through: (256, 3) float32, indexed by label."""
    table = np.zeros((256, 3), dtype=np.float64)
    for tissue, display in stain.dyed.items():
        table[tissue] = to_linear_density(display) * dye_share(thickness_um)
    own = thickness_um / NOMINAL_UM
    table[Tissue.METAL] = (to_linear_density(PEEK) if material == "PEEK" else np.full(3, _OPAQUE)) * own
    table[Tissue.DEGRADATION] = to_linear_density(DEGRADED) * own
    return table.astype(np.float32)


def seen(transmittance: Linear) -> Linear:
    """What a scanner records of transmitted light [0, 1]: linear light with its white point and stray light."""
    light = transmittance * np.float32((1.0 - STRAY_LIGHT) * _decoded(WHITE))
    light += np.float32(STRAY_LIGHT * _decoded(WHITE))
    return light


def palette(stain: Stain, material: Material) -> Linear:
    """Linear light of each label in a nominal, undamaged section: (256, 3) float32.

    Nuclei, which are finer than a voxel, are in it by the share of light that they take.
    """
    passed = np.power(np.float32(10.0), -densities(stain, material))
    in_nucleus = 10.0 ** -to_linear_density(stain.nucleus)
    for tissue, share in NUCLEI.items():
        passed[tissue] *= (1.0 - share + share * in_nucleus).astype(np.float32)
    return seen(passed)


def voxel_colours(labels2x: npt.NDArray[np.uint8], light: Linear) -> npt.NDArray[np.uint8]:
    """Colour of each voxel from its eight subvoxels: labels (2z, 2y, 2x) -> (z, y, x, 3) uint8 sRGB.

    ``light`` is a ``palette``. The mean is taken over transmitted (linear) light, then encoded as sRGB. Integers all
    the way, so that the bytes are the same on any machine.
    """
    quantised = np.round(np.clip(light, 0.0, 1.0) * _LEVELS).astype(np.uint64)
    packed = quantised[:, 0] | quantised[:, 1] << np.uint64(_FIELD) | quantised[:, 2] << np.uint64(2 * _FIELD)
    encoded, mask = _encoded_sums(), np.uint64((1 << _FIELD) - 1)
    out = np.empty((*(n // 2 for n in labels2x.shape), 3), dtype=np.uint8)
    for z in range(out.shape[0]):
        pair = packed[labels2x[2 * z]] + packed[labels2x[2 * z + 1]]
        pair = pair[0::2] + pair[1::2]
        total = pair[:, 0::2] + pair[:, 1::2]
        for channel in range(3):
            out[z, ..., channel] = encoded[(total >> np.uint64(channel * _FIELD)) & mask]
    return out


_LEVELS = 65535
_FIELD = 21


@lru_cache(maxsize=1)
def _encoded_sums() -> npt.NDArray[np.uint8]:
    """Make a table of the sRGB value of every possible sum of eight quantised light values."""
    return to_srgb(np.arange(8 * _LEVELS + 1) / (8 * _LEVELS))


def _decoded(value: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Turn sRGB values in [0, 255], fractions allowed, into linear light."""
    return np.asarray(decoded(np.asarray(value, dtype=np.float64) / 255.0), dtype=np.float64)
