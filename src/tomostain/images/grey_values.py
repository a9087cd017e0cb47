"""How the grey values of a specimen are distributed, and whether another's can be of the same tissue in the same units.

Specimens of one study differ in how much of each tissue they hold and in their implants; their soft tissue and their
bone have the same grey values. So what is compared is not how often a value occurs but whether it occurs at all: the
share of one specimen's values that are usual in the other, both ways. A CT in other units (1/mm, per pixel, an 8-bit
window) has its values where the other has few; an inverted CT fits better once it is turned round.

The limits are calibrated on 36 phantom specimens (seeds 101 to 103; titanium, PEEK, two magnesium alloys; 4 to 12
weeks), compared with each other and with each other in other units: tests/images/test_grey_values.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float64]

LEAST_AGREEMENT, GOOD_AGREEMENT = 0.5, 0.6
"""Agreement of two specimens below which they are refused, and below which there is a warning. Phantoms of one unit
have at least 0.55, of units a factor of 10 apart 0.13 (median) to 0.63, of windows 0.54 at most."""
MOST_TURNED, SOME_TURNED = 0.35, 0.2
"""How much better a CT fits once it is inverted, above which it is refused, and above which there is a warning. Of 150
phantoms as they are, none lies above the first and 4 above the second; of 150 inverted ones 105 and 134."""
_LEVELS = 201
_POINTS = 2000
_AXIS = np.linspace(-10.0, 10.0, 401)
_SMOOTHED = 2.0
"""Standard deviation in steps of the axis, 0.05 each: a tenth of a value's distance from the lowest."""
_USUAL = 0.3
"""Share of the tallest peak from which on a value counts as usual."""
_LEAST_SHARE, _MOST_IMPLANT = 0.02, 0.6
_ONE_PEAK, _HELD = 0.7, 0.5
_BELL = (2.5, 3.5)
_FEWEST = 200_000


