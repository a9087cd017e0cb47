"""The page of one registration: what was laid on what, how far it was bent, and how far to believe it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain import __version__
from tomostain.images.geometry import Placement
from tomostain.registration.align import Registered
from tomostain.registration.coarse import sample
from tomostain.registration.landmarks import LandmarkFit
from tomostain.registration.modality import Stained, Target
from tomostain.registration.quality import placed
from tomostain.reporting.page import render
from tomostain.reporting.pictures import RGB, error_map, grey, hatched, picture

TEMPLATE = "registration.html.j2"
_SQUARES = 8


def registration_page(
    done: Registered,
    target: Target,
    stained: Stained,
    placement: Placement,
    *,
    title: str,
    landmarks: LandmarkFit | None = None,
) -> str:
    """A self-contained page: chequerboard, CT edges on the slide, displacement, area, confidence, what was tried."""
    slide = done.slide
    points = slide.points_um.reshape(*slide.shape, 2)
    cut = sample(target, placed(done.fit, points))
    inside = np.isfinite(cut)
    light = np.power(10.0, -stained.at_spacing(slide.spacing_um).density)
    colours = np.clip(light ** (1 / 2.2) * 255, 0, 255).astype(np.uint8)
    low, high = (float(v) for v in np.percentile(cut[inside], [1, 99]))
    greys = np.repeat(grey(cut, low, high)[..., None], 3, axis=2)
    shift = np.zeros(slide.shape)
    if done.fit.field is not None:
        shift = np.linalg.norm(done.fit.field.at(points), axis=-1)
    spread = float(np.abs(np.log(np.maximum(done.jacobian, 1e-3))).max())
    whole: npt.NDArray[np.bool_] = np.ones(slide.shape, dtype=bool)
    shown = [
        ("Slide", colours),
        ("CT where the slide lies", hatched(greys, inside, opaque=True)),
        ("Chequerboard of both", hatched(_chequered(colours, greys), inside)),
        ("Edges of the CT over the slide", _edged(colours, cut)),
        (
            f"Displacement, 0 to {max(shift.max(), 1e-6):.0f} um",
            error_map(shift, whole, top=float(max(shift.max(), 1e-6))),
        ),
        (
            f"Local area, {done.jacobian.min():.2f} to {done.jacobian.max():.2f} (dark: unchanged)",
            error_map(np.abs(np.log(np.maximum(done.jacobian, 1e-3))), whole, top=max(spread, 1e-3)),
        ),
        (
            f"Disagreement of two halves, 0 to {8 * done.score.voxel_um:g} um",
            error_map(done.distance_um, inside, top=8 * done.score.voxel_um),
        ),
        ("Confidence, 0 (dark) to 1", error_map(done.confidence, inside, top=1.0)),
    ]
    spacing = (slide.spacing_um, slide.spacing_um)
    pictures = [{"caption": text, "picture": picture(image, text, spacing_um=spacing)} for text, image in shown]
    return render(
        {
            "version": __version__,
            "title": title,
            "verdict": (
                f"Placed with probability {done.score.probability:.0%}; the error to expect is "
                f"{done.score.expected_tre_um:.1f} um ({done.score.expected_tre_um / done.score.voxel_um:.1f} voxels)."
            ),
            "facts": _facts(done, placement),
            "pictures": pictures,
            "tried": [
                {
                    "depth": f"{c.pose.centre_um[0]:.0f}",
                    "tilt": f"{c.pose.tilt_deg:.1f}",
                    "mirrored": "yes" if c.pose.mirrored else "no",
                    "score": f"{c.score:.3f}",
                }
                for c in done.tried
            ],
            "landmarks": _landmarks(landmarks),
        },
        template=TEMPLATE,
    )


def _facts(done: Registered, placement: Placement) -> list[tuple[str, str]]:
    notes = placement.notes
    return [
        ("depth of the section's centre", f"{notes['depth_um']:.1f} um"),
        ("tilt", f"{notes['tilt_deg']:.2f} degrees"),
        ("mirrored", "yes" if notes["mirrored"] else "no"),
        ("volume um per slide um", " x ".join(f"{s:.4f}" for s in notes["scale"])),
        ("section thickness", f"{placement.thickness_um:g} um"),
        ("CT variance that the slide explains", f"{done.score.ratio:.1%}"),
        ("CT detail that the slide explains where it was not fitted", f"{done.score.detail:.1%}"),
        ("lead in detail over the next different place", f"{done.score.margin:.1%}"),
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
