"""Where pixels are in the world: a Grid, a Plane cut through a volume, the Placement of a slide.

Frames: ``px`` is an index along (y, x) of a slide, ``um`` is a point (z, y, x) in the volume's world, in micrometres.
A point is the centre of its pixel.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.floating[Any]]
Vector = tuple[float, float, float]
MOST_LATTICE_BYTES = 2**28
"""A displacement is smooth: a field of more nodes is no lattice."""
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Grid:
    """A raster in the world: where its pixels are.

    ``origin_um`` is the centre of the first pixel; all three run in the array's own order, (z, y, x) or (y, x).
    """

    shape: tuple[int, ...]
    spacing_um: tuple[float, ...]
    origin_um: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "spacing_um", tuple(float(s) for s in self.spacing_um))
        origin = self.origin_um or (0.0,) * len(self.shape)
        object.__setattr__(self, "origin_um", tuple(float(o) for o in origin))
        if not len(self.shape) == len(self.spacing_um) == len(self.origin_um):
            raise ValueError(
                f"a grid needs as many spacings and origins as axes: shape {self.shape}, "
                f"spacing_um {self.spacing_um}, origin_um {self.origin_um}"
            )
        if min(self.shape) < 1:
            raise ValueError(f"a grid needs at least one pixel along each axis, this one is {self.shape}")
        if not all(0 < s < float("inf") for s in self.spacing_um):
            raise ValueError(f"spacing_um must be positive and finite, this one is {self.spacing_um}")

    @property
    def extent_um(self) -> tuple[float, ...]:
        """Edge lengths of the box that the pixels fill, in um."""
        return tuple(n * s for n, s in zip(self.shape, self.spacing_um, strict=True))

    def index_of(self, points_um: Floats) -> Floats:
        """Fractional array indices of points: (..., n_axes) um -> (..., n_axes) px."""
        index: Floats = (np.asarray(points_um) - np.asarray(self.origin_um)) / np.asarray(self.spacing_um)
        return index


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
        return _vector(normal / np.linalg.norm(normal))

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
        rows, columns = text["shape"]
        corner, down, right = (_vector(text[key]) for key in ("corner_um", "down", "right"))
        return cls((int(rows), int(columns)), float(text["spacing_um"]), corner, down, right)


@dataclass(frozen=True, eq=False)
class Placement:
    """Where in the volume a slide was cut: slide px -> volume um.

    A slide pixel (y, x) lies at ``corner_um + y * step_y_um + x * step_x_um`` (z, y, x um; shrinkage and mirroring are
    in the two steps) plus a smooth displacement within the plane. ``displacement_um`` is (rows, columns, 2) float32: um
    along the unit vectors of step_y and step_x, on a lattice of nodes ``lattice_px`` slide pixels apart that starts at
    slide pixel (0, 0); None where the slide is not deformed.

    ``confidence`` is a raster (rows, columns) in [0, 1] over the whole slide, coarser than it: how far each part may be
    believed. ``expected_tre_um`` is the median distance to the truth that its maker expects. Both are None where nobody
    has judged the placement.
    """

    slide_shape: tuple[int, int]
    corner_um: Vector
    step_y_um: Vector
    step_x_um: Vector
    thickness_um: float = 0.0
    lattice_px: float = 1.0
    displacement_um: npt.NDArray[np.float32] | None = None
    confidence: npt.NDArray[np.float32] | None = None
    expected_tre_um: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def _steps(self) -> npt.NDArray[np.float64]:
        return np.asarray([self.step_y_um, self.step_x_um], dtype=np.float64)

    def displacement_at(self, points_px: Floats) -> npt.NDArray[np.float64]:
        """In-plane displacement at slide points: (..., 2) px -> (..., 2) um along the unit steps (cubic spline)."""
        points = np.asarray(points_px, dtype=np.float64)
        if self.displacement_um is None:
            return np.zeros(points.shape)
        nodes = np.moveaxis(points / self.lattice_px, -1, 0)
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
        """Confidence at slide points: (..., 2) px -> (...,) in [0, 1]; 1 where none was given."""
        points = np.asarray(points_px, dtype=np.float64)
        if self.confidence is None:
            return np.ones(points.shape[:-1], dtype=np.float32)
        share = np.asarray(self.confidence.shape) / np.asarray(self.slide_shape)
        nodes = np.moveaxis((points + 0.5) * share - 0.5, -1, 0)
        return np.asarray(ndimage.map_coordinates(self.confidence, nodes, order=1, mode="nearest"), dtype=np.float32)

    def plane(self, spacing_um: float, *, margin_um: float = 0.0) -> Plane:
        """The flat raster, ``spacing_um`` apart, that just holds the slide (plus a margin) in the volume's world."""
        steps = self._steps
        down = steps[0] / np.linalg.norm(steps[0])
        right = steps[1] - (steps[1] @ down) * down
        right /= np.linalg.norm(right)
        edges_px = _border(self.slide_shape)
        inside = (self.slide_to_volume_um(edges_px) - np.asarray(self.corner_um)) @ np.stack([down, right], axis=1)
        first, last = inside.min(axis=0) - margin_um, inside.max(axis=0) + margin_um
        rows, columns = np.maximum(np.floor((last - first) / spacing_um).astype(int) + 1, 1)
        corner = np.asarray(self.corner_um) + first[0] * down + first[1] * right
        return Plane((int(rows), int(columns)), float(spacing_um), _vector(corner), _vector(down), _vector(right))

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
        beside = path.with_suffix(".npz")
        fields = {"displacement_um": self.displacement_um, "confidence": self.confidence}
        given = {name: values.astype(np.float32) for name, values in fields.items() if values is not None}
        if given:
            np.savez_compressed(beside, **given)  # type: ignore[arg-type]
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
            text = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{path} cannot be read as a placement: {error}") from None
        if not isinstance(text, dict) or text.get("format") != "tomostain-placement":
            raise ValueError(f"{path} is not a tomostain placement; `tomostain register` writes one")
        try:
            fields = {
                name: _beside(path.parent / Path(text[key]).name, name, axes)
                for key, name, axes in (("displacement", "displacement_um", 3), ("confidence", "confidence", 2))
                if key in text
            }
            lattice = float(text["lattice_px"]) if "displacement" in text else 1.0
            expected = text.get("expected_tre_um")
            rows, columns = text["slide_shape"]
            made = cls(
                slide_shape=(int(rows), int(columns)),
                corner_um=_vector(text["corner_um"]),
                step_y_um=_vector(text["step_y_um"]),
                step_x_um=_vector(text["step_x_um"]),
                thickness_um=float(text["thickness_um"]),
                lattice_px=lattice,
                displacement_um=fields.get("displacement_um"),
                confidence=fields.get("confidence"),
                expected_tre_um=None if expected is None else float(expected),
                notes=dict(text.get("notes", {})),
            )
            made._check()
        except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            raise ValueError(f"{path} is an incomplete placement: {error!r}") from None
        return made

    def _check(self) -> None:
        """Refuse what no slide can be: sizes below one, numbers that are not finite, steps of no length or alike."""
        numbers = [*self.corner_um, *self.step_y_um, *self.step_x_um, self.thickness_um, self.lattice_px]
        if self.expected_tre_um is not None:
            numbers.append(self.expected_tre_um)
        if not np.isfinite(numbers).all() or self.thickness_um < 0 or self.lattice_px <= 0:
            raise ValueError("a length is negative or not finite")
        if min(self.slide_shape) < 1:
            raise ValueError(f"the slide is {self.slide_shape} px large")
        lengths = np.linalg.norm(self._steps, axis=1)
        if not (lengths > 0).all() or np.linalg.norm(np.cross(*self._steps)) < 1e-6 * np.prod(lengths):
            raise ValueError("the steps span no plane")


