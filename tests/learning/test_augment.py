import numpy as np
import pytest

from tomostain.images.srgb import to_linear
from tomostain.learning.augment import NO_AUGMENT, Augment, coded, draw_map, flaw_ct, flaw_stain, warp

WARPED = Augment(warp_share=1.0, elastic_px=0.0, scale=1.0)


def smooth(shape=(90, 100)):
    y, x = np.indices(shape, dtype=np.float32)
    return np.stack([np.sin(y / 9) * np.cos(x / 11), y / 90 - x / 200]).astype(np.float32)


def test_a_rotation_keeps_distances_and_the_centre(rng):
    where = draw_map(rng, 33, WARPED)
    np.testing.assert_allclose(where[16, 16], 0.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(where[0, 16]), 16.0, atol=1e-4)
    np.testing.assert_allclose(where[0, 16] @ where[16, 0], 0.0, atol=1e-3)


def test_scale_stays_within_its_factor(rng):
    lengths = [
        np.linalg.norm(draw_map(rng, 33, Augment(warp_share=1, elastic_px=0, scale=1.3))[0, 16]) for _ in range(50)
    ]
    assert 16 / 1.3 <= min(lengths) < 14.5
    assert 17.5 < max(lengths) <= 16 * 1.3


def test_bending_is_as_strong_as_it_says_and_smooth(rng):
    straight = Augment(warp_share=1, rotation_deg=0, scale=1, elastic_px=0)
    bent = Augment(warp_share=1, rotation_deg=0, scale=1, elastic_px=2.0)
    moved = np.stack([draw_map(rng, 128, bent) - draw_map(rng, 128, straight) for _ in range(60)])
    assert moved.std() == pytest.approx(2.0, rel=0.1)
    assert np.abs(np.diff(moved, axis=1)).max() < 0.6


def test_warp_at_the_pixels_themselves_changes_nothing():
    images, weight = smooth(), np.ones((90, 100), np.float32)
    where = np.stack(np.meshgrid(np.arange(90), np.arange(100), indexing="ij"), axis=-1).astype(np.float32)
    moved, moved_weight = warp(images, weight, where)
    np.testing.assert_allclose(moved, images, atol=1e-4)
    np.testing.assert_allclose(moved_weight, 1.0, atol=1e-4)


def test_warp_takes_values_from_where_it_is_told():
    images, weight = smooth(), np.ones((90, 100), np.float32)
    where = np.stack(np.meshgrid(np.arange(10, 60) + 0.3, np.arange(20, 70) - 0.4, indexing="ij"), axis=-1)
    y, x = where[..., 0], where[..., 1]
    moved, _ = warp(images, weight, where.astype(np.float32))
    np.testing.assert_allclose(moved[0], np.sin(y / 9) * np.cos(x / 11), atol=6e-3)
    np.testing.assert_allclose(moved[1], y / 90 - x / 200, atol=1e-3)


def test_no_pixel_that_mixes_a_masked_one_keeps_weight():
    weight = np.ones((40, 40), np.float32)
    weight[10, 10] = 0.0
    where = np.stack(np.meshgrid(np.arange(40) + 0.5, np.arange(40) + 0.5, indexing="ij"), axis=-1).astype(np.float32)
    _, moved = warp(smooth((40, 40)), weight, where)
    assert (moved[8:12, 8:12] == 0).all()
    assert (moved[:8, :8] > 0.999).all()
    assert (moved[39] == 0).all()  # half a pixel outside the image


def test_ct_flaws_are_as_strong_as_they_say():
    flat = np.zeros((1, 64, 64), np.float32)
    noise = Augment(ct_gain=0, ct_offset=0, ct_noise=0.05, ct_blur_px=0)
    stds = [flaw_ct(np.random.default_rng(i), flat, noise).std() for i in range(200)]
    assert max(stds) <= 0.052
    assert np.mean(stds) == pytest.approx(0.025, rel=0.15)
    window = Augment(ct_gain=0.1, ct_offset=0.2, ct_noise=0, ct_blur_px=0)
    shown = np.array(
        [flaw_ct(np.random.default_rng(i), np.array([[[0.0, 1.0]]], np.float32), window).ravel() for i in range(3000)]
    )
    offsets, gains = shown[:, 0], np.log(shown[:, 1] - shown[:, 0])
    assert offsets.std() == pytest.approx(0.2 / 3, rel=0.1)
    assert gains.std() == pytest.approx(0.1 / 3, rel=0.1)
    assert np.median(abs(offsets)) < 0.1 * 0.2  # half of the patches hardly vary
    assert np.median(abs(gains)) < 0.1 * 0.1


def test_dye_strength_multiplies_optical_density_of_every_colour_alike():
    linear = np.array([0.9, 0.5, 0.1], np.float32).reshape(3, 1, 1)
    varied = flaw_stain(np.random.default_rng(3), linear, Augment(stain_strength=0.3, stain_balance=0))
    factors = np.log(varied) / np.log(linear)
    assert np.ptp(factors) < 1e-5
    assert abs(factors.mean() - 1) > 0.01


def test_without_augmentation_nothing_changes(rng):
    ct, linear = smooth()[None, 0], np.abs(smooth((8, 9)))[[0, 0, 0]]
    assert draw_map(rng, 32, NO_AUGMENT) is None
    np.testing.assert_array_equal(flaw_ct(rng, ct, NO_AUGMENT), ct)
    np.testing.assert_array_equal(flaw_stain(rng, linear, NO_AUGMENT), linear)


def test_coded_inverts_linear_light():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose((coded(to_linear(every)) + 1) * 127.5, every, atol=2e-4)


@pytest.mark.parametrize("wrong", [{"warp_share": 1.5}, {"scale": 0.9}, {"ct_noise": -1.0}])
def test_impossible_strengths_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augment(**wrong)


def test_a_factor_of_scale_below_one_is_refused():
    with pytest.raises(ValueError, match="scale must be at least 1"):
        Augment(scale=0.5)
