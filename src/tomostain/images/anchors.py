"""Anchors: the grey values of soft tissue and bone in a CT, and the straight line that maps one scan onto another.

Beamlines store the same specimen in 1/cm, in 16 bits or in some 8-bit window. Each is a straight line of the other, so
two values that are known in both scans map all others. Soft tissue (or resin, which attenuates alike) and old bone are
the two peaks that a scan of an implant in bone has; the implant is left out, as every material has another value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain import runs
from tomostain.images.grey_values import GreyValues, check_values
from tomostain.images.image import Calibrated, Volume
from tomostain.images.intensity import ATTENUATION_UNITS, MAJOR_SHARE, peaks_of
from tomostain.images.sampling import sampled_planes

_PLANES = 12
_FEWEST_PX = 10_000
_NOISE_PX = 1.0
"""Gaussian width in pixels by which planes are smoothed, so that the peaks of neighbouring tissues part."""
_BINS = 512
_PROMINENCE = 0.05
"""In decades of counts; planes are smoothed, so that less is noise than in a histogram of single voxels."""
_LEAST_HEIGHT = 0.1
"""Of the highest peak's; voxels that are part bone, part soft tissue make a peak of 0.05 where trabeculae are thin."""
_AIR = 0.08
"""Where zero is known, a lowest peak below this share of the next is air; soft tissue has 0.11 of bone at 20 keV."""
_BONES = 1.6
"""Peaks up to this many times as far above soft tissue as the lowest are bone: woven, old, more mineralised."""
ALIKE = 0.06
"""Anchors that differ by less than this share of the contrast between them are the same; their error is below 0.03."""
_LIKE, _TURNED = 0.82, 0.02
"""Least likeness of the peaks' shapes after mapping, and by how much it must be above that of the inverted scan. Of 288
phantom scans in other windows 2 do not reach them, of 360 inverted ones 5 do (docs/explanation.md)."""
_CLEARLY = 0.05
"""How much better grey values must agree after mapping; otherwise a scan stays as it is."""


@dataclass(frozen=True)
class GreyMap:
    """Value on another scan's scale = ``slope`` x value + ``intercept``."""

    slope: float = 1.0
    intercept: float = 0.0

    def __str__(self) -> str:
        return f"{self.slope:.4g} x value {'-' if self.intercept < 0 else '+'} {abs(self.intercept):.4g}"

    def __bool__(self) -> bool:
        return (self.slope, self.intercept) != (1.0, 0.0)

    def __call__(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Grey values of any shape and type -> float32, same shape; by the identity unchanged."""
        plain = np.asarray(values, dtype=np.float32)
        return plain * np.float32(self.slope) + np.float32(self.intercept) if self else plain

    def of_values(self, values: GreyValues) -> GreyValues:
        """The grey values of a scan after it was mapped."""
        return values.mapped(self.slope, self.intercept) if self else values

    def of(self, volume: Volume) -> Volume:
        """A volume whose values are mapped as they are read; the volume itself where the map is the identity."""
        if not self:
            return volume
        about = {key: value for key, value in volume.about.items() if key != "units"}
        about["grey_map"] = str(self)
        return dataclasses.replace(volume, array=Calibrated(volume.array, self.slope, self.intercept), about=about)

    def to_json(self) -> dict[str, float]:
        """Plain numbers, for ``GreyMap(**...)``."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Anchors:
    """The grey values of soft tissue and of bone in one scan."""

    soft: float
    bone: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.soft, self.bone]).all() and self.soft < self.bone):
            raise ValueError(
                f"anchors are the grey values of soft tissue and of bone, the smaller first, got {self.soft:g} and "
                f"{self.bone:g}; an inverted CT must be turned round first"
            )

    def __str__(self) -> str:
        return f"{self.soft:.4g} (soft tissue) and {self.bone:.4g} (bone)"

    def onto(self, other: Anchors) -> GreyMap:
        """The map of these values onto another scan's."""
        slope = (other.bone - other.soft) / (self.bone - self.soft)
        return GreyMap(slope, other.soft - slope * self.soft)

    def mapped(self, grey_map: GreyMap) -> Anchors:
        """The anchors of a scan after it was mapped."""
        return Anchors(*(grey_map.slope * value + grey_map.intercept for value in (self.soft, self.bone)))

    def is_like(self, other: Anchors) -> bool:
        """Whether two scans have one scale, as far as anchors can tell."""
        off = max(abs(self.soft - other.soft), abs(self.bone - other.bone))
        return off < ALIKE * (other.bone - other.soft)

    @classmethod
    def median(cls, several: Sequence[Anchors]) -> Anchors | None:
        """The median of each; None of none."""
        if not several:
            return None
        soft, bone = np.median([(one.soft, one.bone) for one in several], axis=0)
        return cls(float(soft), float(bone))

    def to_json(self) -> list[float]:
        """Plain numbers, for ``Anchors(*...)``."""
        return [self.soft, self.bone]


