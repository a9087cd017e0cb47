"""What a virtual stain shows of each tissue, where the phantom knows the tissues: colour errors, and tissues read back.

A tissue is read back from a virtual stain by its colour: each pixel is taken for the tissue whose reference colour is
nearest in CIELAB. References are the colours that the perfect sections have, for each specimen its own, because an
implant of PEEK is beige and one of metal black. Where tissues lie on edges their colours mix, so that not even the
perfect section is read back wholly; its Dice is the ceiling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt
from skimage.color import rgb2lab

from tomostain.phantom.tissues import Tissue
from tomostain.scoring.colours import RGB, Floats, colour_difference

GROUPS: Mapping[str, frozenset[Tissue]] = MappingProxyType(
    {
        "implant": frozenset({Tissue.METAL}),
        "degradation layer": frozenset({Tissue.DEGRADATION}),
        "old bone": frozenset({Tissue.LAMELLAR, Tissue.CEMENT}),
        "new bone": frozenset({Tissue.WOVEN}),
        "osteoid": frozenset({Tissue.OSTEOID}),
        "soft tissue": frozenset({Tissue.MARROW, Tissue.VESSEL, Tissue.FIBROUS, Tissue.CANAL}),
        "fat": frozenset({Tissue.ADIPOCYTE}),
        "resin and gas": frozenset({Tissue.RESIN, Tissue.GAS, Tissue.CRACK}),
    }
)
"""Tissues that are scored separately; lacunae, smaller than most voxels, belong to none."""
FEWEST_PX = 50
"""Pixels of a tissue in a specimen below which it gives no reference colour and no colour error."""
_NONE = len(GROUPS)
_GROUP_OF = np.full(256, _NONE, dtype=np.uint8)
for _number, _tissues in enumerate(GROUPS.values()):
    _GROUP_OF[list(_tissues)] = _number

References = Mapping[str, Mapping[str, Floats]]
"""By specimen and group: a CIELAB colour (3,)."""


class Known(Protocol):
    """What is used of a ``tomostain.pairs.pair.Pair`` of the phantom."""

    @property
    def specimen(self) -> str: ...
    @property
    def truth(self) -> RGB | None: ...
    @property
    def tissues(self) -> npt.NDArray[np.uint8] | None: ...
    @property
    def weight(self) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class TissueScore:
    """How a tissue looks in a virtual stain, over several sections."""

    share: float
    """Of all pixels that count."""
    delta_e: float | None
    """Mean CIEDE2000 to the perfect section: the mean over the specimens that have the tissue, None where none has."""
    dice: float | None
    """Overlap of what is read back with what is there, over the pixels of all sections; None where there is neither."""


def reference_colours(pairs: Iterable[Known]) -> dict[str, dict[str, Floats]]:
    """Median CIELAB colour of each group in the perfect sections of each specimen.

    What a specimen does not have takes the median over the other specimens; a group that none has is left out.
    """
    colours: dict[str, dict[str, list[Floats]]] = {}
    for pair in pairs:
        truth, groups, weight = _known(pair)
        for name, number in _numbers():
            chosen = truth[(groups == number) & (weight > 0)]
            colours.setdefault(pair.specimen, {}).setdefault(name, []).append(rgb2lab(chosen))
    own = {
        specimen: {
            name: np.median(np.concatenate(parts), axis=0)
            for name, parts in of.items()
            if sum(map(len, parts)) >= FEWEST_PX
        }
        for specimen, of in colours.items()
    }
    usual = {
        name: np.median([of[name] for of in own.values() if name in of], axis=0)
        for name in GROUPS
        if any(name in of for of in own.values())
    }
    return {specimen: usual | of for specimen, of in own.items()}


def read_back(stained: RGB, references: Mapping[str, Floats]) -> npt.NDArray[np.uint8]:
    """The group whose colour is nearest, as its place in ``GROUPS``: (y, x, 3) uint8 -> (y, x) uint8."""
    lab, known = rgb2lab(stained), [number for name, number in _numbers() if name in references]
    if not known:
        return np.full(stained.shape[:2], _NONE, dtype=np.uint8)
    far = [((lab - references[name]) ** 2).sum(axis=-1) for name in GROUPS if name in references]
    nearest: npt.NDArray[np.uint8] = np.asarray(known, dtype=np.uint8)[np.argmin(far, axis=0)]
    return nearest


def tally(pair: Known, stained: RGB, references: References) -> dict[str, Floats]:
    """Sums over one section for each group: weight there, weight x colour error there, weight read back, and both.

    Raises
    ------
    ValueError
        The pair does not know its truth.
    """
    truth, groups, weight = _known(pair)
    read, error = read_back(stained, references[pair.specimen]), colour_difference(stained, truth)
    sums = {}
    for name, number in _numbers():
        there, found = groups == number, read == number
        sums[name] = np.array([weight[there].sum(), (weight * error)[there].sum(), weight[found].sum(), 0.0])
        sums[name][3] = weight[there & found].sum()
    return sums


def pooled(tallies: Sequence[tuple[str, Mapping[str, Floats]]]) -> dict[str, TissueScore]:
    """Scores of each group from the tallies of sections, each with the name of its specimen."""
    every = sum(float(sums[name][0]) for _, sums in tallies for name in GROUPS)
    scores = {}
    for name in GROUPS:
        by_specimen: dict[str, Floats] = {}
        for specimen, sums in tallies:
            by_specimen[specimen] = by_specimen.get(specimen, np.zeros(4)) + sums[name]
        there, _, read, both = sum(by_specimen.values(), np.zeros(4))
        errors = [float(sums[1] / sums[0]) for sums in by_specimen.values() if sums[0] >= FEWEST_PX]
        scores[name] = TissueScore(
            share=float(there / every) if every else 0.0,
            delta_e=float(np.mean(errors)) if errors else None,
            dice=float(2 * both / (there + read)) if there + read else None,
        )
    return scores


def tissue_scores(pairs: Sequence[Known], stained: Sequence[RGB]) -> dict[str, TissueScore]:
    """Colour error and overlap of each group, from pairs of the phantom and what was stained for each (y, x, 3) uint8.

    Raises
    ------
    ValueError
        A pair does not know its truth.
    """
    references = reference_colours(pairs)
    return pooled([(pair.specimen, tally(pair, rgb, references)) for pair, rgb in zip(pairs, stained, strict=True)])


def _known(pair: Known) -> tuple[RGB, npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    if pair.truth is None or pair.tissues is None:
        raise ValueError(f"pair {getattr(pair, 'name', '')} does not know its perfect section; make it from a cohort")
    return pair.truth, _GROUP_OF[pair.tissues], pair.weight


def _numbers() -> list[tuple[str, int]]:
    return [(name, number) for number, name in enumerate(GROUPS)]
