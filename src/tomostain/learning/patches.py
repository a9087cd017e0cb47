"""Pairs -> patches: each patch is a pure function of (seed, index), so that a resumed training sees the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from tomostain.images.srgb import to_linear
from tomostain.learning.augment import Augment, coded, draw_map, flaw_ct, flaw_stain, warp
from tomostain.learning.ranges import CTRange, RGBRange
from tomostain.pairs.pair import Pair
from tomostain.pairs.splits import specimens_of

_COARSE_PX = 8
"""Patch centres are searched on a lattice this fine, then shifted at random by up to half of it."""


@dataclass(frozen=True, eq=False)
class Patch:
    """One or a batch of patches, in unit values.

    ``ct`` is ([b,] planes, y, x), ``stain`` ([b,] 3, y, x), ``weight`` ([b,] 1, y, x) in [0, 1]. Where the weight is 0
    the stain is 0 (mid grey), so that a pixel that must not be used has no influence.
    """

    ct: Tensor
    stain: Tensor
    weight: Tensor

    @property
    def central_ct(self) -> Tensor:
        """The CT plane that the stain lies in, ([b,] 1, y, x)."""
        middle = self.ct.shape[-3] // 2
        return self.ct[..., middle : middle + 1, :, :]

    def to(self, device: torch.device | str) -> Patch:
        """The same on a device."""
        return Patch(self.ct.to(device), self.stain.to(device), self.weight.to(device))


def stack(patches: Sequence[Patch]) -> Patch:
    """Single patches -> one batch."""
    return Patch(*(torch.stack([getattr(p, name) for p in patches]) for name in ("ct", "stain", "weight")))


class PatchDataset:
    """Patches of pairs, each specimen as often as any other, at places where there is something to learn.

    Parameters
    ----------
    pairs
        At least one; all with as many CT planes.
    ct_range
        How CT values become unit values.
    patch_px
        Edge length of a patch.
    augment
        How patches are varied.
    seed
        With the index, decides everything about a patch.
    min_weight
        Smallest mean weight of a patch's box; lowered for a pair that has no such place.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        ct_range: CTRange,
        patch_px: int,
        augment: Augment,
        seed: int,
        min_weight: float = 0.5,
    ) -> None:
        self.pairs, self.ct_range, self.patch_px, self.augment, self.seed = pairs, ct_range, patch_px, augment, seed
        self.weights = [pair.weight for pair in pairs]
        self.centres = [_centres(weight, patch_px, min_weight) for weight in self.weights]
        self.by_specimen = [
            [i for i, pair in enumerate(pairs) if pair.specimen == specimen] for specimen in specimens_of(pairs)
        ]

    def __getitem__(self, index: int) -> Patch:
        """Patch number ``index`` of an endless row; any block of as many patches as specimens holds each once."""
        round_, turn = divmod(index, len(self.by_specimen))
        order = np.random.default_rng([self.seed, 1, round_]).permutation(len(self.by_specimen))
        rng = np.random.default_rng([self.seed, 2, index])
        chosen = int(rng.choice(self.by_specimen[order[turn]]))
        centre = self.centres[chosen][rng.integers(len(self.centres[chosen]))]
        centre = centre + rng.integers(-_COARSE_PX // 2, _COARSE_PX // 2 + 1, size=2)
        ct, linear, weight = self._cut(chosen, centre, draw_map(rng, self.patch_px, self.augment))
        if self.augment.flip:
            turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
            ct, linear, weight = (_turned(image, turns, mirrored) for image in (ct, linear, weight))
        ct = flaw_ct(rng, self.ct_range.to_unit(ct), self.augment)
        stain = coded(flaw_stain(rng, linear, self.augment)) * (weight > 0)
        return Patch(*(torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in (ct, stain, weight[None])))

    def batch(self, step: int, size: int, *, rank: int = 0, ranks: int = 1) -> Patch:
        """What process ``rank`` of ``ranks`` learns from in a step: no patch is in two batches."""
        first = (step * ranks + rank) * size
        return stack([self[index] for index in range(first, first + size)])

    def _cut(
        self, chosen: int, centre: npt.NDArray[np.int64], offsets: npt.NDArray[np.float32] | None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """CT (planes, y, x) raw, stain (3, y, x) linear light, weight (y, x), from where the patch lies."""
        pair, weight = self.pairs[chosen], self.weights[chosen]
        if offsets is None:
            first, size = centre - self.patch_px // 2, (self.patch_px, self.patch_px)
        else:
            where = offsets + centre.astype(np.float32)
            first = np.floor(where.min(axis=(0, 1))).astype(np.int64) - 2
            last = np.ceil(where.max(axis=(0, 1))).astype(np.int64) + 3
            size = (int(last[0] - first[0]), int(last[1] - first[1]))
        ct, stain, box_weight = _box(pair, weight, first, size)
        linear = np.moveaxis(to_linear(stain), 2, 0)
        if offsets is None:
            return ct, linear, box_weight
        middle = float(ct.mean())
        images, moved_weight = warp(
            np.concatenate([ct - np.float32(middle), linear]), box_weight, where - first.astype(np.float32)
        )
        return images[: len(ct)] + np.float32(middle), np.clip(images[len(ct) :], 0.0, 1.0), moved_weight


def evenly(pairs: Sequence[Pair], *, ct_range: CTRange, patch_px: int, count: int) -> Patch:
    """Up to ``count`` unvaried patches of the highest weight, one of each of the first pairs round the specimens."""
    by_specimen = [[pair for pair in pairs if pair.specimen == name] for name in specimens_of(pairs)]
    rounds = range(max(len(group) for group in by_specimen))
    chosen = [group[turn] for turn in rounds for group in by_specimen if turn < len(group)][:count]
    patches = []
    for pair in chosen:
        centres = _centres(pair.weight, patch_px, 2.0)
        first = centres[len(centres) // 2] - patch_px // 2
        ct, stain, weight = _box(pair, pair.weight, first, (patch_px, patch_px))
        unit = np.moveaxis(RGBRange.to_unit(stain), 2, 0) * (weight > 0)
        arrays = (ct_range.to_unit(ct), unit, weight[None])
        patches.append(Patch(*(torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in arrays)))
    return stack(patches)


def _box(
    pair: Pair, weight: npt.NDArray[np.float32], first: npt.NDArray[np.int64], size: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The pair's pixels from ``first`` on, masked stain black; outside, the pair's edge repeats and the weight is 0."""
    rows, columns = (np.arange(f, f + n) for f, n in zip(first, size, strict=True))
    inside = [(i >= 0) & (i < n) for i, n in zip((rows, columns), weight.shape, strict=True)]
    y, x = (np.clip(i, 0, n - 1) for i, n in zip((rows, columns), weight.shape, strict=True))
    at = np.ix_(y, x)
    ct = pair.ct[:, at[0], at[1]]
    if not np.isfinite(ct).all():
        ct = np.where(np.isfinite(ct), ct, np.float32(np.median(pair.ct[:, pair.mask])))
    weights = weight[at]
    return ct, pair.stain[at] * (weights > 0)[..., None], weights * inside[0][:, None] * inside[1][None, :]


def _centres(weight: npt.NDArray[np.float32], patch_px: int, min_weight: float) -> npt.NDArray[np.int64]:
    """Places (n, 2) y, x around which the mean weight of a patch is at least ``min_weight``, or 0.9 of the best."""
    rows, columns = (np.arange(min(_COARSE_PX // 2, n // 2), n, _COARSE_PX) for n in weight.shape)
    mean = ndimage.uniform_filter(weight, patch_px, mode="constant")[np.ix_(rows, columns)]
    y, x = np.nonzero(mean >= min(min_weight, 0.9 * float(mean.max())))
    return np.stack([rows[y], columns[x]], axis=1).astype(np.int64)


def _turned(image: npt.NDArray[np.float32], turns: int, mirrored: bool) -> npt.NDArray[np.float32]:
    """The last two axes turned by quarters, then mirrored."""
    image = np.rot90(image, turns, axes=(-2, -1))
    return image[..., ::-1] if mirrored else image