@dataclass(frozen=True)
class GreyValues:
    """The grey values of one specimen as ``_LEVELS`` evenly spaced quantiles, the smallest and the largest included."""

    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.quantiles) != _LEVELS or not np.isfinite(self.quantiles).all():
            raise ValueError(f"grey values are {_LEVELS} finite quantiles")
        if (np.diff(self.quantiles) < 0).any() or self.quantiles[0] == self.quantiles[-1]:
            raise ValueError("the quantiles of grey values must rise")

    @property
    def low(self) -> float:
        """The value below which half a per cent of the values lie."""
        return self.quantiles[1]

    @property
    def high(self) -> float:
        """The value above which half a per cent of the values lie."""
        return self.quantiles[-2]

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}"

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> GreyValues | None:
        """The grey values of an array of any shape and type; None where it holds no two different finite values.

        At most 200,000 evenly spaced values are used. Whole numbers are spread over their step, so that an 8-bit
        image and the image it was made of look alike.
        """
        flat = np.asarray(values).ravel()
        flat = flat[np.linspace(0, flat.size - 1, min(flat.size, _FEWEST)).astype(np.int64)].astype(np.float64)
        flat = flat[np.isfinite(flat)]
        if not flat.size or flat.min() == flat.max():
            return None
        if (flat == np.rint(flat)).all():
            flat += (np.arange(flat.size) * 0.6180339887498949) % 1.0 - 0.5
        return cls(tuple(float(f"{value:.7g}") for value in np.quantile(flat, np.linspace(0.0, 1.0, _LEVELS))))

    @classmethod
    def pooled(cls, parts: Sequence[GreyValues]) -> GreyValues:
        """The grey values of several together, each counting alike."""
        points = np.concatenate([part.points for part in parts])
        return cls(tuple(float(value) for value in np.quantile(points, np.linspace(0.0, 1.0, _LEVELS))))

    def mapped(self, slope: float, intercept: float) -> GreyValues:
        """These grey values on another scale: ``slope`` (above 0) x value + ``intercept``."""
        return GreyValues(tuple(slope * value + intercept for value in self.quantiles))

    @cached_property
    def points(self) -> Floats:
        """As many values as are compared, evenly spread over the quantiles, rising."""
        at = (np.arange(_POINTS) + 0.5) / _POINTS * (_LEVELS - 1)
        points: Floats = np.interp(at, np.arange(_LEVELS), self.quantiles)
        return points

    def knows(self, other: GreyValues) -> float:
        """The share of another's values that are usual here.

        Air below and an implant above all that is known do not count: a specimen has them or has not.
        """
        here, there = other._without_air(self.points), self._without_air(other.points)
        if min(here.size, there.size) < _LEAST_SHARE * _POINTS:
            return 0.0
        if (there > self.high).sum() <= _MOST_IMPLANT * there.size:
            there = there[there <= self.high]
        axis = _axis_of(here)
        usual = np.minimum(1.0, _density(here, axis) / (_USUAL * _density(here, axis).max()))
        return float((_density(there, axis) * usual).sum())

    def agreement(self, other: GreyValues) -> float:
        """How far two specimens share their grey values, 0 to 1, the same both ways."""
        return float(np.sqrt(self.knows(other) * other.knows(self)))

    @cached_property
    def is_one_material(self) -> bool:
        """Whether the values are one peak, as of nothing but resin; two peaks are separated as in Otsu (1979).

        The share of the variance that lies between the two best classes is 0.64 for one Gaussian peak.
        """
        sums, count = np.cumsum(self.points - self.points.mean()), np.arange(1, _POINTS + 1)
        between = sums[:-1] ** 2 / (count[:-1] * (_POINTS - count[:-1]))
        outer, inner = np.ptp(np.quantile(self.points, [0.025, 0.975])), np.ptp(np.quantile(self.points, [0.25, 0.75]))
        bell = _BELL[0] * inner < outer < _BELL[1] * inner  # 2.9 for a Gaussian peak, less for several
        return bool(bell and between.max() < _ONE_PEAK * self.points.var())

    def holds(self, other: GreyValues) -> bool:
        """Whether another is one material that is usual here, so that nothing speaks for other units."""
        return other.is_one_material and self.knows(other) > _HELD

    def _without_air(self, points: Floats) -> Floats:
        """Values without those that lie below all that is known here, but not farther than it is wide."""
        far = self.low - (float(np.quantile(self.points, 0.9)) - self.low)
        return points[(points >= self.low) | (points < far)]

    def inverted(self, other: GreyValues) -> tuple[GreyValues, float]:
        """Another's values, dark and bright exchanged, as they fit here best, and how much more of them is usual."""
        levels = [0.05, 0.25, 0.5, 0.75, 0.95]
        sums = np.add.outer(np.quantile(self.points, levels), np.quantile(other.points, levels)).ravel()
        turned = [GreyValues(tuple(float(total) - value for value in reversed(other.quantiles))) for total in sums]
        best = max(turned, key=self.knows)
        return best, self.knows(best) - self.knows(other)

    def to_json(self) -> list[float]:
        """Plain numbers, for ``GreyValues.from_json``."""
        return list(self.quantiles)

    @classmethod
    def from_json(cls, numbers: Iterable[Any]) -> GreyValues:
        """What ``to_json`` gave.

        Raises
        ------
        ValueError, TypeError
            Something else.
        """
        return cls(tuple(float(number) for number in numbers))


def _axis_of(points: Floats) -> tuple[float, float]:
    """Origin and unit of an axis on which soft tissue, bone and metal all lie apart: linear, then logarithmic."""
    low, middle, high = (float(value) for value in np.quantile(points, [0.02, 0.5, 0.98]))
    return low, max((middle - low) / 4.0, (high - low) / 200.0, 1e-12 * max(abs(low), abs(high), 1e-300))


def _density(points: Floats, axis: tuple[float, float]) -> Floats:
    """Shares of values along an axis, smoothed; their sum is 1."""
    places = np.clip(np.arcsinh((points - axis[0]) / axis[1]), -9.99, 9.99)
    counts = np.histogram(places, _AXIS)[0].astype(np.float64)
    smooth: Floats = ndimage.gaussian_filter1d(counts, _SMOOTHED, mode="constant")
    smooth /= smooth.sum()
    return smooth


@dataclass(frozen=True)
class Mismatch:
    """Why grey values may not be of the same tissue in the same units as those of known specimens."""

    reason: str
    certain: bool


