"""How tissues and implants attenuate X-rays: compositions in, tabulated coefficients per label out (xraydb)."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType

import numpy as np
import xraydb

from tomostain.phantom.fields import Float32
from tomostain.phantom.recipe import Material
from tomostain.phantom.tissues import Tissue

Mixture = tuple[tuple[tuple[str, float], ...], float]
"""((formula, mass fraction), ...) and density in g/cm3."""

_WATER = "H2O"
_COLLAGEN = "C102H149N31O38"
_MINERAL = "Ca10P6O26H2"
_FAT = "C57H104O6"
_ACRYLIC = "C5H8O2"

MIXTURES = MappingProxyType(
    {
        Tissue.RESIN: (((_ACRYLIC, 1.0),), 1.18),
        Tissue.LAMELLAR: (((_MINERAL, 0.60), (_COLLAGEN, 0.26), (_WATER, 0.14)), 1.85),
        Tissue.WOVEN: (((_MINERAL, 0.54), (_COLLAGEN, 0.28), (_WATER, 0.18)), 1.68),
        Tissue.OSTEOID: (((_COLLAGEN, 0.35), (_WATER, 0.65)), 1.10),
        Tissue.MARROW: (((_WATER, 0.75), (_COLLAGEN, 0.20), (_FAT, 0.05)), 1.03),
        Tissue.ADIPOCYTE: (((_FAT, 0.90), (_WATER, 0.10)), 0.93),
        Tissue.VESSEL: (((_WATER, 0.80), (_COLLAGEN, 0.20)), 1.05),
        Tissue.FIBROUS: (((_WATER, 0.70), (_COLLAGEN, 0.30)), 1.08),
        Tissue.GAS: ((("H2", 1.0),), 0.00009),
        Tissue.CRACK: ((("N2", 1.0),), 0.0012),
        Tissue.LACUNA: (((_WATER, 0.90), (_COLLAGEN, 0.10)), 1.02),
        Tissue.CANAL: (((_WATER, 0.80), (_COLLAGEN, 0.20)), 1.03),
        Tissue.CEMENT: (((_MINERAL, 0.63), (_COLLAGEN, 0.24), (_WATER, 0.13)), 1.92),
    }
)
"""Tissue -> composition. Bone: mineral as hydroxyapatite, matrix as collagen (ICRU 44: cortical bone is 22.5 % calcium,
so 0.56 hydroxyapatite, at 1.92 g/cm3); cement lines are the more mineralised (Skedros et al. 2005). Resin is PMMA."""

_GADOLINIUM = MappingProxyType({"Mg-5Gd": 0.05, "Mg-10Gd": 0.10})


def implant_mixture(material: Material) -> Mixture:
    """Composition of the implant; the density of the alloys is that of magnesium and gadolinium by volume."""
    if material == "Ti":
        return (("Ti", 1.0),), 4.506
    if material == "PEEK":
        return (("C19H12O3", 1.0),), 1.30
    part = _GADOLINIUM[material]
    return (("Mg", 1 - part), ("Gd", part)), 1 / ((1 - part) / 1.738 + part / 7.90)


def layer_mixture(material: Material) -> Mixture:
    """Composition of the degradation layer: hydroxide, carbonate and phosphate that keep most of the gadolinium.

    Without such a layer (Ti, PEEK) that of the implant.
    """
    if material not in _GADOLINIUM:
        return implant_mixture(material)
    kept = 0.6 * _GADOLINIUM[material]
    rest = 1 - kept
    return (("MgO2H2", 0.45 * rest), ("MgCO3", 0.20 * rest), (_MINERAL, 0.35 * rest), ("Gd", kept)), 1.90


def _mixtures(material: Material) -> dict[Tissue, Mixture]:
    return {**MIXTURES, Tissue.METAL: implant_mixture(material), Tissue.DEGRADATION: layer_mixture(material)}


@lru_cache(maxsize=32)
def attenuation(material: Material, energy_kev: float) -> Float32:
    """Linear attenuation coefficient of every label, 1/cm: (256,) float32, 0 for values that no tissue has.

    Raises
    ------
    ValueError
        The photon energy is outside 5 to 200 keV, where the phantom's physics does not hold.
    """
    if not 5 <= energy_kev <= 200:
        raise ValueError(f"energy_kev {energy_kev:g} is outside 5 to 200; micro-CT of bone uses 15 to 100")
    table = np.zeros(256, dtype=np.float32)
    for tissue, (parts, density) in _mixtures(material).items():
        per_gram = sum(part * xraydb.material_mu(formula, energy_kev * 1e3, density=1.0) for formula, part in parts)
        table[tissue] = per_gram * density
    table.flags.writeable = False
    return table


@lru_cache(maxsize=8)
def electron_density(material: Material) -> Float32:
    """Electron density of every label in units of water's, what phase contrast sees: (256,) float32."""
    table = np.zeros(256, dtype=np.float32)
    for tissue, (parts, density) in _mixtures(material).items():
        table[tissue] = density * sum(part * _electrons_per_dalton(formula) for formula, part in parts)
    table /= np.float32(_electrons_per_dalton(_WATER))
    table.flags.writeable = False
    return table


def _electrons_per_dalton(formula: str) -> float:
    atoms = xraydb.chemparse(formula)
    electrons = sum(n * xraydb.atomic_number(element) for element, n in atoms.items())
    mass = sum(n * xraydb.atomic_mass(element) for element, n in atoms.items())
    return float(electrons / mass)
