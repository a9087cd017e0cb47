"""A cut drawn in its volume: a plane and the box it lies in as a small inline SVG, so that depth and tilt are seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tomostain.images.geometry import Grid, Plane

WIDTH, HEIGHT, _MARGIN = 260, 190, 22
_X, _Y, _Z = np.array([0.94, -0.13]), np.array([-0.42, -0.36]), np.array([0.0, 1.0])
"""Where x, y and z run on the paper (right, down): seen from above, z downwards."""
_EDGES = tuple((a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit)
_HIDDEN_CORNER = 0b111
"""The corner farthest from the eye, at the end of all three axes; its three edges are dashed."""


def plane_in_volume(plane: Plane, volume: Grid) -> str:
    """The box of ``volume`` and the rectangle of ``plane`` in it, as an <svg> that takes the page's colour."""
    box = _corners(volume)
    rows, columns = (np.asarray(n) - 1 for n in plane.shape)
    down, right = np.asarray(plane.down) * plane.spacing_um, np.asarray(plane.right) * plane.spacing_um
    start = np.asarray(plane.corner_um)
    cut = np.stack([start, start + columns * right, start + columns * right + rows * down, start + rows * down])
    paper = _on_paper(np.concatenate([box, cut]))
    low, high = paper.min(axis=0), paper.max(axis=0)
    scale = float(min((WIDTH - 2 * _MARGIN) / (high - low)[0], (HEIGHT - 2 * _MARGIN) / (high - low)[1]))
    paper = (paper - (low + high) / 2) * scale + np.array([WIDTH, HEIGHT]) / 2
    corners, outline = paper[:8], paper[8:]
    lines = [_line(corners[a], corners[b], dashed=_HIDDEN_CORNER in (a, b)) for a, b in _EDGES]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
    labels = [_label(corners[0b000], corners[1 << bit], axis) for bit, axis in ((0, "x"), (1, "y"), (2, "z"))]
    return (
        f'<svg class="box" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="The cut in the CT volume">'
        f"{''.join(lines)}"
        f'<polygon points="{points}" fill="#4457c0" fill-opacity=".35" stroke="#4457c0" stroke-width="1.5"/>'
        f"{''.join(labels)}</svg>"
    )


def _corners(volume: Grid) -> npt.NDArray[np.float64]:
    """The box's corners (8, 3) in um; bit 0 of the index is the end of x, bit 1 of y, bit 2 of z."""
    spacing, origin = np.asarray(volume.spacing_um), np.asarray(volume.origin_um)
    low, high = origin - spacing / 2, origin + (np.asarray(volume.shape) - 0.5) * spacing
    ends = [[high[2 - bit] if i >> bit & 1 else low[2 - bit] for bit in (2, 1, 0)] for i in range(8)]
    return np.asarray(ends)


def _on_paper(points_um: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    z, y, x = points_um.T
    return np.asarray(x[:, None] * _X + y[:, None] * _Y + z[:, None] * _Z)


def _line(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], *, dashed: bool) -> str:
    dash = ' stroke-dasharray="3 3" stroke-opacity=".5"' if dashed else ""
    return f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="currentColor"{dash}/>'


def _label(start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], axis: str) -> str:
    """The axis' letter beyond the end of the box's edge that begins at the volume's first voxel."""
    along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
    x, y = end + 11 * along + np.array([0, 4])
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="middle" fill="currentColor">{axis}</text>'