def mismatch(known: Mapping[str, GreyValues], new: GreyValues) -> Mismatch | None:
    """Compare grey values with those of known specimens; None where they belong together.

    They have to agree with one of the specimens (each may have another implant), and must not fit all of them together
    much better once they are inverted.
    """
    if not known:
        return None
    if any(one.holds(new) for one in known.values()):
        return Mismatch("they are of one material only, so that the units cannot be checked", certain=False)
    agreement = max(one.agreement(new) for one in known.values())
    turned, gain = GreyValues.pooled(list(known.values())).inverted(new)
    better = gain + max(one.agreement(turned) for one in known.values()) - agreement
    if better > SOME_TURNED and agreement >= LEAST_AGREEMENT:
        return Mismatch(
            "they fit better with dark and bright exchanged, so the CT may be inverted", better > MOST_TURNED
        )
    if agreement < GOOD_AGREEMENT:
        return Mismatch("the CT may be in other units, in another window, or inverted", agreement < LEAST_AGREEMENT)
    return None


def check_values(known: Mapping[str, GreyValues], new: GreyValues | None, name: str, *, any_values: bool) -> None:
    """Refuse grey values that cannot be those that a stainer was trained on, or warn of them.

    Parameters
    ----------
    known
        Grey values of the specimens that it was trained on; where they are not known nothing is checked.
    new, name
        Grey values and name of what is to be stained.
    any_values
        Warn where it would be refused.

    Raises
    ------
    ValueError
        They are certainly others.
    """
    found = mismatch(known, new) if new is not None else None
    if found is None:
        return
    sentence = (
        f"the grey values of {name} run from {new}, those that the stainer was trained on from {range_of(known)}; "
        f"{found.reason}"
    )
    if found.certain and not any_values:
        raise ValueError(
            f"{sentence}. Convert it to the units of the training, or pass --any-values if you accept colours that "
            "have not been tested"
        )
    warnings.warn(f"{sentence}. Look at the colours before you use them", stacklevel=3)


def check_together(specimens: Mapping[str, GreyValues], *, any_values: bool) -> None:
    """Refuse specimens whose grey values cannot be of one study, or warn of them; who stands apart is named.

    Raises
    ------
    ValueError
        There is more than one group, and ``any_values`` is false.
    """
    main, *others = groups(specimens) if specimens else [[]]
    if not others:
        return
    apart = "; ".join(f"{', '.join(group)} ({range_of({n: specimens[n] for n in group})})" for group in others)
    sentence = (
        f"the CT grey values of these specimens do not overlap with those of {', '.join(main)} "
        f"({range_of({name: specimens[name] for name in main})}): {apart}. They may be in other units, in another "
        "window, or inverted"
    )
    if not any_values:
        raise ValueError(
            f"{sentence}; make the pairs with all CT in the same units (--grey-range LOW HIGH where it was exported as "
            "integers), or pass --any-values if you know that they are"
        )
    warnings.warn(sentence, stacklevel=3)


def range_of(known: Mapping[str, GreyValues]) -> str:
    """The range of several specimens' values, in words."""
    return f"{min(one.low for one in known.values()):.3g} to {max(one.high for one in known.values()):.3g}"


def groups(specimens: Mapping[str, GreyValues]) -> list[list[str]]:
    """The names of specimens that belong together, the largest group first.

    Specimens belong together where they agree, where one is a single material of the other, or by way of a third; one
    that is inverted against the rest of its group is a group of its own.
    """
    left, found = list(specimens), []
    while left:
        group, edge = [], [left.pop(0)]
        while edge:
            one = edge.pop()
            group.append(one)
            near = [other for other in left if _alike(specimens[one], specimens[other])]
            edge += near
            left = [other for other in left if other not in near]
        found.append(sorted(group))
    whole = []
    for group in found:
        turned = [name for name in group if len(group) > 2 and _is_turned(name, group, specimens)]
        if 2 * len(turned) < len(group):
            whole += [[name for name in group if name not in turned], *([name] for name in turned)]
        else:
            whole.append(group)
    return sorted(whole, key=lambda group: (-len(group), group))


def _alike(one: GreyValues, other: GreyValues) -> bool:
    return one.agreement(other) >= LEAST_AGREEMENT or one.holds(other) or other.holds(one)


def _is_turned(name: str, group: Sequence[str], specimens: Mapping[str, GreyValues]) -> bool:
    found = mismatch({other: specimens[other] for other in group if other != name}, specimens[name])
    return found is not None and found.certain
