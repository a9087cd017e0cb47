"""Scanco volumes: .ISQ as the scanner writes them, .AIM (v020 and v030) as its evaluation does; attenuation in 1/cm.

Layouts after ITKIOScanco (Apache-2.0) and Scanco's own description of the ISQ header; all numbers are little-endian.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tomostain.images.geometry import Grid, Vector
from tomostain.images.image import Calibrated, LazyArray, Volume
from tomostain.io.units import number_of
from tomostain.io.volumes.arrays import Flat, Source, Windowed
from tomostain.io.volumes.headers import Hints, VolumeError, origin_of, reported, shape_of, spacing_of
from tomostain.io.volumes.spool import Spooled

_ISQ_MAGIC = b"CTDATA-HEADER_V1"
_AIM_V030 = b"AIMDATA_V030"
_BLOCK = 512
_MOST_LOG_BYTES = 2**24
_RUNS = 2**16
_TYPES = {
    0x00160001: "u1",
    0x000D0001: "u1",
    0x00010001: "i1",
    0x00170002: "<u2",
    0x00020002: "<i2",
    0x00030004: "<i4",
    0x001A0004: "<f4",
    0x00150001: "i1",
    0x00080002: "i1",
}
_BINARY_RUNS, _BYTE_RUNS = 0x00150001, 0x00080002


@dataclass(frozen=True)
class _Aim:
    """What an AIM header says; lengths in um, (z, y, x)."""

    kind: int
    shape: tuple[int, int, int]
    spacing_um: Vector
    origin_um: Vector
    begin: int
    int_bytes: int
    log: dict[str, str]


def read_isq(path: Path, hints: Hints) -> Volume:
    """Open a Scanco ISQ as a lazy Volume in 1/cm (value / mu_scaling), int16 where it states no scaling.

    Raises
    ------
    VolumeError
        No ISQ, not a reconstruction, or truncated.
    """
    hints.nothing_inside(path.name)
    with reported(path.name, "Scanco ISQ"):
        with path.open("rb") as file:
            head = file.read(_BLOCK)
        if len(head) < _BLOCK or head[:16] != _ISQ_MAGIC:
            raise VolumeError(f"{path.name} cannot be read as Scanco ISQ: it does not begin as one")
        x, y, z, x_um, y_um, z_um = struct.unpack_from("<6i", head, 44)
        (mu_scaling,) = struct.unpack_from("<i", head, 88)
        (blocks,) = struct.unpack_from("<i", head, _BLOCK - 4)
        if z_um == 0:
            raise VolumeError(f"{path.name} is a radiograph, not a reconstruction; give the ISQ of the scan")
        shape = shape_of(path.name, (z, y, x))
        begin, wanted = (blocks + 1) * _BLOCK, math.prod(shape) * 2
        missing = begin + wanted - path.stat().st_size
        if blocks < 0 or missing > 0:
            raise VolumeError(f"{path.name} ends {max(missing, 0)} bytes too early; copy or export it again")
        source = Flat(path, shape, np.dtype("<i2"), begin)
        spacing = spacing_of(path.name, (z_um / z, y_um / y, x_um / x), hints)
        array, about = _attenuation(Windowed(source, path.name, "Scanco ISQ"), mu_scaling)
        return Volume(array, Grid(shape, spacing), name=path.name, about={"format": "Scanco ISQ"} | about)


def read_aim(path: Path, hints: Hints) -> Volume:
    """Open a Scanco AIM as a lazy Volume: 16-bit values in 1/cm (value / Mu_Scaling), others as stored.

    Raises
    ------
    VolumeError
        No AIM, a type of values that is not read, or truncated.
    """
    hints.nothing_inside(path.name)
    with reported(path.name, "Scanco AIM"):
        aim = _aim_header(path)
        if aim.kind not in _TYPES:
            raise VolumeError(f"{path.name} holds values of AIM type {aim.kind:#010x}; export it as 16-bit AIM or ISQ")
        dtype = np.dtype(_TYPES[aim.kind])
        source: Source
        if aim.kind in (_BINARY_RUNS, _BYTE_RUNS):
            source = Spooled(path, aim.shape, dtype, lambda: _runs(path, aim))
        else:
            missing = aim.begin + math.prod(aim.shape) * dtype.itemsize - path.stat().st_size
            if missing > 0:
                raise VolumeError(f"{path.name} ends {missing} bytes too early; copy or export it again")
            source = Flat(path, aim.shape, dtype, aim.begin)
        array: LazyArray = Windowed(source, path.name, "Scanco AIM")
        about: dict[str, str] = {"format": "Scanco AIM"}
        if dtype.itemsize == 2:
            array, units = _attenuation(array, _number(aim.log.get("mu_scaling", "")))
            about |= units
        if aim.log.get("density: slope") and aim.log.get("density: unit"):
            slope, intercept = aim.log["density: slope"], aim.log.get("density: intercept", "0")
            about["density"] = f"{slope} x attenuation + {intercept} {aim.log['density: unit']}"
        grid = Grid(aim.shape, spacing_of(path.name, aim.spacing_um, hints), origin_of(aim.origin_um))
        return Volume(array, grid, name=path.name, about=about)


def _attenuation(array: LazyArray, mu_scaling: float) -> tuple[LazyArray, dict[str, str]]:
    if not math.isfinite(mu_scaling) or mu_scaling <= 1:
        return array, {}
    return Calibrated(array, 1.0 / mu_scaling, 0.0), {"units": "1/cm"}


def _aim_header(path: Path) -> _Aim:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_BLOCK)
        wide = head[:12] == _AIM_V030
        base, number, step = (16, "<q", 8) if wide else (0, "<i", 4)
        if len(head) < 160:
            raise VolumeError(f"{path.name} cannot be read as Scanco AIM: it is too short")
        before, about, log_bytes = (struct.unpack_from(number, head, base + i * step)[0] for i in range(3))
        if (before, about) != ((40, 224) if wide else (20, 140)):
            raise VolumeError(f"{path.name} cannot be read as Scanco AIM: it does not begin as one")
        begin = base + before + about + log_bytes
        if not 0 <= log_bytes <= _MOST_LOG_BYTES or begin > size:
            raise VolumeError(f"{path.name} states a log of {log_bytes} bytes; it is damaged or truncated")
        at = base + before + (12 if wide else 20)
        (kind,) = struct.unpack_from("<i", head, at)
        numbers = [struct.unpack_from(number, head, at + 4 + i * step)[0] for i in range(24)]
        file.seek(base + before + about)
        log = _log(file.read(log_bytes))
    x, y, z = (
        [n * 1e-3 for n in numbers[21:24]]
        if wide
        else [_vax_float(head, at + 4 + i * step) * 1e3 for i in range(21, 24)]
    )
    position = numbers[:3]
    return _Aim(
        kind=kind,
        shape=shape_of(path.name, numbers[3:6][::-1]),
        spacing_um=(z, y, x),
        origin_um=(position[2] * z, position[1] * y, position[0] * x),
        begin=begin,
        int_bytes=step,
        log=log,
    )


def _vax_float(raw: bytes, at: int) -> float:
    """A VAX F float: IEEE's single with its 16-bit halves swapped and an exponent greater by two."""
    (value,) = struct.unpack("<f", raw[at + 2 : at + 4] + raw[at : at + 2])
    return float(str(np.float32(value * 0.25)))


