"""The page of one registration: slide and CT one over the other, the deformation, and the confidence."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain import __version__
from tomostain.registration.align import Registered
from tomostain.registration.coarse import attitude, sample
from tomostain.registration.landmarks import LandmarkFit
from tomostain.registration.modality import Stained
from tomostain.registration.quality import placed
from tomostain.registration.slide import Outcome
from tomostain.reporting.page import render
from tomostain.reporting.pictures import RGB, error_map, grey, hatched, picture, scale_colours
from tomostain.reporting.position import position_drawing

TEMPLATE = "registration.html.j2"
REFUSED = '<meta name="tomostain" content="refused">'
_SQUARES = 8
_CANDIDATES, _SMALL = 6, 400
"""Positions of a refused slide that are shown, and pixels along the diagonal of their pictures."""
_NEARBY = ("--prior-within-um", "100", "--prior-within-deg", "5")


def registration_page(outcome: Outcome, *, command: Sequence[str] = ("tomostain", "register")) -> str:
    """A self-contained page of one registration, placed or refused.

    It shows slide and CT one over the other, the deformation and the confidence; of a refused slide,
    the likely positions and the command that tries each (``command`` and where to start).
    """
    done = outcome.done
    placed_at = outcome.placement is not None
    content = {
        "version": __version__,
        "title": outcome.title,
        "refused": not placed_at,
        "check": done is not None and placed_at and done.score.uncertain,
        "verdict": _verdict(outcome),
        "hint": outcome.hint if not placed_at else "",
        "shown": None,
        "pictures": [],
        "facts": [],
        "tried": [],
        "landmarks": _landmarks(outcome.landmarks),
        "position": None,
    }
    if done is not None:
        content |= _shown(outcome, done) | {
            "facts": _facts(done),
            "tried": _tried(outcome, done, command),
            "position": position_drawing(outcome.target.grid, done.fit.pose, outcome.stained.extent_um),
        }
    return render(content, template=TEMPLATE)


def is_refused_page(path: Path) -> bool:
    """Whether a file is the page of a refused slide, which the next attempt may replace."""
    with path.open("rb") as file:
        return REFUSED.encode() in file.read(2000)


def _verdict(outcome: Outcome) -> str:
    done = outcome.done
    if done is None:
        return f"Refused: {outcome.fault}."
    score = done.score
    if outcome.placement is None:
        return f"Refused: {outcome.fault} (probability of being right {score.probability:.0%})."
    voxels = score.expected_tre_um / score.voxel_um
    return (
        f"Placed with probability {score.probability:.0%}; the expected error is {score.expected_tre_um:.1f} um "
        f"({voxels:.1f} voxels)."
    )


def _shown(outcome: Outcome, done: Registered) -> dict[str, Any]:
    """The slide over the CT, and its maps."""
    slide = done.slide
    points = slide.points_um.reshape(*slide.shape, 2)
    cut = sample(outcome.target, placed(done.fit, points))
    inside = np.isfinite(cut)
    colours = _colours(outcome.stained, slide.spacing_um)
    greys = _greys(cut)
    shift = np.zeros(slide.shape)
    if done.fit.field is not None:
        shift = np.linalg.norm(done.fit.field.at(points), axis=-1)
    area = np.abs(np.log(np.maximum(done.jacobian, 1e-3)))
    whole: npt.NDArray[np.bool_] = np.ones(slide.shape, dtype=bool)
    farthest, parted = max(float(shift.max()), 1e-6), 8 * done.score.voxel_um
    steepest = max(float(area.max()), 1e-3)
    spacing = (slide.spacing_um, slide.spacing_um)
    plain = [
        ("Slide", colours),
        ("CT where the slide lies", hatched(greys, inside, opaque=True)),
        (
            "Chequerboard of both: structures must continue across the edges of the squares",
            hatched(_chequered(colours, greys), inside),
        ),
        ("Edges of the CT over the slide: they must follow the tissue", _edged(colours, cut)),
    ]
    maps = [
        ("Displacement", shift, whole, farthest, f"{farthest:.0f} um"),
        ("Change of local area (dark: unchanged)", area, whole, steepest, f"x {np.exp(steepest):.2f}"),
        ("Disagreement of two halves", done.distance_um, inside, parted, f"{parted:g} um"),
        ("Confidence", done.confidence, inside, 1.0, "1"),
    ]
    pictures: list[dict[str, Any]] = [
        {"caption": text, "picture": picture(image, text, spacing_um=spacing), "top": None} for text, image in plain
    ]
    pictures += [
        {"caption": text, "picture": picture(error_map(values, mask, top=top), text, spacing_um=spacing), "top": label}
        for text, values, mask, top, label in maps
    ]
    over = {"under": pictures[0]["picture"], "over": pictures[1]["picture"]}
    return {"pictures": pictures, "shown": over, "colours": scale_colours()}


def _colours(stained: Stained, spacing_um: float) -> RGB:
    light = np.power(10.0, -stained.at_spacing(spacing_um).density)
    return np.asarray(np.clip(light ** (1 / 2.2) * 255, 0, 255).astype(np.uint8))


def _greys(cut: npt.NDArray[np.float32]) -> RGB:
    inside = np.isfinite(cut)
    low, high = (float(v) for v in np.percentile(cut[inside], [1, 99])) if inside.any() else (0.0, 1.0)
    return np.repeat(grey(cut, low, high)[..., None], 3, axis=2)


def _tried(outcome: Outcome, done: Registered, command: Sequence[str]) -> list[dict[str, Any]]:
    """The positions that were refined; of a refused slide the first few with a picture and the command to try them."""
    size = float(np.linalg.norm(outcome.stained.extent_um))
    small = outcome.stained.at_spacing(size / _SMALL)
    points, colours = small.points_um, _colours(outcome.stained, size / _SMALL)
    spacing = (small.spacing_um[0], small.spacing_um[1])
    rows = []
    for number, place in enumerate(done.tried, start=1):
        at, centre = attitude(place.pose), place.pose.centre_um
        row: dict[str, Any] = {
            "depth": f"{centre[0]:.0f}",
            "tilt": f"{place.pose.tilt_deg:.1f}",
            "turn": f"{at.turn_deg:.0f}",
            "mirrored": "yes" if at.mirrored else "no",
            "score": f"{place.score:.3f}",
            "pictures": [],
            "command": "",
        }
        if outcome.placement is None and number <= _CANDIDATES:
            cut = sample(outcome.target, place.pose.to_um(points))
            text = f"Position {number}: CT"
            shown = hatched(_greys(cut), np.isfinite(cut), opaque=True)
            both = hatched(_chequered(colours, _greys(cut)), np.isfinite(cut))
            row["pictures"] = [
                picture(shown, text, spacing_um=spacing),
                picture(both, f"{text} and slide", spacing_um=spacing),
            ]
            near = [*centre, at.tilt_y_deg, at.tilt_x_deg, at.turn_deg]
            words = [*command, "--near", *(f"{v:.1f}" for v in near), *_NEARBY]
            row["command"] = shlex.join([*words, "--mirrored" if at.mirrored else "--no-mirrored"])
        rows.append(row)
    return rows


def _facts(done: Registered) -> list[tuple[str, str]]:
    pose = done.fit.pose
    return [
        ("depth of the section's centre", f"{pose.centre_um[0]:.1f} um"),
        ("tilt", f"{pose.tilt_deg:.2f} degrees"),
        ("mirrored", "yes" if pose.mirrored else "no"),
        ("volume um per slide um", " x ".join(f"{s:.4f}" for s in np.linalg.norm(pose.axes, axis=0))),
        ("section thickness", f"{done.thickness_um:g} um"),
        ("CT variance that the slide explains", f"{done.score.ratio:.1%}"),
        ("CT detail that the slide explains where it was not fitted", f"{done.score.detail:.1%}"),
        ("margin in detail over the second-best position", f"{done.score.margin:.1%}"),
        ("disagreement of two halves", f"{done.score.disagreement_um:.1f} um"),
        ("slide inside the volume", f"{done.score.inside:.0%}"),
        ("least local area", f"{done.jacobian.min():.2f} (0 and below would be a fold)"),
    ]


def _landmarks(found: LandmarkFit | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"median": f"{float(np.median(found.distance_um)):.0f}", "outliers": ", ".join(found.outliers) or "none"}


def _chequered(first: RGB, second: RGB) -> RGB:
    edge = max(4, min(first.shape[:2]) // _SQUARES)
    rows, columns = np.indices(first.shape[:2]) // edge
    return np.where(((rows + columns) % 2 == 0)[..., None], first, second).astype(np.uint8)


def _edged(colours: RGB, cut: npt.NDArray[np.float32]) -> RGB:
    """The slide with the CT's strongest edges in yellow."""
    inside = ndimage.binary_erosion(np.isfinite(cut), iterations=2)
    steep = ndimage.gaussian_gradient_magnitude(np.nan_to_num(cut), 1.0)
    steep[~inside] = 0.0
    ridge = (steep > np.percentile(steep[inside], 90)) if inside.any() else inside
    thin = ridge & (steep >= ndimage.maximum_filter(steep, 3) * 0.98)
    edged = colours.copy()
    edged[thin] = (255, 220, 40)
    return edged
