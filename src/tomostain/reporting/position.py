"""Where a section lies in its volume, as a drawing: a box with the plane in it, from three sides."""

from __future__ import annotations

from typing import Any

import numpy as np

from tomostain.images.geometry import Grid
from tomostain.registration.coarse import Pose

_SIDE = 180.0
_VIEWS = (("from above", 1, 2, "y", "x"), ("from the front", 0, 2, "z", "x"), ("from the side", 0, 1, "z", "y"))
"""Caption, the axes down and right, and their names."""


def position_drawing(grid: Grid, pose: Pose, extent_um: tuple[float, float]) -> list[dict[str, Any]]:
    """The outline of a slide (``extent_um`` y, x slide um) in a volume's box, projected along each axis, for SVG.

    Each view has ``caption``, ``width``, ``height``, ``box`` (x, y, width, height) and ``points`` of the outline.
    """
    half = np.asarray(extent_um) / 2
    corners = pose.to_um(np.asarray([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * half)
    origin = np.asarray(grid.origin_um) - np.asarray(grid.spacing_um) / 2
    size = np.asarray(grid.extent_um)
    views = []
    for caption, down, right, down_name, right_name in _VIEWS:
        axes = [right, down]
        low = np.minimum(origin[axes], corners[:, axes].min(axis=0))
        high = np.maximum((origin + size)[axes], corners[:, axes].max(axis=0))
        scale = _SIDE / float((high - low).max())
        at = (corners[:, axes] - low) * scale
        first, box = (origin[axes] - low) * scale, size[axes] * scale
        width, height = np.maximum((high - low) * scale, 8.0)
        views.append(
            {
                "caption": f"{caption} ({right_name} to the right, {down_name} down)",
                "width": f"{width:.1f}",
                "height": f"{height:.1f}",
                "box": [f"{v:.1f}" for v in (*first, *np.maximum(box, 1.0))],
                "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in at),
            }
        )
    return views
