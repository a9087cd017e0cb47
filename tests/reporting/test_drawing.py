"""The drawing of a cut shows it at its place in the volume."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest

from tomostain.images.geometry import Grid, Plane
from tomostain.reporting.drawing import plane_in_volume

VOLUME = Grid((40, 60, 80), (5.0, 5.0, 5.0))


def _outline(plane: Plane) -> npt.NDArray[np.float64]:
    (polygon,) = ElementTree.fromstring(plane_in_volume(plane, VOLUME)).iter("polygon")
    return np.asarray([[float(v) for v in point.split(",")] for point in polygon.attrib["points"].split()])


def _edges(plane: Plane) -> npt.NDArray[np.float64]:
    lines = ElementTree.fromstring(plane_in_volume(plane, VOLUME)).iter("line")
    return np.asarray([[float(line.attrib[key]) for key in ("x1", "y1", "x2", "y2")] for line in lines])


def test_a_plane_across_z_is_the_boxes_own_top_at_its_depth() -> None:
    """At the first plane it covers the top face, at the last the bottom, in the middle it lies half-way."""
    outlines = [
        _outline(Plane((60, 80), 5.0, (5.0 * z, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))) for z in (0, 19.5, 39)
    ]
    np.testing.assert_allclose(outlines[1], (outlines[0] + outlines[2]) / 2, atol=0.11)
    assert (outlines[2][:, 1] > outlines[0][:, 1] + 20).all()
    np.testing.assert_allclose(outlines[2][:, 0], outlines[0][:, 0], atol=0.11)
    corners = _edges(Plane((60, 80), 5.0, (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    nearest = [np.abs(corners.reshape(-1, 2) - point).max(axis=1).min() for point in outlines[0]]
    assert max(nearest) < 3, "half a voxel between a voxel's middle and the box"


def test_a_tilted_plane_is_drawn_tilted_and_what_is_drawn_fits() -> None:
    down = (float(np.sin(0.3)), float(np.cos(0.3)), 0.0)
    tilted = Plane((60, 80), 5.0, (50.0, 0.0, 0.0), down, (0.0, 0.0, 1.0))
    flat = Plane((60, 80), 5.0, (50.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    rise = [outline[3, 1] - outline[0, 1] for outline in (_outline(tilted), _outline(flat))]
    assert rise[0] > rise[1] + 15
    far = Plane((600, 800), 5.0, (-500.0, -900.0, 0.0), down, (0.0, 0.0, 1.0))
    drawn = np.concatenate([_outline(far), _edges(far).reshape(-1, 2)])
    assert drawn.min() >= 0
    assert drawn[:, 0].max() <= 260
    assert drawn[:, 1].max() <= 190


def test_three_edges_are_hidden_and_they_meet() -> None:
    plane = Plane((60, 80), 5.0, (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    svg = plane_in_volume(plane, VOLUME)
    lines = re.findall(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"[^>]*?(dasharray)?[^>]*?/>', svg)
    assert len(lines) == 12
    hidden = [line for line in re.findall(r"<line[^>]*/>", svg) if "dasharray" in line]
    ends = [set(re.findall(r'[xy][12]="([\d.]+)" ?[xy][12]="([\d.]+)"', line)) for line in hidden]
    assert len(hidden) == 3
    assert len(set.intersection(*ends)) == 1


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_the_axes_are_named(axis: str) -> None:
    plane = Plane((60, 80), 5.0, (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    assert f">{axis}</text>" in plane_in_volume(plane, VOLUME)
