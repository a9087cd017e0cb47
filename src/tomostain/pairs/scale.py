"""Pairs whose CT was stored in different units or windows: mapped by their anchors onto one scale of grey values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tomostain import runs
from tomostain.images.anchors import Anchors, GreyMap, find_map
from tomostain.images.grey_values import GreyValues, groups
from tomostain.pairs.pair import Pair, grey_values_by_specimen


def on_scale(pair: Pair, grey_map: GreyMap) -> Pair:
    """The pair with its CT and anchors mapped; itself where the map is the identity."""
    if not grey_map:
        return pair
    anchors = tuple(one.mapped(grey_map) for one in pair.anchors)
    return dataclasses.replace(pair, ct=grey_map(pair.ct), anchors=anchors)


def on_one_scale(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs for one stainer: specimens that stand apart are mapped onto the others where this makes them fit."""
    maps = maps_onto_one(grey_values_by_specimen(pairs), anchors_by_specimen(pairs))
    return [on_scale(pair, maps.get(pair.specimen, GreyMap())) for pair in pairs]


def maps_onto_one(specimens: Mapping[str, GreyValues], anchors: Mapping[str, Sequence[Anchors]]) -> dict[str, GreyMap]:
    """The maps of specimens onto the scale of the largest group whose grey values agree; each map that is used is said.

    A specimen of that group, or one that agrees no better after mapping, has no map.
    """
    main, *others = groups(specimens) if specimens else [[]]
    target = Anchors.median([anchors[name][0] for name in main if anchors.get(name)])
    known, together = {name: specimens[name] for name in main}, ", ".join(main)
    found = {}
    for name in (name for group in others for name in group):
        if grey_map := find_map(known, target, specimens[name], anchors.get(name, ())):
            found[name] = grey_map
            runs.say(f"specimen {name}: CT grey values are mapped onto those of {together} for training: {grey_map}")
    return found


def anchors_by_specimen(pairs: Sequence[Pair]) -> dict[str, tuple[Anchors, ...]]:
    """The anchors of each specimen's volume, as its first pair that has some says; other specimens are left out."""
    found: dict[str, tuple[Anchors, ...]] = {}
    for pair in pairs:
        if pair.anchors:
            found.setdefault(pair.specimen, pair.anchors)
    return dict(sorted(found.items()))


def median_anchors(pairs: Sequence[Pair]) -> Anchors | None:
    """The median over specimens of their likeliest anchors; None where no specimen has any."""
    return Anchors.median([anchors[0] for anchors in anchors_by_specimen(pairs).values()])
