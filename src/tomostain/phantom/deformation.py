"""Where a section is cut and how it is bent on its way to the glass: a seed in, a true Placement out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tomostain._settings import Within, check_numbers
from tomostain.images.geometry import Grid, Placement, Vector

Points = npt.NDArray[np.float64]

_LATTICE_UM = 120.0
"""Distance of the nodes of the displacement field; a third of its correlation length, so that splines follow it."""
_CORRELATION_UM = 350.0
"""Gaussian width of the elastic field: mounting bends a section over tenths of a millimetre."""
_STEEPEST = 0.5
"""Least local area ratio (Jacobian) that a deformation may have; folds are damage, not deformation."""
_INSIDE = 0.65
"""Least share of the slide that must show the volume."""


@dataclass(frozen=True)
class CutRecipe:
    """How sections are cut and mounted."""

    pixel_um: Annotated[float, Within(0.1, 100)] = 1.0
    """Pixel of the slides in um; 0.5 to 1 is a slide scanner."""
    thickness_um: Annotated[tuple[float, float], Within(0, 1000, above=True)] = (10.0, 60.0)
    """Range of the thickness of ground sections in um."""
    tilt_deg: Annotated[float, Within(0, 45)] = 15.0
    """Largest tilt of a section against the volume's z axis, in degrees."""
    rotation_deg: Annotated[float, Within(0, 180)] = 180.0
    """Largest in-plane rotation of a section, either way, in degrees; 180 is any."""
    mirror: bool = True
    """Half of the sections lie on the glass upside down."""
    shrinkage: Annotated[tuple[float, float], Within(0, 0.5)] = (0.07, 0.04)
    """Mean shrinkage along and across the cut; it varies by a fifth from slide to slide (Museyko et al. 2015)."""
    elastic_um: Annotated[tuple[float, float], Within(0, 1000)] = (20.0, 80.0)
    """Range of the largest elastic displacement of a slide in um; at most 6 % of the slide."""

    def __post_init__(self) -> None:
        check_numbers(self)
        low_um, high_um = self.thickness_um
        if low_um > high_um:
            raise ValueError(f"thickness_um must run from a smaller to a larger number, got {low_um:g} to {high_um:g}")


def draw_placement(
    grid: Grid, recipe: CutRecipe, rng: np.random.Generator, *, depth: tuple[float, float] = (0.1, 0.9)
) -> Placement:
    """Draw where in the volume ``grid`` a slide was cut, as the Placement that is its truth.

    The section's centre lies at a share of the volume's height drawn from ``depth``, on the volume's middle axis. The
    frame is a rectangle as large as the volume's cross-section turned into it, so that little glass is shown; cuts that
    leave the volume over more than a third of the frame are drawn again, ever less tilted.
    """
    extent_um = np.asarray(grid.extent_um)
    middle_um = np.asarray(grid.origin_um) + (extent_um - np.asarray(grid.spacing_um)) / 2
    rotation_deg = float(rng.uniform(-recipe.rotation_deg, recipe.rotation_deg))
    mirrored = bool(rng.random() < 0.5) and recipe.mirror
    shrinkage = tuple(float(s * rng.uniform(0.8, 1.2)) for s in recipe.shrinkage)
    thickness_um = float(rng.uniform(*recipe.thickness_um))
    frame_um = _frame_um(extent_um, np.deg2rad(rotation_deg))
    steepest_deg = recipe.tilt_deg
    for attempt in range(200):
        share = float(rng.uniform(*depth))
        tilt_deg = float(rng.uniform(0.0, steepest_deg))
        towards_deg = float(rng.uniform(0.0, 360.0))
        centre_um = middle_um + np.asarray([(share - 0.5) * extent_um[0], 0.0, 0.0])
        down, right = _directions(tilt_deg, towards_deg, rotation_deg, mirrored)
        if _share_inside(grid, centre_um, down * frame_um[0], right * frame_um[1]) >= _INSIDE:
            break
        steepest_deg *= 0.9 if attempt >= 10 else 1.0
    steps_um = [recipe.pixel_um / (1.0 - s) for s in shrinkage]
    shape = tuple(max(16, round(float(f / s))) for f, s in zip(frame_um, steps_um, strict=True))
    corner_um = centre_um - (shape[0] - 1) / 2 * steps_um[0] * down - (shape[1] - 1) / 2 * steps_um[1] * right
    flat = Placement(
        slide_shape=(shape[0], shape[1]),
        corner_um=_vector(corner_um),
        step_y_um=_vector(steps_um[0] * down),
        step_x_um=_vector(steps_um[1] * right),
        thickness_um=thickness_um,
        notes={
            "depth_um": float(centre_um[0]),
            "tilt_deg": tilt_deg,
            "tilt_towards_deg": towards_deg,
            "rotation_deg": rotation_deg,
            "mirrored": mirrored,
            "shrinkage": list(shrinkage),
            "elastic_um": 0.0,
        },
    )
    amplitude_um = min(float(rng.uniform(*recipe.elastic_um)), 0.06 * float(frame_um.min()))
    return bent(flat, amplitude_um, rng) if amplitude_um > 0 else flat


