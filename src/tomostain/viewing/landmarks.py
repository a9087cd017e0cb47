"""A CT and a slide in, the page on which a person sets landmarks out; what was set is fitted, shown and saved here."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.interpolate import RBFInterpolator

from tomostain.images.geometry import Grid, Placement, Plane
from tomostain.images.image import Slide, Volume
from tomostain.images.resample import plane_of, slide_on_plane, slide_part
from tomostain.registration.landmarks import (
    FEWEST,
    LandmarkFit,
    Landmarks,
    fit_landmarks,
    read_landmarks,
    write_landmarks,
)
from tomostain.viewing.page import own_page
from tomostain.viewing.server import Reply, Site

_MOST_CT_PX = 1536
_MOST_SLIDE_PX = 1600
_SAMPLED_PLANES = 5
_TAILS = (0.5, 99.5)
_LATTICE = 24
"""Nodes of the bent overlay along the slide's longer side."""
_MOST_POINTS, _MOST_NAME = 500, 200
ENOUGH = 3
"""Pairs from which a plane can be fitted."""


@dataclass(frozen=True, eq=False)
class LandmarkPage:
    """What the page shows, and the file it saves to."""

    ct: Volume
    slide: Slide
    file: Path

    @cached_property
    def window(self) -> tuple[float, float]:
        """CT values shown as black and white."""
        depth = self.ct.shape[0]
        places = np.unique(
            np.linspace(0, depth - 1, min(depth, _SAMPLED_PLANES) + 2).astype(int)[1:-1] if depth > 2 else [0]
        )
        values = np.concatenate([np.ravel(self.ct[int(z) : int(z) + 1]).astype(np.float32) for z in places])
        low, high = (float(v) for v in np.percentile(values[np.isfinite(values)], _TAILS))
        return (low, high) if high > low else (low, low + 1.0)

    @property
    def site(self) -> Site:
        """The page as a site; only ``save`` writes, and only to ``file``."""
        own = {name: own_page(name) for name in ("landmarks.js", "landmarks.css")}
        return Site(
            texts={"": own_page("landmarks.html"), **own},
            answers={"facts": self._facts, "slide": self._slide},
            actions={"cut": self._cut, "fit": self._fit, "overlay": self._overlay, "save": self._save},
        )

    def _facts(self, _query: Mapping[str, str]) -> Reply:
        grid = self.ct.grid
        points = []
        if self.file.exists():
            known = read_landmarks(self.file, fewest=1)
            points = [_to_json(*one) for one in zip(known.names, known.slide_px, known.volume_um, strict=True)]
        rows, columns = self.slide.shape[:2]
        return Reply.of_json(
            {
                "slide": {"name": self.slide.name, "shape": [rows, columns], "pixel_um": list(self.slide.pixel_um)},
                "ct": {
                    "name": self.ct.name,
                    "depths_um": [grid.origin_um[0] + z * grid.spacing_um[0] for z in range(grid.shape[0])],
                },
                "points": points,
                "file": self.file.name,
                "enough": ENOUGH,
                "register": FEWEST,
            }
        )

    def _slide(self, query: Mapping[str, str]) -> Reply:
        """The part of the slide that a query names, and the box (px) that the picture shows."""
        rows, columns = self.slide.shape[:2]
        top, bottom = _part(query, "top", "bottom", rows)
        left, right = _part(query, "left", "right", columns)
        rgb, box = slide_part(self.slide, ((top, bottom), (left, right)), _MOST_SLIDE_PX)
        return Reply.of_json({"picture": _uri(rgb), "box": box})

    def _cut(self, asked: Mapping[str, Any]) -> Reply:
        """A plane of the CT: along z at ``z_um``, or the one that the landmarks lie in."""
        if asked.get("points"):
            plane = self._placement(_points(asked["points"])).plane(self._spacing_um)
            plane = plane.within(self.ct.grid)
        else:
            plane = z_plane(self.ct.grid, float(asked.get("z_um", self.ct.grid.origin_um[0])), self._spacing_um)
        values = plane_of(self.ct, plane)[0]
        low, high = self.window
        grey = np.nan_to_num(np.clip((values - low) / (high - low), 0, 1) * 255, nan=0.0).astype(np.uint8)
        return Reply.of_json({"plane": plane.to_json(), "picture": _uri(grey)})

    def _fit(self, asked: Mapping[str, Any]) -> Reply:
        points = _points(asked.get("points"))
        fit = self._fitted(points)
        pose = fit.pose
        return Reply.of_json(
            {
                "distance_um": [float(d) for d in fit.distance_um],
                "outliers": list(fit.outliers),
                "depth_um": float(pose.centre_um[0]),
                "tilt_deg": pose.tilt_deg,
                "mirrored": pose.mirrored,
                "scale": float(np.linalg.norm(pose.axes, axis=0).mean()),
            }
        )

    def _overlay(self, asked: Mapping[str, Any]) -> Reply:
        """The slide on a plane of the CT, as the landmarks lay it, bent so that they meet if ``bend``."""
        plane = Plane.from_json(dict(asked.get("plane") or {}))
        if max(plane.shape) > 2 * _MOST_CT_PX:
            raise ValueError(f"a plane of {plane.shape[0]} x {plane.shape[1]} px is too large to be shown")
        placement = self._placement(_points(asked.get("points")), bend=bool(asked.get("bend", True)))
        rgb, covered = slide_on_plane(self.slide, placement, plane)
        return Reply.of_json({"picture": _uri(np.dstack([rgb, np.where(covered, 255, 0).astype(np.uint8)]))})

    def _save(self, asked: Mapping[str, Any]) -> Reply:
        points = _points(asked.get("points"))
        write_landmarks(self.file, points, pixel_um=self.slide.pixel_um)
        return Reply.of_json({"saved": len(points.names), "file": str(self.file)})

    @property
    def _spacing_um(self) -> float:
        """Pixels of a plane that is shown."""
        return max(min(self.ct.grid.spacing_um[1:]), max(self.ct.grid.extent_um) / _MOST_CT_PX)

    def _um(self, slide_px: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        centre = (np.asarray(self.slide.shape[:2]) - 1) / 2
        return np.asarray((slide_px - centre) * np.asarray(self.slide.pixel_um))

    def _fitted(self, points: Landmarks) -> LandmarkFit:
        if len(points.names) < ENOUGH:
            raise ValueError(f"set {ENOUGH} pairs, well apart; there are {len(points.names)}")
        return fit_landmarks(self._um(points.slide_px), points.volume_um, points.names)

    def _placement(self, points: Landmarks, *, bend: bool = False) -> Placement:
        """Where the landmarks lay the slide; bent by a thin-plate spline through those that agree (Bookstein 1989)."""
        fit = self._fitted(points)
        rows, columns = self.slide.shape[:2]
        steps = (fit.pose.axes * np.asarray(self.slide.pixel_um)).T
        corner = fit.pose.to_um(self._um(np.zeros(2)))
        flat = Placement((rows, columns), _vector(corner), _vector(steps[0]), _vector(steps[1]))
        agreed = [name not in fit.outliers for name in points.names]
        if not bend or sum(agreed) <= ENOUGH:
            return flat
        units = steps / np.linalg.norm(steps, axis=1, keepdims=True)
        off = (points.volume_um - fit.pose.to_um(self._um(points.slide_px))) @ units.T
        spline = RBFInterpolator(points.slide_px[agreed], off[agreed], kernel="thin_plate_spline")
        step_px = max(1.0, max(rows, columns) / _LATTICE)
        nodes = np.stack(
            np.meshgrid(*(np.arange(0, n + step_px, step_px) for n in (rows, columns)), indexing="ij"), axis=-1
        )
        moved = spline(nodes.reshape(-1, 2)).reshape(nodes.shape)
        return replace(flat, lattice_px=step_px, displacement_um=moved.astype(np.float32))


def z_plane(grid: Grid, z_um: float, spacing_um: float) -> Plane:
    """The plane of a volume at a depth, its pixels ``spacing_um`` apart."""
    rows, columns = (max(1, round(extent / spacing_um)) for extent in grid.extent_um[1:])
    first = [o - s / 2 + spacing_um / 2 for o, s in zip(grid.origin_um[1:], grid.spacing_um[1:], strict=True)]
    return Plane((rows, columns), spacing_um, (z_um, first[0], first[1]), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def _points(listed: Any) -> Landmarks:
    """Complete pairs, as the page sends them.

    Raises
    ------
    ValueError
        A number is missing or not finite, or there are far too many.
    """
    if not isinstance(listed, list) or len(listed) > _MOST_POINTS:
        raise ValueError(f"landmarks come as a list of at most {_MOST_POINTS}")
    try:
        names = tuple(" ".join(str(one.get("name", "")).split())[:_MOST_NAME] for one in listed)
        slide = np.array([one["slide_px"] for one in listed], dtype=np.float64).reshape(len(listed), 2)
        volume = np.array([one["volume_um"] for one in listed], dtype=np.float64).reshape(len(listed), 3)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a landmark is incomplete: {error!r}") from None
    if not (np.isfinite(slide).all() and np.isfinite(volume).all()):
        raise ValueError("a coordinate of a landmark is not finite")
    return Landmarks(tuple(name or f"L{n}" for n, name in enumerate(names, start=1)), slide, volume)


def _to_json(name: str, slide_px: Any, volume_um: Any) -> dict[str, Any]:
    return {"name": name, "slide_px": [float(v) for v in slide_px], "volume_um": [float(v) for v in volume_um]}


def _part(query: Mapping[str, str], first: str, last: str, size: int) -> tuple[int, int]:
    start = min(max(int(query.get(first, 0)), 0), size - 1)
    return start, min(max(int(query.get(last, size)), start + 1), size)


def _vector(values: Any) -> tuple[float, float, float]:
    z, y, x = (float(v) for v in values)
    return z, y, x


def _webp(image: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=88, method=2)
    return file.getvalue()


def _uri(image: npt.NDArray[np.uint8]) -> str:
    return f"data:image/webp;base64,{base64.b64encode(_webp(image)).decode('ascii')}"
