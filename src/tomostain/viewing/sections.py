"""A placement and its slide in; the slide laid flat on its plane of the volume out, as a small OME-Zarr with its pose.

Viewers know affine maps only: the elastic part of a placement is resampled onto the plane once, here.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from tomostain import runs
from tomostain.images.geometry import Grid, Placement, Plane
from tomostain.images.image import Slide
from tomostain.images.resample import slide_on_plane
from tomostain.images.srgb import RGB
from tomostain.io.ome_zarr import create_volume
from tomostain.io.slides import SUFFIXES, read_slide
from tomostain.io.volumes import read_volume
from tomostain.viewing.stores import Store, refuse_unfinished

PLACEMENT = ".placement.json"
_MOST_SIDE_PX = 2048
_FINER = 4
"""Pixels of a slide that is shown, in an edge of a voxel; finer detail is in the slide itself."""


@dataclass(frozen=True, eq=False)
class Section:
    """A section in the volume: its plane (pixels ``plane.spacing_um`` apart), its colours on it, its placement.

    ``rgb`` is (y, x, 3) uint8; (0, 0, 0) where the slide does not cover the plane, and nowhere else.
    """

    name: str
    plane: Plane
    rgb: RGB
    placement: Placement
    stain: str | None

    @property
    def thickness_um(self) -> float:
        """How thick it is shown: as thick as it was cut, at least one pixel."""
        return max(self.placement.thickness_um, self.plane.spacing_um)

    @property
    def centre_um(self) -> tuple[float, float, float]:
        """Middle of the section in the volume, z, y, x um."""
        plane = self.plane
        half = [(n - 1) / 2 * plane.spacing_um for n in plane.shape]
        z, y, x = np.asarray(plane.corner_um) + half[0] * np.asarray(plane.down) + half[1] * np.asarray(plane.right)
        return float(z), float(y), float(x)

    @property
    def axes_xyz(self) -> Any:
        """Columns are the directions right, down and away from the eye, each x, y, z: (3, 3), a rotation."""
        right, down = np.asarray(self.plane.right)[::-1], np.asarray(self.plane.down)[::-1]
        return np.stack([right, down, np.cross(right, down)], axis=1)

    @property
    def orientation(self) -> list[float]:
        """The quaternion x, y, z, w that turns a view of x, y into one of this plane."""
        return quaternion(self.axes_xyz)

    def write(self, path: Path) -> Path:
        """Write it as an OME-Zarr of one plane at the origin; ``matrix`` puts it in its place."""
        grid = Grid((1, *self.plane.shape), (self.thickness_um, self.plane.spacing_um, self.plane.spacing_um))
        with create_volume(path, grid, colours=3, stain=self.stain, name=self.name) as volume:
            rows, columns = self.plane.shape
            volume[0:1, 0:rows, 0:columns] = self.rgb[None]
        return path

    @property
    def matrix(self) -> list[list[float]]:
        """From the section's own c, z, y, x um to the volume's: 4 rows of 4 factors and a shift in um."""
        away = self.axes_xyz[::-1, 2]
        space = [
            [0.0, float(away[i]), float(self.plane.down[i]), float(self.plane.right[i]), float(self.plane.corner_um[i])]
            for i in range(3)
        ]
        return [[1.0, 0.0, 0.0, 0.0, 0.0], *space]


def load_section(path: Path, ct: Store | None, stained: Store) -> Section:
    """Read a placement and its slide, check that they belong to this volume, and resample the slide onto its plane.

    Raises
    ------
    FileNotFoundError
        There is no placement, or its slide cannot be found.
    ValueError
        The placement is damaged or being written, or it belongs to another volume.
    """
    path = Path(path)
    refuse_unfinished(path)
    placement, record = Placement.load(path), _record(path)
    grid = (ct or stained).volume.grid
    if ct is not None and record.get("inputs"):
        _check_volume(path, record, ct)
    if not meets(placement, grid):
        raise ValueError(f"{path} lies outside this volume; it is a placement in another one")
    return section_of(path, finest_um=min(grid.spacing_um) / _FINER)


def section_of(path: Path, *, finest_um: float = 0.0) -> Section:
    """Read a placement and its slide, and resample the slide onto its plane, in pixels of ``finest_um`` or larger.

    Raises
    ------
    FileNotFoundError
        There is no placement, or its slide cannot be found.
    ValueError
        The placement or the slide is damaged, or they do not belong together.
    """
    path = Path(path)
    placement, record = Placement.load(path), _record(path)
    steps_um = np.linalg.norm([placement.step_y_um, placement.step_x_um], axis=1)
    plane = placement.plane(max(float(steps_um.max()), finest_um))
    if max(plane.shape) > _MOST_SIDE_PX:
        plane = placement.plane(plane.spacing_um * max(plane.shape) / _MOST_SIDE_PX)
    slide = _read_slide(find_slide(path, record), (record.get("recipe") or {}).get("slide_um"), placement)
    if tuple(slide.shape[:2]) != tuple(placement.slide_shape):
        rows, columns = placement.slide_shape
        raise ValueError(
            f"{path} places a slide of {rows} x {columns} px, {slide.name} has {slide.shape[0]} x {slide.shape[1]} px"
        )
    rgb, covered = slide_on_plane(slide, placement, plane)
    colours = np.where(covered[..., None], np.maximum(rgb, 1), 0).astype(np.uint8)
    return Section(path.name.removesuffix(PLACEMENT), plane, colours, placement, slide.stain)


def _record(placement: Path) -> dict[str, Any]:
    return runs.read_record(placement) if runs.is_complete(placement) else {}


def _read_slide(path: Path, pixel_um: float | None, placement: Placement) -> Slide:
    try:
        return read_slide(path, pixel_um=pixel_um)
    except ValueError:  # without a pixel size of its own, which the placement makes up for; or damaged, said again
        return read_slide(path, pixel_um=float(np.linalg.norm(placement.step_y_um)))


def meets(placement: Placement, grid: Grid) -> bool:
    """Whether some part of a placed slide lies in the box of a volume."""
    sides = [np.linspace(start, stop - 1, 129) for start, stop in placement.window]
    points = placement.slide_to_volume_um(np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1))
    first = np.asarray(grid.origin_um) - np.asarray(grid.spacing_um) / 2
    return bool(np.all((points >= first) & (points <= first + np.asarray(grid.extent_um)), axis=-1).any())


def find_slide(placement: Path, record: dict[str, Any]) -> Path:
    """The slide of a placement: where its record says, or beside it under the same name.

    Raises
    ------
    FileNotFoundError
        It is in neither place.
    """
    recorded = [Path(source["path"]) for source in record.get("inputs", [])[1:2]]
    stem = placement.name.removesuffix(PLACEMENT)
    beside = [placement.with_name(source.name) for source in recorded]
    beside += [placement.with_name(stem + suffix) for suffix in SUFFIXES]
    for file in (*recorded, *beside):
        if file.is_file():
            return file
    raise FileNotFoundError(f"the slide of {placement} is not found; put it beside it, as {stem}.tif or so")


def _check_volume(path: Path, record: dict[str, Any], ct: Store) -> None:
    """Refuse a placement whose volume has other values than the CT that is shown."""
    source = record["inputs"][0]
    registered = Path(runs.split_inside(source["path"])[0])
    if registered.exists() and registered.resolve() == ct.path.resolve():
        return
    try:
        reading = dict((record.get("recipe") or {}).get("reading") or {})
        same = read_volume(source["path"], **reading).fingerprint() == ct.volume.fingerprint()
    except (OSError, TypeError, ValueError):
        if source.get("sha256") != runs.fingerprint(ct.path):
            warnings.warn(
                f"{path} was registered to {source['path']}, which cannot be read; nobody knows whether that is "
                f"{ct.path}",
                stacklevel=3,
            )
        return
    if not same:
        raise ValueError(f"{path} is a placement in {source['path']}, which is another volume than {ct.path}")


def quaternion(rotation: Any) -> list[float]:
    """The unit quaternion (x, y, z, w) of a rotation matrix (3, 3).

    >>> quaternion(np.eye(3))
    [0.0, 0.0, 0.0, 1.0]
    """
    x, y, z, w = (float(v) for v in Rotation.from_matrix(rotation).as_quat())
    sign = math.copysign(1.0, w)
    return [v * sign + 0.0 for v in (x, y, z, w)]
