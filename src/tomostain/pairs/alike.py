"""What pairs must have in common, so that one stainer can learn from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tomostain.images.grey_values import check_together
from tomostain.images.grid import scale_differs
from tomostain.pairs.pair import Pair, grey_values_by_specimen


def check_alike(pairs: Sequence[Pair], *, any_values: bool = False) -> None:
    """Refuse pairs that one stainer cannot learn together.

    Raises
    ------
    ValueError
        They differ in stain, pixel size, CT planes or (unless ``any_values``) in their specimens' CT grey values, two
        share a name, or one of them has no pixel of positive weight.
    """
    first = pairs[0]
    traits: dict[str, Callable[[Pair], Any]] = {
        "stain": lambda pair: pair.stain_name,
        "number of CT planes": lambda pair: len(pair.ct),
    }
    seen: set[str] = set()
    for pair in pairs:
        for what, trait in traits.items():
            if trait(pair) != trait(first):
                raise ValueError(
                    f"pairs differ in {what}: {first.name} has {trait(first)!r}, {pair.name} has {trait(pair)!r}; "
                    "train one stainer for each"
                )
        size = first.grid.spacing_um[0]
        if scale_differs(pair.grid.spacing_um, size):
            raise ValueError(
                f"pair {pair.name} has pixels of {pair.grid.spacing_um} um, {first.name} of {size:g} um; "
                "make the pairs at one size"
            )
        if not (pair.weight > 0).any():
            raise ValueError(
                f"pair {pair.name} has no pixel of positive confidence; check its registration, or remove it"
            )
        if pair.name in seen:
            raise ValueError(f"two pairs are named {pair.name}; name each pair once")
        seen.add(pair.name)
    check_together(grey_values_by_specimen(pairs), any_values=any_values)