def bent(flat: Placement, amplitude_um: float, rng: np.random.Generator) -> Placement:
    """``flat`` with a smooth random displacement field of at most ``amplitude_um``, gentler where it would fold."""
    step_um = float(np.linalg.norm(flat.step_y_um))
    lattice_px = max(4.0, round(_LATTICE_UM / step_um))
    nodes = [int(np.ceil((n - 1) / lattice_px)) + 1 for n in flat.slide_shape]
    sigma = _CORRELATION_UM / (lattice_px * step_um)
    pad = int(np.ceil(3 * sigma))
    noise = rng.standard_normal((nodes[0] + 2 * pad, nodes[1] + 2 * pad, 2))
    field = ndimage.gaussian_filter(noise, (sigma, sigma, 0))[pad : pad + nodes[0], pad : pad + nodes[1]]
    field -= field.mean(axis=(0, 1))
    placement = _moved(flat, field, lattice_px)
    largest = _largest_um(placement)
    field *= amplitude_um / largest if largest > 0 else 0.0
    while True:
        placement = _moved(flat, field, lattice_px)
        if jacobian(placement, every_px=max(1, int(lattice_px // 6))).min() >= _STEEPEST:
            return replace(placement, notes=flat.notes | {"elastic_um": _largest_um(placement)})
        field *= 0.85


def _moved(flat: Placement, field: Points, lattice_px: float) -> Placement:
    return replace(flat, lattice_px=lattice_px, displacement_um=field.astype(np.float32))


def _largest_um(placement: Placement) -> float:
    """The largest displacement on the slide, looked for at 100 x 100 points."""
    across = [np.linspace(0, n - 1, 100) for n in placement.slide_shape]
    points = np.stack(np.meshgrid(*across, indexing="ij"), axis=-1)
    return float(np.linalg.norm(placement.displacement_at(points), axis=-1).max())


def jacobian(placement: Placement, *, every_px: int = 8) -> npt.NDArray[np.float64]:
    """Local area in the volume over that of an undeformed slide, on every n-th slide pixel: (y, x); 1 is undeformed."""
    steps = np.asarray([placement.step_y_um, placement.step_x_um])
    lengths = np.linalg.norm(steps, axis=1)
    rows, columns = (np.arange(0, max(n, every_px + 2), every_px, dtype=np.float64) for n in placement.slide_shape)
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    near = 0.5 * np.eye(2)
    along = [
        (placement.displacement_at(points + near[axis]) - placement.displacement_at(points - near[axis]))
        / lengths[axis]
        for axis in range(2)
    ]
    return np.asarray((1 + along[0][..., 0]) * (1 + along[1][..., 1]) - along[0][..., 1] * along[1][..., 0])


def _frame_um(extent_um: Points, angle: float) -> Points:
    """Edges (y, x) of the frame: those of the volume's cross-section, exchanged smoothly as the frame is turned."""
    cos2, sin2 = np.cos(angle) ** 2, np.sin(angle) ** 2
    squares = extent_um[1:] ** 2
    return np.asarray(np.sqrt([squares @ [cos2, sin2], squares @ [sin2, cos2]]))


def _directions(tilt_deg: float, towards_deg: float, rotation_deg: float, mirrored: bool) -> tuple[Points, Points]:
    """Unit vectors (z, y, x) along a slide's rows and columns."""
    tilt, towards, rotation = np.deg2rad([tilt_deg, towards_deg, rotation_deg])
    axis = np.asarray([0.0, -np.sin(towards), np.cos(towards)])

    def tilted(vector: Points) -> Points:
        turned = vector * np.cos(tilt) + np.cross(axis, vector) * np.sin(tilt)
        return np.asarray(turned + axis * (axis @ vector) * (1 - np.cos(tilt)))

    down = tilted(np.asarray([0.0, np.cos(rotation), np.sin(rotation)]))
    right = tilted(np.asarray([0.0, -np.sin(rotation), np.cos(rotation)]))
    return down, -right if mirrored else right


def _share_inside(grid: Grid, centre_um: Points, down_um: Points, right_um: Points) -> float:
    """Share of a rectangle, given by its centre and edges, that lies inside the volume."""
    across = np.linspace(-0.5, 0.5, 41)
    points = centre_um + across[:, None, None] * down_um + across[None, :, None] * right_um
    where = grid.index_of(points)
    return float(np.all((where >= -0.5) & (where <= np.asarray(grid.shape) - 0.5), axis=-1).mean())


def _vector(values: Points) -> Vector:
    z, y, x = (float(v) for v in values)
    return z, y, x
