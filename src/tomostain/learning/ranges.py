"""Values and [-1, 1]: the declared ranges in which CT and colours reach a network, saved with the stainer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class CTRange:
    """CT values and their place in [-1, 1].

    ``low`` becomes -1 and ``high`` 1, linearly between. Nothing is clipped: beyond, unit values grow with the logarithm
    (1 + log u), so that titanium, ten times as bright as bone, stays apart without drowning bone in every loss.
    ``seen_low`` and ``seen_high`` are the extremes of training; colours outside them have not been tested.
    """

    low: float
    high: float
    units: str = ""
    seen_low: float | None = None
    seen_high: float | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a CT range needs two finite values, low < high; this one is {self.low} .. {self.high}")
        for seen in (self.seen_low, self.seen_high):
            if seen is not None and not np.isfinite(seen):
                raise ValueError(f"the extremes of a CT range must be finite, got {seen}")

    def to_unit(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """CT values of any type -> unit values, float32, same shape."""
        straight = (np.asarray(values, dtype=np.float32) - self.low) * (2.0 / (self.high - self.low)) - 1.0
        size = np.maximum(np.abs(straight), 1.0)
        unit: npt.NDArray[np.float32] = np.where(size > 1.0, np.sign(straight) * (1.0 + np.log(size)), straight)
        return unit.astype(np.float32)

    def from_unit(self, unit: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Unit values -> CT values, float32, the inverse of ``to_unit``."""
        size = np.abs(unit)
        straight = np.where(size > 1.0, np.sign(unit) * np.exp(np.maximum(size, 1.0) - 1.0), unit)
        values: npt.NDArray[np.float32] = ((straight + 1.0) * ((self.high - self.low) / 2.0) + self.low).astype(
            np.float32
        )
        return values

    @property
    def learnt(self) -> tuple[float, float]:
        """Lowest and highest CT value of training: the learnt range."""
        low = self.low if self.seen_low is None else self.seen_low
        high = self.high if self.seen_high is None else self.seen_high
        return low, high

    def outside(self, values: npt.NDArray[Any]) -> float:
        """The share of values outside the learnt range, or not finite."""
        low, high = self.learnt
        return float(1.0 - np.mean((values >= low) & (values <= high)))

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, for ``CTRange(**...)``."""
        return asdict(self)

    @classmethod
    def fit(
        cls,
        values: Iterable[npt.NDArray[Any]],
        *,
        percentiles: tuple[float, float] = (0.5, 99.5),
        units: str = "",
        per_image: int = 200_000,
    ) -> CTRange:
        """The range between two percentiles: the median, over the images, of each image's own.

        A few specimens with a very bright implant therefore do not flatten the tissue of all others. At most
        ``per_image`` evenly spaced values of an image are used for its percentiles; the extremes are exact.

        Raises
        ------
        ValueError
            There is no value, one is not finite, or all are (almost) the same.
        """
        samples, extremes = [], []
        for image in values:
            flat = np.asarray(image, dtype=np.float32).ravel()
            if not flat.size:
                continue
            if not np.isfinite(flat).all():
                raise ValueError("the CT has NaN or infinite values; mask or replace them before training")
            extremes.append((float(flat.min()), float(flat.max())))
            even = np.linspace(0, flat.size - 1, min(flat.size, per_image)).astype(np.int64)
            samples.append(np.percentile(flat[even], percentiles))
        if not samples:
            raise ValueError("there is no CT value to fit a range to; do the masks leave any pixel?")
        low, high = (float(v) for v in np.median(samples, axis=0))
        if not low < high:
            raise ValueError(f"the CT is constant ({low:g}) between its percentiles {percentiles}; nothing to learn")
        return cls(low, high, units, min(e[0] for e in extremes), max(e[1] for e in extremes))


def out_of_range(shares: Mapping[str, float], learnt: Sequence[float], *, limit: float) -> str | None:
    """The warning of CT values outside the learnt range, largest share first; None where all are below ``limit``."""
    far = sorted(((share, name) for name, share in shares.items() if share > limit), reverse=True)
    if not far:
        return None
    listed = ", ".join(f"{name} {share:.1%}" for share, name in far)
    return (
        f"CT values outside those of training ({learnt[0]:g} to {learnt[1]:g}): {listed}. "
        "The colours there have not been tested"
    )


def warn_out_of_range(shares: Mapping[str, float], learnt: Sequence[float], *, limit: float) -> None:
    """Warn as ``out_of_range`` says."""
    sentence = out_of_range(shares, learnt, limit=limit)
    if sentence is not None:
        warnings.warn(sentence, stacklevel=3)


class RGBRange:
    """uint8 colours and their place in [-1, 1]: 0 is -1, 255 is 1."""

    @staticmethod
    def to_unit(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 -> float32 in [-1, 1], same shape."""
        unit: npt.NDArray[np.float32] = rgb.astype(np.float32) / np.float32(127.5) - np.float32(1.0)
        return unit

    @staticmethod
    def from_unit(unit: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Float in [-1, 1] (clipped) -> uint8, rounded half up, same shape.

        Raises
        ------
        ValueError
            A value is NaN or infinite.
        """
        if not np.isfinite(unit).all():
            raise ValueError("the network's output has NaN or infinite values: its weights are damaged; train it again")
        rounded: npt.NDArray[np.uint8] = np.floor(np.clip((unit + 1.0) * 127.5, 0.0, 255.0) + 0.5).astype(np.uint8)
        return rounded


def luminance(unit_rgb: Tensor) -> Tensor:
    """Grey of colours in [-1, 1], by Rec. 601 weights on the coded values: (b, 3, y, x) -> (b, 1, y, x)."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=unit_rgb.dtype, device=unit_rgb.device)
    return (unit_rgb * weights[:, None, None]).sum(dim=1, keepdim=True)
