"""What a phantom specimen is made of: the settings of its anatomy, each tissue with its switch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Material = Literal["Mg-5Gd", "Mg-10Gd", "Ti", "PEEK"]


@dataclass(frozen=True)
class AnatomyRecipe:
    """What a specimen is made of. Every tissue can be switched off; fractions and sizes are means."""

    material: Material = "Mg-10Gd"
    """Implant material: the two magnesium-gadolinium alloys degrade, titanium and PEEK do not."""
    weeks: float = 8.0
    """Time in vivo, weeks: new bone, degradation and gas depend on it."""
    implant: Literal["screw", "pin"] = "screw"
    """M2 screw (thread pitch 0.4 mm) or a pin of 2 mm or less."""
    cortex: bool = True
    """Compact bone on one side of the field; without it, trabeculae everywhere."""
    canals: bool = True
    """Haversian and Volkmann canals, 30-80 um."""
    lacunae: bool = True
    """Osteocyte lacunae, 8-15 um; larger and denser in woven bone."""
    cement_lines: bool = True
    """Rims of osteons and bone packets, and the line between old and new bone."""
    trabecular_fraction: float = 0.27
    """Part of the space off the cortex that is trabecular bone, 0 to 0.6."""
    woven_um: float = 260.0
    """How far from the implant woven bone reaches in the end, um; 0 switches it off."""
    woven_fraction: float = 0.62
    """Part of that zone that is woven bone when healed, 0 to 1."""
    osteoid_um: float = 11.0
    """Greatest thickness of unmineralised seams on woven bone, um; 0 switches them off."""
    adipocyte_fraction: float = 0.55
    """Part of the marrow that is fatty, 0 to 1."""
    vessels: bool = True
    """Marrow vessels, 10-50 um wide."""
    fibrous_fraction: float = 0.3
    """Part of the interface under a fibrous capsule, 0 to 1."""
    degradation: bool = True
    """Degradation layer of magnesium, 20-300 um thick."""
    gas: bool = True
    """Hydrogen pockets in the tissue beside magnesium."""
    cracks: bool = True
    """Sheet-like cracks from embedding, and drying cracks in the degradation layer."""
    resin: bool = True
    """Embedding resin beyond the bone's outer surface, in a corner of the field."""

    def __post_init__(self) -> None:
        if self.material not in ("Mg-5Gd", "Mg-10Gd", "Ti", "PEEK"):
            raise ValueError(f"material {self.material!r} is unknown; choose Mg-5Gd, Mg-10Gd, Ti or PEEK")
        if self.implant not in ("screw", "pin"):
            raise ValueError(f"implant {self.implant!r} is unknown; choose screw or pin")
        for name in ("trabecular_fraction", "woven_fraction", "adipocyte_fraction", "fibrous_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a part of a whole; choose 0 to 1, not {getattr(self, name)}")
        for name in ("weeks", "woven_um", "osteoid_um"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} cannot be {getattr(self, name)}; choose 0 or more")

    @property
    def degrades(self) -> bool:
        """Whether the implant is of magnesium and its degradation is switched on."""
        return self.degradation and self.material.startswith("Mg")
