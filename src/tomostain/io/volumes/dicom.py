"""CT as DICOM: a series of files, one a slice, or a multi-frame file; order, spacing and units from the headers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import get_frame

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.io.inside import inside_folder
from tomostain.io.volumes.arrays import Array, Box, Flat, Windowed
from tomostain.io.volumes.dicom_header import Frame, frames_of, read_header
from tomostain.io.volumes.headers import Hints, VolumeError, reported, spacing_of
from tomostain.io.volumes.series import natural

KIND = "DICOM"
SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")
_PREAMBLE = 128
_UNEVEN = 0.25
"""Share of the slices' distance by which a slice may lie off its place: positions are often rounded."""
_PARALLEL = 1e-3
_RUN_LENGTHS = "1.2.840.10008.1.2.5"
_DECODERS: dict[str, Any] = {
    "1.2.840.10008.1.2.4.50": imagecodecs.jpeg8_decode,
    "1.2.840.10008.1.2.4.51": imagecodecs.jpeg_decode,
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.81": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.90": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.91": imagecodecs.jpeg2k_decode,
}
"""How a compressed frame is decoded, by its transfer syntax."""


class Frames:
    """Frames of DICOM files as (z, y, x), in the units that each frame's slope and intercept give."""

    def __init__(self, frames: tuple[Frame, ...]) -> None:
        first = frames[0]
        self.shape = (len(frames), *first.shape)
        self._plain = all((frame.slope, frame.intercept) == (1.0, 0.0) for frame in frames)
        self.dtype = first.dtype.newbyteorder("=") if self._plain else np.dtype(np.float32)
        self._frames = frames

    def read(self, box: Box) -> Array:
        planes, rows, columns = box
        out = np.empty((planes[1] - planes[0], rows[1] - rows[0], columns[1] - columns[0]), self.dtype)
        for i, z in enumerate(range(*planes)):
            frame = self._frames[z]
            with reported(frame.file.name, KIND):
                stored = _window(frame, rows, columns)
                if self._plain:
                    out[i] = stored
                else:
                    out[i] = stored.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept)
        return out


def is_dicom(file: Path) -> bool:
    """Whether a file holds DICOM, by its first bytes."""
    with file.open("rb") as opened:
        return opened.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"


def dicom_in(folder: Path) -> list[Path]:
    """The DICOM files of a folder, by their endings, else (where nothing has an ending) by their first bytes."""
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    named = [file for file in files if file.suffix.lower() in SUFFIXES]
    bare = [file for file in files if file.name.upper() != "DICOMDIR" and not file.suffix[1:].isalpha()]
    found = named or [file for file in bare if file.is_file() and is_dicom(file)]
    for file in found:
        if not file.is_file():
            raise VolumeError(f"{folder.name}: {file.name} is not a file; remove it, or copy the slice again")
    for file in found:
        if file.is_symlink():
            with reported(folder.name, KIND):
                inside_folder(folder, file.name, f"{folder.name}: {file.name}")
    return sorted(found, key=lambda file: natural(file.name))


def read_dicom(path: Path, hints: Hints) -> Volume:
    """Open a DICOM file, or a folder with one series of them, as a lazy Volume.

    Slices lie in the order of their positions along the normal of their planes, else of their instance numbers; values
    are in the units that slope and intercept give, Hounsfield units for a CT. ``FOLDER::NUMBER`` (or the UID) chooses a
    series.

    Raises
    ------
    VolumeError
        Several series, slices that are missing, doubled, tilted or unlike one another, colours, or no voxel size.
    """
    files = dicom_in(path) if path.is_dir() else [path]
    if path.is_file():
        hints.nothing_inside(path.name)
    with reported(path.name, KIND):
        found = [frame for file in files for frame in frames_of(file, read_header(file))]
        frames = _one_series(path.name, found, hints.inside)
        _check_alike(frames)
        ordered, z_um = _in_order(path.name, frames)
        first, source = ordered[0], Frames(tuple(ordered))
        stated = None if z_um is None or first.pixel_um is None else (z_um, *first.pixel_um)
        hint = f"its slices are {first.thickness_um:g} um thick" if first.thickness_um else ""
        spacing = spacing_of(path.name, stated, hints, found=hint)
        about = {"format": KIND, "orientation": _orientation(first)}
        if first.units:
            about["units"] = first.units
        return Volume(Windowed(source, path.name, KIND), Grid(source.shape, spacing), name=path.name, about=about)


