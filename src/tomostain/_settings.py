"""Bounds of the numbers that a user may set: declared beside each setting, checked for every way to set it."""

from __future__ import annotations

import dataclasses
import functools
import numbers
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Within:
    """Bounds of the numbers of a setting: ``tilt_deg: Annotated[float, Within(0, 45)] = 15.0``."""

    low: float
    high: float
    above: bool = False
    """Whether ``low`` itself is left out."""

    def __contains__(self, value: float) -> bool:
        return self.low < value <= self.high if self.above else self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{'above' if self.above else 'at least'} {self.low:.12g} and at most {self.high:.12g}"


PIXEL_UM = Within(1e-3, 2e4)
"""Edges of pixels and voxels, um: from electron microscopes to clinical CT."""
SEED = Within(0, 2**63 - 1)
SHARE = Within(0, 1)
VOXELS = Within(1, 2**31)
LENGTH_UM = Within(0, 1e6)


def check_numbers(settings: Any) -> None:
    """Check every number among the fields of a dataclass; called at the start of its ``__post_init__``.

    Raises
    ------
    ValueError
        A number is not finite, not whole where it must be, not a number at all, or outside its bounds.
    """
    for name, (bounds, whole) in number_fields(settings.__class__).items():
        for value in _flat(getattr(settings, name)):
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise ValueError(f"{name} must be a number, got {value!r}")
            if whole and not isinstance(value, numbers.Integral):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
            if float(value) not in bounds:  # NaN is in none
                raise ValueError(f"{name} must be {bounds}, got {float(value):.12g}")


@functools.cache
def number_fields(settings: type[Any]) -> dict[str, tuple[Within, bool]]:
    """The fields of a dataclass that hold numbers: their bounds, and whether the numbers are whole.

    Raises
    ------
    TypeError
        A field that holds numbers declares no bounds.
    """
    hints = typing.get_type_hints(settings, include_extras=True)
    found = {}
    for field in dataclasses.fields(settings):
        hint = hints[field.name]
        kinds = set(_kinds(hint)) & {int, float}
        if not kinds:
            continue
        marks = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
        bounds = [mark for mark in marks if isinstance(mark, Within)]
        if not bounds:
            raise TypeError(f"{settings.__name__}.{field.name} holds numbers and declares no bounds")
        found[field.name] = (bounds[0], kinds == {int})
    return found


def _kinds(hint: Any) -> Iterator[Any]:
    """The plain types inside annotations, unions and tuples."""
    if typing.get_origin(hint) is Annotated:
        yield from _kinds(typing.get_args(hint)[0])
    elif typing.get_origin(hint) is not typing.Literal:
        inner = typing.get_args(hint)
        for one in inner:
            yield from _kinds(one)
        if not inner:
            yield hint


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for one in value:
            yield from _flat(one)
    elif value is not None:
        yield value
