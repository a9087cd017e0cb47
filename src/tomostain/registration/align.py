"""Register a slide to a volume, from a search over planes to a judged placement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from tomostain.images.geometry import Placement
from tomostain.registration import quality
from tomostain.registration.coarse import Candidate, Pose, Region, attitude, distinct, plane_axes, search
from tomostain.registration.field import Field
from tomostain.registration.fine import Fit, Schedule, fit
from tomostain.registration.hints import NONE, Hints
from tomostain.registration.modality import Float32, Float64, Stained, Target
from tomostain.registration.scene import Picture, Scene, picture, slab_scene, volume_scene
from tomostain.registration.softness import best_softness

Progress = Callable[[str, float], None]
COARSE, ROUGH, MIDDLE, FINE, FINEST = 30, 70, 140, 280, 600
"""Pixels along the diagonal of what slide and volume share, at each level."""
SMOOTH = 12
"""Part of the diagonal over which structure counts as smooth where the plane is known."""
_SMOOTH_PIXELS = 5
"""The same while the slide is bent, in pixels of the level, so that ever finer detail decides (hard pairs 2 to 9)."""
_THICKNESSES_UM = (10.0, 20.0, 30.0, 40.0, 60.0)
_LEAST_JACOBIAN = 0.2
_HALVES = (0.5, 1.5, 4.0)
"""Steps of the elastic field along the edge of the squares that make halves of a slide."""
_FINEST_SAMPLE = 0.8
"""Least distance between the samples of a slab, in voxels; closer ones add no information."""
_TILT_SLACK_DEG = 4.0


@dataclass(frozen=True, eq=False)
class Registered:
    """A registration: the fit, what it was judged by, and what it had to beat.

    ``confidence`` (y, x) in [0, 1], ``distance_um`` (y, x; disagreement of the halves) and ``jacobian`` (y, x) are on
    the pixels of ``slide``; ``rigid`` is the fit before the elastic field.
    """

    fit: Fit
    rigid: Fit
    slide: Picture
    score: quality.Score
    confidence: Float32
    distance_um: Float32
    jacobian: Float64
    thickness_um: float
    tried: tuple[Candidate, ...] = field(default=())


class NoPlacement(ValueError):
    """No placement leaves enough of the slide inside the volume."""


def align(
    target: Target,
    stained: Stained,
    hints: Hints = NONE,
    *,
    prior: Pose | None = None,
    progress: Progress | None = None,
) -> Registered:
    """Find where the slide was cut and how it was bent; with a ``prior``, near it.

    ``progress`` is called with the name of each stage and the share of the work that is done.

    Raises
    ------
    NoPlacement
        No placement leaves enough of the slide inside the volume.
    ValueError
        The slide shows next to nothing.
    """
    shares = (stained.density.mean(axis=2) > 0.05).mean()
    if shares < quality.LEAST_STAINED:
        raise ValueError(f"only {shares:.1%} of the slide differs from bare glass; there is nothing to register")
    advance = progress or (lambda stage, share: None)
    start = _plane(target, stained, hints, prior, advance)
    refined = _refine(target, stained, hints, start.bent, advance)
    advance("checking", 0.9)
    done = _judged(target, stained, start, refined)
    advance("done", 1.0)
    return done


def diagonal_um(target: Target, stained: Stained, scale: float) -> float:
    """Diagonal of what slide and volume share at most; all levels are measured by it."""
    slide = np.asarray(stained.extent_um) * scale
    return float(min(np.linalg.norm(slide), np.linalg.norm(target.grid.extent_um[1:])))


def smooth_um(target: Target, size_um: float, part: int | None = None) -> float | None:
    """Over what length structure counts for less at places compared, or at a level's ``part``; None: all counts alike.

    Where the plane is known, what is smooth only pulls edges apart that could meet. In a volume it is needed: it holds
    the plane's tilt (without it one titanium slide had an error of 19 um instead of 3.6 um).
    """
    if not target.is_plane:
        return None
    return size_um / SMOOTH if part is None else _SMOOTH_PIXELS * size_um / part


@dataclass(frozen=True, eq=False)
class Start:
    """Where the search over planes ends: a flat fit, bent for the first time, its lead, and what it had to beat."""

    flat: Fit
    bent: Fit
    margin: float
    tried: tuple[Candidate, ...]


def _plane(target: Target, stained: Stained, hints: Hints, prior: Pose | None, advance: Progress) -> Start:
    """The place whose bent slide explains most detail, its lead over the next different one, and what was tried."""
    scale = 1 / (1 - hints.shrinkage)
    size = diagonal_um(target, stained, scale)
    scales = (0.94 * scale, scale, 1.06 * scale) if target.is_plane else (scale,)
    region = region_of(target, hints, prior)
    found = []
    for n, s in enumerate(scales):

        def searched(share: float, n: int = n) -> None:
            advance("searching planes", 0.4 * (n + share) / len(scales))

        at = {"spacing_um": size / COARSE, "scale": s}
        found += search(target, stained, region, **at, keep=100, progress=searched)
    if not found:
        raise NoPlacement("no placement leaves enough of the slide inside the volume; check pixel and voxel sizes")
    advance("comparing places", 0.4)
    how = Schedule(12, scale=scale, in_plane_only=target.is_plane, scale_spread=0.1 if target.is_plane else 0.03)
    rough, small = volume_scene(target, size / ROUGH), picture(stained, size / ROUGH, classes=7, rich=False)
    advance("comparing places", 0.45)
    fits = sorted((fit(rough, small, c.pose, None, how) for c in found), key=lambda f: -f.gain)
    fits = [f for f in fits if _tilt_allowed(f.pose, region)] or fits
    ranked = [Candidate(f.pose, f.gain) for f in fits]
    tried = distinct(ranked, 12, apart_um=size / 40, extent_um=size / 2)
    smooth = smooth_um(target, size)
    advance("comparing places", 0.5)
    middle = volume_scene(target, size / MIDDLE, smooth_um=smooth)
    medium = picture(stained, size / MIDDLE, classes=10, rich=False, smooth_um=smooth)
    lattice = Field.flat(stained.extent_um, size / 9 / scale) if hints.elastic else None

    def judged(at: Fit) -> tuple[Fit, float]:
        return at, quality.explained_detail(at, middle, medium)

    def bent(flat: Fit) -> Fit:
        return fit(middle, medium, flat.pose, lattice, replace(how, iterations=8)) if lattice is not None else flat

    places = distinct(ranked, 4, apart_um=size / 12, extent_um=size / 2)
    flats = sorted((judged(fit(middle, medium, c.pose, None, how)) for c in tried[:6]), key=lambda f: -f[1])
    flats = flats[:2] + [judged(fit(middle, medium, c.pose, None, how)) for c in places]
    close = [judged(bent(flat)) for flat, _ in flats]
    lean = [_tilt_allowed(c.pose, region) for c, _ in close]
    first = int(
        np.argmax(
            [detail if allowed or not any(lean) else -np.inf for (_, detail), allowed in zip(close, lean, strict=True)]
        )
    )
    best, detail = close[first]
    others = [d for c, d in close if _apart(c.pose, best.pose, size / 2) > size / 12]
    return Start(flats[first][0], best, detail - max(others, default=0.0), tuple(tried))


def _apart(pose: Pose, other: Pose, extent_um: float) -> float:
    """Greatest distance between where two poses put the slide's centre and the ends of its cross, um."""
    at = np.asarray([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) * extent_um * 0.7
    return float(np.linalg.norm(pose.to_um(at) - other.to_um(at), axis=1).max())


def _tilt_allowed(pose: Pose, region: Region) -> bool:
    """Whether a pose is tilted from the region's middle by no more than its limit plus ``_TILT_SLACK_DEG``."""
    down, right = plane_axes(*region.tilt_about)
    about = np.cross(down, right)
    lean = float(np.degrees(np.arccos(np.clip(abs(pose.normal @ about), -1, 1))))
    return lean <= region.tilt_deg + _TILT_SLACK_DEG


def region_of(target: Target, hints: Hints, prior: Pose | None = None) -> Region:
    """The part of the volume that the search over planes covers, from the hints."""
    low = target.grid.origin_um[0]
    high = low + (target.grid.shape[0] - 1) * target.grid.spacing_um[0]
    mirrored = (False, True) if hints.mirrored is None else (hints.mirrored,)
    if prior is None:
        if hints.around is not None:
            if not low <= hints.around <= high:
                raise ValueError(f"--around {hints.around:g} lies outside the volume, {low:g} to {high:g} um")
            low, high = (
                max(low, hints.around - hints.around_within),
                min(high, hints.around + hints.around_within),
            )
        return Region((low, high), hints.tilt_within, mirrored=mirrored)
    at, (depth, *pivot) = attitude(prior), prior.centre_um.tolist()
    within_um, within_deg = hints.prior_within_um, hints.prior_within_deg
    return Region(
        (max(low, depth - within_um), min(high, depth + within_um)),
        within_deg,
        tilt_about=(at.tilt_y_deg, at.tilt_x_deg),
        rotation_deg=(at.turn_deg - within_deg, at.turn_deg + within_deg),
        mirrored=(at.mirrored,),
        pivot_um=(pivot[0], pivot[1]),
        shift_um=within_um,
    )


@dataclass(frozen=True, eq=False)
class _Refined:
    """The finest fit, the slide and scene it was fitted to, the thickness that explains the CT best, the softness."""

    fit: Fit
    slide: Picture
    scene: Scene
    thickness_um: float
    softness: float


def _refine(target: Target, stained: Stained, hints: Hints, now: Fit, advance: Progress) -> _Refined:
    """Bend the slide, from the middle level to the finest, as softly as held-out detail allows."""
    scale = 1 / (1 - hints.shrinkage)
    size = diagonal_um(target, stained, scale)
    how = Schedule(8, scale=scale, in_plane_only=target.is_plane, scale_spread=0.1 if target.is_plane else 0.03)
    least_um = _FINEST_SAMPLE * min(target.grid.spacing_um[1:])
    thickness = hints.thickness_um if hints.thickness_um is not None else 30.0
    um = {part: max(size / part, least_um) for part in (FINE, FINEST)}

    def scene(at: Fit, thickness: float, part: int) -> Scene:
        if target.is_plane:
            return volume_scene(target, um[part], smooth_um=smooth_um(target, size, part))
        extent, reach = stained.extent_um, 4 * um[part]
        return slab_scene(target, at.pose, extent, spacing_um=um[part], thickness_um=thickness, reach_um=reach)

    def level(part: int) -> Picture:
        even = smooth_um(target, size, part)
        return picture(stained, um.get(part, size / part), smooth_um=even, ranked=target.is_plane)

    if hints.elastic:
        advance("bending", 0.6)
        lattice = Field.flat(stained.extent_um, size / 13 / scale)
        how = replace(how, softness=best_softness(scene(now, thickness, FINE), level(FINE), now, lattice, how))
        bend = Field.flat(stained.extent_um, size / 9 / scale)
        # On a single plane what is smooth differs in the large: it would drag regions along before detail holds them.
        for part in (MIDDLE,) if target.is_plane else (ROUGH, MIDDLE):
            around = volume_scene(target, size / part, smooth_um=smooth_um(target, size, part))
            now = unfolded(around, level(part), now, now.field or bend, replace(how, iterations=10))
    for part, nodes, iterations in ((FINE, 13, 8), (FINEST, 18, 5)):
        advance("bending", 0.7 if part == FINE else 0.8)
        slide = level(part)
        finer = now.field.refined(stained.extent_um, size / nodes / scale) if now.field is not None else None
        now = unfolded(scene(now, thickness, part), slide, now, finer, replace(how, iterations=iterations))
        if part == FINE and hints.thickness_um is None and not target.is_plane:
            details = {t: quality.explained_detail(now, scene(now, t, part), slide) for t in _THICKNESSES_UM}
            thickness = max(details, key=lambda t: details[t])
    return _Refined(now, slide, scene(now, thickness, FINEST), thickness, how.softness)


def unfolded(scene: Scene, slide: Picture, start: Fit, lattice: Field | None, how: Schedule) -> Fit:
    """Fit, and make the field stiffer until it folds nowhere."""
    found = fit(scene, slide, start.pose, lattice, how)
    for _ in range(4):
        if quality.jacobian(found, slide.points_um).min() >= _LEAST_JACOBIAN:
            return found
        how = replace(how, softness=how.softness / 2)
        found = fit(scene, slide, start.pose, lattice, how)
    return fit(scene, slide, start.pose, None, how)


def _judged(target: Target, stained: Stained, start: Start, refined: _Refined) -> Registered:
    """Register halves of the slide again and see how far they part."""
    bent, slide, scene, softness = refined.fit, refined.slide, refined.scene, refined.softness
    voxel = float(min(target.grid.spacing_um[1:]))
    points = slide.points_um.reshape(*slide.shape, 2)
    again = Schedule(4, in_plane_only=target.is_plane, keep_last=True, softness=softness)
    apart = _disagreement_um(scene, slide, bent, again)
    known = np.isfinite(bent.residual)
    folds = quality.jacobian(bent, points)
    seen, shown = scene, slide
    if target.is_plane:
        # Detail means the same at every level: not only the finest, which is all that the finest fit saw.
        even = smooth_um(target, diagonal_um(target, stained, 1.0))
        seen = volume_scene(target, slide.spacing_um, smooth_um=even)
        shown = picture(stained, slide.spacing_um, smooth_um=even)
    score = quality.Score(
        ratio=bent.ratio,
        detail=quality.explained_detail(bent, seen, shown),
        margin=start.margin,
        disagreement_um=float(apart[known].mean()) if known.any() else float("inf"),
        softness=softness,
        size_um=float(np.linalg.norm(slide.extent_um)),
        inside=bent.inside,
        voxel_um=voxel,
        fitted_um=slide.spacing_um,
    )
    sure = quality.confidence(bent, apart, folds, voxel_um=voxel, spacing_um=slide.spacing_um)
    return Registered(bent, start.flat, slide, score, sure, apart, folds, refined.thickness_um, start.tried)


def _disagreement_um(scene: Scene, slide: Picture, bent: Fit, how: Schedule) -> Float32:
    """How far two halves of the slide part, (y, x) um: the geometric mean over chequerboards of several sizes.

    Small squares measure the noise, large ones how much a region depends on its surroundings.
    """
    step = bent.field.step_um if bent.field is not None else slide.spacing_um * 20
    points = slide.points_um.reshape(*slide.shape, 2)
    logs = np.zeros(slide.shape)
    for size in _HALVES:
        one, other = (
            quality.placed(fit(scene, replace(slide, used=mask), bent.pose, bent.field, how), points)
            for mask in quality.halves(slide, size * step)
        )
        logs += np.log(np.maximum(np.linalg.norm(one - other, axis=-1), 1e-3 * slide.spacing_um))
    return np.exp(logs / len(_HALVES)).astype(np.float32)


def placement_of(done: Registered, stained: Stained) -> Placement:
    """The placement of the whole slide, in slide pixels, with its confidence and expected error."""
    pose, bend = done.fit.pose, done.fit.field
    pixel = np.asarray(stained.pixel_um)
    steps = pose.axes * pixel
    first_px = np.asarray([start for start, _ in stained.window_px])
    corner = pose.centre_um - steps @ stained.centre_px
    displacement, lattice_px = None, 1.0
    if bend is not None:
        lattice_px = max(1.0, round(bend.step_um / 3 / float(pixel.mean())))
        nodes = [np.arange(int(np.ceil((n - 1) / lattice_px)) + 1) * lattice_px for n in stained.window_shape]
        points = stained.um_of(np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1) + first_px)
        displacement = bend.at(points).astype(np.float32)
    (cz, cy, cx), (yz, yy, yx), (xz, xy, xx) = (tuple(float(v) for v in w) for w in (corner, steps[:, 0], steps[:, 1]))
    return Placement(
        slide_shape=stained.slide_shape,
        corner_um=(cz, cy, cx),
        step_y_um=(yz, yy, yx),
        step_x_um=(xz, xy, xx),
        thickness_um=done.thickness_um,
        lattice_px=lattice_px,
        displacement_um=displacement,
        window_px=stained.window_px,
        confidence=done.confidence,
        expected_tre_um=done.score.expected_tre_um,
        notes={
            "depth_um": float(pose.centre_um[0]),
            "tilt_deg": pose.tilt_deg,
            "mirrored": pose.mirrored,
            "scale": [float(v) for v in np.linalg.norm(pose.axes, axis=0)],
            "probability": done.score.probability,
            "check": done.score.uncertain,
            "explained": done.score.ratio,
            "detail": done.score.detail,
            "margin": done.score.margin,
            "disagreement_um": done.score.disagreement_um,
            "softness": done.score.softness,
            "inside": done.score.inside,
        },
    )


def pose_of(placement: Placement, stained: Stained) -> Pose:
    """The flat pose closest to a placement (least squares over the tissue)."""
    axes = [np.linspace(start, stop - 1, 15) for start, stop in stained.window_px]
    px = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    um = stained.um_of(px)
    design = np.column_stack([np.ones(len(um)), um])
    solved = np.asarray(np.linalg.lstsq(design, placement.slide_to_volume_um(px), rcond=None)[0], dtype=np.float64)
    return Pose(solved[0], solved[1:].T)
