"""Landmarks that a person has set on slide and volume: CSV in, a pose and the outliers' names out."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tomostain.registration.coarse import Pose
from tomostain.registration.modality import Float64
from tomostain.runs import write_text_atomically

COLUMNS = ("name", "slide_y_px", "slide_x_px", "volume_z_um", "volume_y_um", "volume_x_um")
FEWEST = 4
_TRIPLES = 2000
_TOLERANCE = 0.05
"""A landmark further off than this share of the slide's diagonal is an outlier; sections bend by less."""


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Points on both sides: ``slide_px`` (n, 2) y x and ``volume_um`` (n, 3) z y x, with a name each."""

    names: tuple[str, ...]
    slide_px: Float64
    volume_um: Float64


@dataclass(frozen=True, eq=False)
class LandmarkFit:
    """The pose that most landmarks agree on, how far each is from it (um), and which were left out."""

    pose: Pose
    distance_um: Float64
    outliers: tuple[str, ...]


def read_landmarks(path: Path, *, fewest: int = FEWEST) -> Landmarks:
    """Read a CSV with the columns slide_y_px, slide_x_px, volume_z_um (0 for one plane), volume_y_um, volume_x_um.

    A column ``name`` is optional; without it landmarks are called by their line.

    Raises
    ------
    ValueError
        A column is missing, a value is not a number, or there are fewer than ``fewest`` landmarks.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there are no landmarks {path}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    wanted = [column for column in COLUMNS[1:] if column != "volume_z_um"]
    missing = [column for column in wanted if lines and column not in lines[0]]
    if not lines or missing:
        raise ValueError(f"{path.name} lacks the column{'s' * (len(missing) != 1)} {', '.join(missing or wanted)}")
    names, slide, volume = [], [], []
    for number, line in enumerate(lines, start=2):
        try:
            values = [float(line.get(column) or ("0" if column == "volume_z_um" else "")) for column in COLUMNS[1:]]
        except ValueError:
            raise ValueError(f"{path.name}, line {number}: every coordinate must be a number") from None
        if not np.isfinite(values).all():
            raise ValueError(f"{path.name}, line {number}: a coordinate is not finite")
        names.append((line.get("name") or "").strip() or f"line {number}")
        slide.append(values[:2])
        volume.append(values[2:])
    if len(names) < fewest:
        raise ValueError(f"{path.name} holds {len(names)} landmarks; set at least {fewest}, well apart")
    return Landmarks(tuple(names), np.asarray(slide), np.asarray(volume))


def write_landmarks(path: Path, landmarks: Landmarks, *, pixel_um: tuple[float, float]) -> Path:
    """Write what ``read_landmarks`` reads, and beside it each point in um of the slide, so that the pixel size is kept.

    ``pixel_um`` is the slide's pixel size (y, x).
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*COLUMNS, "slide_y_um", "slide_x_um"])
    for name, px, um in zip(landmarks.names, landmarks.slide_px, landmarks.volume_um, strict=True):
        numbers = [*px, *um, *(px * np.asarray(pixel_um))]
        writer.writerow([name, *(f"{value:.10g}" for value in numbers)])
    return write_text_atomically(path, table.getvalue())


def fit_landmarks(points_um: Float64, volume_um: Float64, names: tuple[str, ...]) -> LandmarkFit:
    """The pose (turn, scale, shift; Umeyama 1991) on which most landmarks agree, found from all triples of them.

    ``points_um`` (n, 2) are slide um from the slide's centre, ``volume_um`` (n, 3) z y x.

    Raises
    ------
    ValueError
        Fewer than three landmarks agree, or they lie on one line.
    """
    size = float(np.linalg.norm(np.ptp(volume_um, axis=0)))
    tolerance = _TOLERANCE * size
    triples = list(combinations(range(len(points_um)), 3))
    if len(triples) > _TRIPLES:
        rng = np.random.default_rng(0)
        triples = [triples[i] for i in rng.choice(len(triples), size=_TRIPLES, replace=False)]
    best: tuple[float, npt.NDArray[np.bool_]] | None = None
    for triple in triples:
        some = list(triple)
        if _thin(points_um[some]):
            continue
        pose = similarity(points_um[some], volume_um[some])
        distance = np.linalg.norm(pose.to_um(points_um) - volume_um, axis=1)
        cost = float(np.minimum(distance, tolerance).sum())
        if best is None or cost < best[0]:
            best = (cost, distance <= tolerance)
    if best is None:
        raise ValueError("the landmarks lie on one line; set one well off it")
    agreed = best[1]
    if agreed.sum() < 3:
        raise ValueError(
            "no three landmarks agree on one plane; check that slide and volume coordinates belong together"
        )
    pose = similarity(points_um[agreed], volume_um[agreed])
    distance = np.linalg.norm(pose.to_um(points_um) - volume_um, axis=1)
    return LandmarkFit(pose, distance, tuple(n for n, good in zip(names, agreed, strict=True) if not good))


def similarity(points_um: Float64, volume_um: Float64) -> Pose:
    """Least-squares rotation, scale and shift of a flat slide (n, 2) into the volume (n, 3) (Umeyama 1991).

    A mirrored slide is one turned over in space, so no reflection is needed.
    """
    flat = np.column_stack([np.zeros(len(points_um)), points_um])
    middle, centre = flat.mean(axis=0), volume_um.mean(axis=0)
    u, s, vt = np.linalg.svd((volume_um - centre).T @ (flat - middle) / len(flat))
    sign = np.ones(3)
    sign[2] = np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0
    turn = u @ np.diag(sign) @ vt
    scale = float((s * sign).sum() / ((flat - middle) ** 2).sum(axis=1).mean())
    axes = scale * turn[:, 1:]
    return Pose(centre - axes @ middle[1:], axes)


def _thin(points: Float64) -> bool:
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return bool(spread[1] < 0.1 * spread[0])