def _one_series(name: str, frames: list[Frame], chosen: str) -> list[Frame]:
    series: dict[str, list[Frame]] = {}
    for frame in frames:
        series.setdefault(frame.series, []).append(frame)
    if chosen:
        fitting = [uid for uid, group in series.items() if chosen.strip("/") in (uid, group[0].series_number)]
        series = {uid: series[uid] for uid in fitting}
    if len(series) == 1:
        return next(iter(series.values()))
    listed = ", ".join(
        f"{group[0].series_number or uid} ({len(group)} slices{group[0].description and ', ' + group[0].description})"
        for uid, group in series.items()
    )
    if chosen:
        raise VolumeError(f"{name} holds {len(series)} series called {chosen}; give the series' UID after ::")
    raise VolumeError(f"{name} holds {len(series)} series: {listed[:300]}; choose one with {name}::NUMBER")


def _check_alike(frames: Sequence[Frame]) -> None:
    first = frames[0]
    for frame in frames:
        unlike = [
            f"{what} {here}, but {first.file.name} has {there}"
            for what, here, there in (
                ("values", frame.dtype.name, first.dtype.name),
                ("a shape of", frame.shape, first.shape),
                ("units", frame.units, first.units),
                ("pixels (um) of", frame.pixel_um, first.pixel_um),
            )
            if here != there
        ]
        if unlike:
            raise VolumeError(
                f"{frame.file.name} has {unlike[0]}; keep the slices of one scan in a folder of their own"
            )
        if frame.axes is None or first.axes is None:
            continue
        if not np.allclose(frame.axes, first.axes, atol=_PARALLEL):
            raise VolumeError(f"{frame.file.name} lies in another plane than {first.file.name}; keep one orientation")


def _in_order(name: str, frames: list[Frame]) -> tuple[list[Frame], float | None]:
    """Frames in the order of z, and the distance of their planes in um where it is known."""
    first = frames[0]
    if len(frames) == 1:
        return frames, first.between_um or first.thickness_um
    if all(frame.position_um is not None and frame.axes is not None for frame in frames):
        normal = np.cross(*np.asarray(first.axes))
        frames = sorted(frames, key=lambda frame: float(np.asarray(frame.position_um) @ normal))
        positions = np.asarray([frame.position_um for frame in frames], dtype=np.float64)
        heights = positions @ normal
        _check_upright(name, positions - positions[0], heights - heights[0], first)
        return frames, _even_step(name, frames, heights)
    if all(frame.height_um is not None for frame in frames):
        frames = sorted(frames, key=lambda frame: frame.height_um or 0.0)
        return frames, _even_step(name, frames, np.asarray([frame.height_um for frame in frames], dtype=np.float64))
    numbers = [frame.number for frame in frames]
    if None in numbers or len(set(numbers)) < len(numbers):
        raise VolumeError(
            f"{name} gives its slices neither positions nor numbers of their own; export the series again"
        )
    frames = sorted(frames, key=lambda frame: frame.number or 0)
    ordered = [frame.number or 0 for frame in frames]
    gaps = [i for i in range(1, len(ordered)) if ordered[i] - ordered[i - 1] > ordered[1] - ordered[0]]
    if gaps:
        raise VolumeError(f"{name}: slices are missing before {frames[gaps[0]].where}; copy the whole series")
    return frames, first.between_um


def _even_step(name: str, frames: Sequence[Frame], heights: Any) -> float:
    """The distance of planes that lie evenly, in um."""
    steps = np.diff(heights)
    usual = float(np.median(steps))
    same = np.flatnonzero(steps < _UNEVEN * usual) if usual > 0 else np.flatnonzero(steps <= 0)
    if same.size:
        a, b = frames[same[0]], frames[same[0] + 1]
        raise VolumeError(
            f"{name}: {a.where} and {b.where} lie at the same place; keep the slices of one scan in a folder of their "
            "own"
        )
    wide = np.flatnonzero(steps > (2 - _UNEVEN) * usual)
    if wide.size:
        a, b = frames[wide[0]], frames[wide[0] + 1]
        raise VolumeError(f"{name}: slices are missing between {a.where} and {b.where}; copy the whole series")
    step = float((heights[-1] - heights[0]) / (len(frames) - 1))
    off = np.abs(heights - heights[0] - step * np.arange(len(frames)))
    if off.max() > _UNEVEN * step:
        raise VolumeError(
            f"{name}: {frames[int(off.argmax())].where} lies {off.max():g} um off its place, its slices are not evenly "
            "spaced; resample them evenly"
        )
    return step