def _log(raw: bytes) -> dict[str, str]:
    """The processing log's entries; key and value stand two or more spaces apart."""
    entries: dict[str, str] = {}
    for line in raw.decode("latin-1").splitlines():
        match = re.fullmatch(r"([^!].*?) {2,}(.*?)[\s\0]*", line)
        if match:
            entries[match[1].strip().lower()] = match[2]
    return entries


def _number(text: str) -> float:
    number = number_of(text)
    return math.nan if number is None else number


def _runs(path: Path, aim: _Aim) -> Iterator[bytes]:
    """The values of a run-length coded AIM: of bytes (length, value), or of two values that take turns."""
    todo = math.prod(aim.shape)
    with path.open("rb") as file:
        file.seek(aim.begin)
        size = int.from_bytes(file.read(aim.int_bytes), "little", signed=True) - aim.int_bytes
        if size < 2 or size > path.stat().st_size:
            raise VolumeError(f"{path.name} states {size} compressed bytes; it is damaged or truncated")
        turns, turn = file.read(2) if aim.kind == _BINARY_RUNS else b"", 0
        left = size - len(turns)
        while left > 0 and todo > 0:
            raw = np.frombuffer(file.read(min(left, 2 * _RUNS)), np.uint8)
            if not raw.size:
                return
            left -= raw.size
            if turns:
                ends = raw != 255
                states = (np.concatenate([[0], np.cumsum(ends)]) + turn) % 2
                lengths, values, turn = (
                    np.where(ends, raw, 254),
                    np.frombuffer(turns, np.uint8)[states[:-1]],
                    states[-1],
                )
            else:
                lengths, values = raw[: raw.size // 2 * 2 : 2], raw[1::2]
            block = np.repeat(values, lengths)[:todo]
            todo -= block.size
            yield block.tobytes()
