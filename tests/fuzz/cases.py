"""Which cases a format is given: its mutations in turn, seed after seed."""

from __future__ import annotations

import zlib

import numpy as np

from fuzz.formats import FORMATS
from fuzz.mutations import names_for
from fuzz.pool import Case

SPARE = 1.5
"""Cases drawn for one that counts: some mutations find nothing to change in some files."""


def cases_for(name: str, count: int, *, start: int = 0) -> list[Case]:
    """At least ``count`` cases of a format, with some to spare for those that do not apply."""
    form = FORMATS[name]
    names = names_for(form.own, form.without)
    wanted = int(count * SPARE)
    return [Case(name, names[i % len(names)], start + i // len(names)) for i in range(wanted)]


def sample(name: str, count: int, *, seed: int = 0) -> list[Case]:
    """``count`` cases of a format with mutations drawn at random, the same every time."""
    form = FORMATS[name]
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    names = rng.permutation(names_for(form.own, form.without))[:count]
    return [Case(name, str(mutation), int(rng.integers(300))) for mutation in names]