def anchors_of(volume: Volume) -> tuple[Anchors, ...]:
    """What may be the anchors of a grey volume, from a bounded sample of its planes; the likeliest first."""
    return find_anchors(sampled_planes(volume, planes=_PLANES), units=volume.about.get("units"))


def find_anchors(planes: Sequence[npt.NDArray[Any]], *, units: str | None = None) -> tuple[Anchors, ...]:
    """What may be the anchors of CT planes (y, x), the likeliest first; none where fewer than two peaks stand out.

    The lowest peak is soft tissue, or air below it, which in ``units`` of attenuation is known by its zero. Bone is the
    highest of the peaks that lie near the next one above. Where old bone makes no peak, woven bone takes its place.
    How precise they are is in docs/explanation.md.
    """
    smooth = [ndimage.gaussian_filter(_finite(plane), _NOISE_PX).ravel() for plane in planes]
    values = np.concatenate(smooth) if smooth else np.zeros(0, np.float32)
    if values.size < _FEWEST_PX:
        return ()
    low, middle, high = (float(v) for v in np.quantile(values, [0.002, 0.5, 0.998]))
    unit = max((middle - low) / 4, (high - low) / 200)
    if not unit > 0:
        return ()
    # linear near soft tissue, logarithmic above: metal, ten times as bright as bone, leaves bone its width
    edges = np.linspace(np.arcsinh(-1.0), np.arcsinh(1.2 * (high - low) / unit), _BINS + 1)
    counts, _ = np.histogram(np.arcsinh((values - low) / unit), edges)
    found = peaks_of(counts, sigma=_BINS / 100, prominence=_PROMINENCE)
    centres = np.sinh((edges[:-1] + edges[1:]) / 2) * unit + low
    tall = _LEAST_HEIGHT * max((peak.height for peak in found), default=0.0)
    peaks = [(float(centres[p.bin]), p.height) for p in found if p.share >= MAJOR_SHARE and p.height >= tall]
    if (units or "").replace(" ", "").lower() in ATTENUATION_UNITS:
        peaks = peaks[1:] if len(peaks) > 2 and peaks[0][0] < _AIR * peaks[1][0] else peaks
    return tuple(
        Anchors(soft, bone)
        for i, (soft, _) in enumerate(peaks[:-1][:2])
        for bone, _ in sorted(
            (peak for peak in peaks[i + 1 :] if peak[0] - soft <= _BONES * (peaks[i + 1][0] - soft)),
            key=lambda peak: -peak[1],
        )
    )


def find_map(
    known: Mapping[str, GreyValues], target: Anchors | None, new: GreyValues | None, candidates: Sequence[Anchors]
) -> GreyMap:
    """The map of a scan onto the scale of others, chosen by how well its grey values then agree with theirs.

    The identity, to the bit, where the scan agrees with one of them as it is about as well as it would after mapping,
    where its anchors are theirs, and where the anchors of one side are not known. A less likely candidate is taken only
    where it fits clearly better, and none where the scan may be inverted. ``known`` are the grey values of the others,
    ``target`` their anchors.
    """
    if target is None or new is None or not known:
        return GreyMap()
    best, found = max(one.agreement(new) for one in known.values()), GreyMap()
    for anchors in candidates:
        if anchors.is_like(target):
            continue
        grey_map = anchors.onto(target)
        agreement = max(one.agreement(grey_map.of_values(new)) for one in known.values())
        if agreement > best + _CLEARLY:
            best, found = agreement, grey_map
    if not found or _is_turned(known, target, new, found, candidates):
        return GreyMap()
    return found


