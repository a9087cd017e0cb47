"""Whether two pictures have enough contrast to be scored: the contrast of CT and virtual stain where they are compared.

Contrast is the distance between the 5th and the 95th percentile, so that a few bright pixels do not make a flat picture
pass. A stainer that gets CT values of another scale predicts one colour everywhere, and its scores then mean nothing.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

FLAT = 0.1
"""Share of the contrast to be expected below which a picture is flat; trained networks reach 0.7 and more."""
MOSTLY = 0.75
"""Share of CT values outside the stainer's range above which the CT has another scale. Sections with the largest
titanium implants of the phantom have 0.3."""


class Window(Protocol):
    """The CT values between which a stainer distinguishes tissues (``tomostain.learning.ranges.CTRange`` is one)."""

    @property
    def low(self) -> float:
        """CT value that becomes -1."""

    @property
    def high(self) -> float:
        """CT value that becomes 1."""


def contrast(values: npt.NDArray[Any]) -> float:
    """Distance between the 5th and the 95th percentile of values (n,), or the largest over the colours of (n, 3)."""
    low, high = np.percentile(values, (5, 95), axis=0)
    return float(np.max(high - low))


def flaw_of(
    ct: npt.NDArray[np.floating[Any]],
    predicted: npt.NDArray[np.uint8],
    real: npt.NDArray[np.uint8],
    window: Window,
) -> str | None:
    """Why a pair cannot be scored, as part of a sentence; None where it can.

    ``ct`` (n,) CT values, ``predicted`` and ``real`` (n, 3) colours of the same pixels, ``window`` the stainer's range.
    """
    if contrast(real) == 0:
        return None
    outside = float(np.mean((ct < window.low) | (ct > window.high)))
    if outside > MOSTLY:
        return f"{outside:.0%} of the CT values lie outside the stainer's range of {window.low:g} to {window.high:g}"
    if contrast(np.clip(ct, window.low, window.high)) < FLAT * (window.high - window.low):
        return f"the CT has no contrast in the stainer's range of {window.low:g} to {window.high:g}"
    if contrast(predicted) < FLAT * contrast(real):
        return "the virtual stain has no contrast"
    return None