def _check_upright(name: str, moved: Any, heights: Any, first: Frame) -> None:
    """Refuse slices that slide sideways from one to the next: a tilted gantry."""
    drift = np.abs(moved @ np.asarray(first.axes).T)  # along the rows, along the columns
    pixel = max(first.pixel_um or (math.inf,))
    if drift.max() > max(pixel, _PARALLEL * float(heights[-1])):
        tilt = math.degrees(math.atan2(float(drift.max()), float(heights[-1])))
        raise VolumeError(
            f"{name}: its slices are sheared by {tilt:.1f} degrees (a tilted gantry); resample them upright first, for "
            "example with dcm2niix"
        )


def _window(frame: Frame, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
    """The stored values of some rows and columns."""
    if frame.values_at is not None:
        flat = Flat(frame.file, (1, *frame.shape), frame.dtype, frame.values_at)
        values = flat.read(((0, 1), rows, columns))[0]
    else:
        values = _decoded(frame)[slice(*rows), slice(*columns)]
    spare = 8 * frame.dtype.itemsize - frame.bits
    if spare:  # what stands above the stored bits is not part of the value
        values = values.astype(frame.dtype.newbyteorder("=")) << spare >> spare
    found: Array = values
    return found


def _decoded(frame: Frame) -> Array:
    """A compressed frame, whole."""
    if frame.syntax not in _DECODERS and frame.syntax != _RUN_LENGTHS:
        raise VolumeError(
            f"{frame.file.name} is compressed by {pydicom.uid.UID(frame.syntax).name}, which is not read; save it "
            "uncompressed, for example with gdcmconv --raw"
        )
    packed = get_frame(pydicom.dcmread(frame.file).PixelData, frame.index, number_of_frames=frame.frames)
    if frame.syntax == _RUN_LENGTHS:
        values: Array = _run_lengths(packed, frame)
    else:
        values = _DECODERS[frame.syntax](packed)
    if values.shape != frame.shape or values.dtype.itemsize != frame.dtype.itemsize:
        raise VolumeError(
            f"{frame.file.name} unfolds to {values.dtype} {values.shape}, not to {frame.dtype} {frame.shape}; it is "
            "damaged, copy it again"
        )
    whole_plane: Array = np.asarray(values).view(frame.dtype.newbyteorder("="))
    return whole_plane


def _run_lengths(packed: bytes, frame: Frame) -> Array:
    """A frame of byte planes, highest first, each packed by PackBits and of exactly its length (PS3.5, annex G)."""
    header = np.frombuffer(packed[:64], "<u4")
    count, size = int(header[0]), math.prod(frame.shape)
    starts = [*(int(at) for at in header[1 : count + 1]), len(packed)]
    if count != frame.dtype.itemsize or starts[0] != 64 or any(header[count + 1 :]) or sorted(starts) != starts:
        raise VolumeError(f"{frame.file.name} has a damaged table of run lengths; copy it again")
    planes = []
    for begin, end in pairwise(starts):
        plane = imagecodecs.packbits_decode(packed[begin:end])
        if not size <= len(plane) <= size + 1 or any(plane[size:]):
            raise VolumeError(f"{frame.file.name} unfolds to {len(plane)} bytes instead of {size}; copy it again")
        planes.append(np.frombuffer(plane, np.uint8, size))
    values = np.ascontiguousarray(np.stack(planes[::-1], axis=-1)).view(frame.dtype.newbyteorder("<"))
    return values.reshape(frame.shape).astype(frame.dtype.newbyteorder("="))


def _orientation(frame: Frame) -> str:
    """Where the axes point, reported and not applied."""
    if frame.axes is None:
        return "not stated"
    x, y = (np.asarray(axis) for axis in frame.axes)
    words = []
    for axis, vector in zip("zyx", (np.cross(x, y), y, x), strict=True):
        main = int(np.abs(vector).argmax())
        words.append(f"{axis} to {('LR', 'PA', 'SI')[main][int(vector[main] < 0)]}")
    return ", ".join(words) + " (L left, P posterior, S superior)"
