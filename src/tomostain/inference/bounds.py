"""How far from fp32 an arithmetic may take the colours: derived from its rounding, not from what a machine printed.

A layer adds up products of rounded inputs and rounded weights. Let r be the root mean square of the relative rounding
error of one value. Rounding errors of different values are independent, so one layer changes its output by about
sqrt(2) r of the output's own size (input and weight of each product), and a chain of L layers, in which noise is passed
on as the signal is, by sqrt(2 L) r (Higham & Mary 2019, probabilistic rounding error analysis). The last layer is
tanh: it turns a relative change d of its argument a into |a| (1 - tanh(a)^2) d, at most 0.4477 d, and one count of 255
is 2 / 255 of its output. So the error before rounding to whole counts has at most the standard deviation

    s = 127.5 x 0.4477 x sqrt(2 L) r = 57.1 sqrt(2 L) r    counts.

Rounding to whole counts leaves the mean absolute difference as it is (0.80 s for a normal error), and a difference of
d becomes at most ceil(d) counts. A volume has up to 10^9 values, of which one is beyond 6 s: the largest difference is
ceil(6 s). L is 25 for the deepest network that ships as default (ResNet-9).
"""

from __future__ import annotations

import math

from tomostain.inference.predictor import Bound

LAYERS = 25
_TANH_GAIN = 0.4477
_LARGEST = 6.0
_TERMS = 256 * 9
_FAST_ALGORITHMS = 10.0
"""How much more rounding fast convolutions (Winograd's, as libraries may use) have than plain sums."""


def bound_of(relative_error: float, *, layers: int = LAYERS, largest: float = _LARGEST) -> Bound:
    """The bound for an arithmetic whose values have this root mean square relative rounding error."""
    deviation = 127.5 * _TANH_GAIN * math.sqrt(2 * layers) * relative_error
    return Bound(math.sqrt(2 / math.pi) * deviation, math.ceil(largest * deviation))


_OF_ROUNDOFF = 0.425
"""Root mean square of relative rounding errors, in units of the largest: evenly spread, mantissas from 1 to 2."""

FP32 = bound_of(_FAST_ALGORITHMS * math.sqrt(_TERMS) * _OF_ROUNDOFF * 2.0**-24)
"""24 bits. Libraries differ in the order in which they add up, here up to 256 x 9 terms; the rounding error of a sum
grows with the square root of their number."""

BF16 = bound_of(_OF_ROUNDOFF * 2.0**-8)
"""8 bits; sums are kept in fp32."""

_PEAK, _WEIGHT_PEAK = 6.0, 3.5
_LONG_TAIL = math.log(1e6) / math.sqrt(2)
"""Standard deviations that one of a million values of a Laplace distribution exceeds: inputs beyond the calibrated ones
are clipped, so the errors of 8-bit integers have longer tails than a normal distribution."""
INT8 = bound_of(math.hypot(2 * _PEAK / 255, 2 * _WEIGHT_PEAK / 127) / math.sqrt(12) / math.sqrt(2), largest=_LONG_TAIL)
"""255 steps over a layer's inputs, whose largest value is about 6 times their root mean square, and 127 over its
weights, whose largest is about 3.5 times theirs (7 bits: on processors without VNNI, 8 would overflow)."""