def _is_turned(
    known: Mapping[str, GreyValues],
    target: Anchors,
    new: GreyValues,
    grey_map: GreyMap,
    candidates: Sequence[Anchors],
) -> bool:
    """Whether a mapped scan may be inverted: two peaks are still two peaks, but their shapes change places."""
    dark = GreyValues(tuple(-value for value in reversed(new.quantiles)))
    turned = [Anchors(-one.bone, -one.soft).onto(target).of_values(dark) for one in candidates]
    likeness = _likeness(known, target, grey_map.of_values(new))
    return likeness < max(_LIKE, *(_likeness(known, target, one) + _TURNED for one in turned))


def _likeness(known: Mapping[str, GreyValues], target: Anchors, new: GreyValues) -> float:
    """How alike the soft and the bone peak are in shape to those of one of the others, whatever their sizes: 0 to 1."""
    shapes = _shapes(new, target)
    return max(float(np.minimum(shapes, _shapes(one, target)).sum(axis=1).mean()) for one in known.values())


def _shapes(values: GreyValues, anchors: Anchors) -> npt.NDArray[np.float64]:
    """The values below and above the middle of two anchors, each as shares of its own (2, bins), smoothed."""
    places = np.clip((values.points - anchors.soft) / (anchors.bone - anchors.soft), -0.59, 1.59)
    shapes = []
    for half in (places < 0.5, places >= 0.5):
        counts = np.histogram(places[half], np.linspace(-0.6, 1.6, 45))[0].astype(np.float64)
        shapes.append(ndimage.gaussian_filter1d(counts, 1.0) / max(counts.sum(), 1.0))
    return np.stack(shapes)


def fit_scale(
    known: Mapping[str, GreyValues],
    target: Anchors | None,
    new: GreyValues | None,
    candidates: Sequence[Anchors],
    name: str,
    *,
    given: Anchors | None = None,
    any_values: bool = False,
) -> GreyMap:
    """The map of a scan onto a stainer's scale, said in one line where it is not the identity.

    Parameters
    ----------
    known, target
        Grey values of the specimens that the stainer was trained on, and their anchors.
    new, candidates, name
        Grey values of the scan, what may be its anchors, and its name.
    given
        The scan's anchors as the user knows them: it is then always mapped by them.
    any_values
        Take the values as they are, and warn where they do not fit.

    Raises
    ------
    ValueError
        The values do not fit and cannot be mapped, or anchors are given and the stainer has none.
    """
    if given is not None and target is None:
        raise ValueError("the stainer has no anchors, so that --anchors cannot be used; train it again on newer pairs")
    if any_values and given is None:
        check_values(known, new, name, any_values=True)
        return GreyMap()
    grey_map = given.onto(target) if given and target else find_map(known, target, new, candidates)
    if grey_map:
        runs.say(f"{name}: grey values are mapped onto those of the training: {grey_map}")
    mapped = grey_map.of_values(new) if new else None
    try:
        check_values(known, mapped, name, any_values=any_values)
    except ValueError as error:
        raise ValueError(f"{error}. {_why_not(target, candidates, mapped=bool(grey_map))}") from None
    return grey_map


def _why_not(target: Anchors | None, candidates: Sequence[Anchors], *, mapped: bool) -> str:
    """Why grey values were not mapped, or not well."""
    if target is None:
        return "They cannot be mapped, because the stainer does not know its anchors"
    if mapped:
        return "This is so after mapping; pass --anchors SOFT BONE, the grey values of soft tissue and of bone"
    if not candidates:
        return (
            "They cannot be mapped, because no peaks of soft tissue and of bone stand out; pass --anchors SOFT BONE if "
            "you know them"
        )
    return f"Mapping {candidates[0]} onto {target} does not help; if these are wrong, pass --anchors SOFT BONE"


def _finite(plane: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    values = np.asarray(plane, dtype=np.float32)
    there = np.isfinite(values)
    if there.all():
        return values
    return np.where(there, values, np.float32(np.median(values[there]) if there.any() else 0.0))
