"""Where a virtual stain is wrong: colour difference per pixel, by the real colour, by CT intensity, by region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2
from skimage.color import lab2rgb, rgb2lab

JUST_NOTICEABLE = 2.3
"""A colour difference that an observer just sees (Mahy, Van Eycken, Oosterlinck, 1994)."""

_HUES = (
    *((20, "pink"), (50, "red"), (75, "orange"), (110, "yellow"), (170, "green"), (230, "cyan")),
    *((299, "blue"), (325, "violet"), (345, "magenta"), (360, "pink")),
)
"""Where each hue ends, in degrees of CIELAB."""

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Case:
    """One held-out pair: CT plane (y, x), real and predicted colours (y, x, 3) by method, mask, pixel size.

    ``inside`` (y, x) is True where the CT volume has values (None: everywhere), ``simulated`` names what of ``CT`` and
    ``stain`` comes from the phantom.
    """

    name: str
    specimen: str
    ct: npt.NDArray[np.float32]
    real: npt.NDArray[np.uint8]
    predicted: Mapping[str, npt.NDArray[np.uint8]]
    errors: Mapping[str, npt.NDArray[np.float32]]
    mask: npt.NDArray[np.bool_]
    spacing_um: tuple[float, float]
    inside: npt.NDArray[np.bool_] | None = None
    simulated: tuple[str, ...] = ()
    registered: str = ""
    """How well the slide was registered, in words."""
    drawing: str = ""
    """The cut in its volume, as SVG."""


@dataclass(frozen=True)
class ColourClass:
    """Pixels whose true stain has about one colour: its name, CSS colour, share of all pixels, mean error by method."""

    name: str
    colour: str
    share: float
    errors: Mapping[str, float]
    tissue: str = ""
    """Tissue of this colour, where it is known."""


@dataclass(frozen=True)
class Region:
    """A square of a case, (first row, first column, edge) in pixels, and the mean error of the stainer in it."""

    case: str
    corner_px: tuple[int, int]
    edge_px: int
    error: float


def scale_top(cases: Sequence[Case]) -> float:
    """One upper end of the error scale for all maps: the 98th percentile of all methods, up to the next ten."""
    highest = max(float(np.percentile(e[c.mask], 98)) for c in cases for e in c.errors.values())
    return float(np.clip(np.ceil(highest / 10) * 10, 10, 100))


def by_colour(cases: Sequence[Case], *, classes: int = 6, seed: int = 0, sample: int = 20_000) -> list[ColourClass]:
    """Mean errors where the real stain has each of its main colours (k-means in CIELAB), most frequent first."""
    rng = np.random.default_rng(seed)
    per_case = max(1, sample // len(cases))
    colours, errors = [], []
    for case in cases:
        there = np.flatnonzero(case.mask)
        chosen = rng.choice(there, size=min(per_case, there.size), replace=False)
        colours.append(case.real.reshape(-1, 3)[chosen])
        errors.append({method: error.ravel()[chosen] for method, error in case.errors.items()})
    lab = np.asarray(rgb2lab(np.concatenate(colours)), dtype=np.float64)
    distinct = len(np.unique(np.concatenate(colours), axis=0))
    centres, labels = kmeans2(lab, min(classes, distinct), iter=30, minit="++", rng=seed)
    merged = {method: np.concatenate([e[method] for e in errors]) for method in errors[0]}
    found = []
    for i, centre in enumerate(centres):
        inside = labels == i
        if not inside.any():
            continue
        rgb = np.clip(lab2rgb(centre), 0, 1)
        css = "#" + "".join(f"{int(v * 255 + 0.5):02x}" for v in rgb)
        means = {method: float(values[inside].mean()) for method, values in merged.items()}
        found.append(ColourClass(colour_name(centre), css, float(inside.mean()), means))
    return sorted(found, key=lambda c: -c.share)


def colour_name(lab: Floats) -> str:
    """A plain name of a CIELAB colour: lightness and hue."""
    lightness, a, b = (float(v) for v in lab)
    chroma, hue = float(np.hypot(a, b)), float(np.degrees(np.arctan2(b, a)) % 360)
    if lightness < 18:
        return "black"
    if chroma < 8:
        return (
            "white" if lightness > 88 else "pale grey" if lightness > 68 else "grey" if lightness > 40 else "dark grey"
        )
    tone = next(name for end, name in _HUES if hue <= end)
    if 40 < hue < 100 and lightness < 60:
        tone = "brown"
    depth = "pale " if lightness > 76 else "light " if lightness > 60 else "" if lightness > 42 else "dark "
    return f"{depth}{'greyish ' if chroma < 16 else ''}{tone}"


def by_intensity(
    cases: Sequence[Case], low: float, high: float, *, bins: int = 32
) -> tuple[Floats, Floats, dict[str, Floats]]:
    """Centres of CT intensity bins, the share of pixels in each, and each method's mean error (NaN where none is)."""
    edges = np.linspace(low, high, bins + 1)
    counts = np.zeros(bins)
    sums = {method: np.zeros(bins) for method in cases[0].errors}
    for case in cases:
        values = np.clip(case.ct[case.mask], low, high)
        which = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
        counts += np.bincount(which, minlength=bins)
        for method, error in case.errors.items():
            sums[method] += np.bincount(which, error[case.mask], bins)
    enough = counts > 1e-4 * counts.sum()
    means = {m: np.where(enough, s / np.maximum(counts, 1), np.nan) for m, s in sums.items()}
    return (edges[:-1] + edges[1:]) / 2, counts / counts.sum(), means


def worst_regions(cases: Sequence[Case], method: str, *, count: int = 3, share: float = 0.22) -> list[Region]:
    """The squares (``share`` of the shorter edge) with the highest mean error, worst first, at most one a case.

    Squares that are less than half unmasked are left out.
    """
    found = []
    for case in cases:
        edge = max(8, int(share * min(case.mask.shape)))
        step = max(1, edge // 4)
        error = _box_sums(np.where(case.mask, case.errors[method], 0.0), edge, step)
        there = _box_sums(case.mask.astype(np.float64), edge, step)
        mean = np.where(there >= 0.5 * edge**2, error / np.maximum(there, 1), -1.0)
        row, column = (int(i) for i in np.unravel_index(int(mean.argmax()), mean.shape))
        if mean[row, column] >= 0:
            found.append(Region(case.name, (row * step, column * step), edge, float(mean[row, column])))
    return sorted(found, key=lambda region: -region.error)[:count]


def _box_sums(values: Floats, edge: int, step: int) -> Floats:
    total = np.pad(values, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    sums = total[edge:, edge:] - total[:-edge, edge:] - total[edge:, :-edge] + total[:-edge, :-edge]
    return np.asarray(sums[::step, ::step])
