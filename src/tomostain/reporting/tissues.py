"""Names of tissues by their colour, for stains whose tissue colours are known: those of the phantom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

from tomostain.images.srgb import to_srgb
from tomostain.phantom.colours import STAINS, palette
from tomostain.phantom.tissues import Tissue
from tomostain.reporting.errors import ColourClass, Floats

ALIKE = 12.0
"""Largest colour difference (CIEDE2000) at which a colour is taken for a tissue's: about half that between tissues."""
_WORDS: Mapping[Tissue, str] = {
    Tissue.RESIN: "resin",
    Tissue.LAMELLAR: "lamellar bone",
    Tissue.WOVEN: "woven bone",
    Tissue.OSTEOID: "osteoid",
    Tissue.MARROW: "marrow",
    Tissue.ADIPOCYTE: "fat cells",
    Tissue.VESSEL: "vessels",
    Tissue.FIBROUS: "fibrous tissue",
    Tissue.METAL: "metal implant",
    Tissue.DEGRADATION: "degradation layer",
}


def tissue_colours(stain: str) -> dict[str, Floats]:
    """CIELAB colour of each tissue in a stain of the phantom; {} for other stains."""
    if stain not in STAINS:
        return {}
    shown = to_srgb(palette(STAINS[stain], "Ti"))
    return {word: np.asarray(rgb2lab(shown[tissue][None, None])[0, 0]) for tissue, word in _WORDS.items()}


def named_tissues(classes: Sequence[ColourClass], stain: str) -> list[ColourClass]:
    """The classes, each with the one or two tissues whose colour is nearest, where one is near."""
    colours = tissue_colours(stain)
    named = []
    for one in classes:
        rgb = np.asarray([int(one.colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        lab = np.asarray(rgb2lab(rgb[None, None])[0, 0])
        far = {word: float(deltaE_ciede2000(lab, known)) for word, known in colours.items()}
        near = [word for word in sorted(far, key=lambda word: far[word]) if far[word] < ALIKE][:2]
        named.append(replace(one, tissue=" or ".join(near)))
    return named
