"""Late imports: a plug by its name, an optional package by its extra."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

_MOST = 24
"""Known words that a message lists at most."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A half-sentence that names the known word closest to ``word``, or the known words, of many the first ones."""
    words = sorted(known)
    more = f" and {len(words) - _MOST} more" if len(words) > _MOST else ""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(words[:_MOST])}{more}"


def pick(name: str, table: Mapping[str, Any], *, trust: bool = True) -> Any:
    """The object that ``name`` stands for in ``table``, or ``"package.module:name"`` from anywhere.

    Raises
    ------
    ValueError
        The name is not in the table (the message suggests the nearest one), its module has no such name, or the
        name would import code from elsewhere while ``trust`` is false.
    """
    if name in table:
        return table[name]
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(f"{name!r} is not known here; {nearest(name, table)}")
    if not trust:
        raise ValueError(
            f"{name!r} is code from outside tomostain, which would be run; pass --trust (in Python trust=True) if you "
            "trust where it comes from"
        )
    here = os.getcwd()
    if here not in sys.path:  # a module in the working directory is found too, after all others
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name!r} cannot be imported: {error}") from None


def require(package: str, *, extra: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Raises
    ------
    ModuleNotFoundError
        The package is not installed; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        raise ModuleNotFoundError(
            f"{package} is needed here; install it with: pip install 'tomostain[{extra}]'"
        ) from None
