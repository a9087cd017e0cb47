"""Haversian bone seen along its canals: a periodic map of osteons, from a seed to tables of what lies where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tomostain.phantom.fields import Float32, Float64, noise_at
from tomostain.phantom.implants import turns

_PITCH_UM = 205.0
"""Mean distance between the canals of one generation of osteons."""

_CEMENT_UM = 2.5
"""Width of a cement line; 1 to 5 um in human bone (Skedros et al. 2005)."""

PLAIN, CEMENT, CANAL = 0, 1, 2


@dataclass(frozen=True)
class Osteons:
    """Tables over (p, q) in 1 um steps: p across the cortex from ``start_um``, q along it with period ``q.shape[1]``.

    ``kind`` uint8 PLAIN, CEMENT or CANAL; ``owner`` int16, the osteon a place belongs to, -1 between osteons;
    ``radius_um`` float32, distance from the osteon's centre as its lamellae run, 0 between osteons; ``tone`` float32
    one per osteon in [-1, 1], how it takes the dye.
    """

    start_um: float
    kind: npt.NDArray[np.uint8]
    owner: npt.NDArray[np.int16]
    radius_um: Float32
    tone: Float32

    def index(self, p_um: Float32, q_um: Float32) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Where (p, q) is on the map, and the flat index into its tables (0 where it is not)."""
        row = np.floor(p_um - np.float32(self.start_um)).astype(np.int32)
        column = np.floor(q_um).astype(np.int32)
        rows, columns = self.kind.shape
        inside = (row >= 0) & (row < rows)
        row *= inside
        flat = row.astype(np.int64) * columns + (column & (columns - 1))
        return inside, flat


def make_osteons(
    inner_um: float, outer_um: float, reach_um: float, seed: int, *, canals: bool, cement: bool
) -> Osteons:
    """Fill a cortex from p = ``inner_um`` to ``outer_um`` with two generations of osteons, the younger over the older.

    Canals are 30 to 80 um wide, a few resorption spaces wider; osteons 150 to 260 um, of oval and uneven outline. The
    map repeats after the power of two that covers ``reach_um`` along q (at most 4096 um).
    """
    period = 512
    while period < min(reach_um, 4096):
        period *= 2
    rows = max(1, int(np.ceil(outer_um - inner_um)))
    kind = np.zeros((rows, period), dtype=np.uint8)
    owner = np.full((rows, period), -1, dtype=np.int16)
    radius = np.zeros((rows, period), dtype=np.float32)
    generator = np.random.default_rng([seed, 77])
    centres = [_centres(rows, period, generator) for _ in range(2)]
    every = np.concatenate(centres)
    cores = []
    for number, centre in enumerate(every):
        size, lean, stretch = generator.uniform(75, 130), generator.uniform(0, 1), generator.uniform(1.0, 1.45)
        canal = generator.uniform(15, 40) if generator.uniform() > 0.06 else generator.uniform(45, 80)
        size = min(max(size, canal + 35), centre[0] - 12, rows - 12 - centre[0])
        if size < canal + 15 and size < 50:
            continue
        canal = min(canal, size * 0.5)
        p, q = _window(centre, size * stretch, rows)
        away_p, away_q = p[:, None] - centre[0], q[None, :] - centre[1]
        round_about = _uneven(away_p, away_q, lean, stretch, seed, number)
        inside = round_about < size
        at = np.ix_(p.astype(np.int64), q.astype(np.int64) % period)
        owner[at] = np.where(inside, number, owner[at])
        radius[at] = np.where(inside, round_about, radius[at])
        rim = inside & (round_about > size - _CEMENT_UM) & cement
        kind[at] = np.where(inside, np.where(rim, CEMENT, PLAIN), kind[at]).astype(np.uint8)
        cores.append((number, at, round_about < canal))
    for number, at, core in cores if canals else ():
        if (owner[at][core] == number).all():
            kind[at] = np.where(core, CANAL, kind[at]).astype(np.uint8)
    tone = generator.uniform(-1, 1, size=len(every)).astype(np.float32)
    return Osteons(inner_um, kind, owner, radius, tone)


def _centres(rows: int, period: int, generator: np.random.Generator) -> Float64:
    """Centres (n, 2) of a jittered lattice that fits ``period``, every other row shifted."""
    across, along = max(1, round(rows / _PITCH_UM)), max(2, round(period / _PITCH_UM / 2) * 2)
    p, q = np.meshgrid((np.arange(across) + 0.5) * rows / across, np.arange(along) * period / along, indexing="ij")
    q = q + 0.5 * period / along * (np.arange(across) % 2)[:, None]
    shift = generator.uniform(-0.36, 0.36, size=(2, *p.shape)) * _PITCH_UM
    return np.stack([p + shift[0], q + shift[1]], axis=-1).reshape(-1, 2)


def _window(centre: Float64, reach_um: float, rows: int) -> tuple[Float64, Float64]:
    p = np.arange(max(0, int(centre[0] - reach_um)), min(rows, int(centre[0] + reach_um) + 2))
    q = np.arange(int(np.floor(centre[1] - reach_um)), int(centre[1] + reach_um) + 2)
    return p.astype(np.float64), q.astype(np.float64)


def _uneven(away_p: Float64, away_q: Float64, lean: float, stretch: float, seed: int, number: int) -> Float64:
    """Distance from an osteon's centre in which its outline is a circle: oval, and scalloped towards the rim."""
    cosine, sine = 1 - 2 * abs(2 * lean - 1), 2 * (lean - 0.5)
    length = (cosine * cosine + sine * sine) ** 0.5 or 1.0
    cosine, sine = cosine / length, sine / length
    first, second = away_p * cosine + away_q * sine, (away_q * cosine - away_p * sine) / stretch
    plain = np.sqrt(first * first + second * second)
    angle = turns(second, first)
    # noise read along a closed loop (a square, in steps of 1/256 of a turn), so that the outline closes on itself
    step = np.arange(256) / 256
    loop = np.stack(
        [np.full(256, number * 17.0), 2.6 - 10.4 * np.abs(step - 0.5), 2.6 - 10.4 * np.abs((step + 0.25) % 1 - 0.5)],
        axis=1,
    )
    bumps = noise_at(loop, 1.0, seed, 91)[np.minimum((angle * 256).astype(np.int64), 255)]
    uneven: Float64 = plain * (1 + 0.055 * bumps * np.clip(plain / 80, 0, 1))
    return uneven