def _beside(path: Path, name: str, axes: int) -> npt.NDArray[np.float32]:
    """A field that lies beside a placement, checked before it is unfolded: (rows, columns[, 2]) float32."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            if np.lib.format.read_magic(member) != (1, 0):
                raise ValueError("an unknown version")
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        if len(shape) != axes or (axes == 3 and shape[2] != 2) or min(shape) < 1 or dtype != np.float32:
            raise ValueError(f"it holds {dtype} {shape}")
        if math.prod(shape) * dtype.itemsize > MOST_LATTICE_BYTES:
            raise ValueError(f"its lattice of {shape} is too fine to be one")
        with np.load(path, allow_pickle=False) as stored:
            values: npt.NDArray[np.float32] = np.asarray(stored[name])
    except (*_ZIP_FAULTS, KeyError, ValueError, OSError) as error:
        said = str(error)[:100].encode("ascii", "backslashreplace").decode()  # zipfile quotes a damaged header whole
        raise ValueError(f"its {name} in {path.name} cannot be read: {said}") from None
    if not np.isfinite(values).all():
        raise ValueError(f"its {name} in {path.name} has values that are not finite")
    return values


def _vector(values: Any) -> Vector:
    z, y, x = (float(v) for v in values)
    return z, y, x


def _border(shape: tuple[int, int], per_edge: int = 65) -> npt.NDArray[np.float64]:
    """Points along the four edges of a slide: (n, 2) y, x px."""
    along = np.linspace(0.0, 1.0, per_edge)
    zero, one = np.zeros(per_edge), np.ones(per_edge)
    unit = np.concatenate(
        [np.stack(pair, axis=1) for pair in ((along, zero), (along, one), (zero, along), (one, along))]
    )
    corners: npt.NDArray[np.float64] = unit * (np.asarray(shape) - 1)
    return corners
