"""Which pairs are for training and which are held out: by specimen, never by image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from tomostain._imports import nearest


class Specimened(Protocol):
    """Anything that names the animal it came from."""

    @property
    def specimen(self) -> str:
        """Name of the animal or sample."""


Item = TypeVar("Item", bound=Specimened)


def specimens_of(items: Sequence[Item]) -> list[str]:
    """The specimens' names, sorted.

    Raises
    ------
    ValueError
        An item names no specimen.
    """
    for item in items:
        if not item.specimen:
            raise ValueError(
                f"{getattr(item, 'name', item)} names no specimen, so it could leak between train and test"
            )
    return sorted({item.specimen for item in items})


def hold_out(items: Sequence[Item], specimens: Sequence[str]) -> tuple[list[Item], list[Item]]:
    """(trained on, held out): items of ``specimens`` are on the second side, all others on the first.

    Raises
    ------
    ValueError
        A held-out specimen is unknown (the nearest is named), or none is left to train on.
    """
    known = specimens_of(items)
    for name in specimens:
        if name not in known:
            raise ValueError(f"there is no specimen {name!r} to hold out; {nearest(name, known)}")
    kept = [item for item in items if item.specimen not in specimens]
    if not kept:
        raise ValueError(f"all specimens are held out ({', '.join(known)}); leave at least one to train on")
    return kept, [item for item in items if item.specimen in specimens]


def folds(items: Sequence[Item], count: int) -> list[tuple[str, ...]]:
    """The specimens to hold out in each of ``count`` folds: every specimen in exactly one.

    They are dealt in the order of the SHA-256 of their names. In the order of the names, groups that alternate (left
    and right leg, implant A and B) would fall into one fold each, and a fold would leave out all of a group.

    Raises
    ------
    ValueError
        There are fewer specimens than folds, or fewer than two folds.
    """
    known = specimens_of(items)
    if not 2 <= count <= len(known):
        raise ValueError(
            f"{len(known)} specimens ({', '.join(known)}) cannot make {count} folds; choose 2 to {len(known)}"
        )
    drawn = sorted(known, key=lambda name: hashlib.sha256(name.encode()).digest())
    return [tuple(sorted(drawn[index::count])) for index in range(count)]


def few(items: Sequence[Item], count: int) -> list[Item]:
    """At most ``count`` items, dealt from one specimen after the other, in their own order."""
    turns: dict[str, int] = {}
    ranked = []
    for place, item in enumerate(items):
        turn = turns[item.specimen] = turns.get(item.specimen, -1) + 1
        ranked.append((turn, item.specimen, place))
    chosen = {place for _, _, place in sorted(ranked)[:count]}
    return [item for place, item in enumerate(items) if place in chosen]
