"""Where pixels are in the world: a Grid, a Plane cut through a volume, the Placement of a slide.

Frames: ``px`` is an index along (y, x) of a slide, ``um`` is a point (z, y, x) in the volume's world, in micrometres.
A point is the centre of its pixel.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain.images.bounds import (
    FARTHEST_UM,
    MOST_SIDE_PX,
    PIXELS_UM,
    SPACINGS_UM,
    THICKEST_UM,
    check_point,
    edge,
    number,
    read_raster,
    sizes,
    vector,
)
from tomostain.images.bounds import Vector as Vector
from tomostain.images.grid import Grid as Grid
from tomostain.images.grid import by as by

Floats = npt.NDArray[np.floating[Any]]
Box = tuple[tuple[int, int], tuple[int, int]]
LARGE_PLANE_PX = 2**26
"""A plane of more pixels than this is cut to the part that meets the volume before it is filled."""
_MOST_JSON_BYTES = 2**24


@dataclass(frozen=True)
class Plane:
    """A regular raster of points on a flat cut through the volume.

    ``corner_um`` (z, y, x) is the centre of pixel (0, 0); ``down`` and ``right`` are orthonormal directions (z, y, x)
    along which rows and columns advance by ``spacing_um``; ``shape`` is (y, x).
    """

    shape: tuple[int, int]
    spacing_um: float
    corner_um: Vector
    down: Vector
    right: Vector

    @property
    def normal(self) -> Vector:
        """Unit vector (z, y, x) across the cut, ``down`` x ``right``."""
        normal = np.cross(np.asarray(self.down), np.asarray(self.right))
        return vector(normal / np.linalg.norm(normal))

    @property
    def grid(self) -> Grid:
        """The plane's own two-dimensional Grid, starting at (0, 0) um."""
        return Grid(self.shape, (self.spacing_um, self.spacing_um))

    def points_um(self, offset_um: float = 0.0) -> npt.NDArray[np.float64]:
        """World points of all pixels, shifted by ``offset_um`` along the normal: (y, x, 3) in z, y, x um."""
        rows = np.arange(self.shape[0])[:, None, None] * self.spacing_um * np.asarray(self.down)
        columns = np.arange(self.shape[1])[None, :, None] * self.spacing_um * np.asarray(self.right)
        start = np.asarray(self.corner_um) + offset_um * np.asarray(self.normal)
        points: npt.NDArray[np.float64] = start + rows + columns
        return points

    def within(self, grid: Grid) -> Plane:
        """The part of the plane that can meet a volume's box: the same raster, fewer rows and columns.

        Raises
        ------
        ValueError
            No part of it can.
        """
        first, extent = np.asarray(grid.origin_um) - np.asarray(grid.spacing_um) / 2, np.asarray(grid.extent_um)
        corners = first + extent * np.stack(np.meshgrid(*[(0.0, 1.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        axes = np.stack([self.down, self.right], axis=1)
        px = (corners - np.asarray(self.corner_um)) @ axes / self.spacing_um
        low = np.clip(np.floor(px.min(axis=0)), 0, np.asarray(self.shape)).astype(int)
        high = np.clip(np.ceil(px.max(axis=0)) + 1, 0, np.asarray(self.shape)).astype(int)
        if not (high > low).all():
            raise ValueError("the plane does not meet the volume")
        corner = np.asarray(self.corner_um) + axes @ (low * self.spacing_um)
        rows, columns = (high - low).tolist()
        return replace(self, shape=(rows, columns), corner_um=vector(corner))

    def to_json(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "spacing_um": self.spacing_um,
            "corner_um": list(self.corner_um),
            "down": list(self.down),
            "right": list(self.right),
        }

    @classmethod
    def from_json(cls, text: dict[str, Any]) -> Plane:
        """Read what ``to_json`` made.

        Raises
        ------
        ValueError
            A number is missing, not finite or out of bounds, or the directions are not orthonormal.
        """
        try:
            shape = sizes(text["shape"], "shape")
            corner, down, right = (vector(text[key]) for key in ("corner_um", "down", "right"))
            spacing_um = number(text["spacing_um"], "spacing_um", *SPACINGS_UM)
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"the plane is incomplete or damaged: {error!r}") from None
        check_point(corner)
        axes = np.asarray([down, right])
        if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
            raise ValueError("the directions of the plane's rows and columns are not unit vectors at a right angle")
        return cls(shape, spacing_um, corner, down, right)


@dataclass(frozen=True, eq=False)
class Placement:
    """Where in the volume a slide was cut: slide px -> volume um.

    A slide pixel (y, x) lies at ``corner_um + y * step_y_um + x * step_x_um`` (z, y, x um; shrinkage and mirroring are
    in the two steps) plus a smooth displacement within the plane. ``displacement_um`` is (rows, columns, 2) float32: um
    along the unit vectors of step_y and step_x, on a lattice of nodes ``lattice_px`` slide pixels apart that starts at
    the window's first pixel; None where the slide is not deformed.

    ``window_px`` ((top, bottom), (left, right)) is the part of the slide that was placed, the box around its tissue;
    None for the whole slide. ``confidence`` is a raster (rows, columns) in [0, 1] over the window, coarser than the
    slide: how reliable each part is, 0 to 1; outside the window it is 0. ``expected_tre_um`` is the median distance
    to the truth that is expected. Both are None where the placement was not judged.
    """

    slide_shape: tuple[int, int]
    corner_um: Vector
    step_y_um: Vector
    step_x_um: Vector
    thickness_um: float = 0.0
    lattice_px: float = 1.0
    displacement_um: npt.NDArray[np.float32] | None = None
    window_px: Box | None = None
    confidence: npt.NDArray[np.float32] | None = None
    expected_tre_um: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        bent = "flat" if self.displacement_um is None else "bent"
        expected = "" if self.expected_tre_um is None else f", expected error {self.expected_tre_um:.3g} um"
        at = ", ".join(f"{edge:.6g}" for edge in self.corner_um)
        return f"<Placement of {by(self.slide_shape)} px: corner at z, y, x {at} um, {bent}{expected}>"

    @property
    def _steps(self) -> npt.NDArray[np.float64]:
        return np.asarray([self.step_y_um, self.step_x_um], dtype=np.float64)

    @property
    def window(self) -> Box:
        """((top, bottom), (left, right)) of the part of the slide that was placed."""
        return self.window_px or ((0, self.slide_shape[0]), (0, self.slide_shape[1]))

    @property
    def _first_px(self) -> npt.NDArray[np.float64]:
        return np.asarray([start for start, _ in self.window], dtype=np.float64)

    def displacement_at(self, points_px: Floats) -> npt.NDArray[np.float64]:
        """In-plane displacement at slide points: (..., 2) px -> (..., 2) um along the unit steps (cubic spline)."""
        points = np.asarray(points_px, dtype=np.float64)
        if self.displacement_um is None:
            return np.zeros(points.shape)
        nodes = np.moveaxis((points - self._first_px) / self.lattice_px, -1, 0)
        moved = [
            ndimage.map_coordinates(self.displacement_um[..., i].astype(np.float64), nodes, order=3, mode="nearest")
            for i in range(2)
        ]
        return np.stack(moved, axis=-1)

    def slide_to_volume_um(self, points_px: Floats) -> npt.NDArray[np.float64]:
        """Slide points in the volume: (..., 2) y, x px -> (..., 3) z, y, x um."""
        points, steps = np.asarray(points_px, dtype=np.float64), self._steps
        units = steps / np.linalg.norm(steps, axis=1, keepdims=True)
        flat: npt.NDArray[np.float64] = np.asarray(self.corner_um) + points @ steps
        placed: npt.NDArray[np.float64] = flat + self.displacement_at(points) @ units
        return placed

    def volume_um_to_slide_px(self, points_um: Floats) -> npt.NDArray[np.float64]:
        """Volume points on the slide, projected along its normal: (..., 3) z, y, x um -> (..., 2) y, x px.

        Fixed-point inversion of the displacement; converges where the deformation does not fold.
        """
        steps = self._steps
        lengths = np.linalg.norm(steps, axis=1)
        flat = (np.asarray(points_um, dtype=np.float64) - np.asarray(self.corner_um)) @ np.linalg.pinv(steps)
        if self.displacement_um is None:
            return np.asarray(flat)
        points = flat
        for _ in range(30):
            moved = flat - self.displacement_at(points) / lengths
            if np.abs(moved - points).max(initial=0.0) < 1e-4:
                return np.asarray(moved)
            points = moved
        return np.asarray(points)

    def confidence_at(self, points_px: Floats) -> npt.NDArray[np.float32]:
        """Confidence at slide points: (..., 2) px -> (...,) in [0, 1]; 0 outside the window, 1 inside if not judged."""
        points = np.asarray(points_px, dtype=np.float64)
        stop = np.asarray([stop for _, stop in self.window])
        off = np.any((points < self._first_px - 0.5) | (points > stop - 0.5), axis=-1) & (self.window_px is not None)
        if self.confidence is None:
            return np.where(off, np.float32(0), np.float32(1))
        share = np.asarray(self.confidence.shape) / (stop - self._first_px)
        nodes = np.moveaxis((points - self._first_px + 0.5) * share - 0.5, -1, 0)
        found = ndimage.map_coordinates(self.confidence, nodes, order=1, mode="nearest")
        return np.where(off, np.float32(0), found).astype(np.float32)

    def plane(self, spacing_um: float, *, margin_um: float = 0.0) -> Plane:
        """The flat raster, ``spacing_um`` apart, that just holds the window (plus a margin) in the volume's world.

        Raises
        ------
        ValueError
            It would have more than ``MOST_SIDE_PX`` rows or columns.
        """
        steps = self._steps
        down = steps[0] / np.linalg.norm(steps[0])
        right = steps[1] - (steps[1] @ down) * down
        right /= np.linalg.norm(right)
        edges_px = _border(self.window)
        inside = (self.slide_to_volume_um(edges_px) - np.asarray(self.corner_um)) @ np.stack([down, right], axis=1)
        first, last = inside.min(axis=0) - margin_um, inside.max(axis=0) + margin_um
        size = np.floor((last - first) / spacing_um) + 1
        if not size.max() <= MOST_SIDE_PX:
            raise ValueError(
                f"the placement lays the slide over {float((last - first).max()) / 1000:g} mm, too large for pixels of "
                f"{spacing_um:g} um; check the placement and the voxel size"
            )
        rows, columns = np.maximum(size.astype(int), 1)
        corner = np.asarray(self.corner_um) + first[0] * down + first[1] * right
        return Plane((int(rows), int(columns)), float(spacing_um), vector(corner), vector(down), vector(right))

    def save(self, path: Path) -> Path:
        """Write ``path`` (JSON) and, beside it as compressed .npz, the displacement field and the confidence."""
        path = Path(path)
        text: dict[str, Any] = {
            "format": "tomostain-placement",
            "version": 1,
            "slide_shape": list(self.slide_shape),
            "corner_um": list(self.corner_um),
            "step_y_um": list(self.step_y_um),
            "step_x_um": list(self.step_x_um),
            "thickness_um": self.thickness_um,
            "notes": self.notes,
        }
        if self.expected_tre_um is not None:
            text["expected_tre_um"] = self.expected_tre_um
        if self.window_px is not None:
            text["window_px"] = [list(edge) for edge in self.window_px]
        beside = path.with_suffix(".npz")
        fields = {"displacement_um": self.displacement_um, "confidence": self.confidence}
        stored = {name: values.astype(np.float32) for name, values in fields.items() if values is not None}
        if stored:
            np.savez_compressed(beside, **stored)  # type: ignore[arg-type]
        if self.displacement_um is not None:
            text |= {"lattice_px": self.lattice_px, "displacement": beside.name}
        if self.confidence is not None:
            text["confidence"] = beside.name
        path.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Placement:
        """Read what ``save`` wrote.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            The file is not a placement, its numbers cannot be, or its displacement field is missing or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no placement {path}; `tomostain register` writes one")
        try:
            if path.stat().st_size > _MOST_JSON_BYTES:
                raise ValueError(f"it is {path.stat().st_size / 2**20:.0f} MiB large")
            text = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} cannot be read as a placement: {error}") from None
        if not isinstance(text, dict) or text.get("format") != "tomostain-placement":
            raise ValueError(f"{path} is not a tomostain placement; `tomostain register` writes one")
        try:
            fields = {
                name: read_raster(path.parent / Path(text[key]).name, name, axes)
                for key, name, axes in (("displacement", "displacement_um", 3), ("confidence", "confidence", 2))
                if key in text
            }
            lattice = float(text["lattice_px"]) if "displacement" in text else 1.0
            expected, window = text.get("expected_tre_um"), text.get("window_px")
            made = cls(
                slide_shape=sizes(text["slide_shape"], "slide_shape"),
                corner_um=vector(text["corner_um"]),
                step_y_um=vector(text["step_y_um"]),
                step_x_um=vector(text["step_x_um"]),
                thickness_um=float(text["thickness_um"]),
                lattice_px=lattice,
                displacement_um=fields.get("displacement_um"),
                window_px=None if window is None else (edge(window[0]), edge(window[1])),
                confidence=fields.get("confidence"),
                expected_tre_um=None if expected is None else float(expected),
                notes=dict(text.get("notes", {})),
            )
            made._check()
        except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            raise ValueError(f"{path} is an incomplete placement: {error!r}") from None
        return made

    def _check(self) -> None:
        """Refuse what no slide can be; every number of a placement is bounded here."""
        check_point(self.corner_um)
        number(self.thickness_um, "thickness_um", 0.0, THICKEST_UM)
        if self.expected_tre_um is not None:
            number(self.expected_tre_um, "expected_tre_um", 0.0, FARTHEST_UM)
        for (start, stop), side in zip(self.window, self.slide_shape, strict=True):
            if not 0 <= start < stop <= side:
                raise ValueError(f"window_px {self.window_px} is not part of a slide of {self.slide_shape} px")
        lengths = np.linalg.norm(self._steps, axis=1)
        for length, name in zip(lengths, ("step_y_um", "step_x_um"), strict=True):
            number(length, f"the length of {name}", *PIXELS_UM)
        if np.linalg.norm(np.cross(*self._steps)) < 0.1 * np.prod(lengths):
            raise ValueError("step_y_um and step_x_um are nearly parallel and span no plane")
        sides = np.asarray([stop - start for start, stop in self.window])
        if self.displacement_um is not None:
            number(self.lattice_px, "lattice_px", 0.25, MOST_SIDE_PX)
            reach = (np.asarray(self.displacement_um.shape[:2]) - 1) * self.lattice_px
            if not ((reach >= 0.9 * (sides - 1)) & (reach <= 2 * sides + 4 * self.lattice_px)).all():
                covered = " x ".join(f"{r:g}" for r in reach)
                raise ValueError(f"the displacement covers {covered} px, what was placed is {sides[0]} x {sides[1]} px")
            if np.abs(self.displacement_um).max() > float((sides * lengths).max()):
                raise ValueError("the displacement is larger than the slide")
        if self.confidence is not None and not (self.confidence.min() >= 0 and self.confidence.max() <= 1):
            raise ValueError("the confidence does not lie in 0 .. 1")


def _border(window: Box, per_edge: int = 65) -> npt.NDArray[np.float64]:
    """Points along the four edges of a part of a slide: (n, 2) y, x px."""
    along = np.linspace(0.0, 1.0, per_edge)
    zero, one = np.zeros(per_edge), np.ones(per_edge)
    unit = np.concatenate(
        [np.stack(pair, axis=1) for pair in ((along, zero), (along, one), (zero, along), (one, along))]
    )
    first, size = np.asarray([start for start, _ in window]), np.asarray([stop - start - 1 for start, stop in window])
    corners: npt.NDArray[np.float64] = first + unit * size
    return corners
