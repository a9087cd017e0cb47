from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from tomostain.images.geometry import Grid
from tomostain.learning.augment import NO_AUGMENT, Augment
from tomostain.learning.patches import PatchDataset, evenly
from tomostain.learning.ranges import CTRange, RGBRange
from tomostain.pairs.pair import Pair

RANGE = CTRange(0.0, 3.0)
ONLY_MOVED = Augment(warp_share=1, ct_gain=0, ct_offset=0, ct_noise=0, ct_blur_px=0, stain_strength=0, stain_balance=0)


def dataset(pairs, *, augment=NO_AUGMENT, seed=0, patch_px=32, **more):
    return PatchDataset(pairs, ct_range=RANGE, patch_px=patch_px, augment=augment, seed=seed, **more)


def twins(shape=(120, 130)):
    """A pair whose stain is its CT, as grey, so that whatever moves one must move the other."""
    y, x = np.indices(shape)
    grey = (127.5 + 60 * np.sin(y / 7.0) + 60 * np.cos(x / 9.0)).astype(np.uint8)
    return Pair(
        ct=(grey / 255.0 * 3.0).astype(np.float32)[None],
        stain=np.repeat(grey[..., None], 3, axis=2),
        mask=np.ones(shape, bool),
        confidence=(grey / 255.0).astype(np.float32),
        grid=Grid(shape, (5.0, 5.0)),
        specimen="S",
        name="twins",
    )


def equal(one, other):
    return all(torch.equal(getattr(one, n), getattr(other, n)) for n in ("ct", "stain", "weight"))


def test_a_patch_depends_on_seed_and_index_alone(pairs):
    first = dataset(pairs, augment=Augment())
    later = [first[i] for i in (7, 3, 7)]
    again = dataset(pairs, augment=Augment())
    assert equal(later[0], again[7])
    assert equal(later[0], later[2])
    assert not equal(later[0], later[1])
    assert not equal(later[0], dataset(pairs, augment=Augment(), seed=1)[7])


def test_one_draw_moves_ct_stain_and_confidence_alike():
    patches = dataset([twins()], augment=ONLY_MOVED, patch_px=48)
    for index in range(20):
        patch = patches[index]
        inside = patch.weight[0] > 0
        assert inside.float().mean() > 0.4
        for channel in range(3):
            off = (patch.stain[channel] - patch.ct[0])[inside].abs()
            assert off.max() < 0.03  # CT is interpolated in its values, colours as light
        assert (patch.weight[0] * 2 - 1 - patch.ct[0])[inside].abs().max() < 0.03


def test_unvaried_patches_are_the_pair_s_own_pixels(make_pair):
    pair = make_pair(0, noise=0.0)
    patch = dataset([pair])[4]
    colours = {tuple(c) for c in pair.stain[pair.mask]}
    shown = RGBRange.from_unit(patch.stain.numpy()[:, patch.weight[0].numpy() > 0].T)
    assert {tuple(c) for c in shown} <= colours
    np.testing.assert_allclose(patch.weight.unique().numpy(), [0, 0.9], atol=1e-6) if 0 in patch.weight else None


def test_specimens_take_turns_however_many_pairs_they_have(make_pair):
    pairs = [make_pair(i, specimen="many") for i in range(5)] + [make_pair(9, specimen="one")]
    patches = dataset(pairs)
    seen = Counter()
    for pair in pairs:
        object.__setattr__(pair, "ct", np.full_like(pair.ct, 1.0 if pair.specimen == "one" else 2.0))
    for index in range(40):
        seen[float(patches[index].ct.mean())] += 1
    assert sorted(seen.values()) == [20, 20]


def test_patches_prefer_places_with_weight(make_pair):
    pair = make_pair(1, shape=(160, 160), masked=False)
    pair.mask[:, 60:] = False
    shares = [float((dataset([pair], min_weight=0.6)[i].weight > 0).float().mean()) for i in range(60)]
    assert min(shares) > 0.5


def test_what_is_masked_is_nowhere_in_the_stain(make_pair):
    pair = make_pair(2)
    garbage = pair.stain.copy()
    garbage[~pair.mask] = 255 - garbage[~pair.mask]
    for augment in (NO_AUGMENT, Augment()):
        one, other = (dataset([p], augment=augment) for p in (pair, replace(pair, stain=garbage)))
        assert any((one[i].weight == 0).any() for i in range(12))
        for index in range(12):
            assert equal(one[index], other[index])
            assert (one[index].stain[:, one[index].weight[0] == 0] == 0).all()


def test_a_pair_smaller_than_the_patch_has_no_weight_outside(make_pair):
    patch = dataset([make_pair(3, shape=(20, 24), masked=False)])[0]
    assert patch.ct.shape == (1, 32, 32)
    assert 0 < int((patch.weight > 0).sum()) <= 20 * 24


def test_nan_outside_the_mask_does_not_reach_a_patch(make_pair):
    pair = make_pair(4)
    pair.ct[:, ~pair.mask] = np.nan
    assert all(torch.isfinite(dataset([pair], augment=Augment())[i].ct).all() for i in range(8))


def test_processes_share_the_patches_without_overlap(pairs):
    patches = dataset(pairs)
    halves = [patches.batch(5, 2, rank=rank, ranks=2) for rank in range(2)]
    whole = patches.batch(5, 4)
    assert torch.equal(torch.cat([half.ct for half in halves]), whole.ct)


def test_evenly_shows_different_specimens_first(pairs):
    shown = evenly(pairs, ct_range=RANGE, patch_px=32, count=3)
    assert shown.ct.shape == (3, 1, 32, 32)
    assert not torch.equal(shown.ct[0], shown.ct[1])
    assert (shown.weight > 0).float().mean() > 0.9
