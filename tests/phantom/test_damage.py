"""Each damage does what it says, alone, and the mask tells where the picture is lost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tomostain.phantom.damage import DAMAGES, damage_slide

SHAPE = (600, 700)
LOSING = ("scratches", "folds", "tears", "missing", "bubbles", "focus")
KEEPING = ("dye", "grinding", "illumination", "white_balance", "noise")


def _light() -> npt.NDArray[np.float32]:
    """Blue tissue with dark stripes, so that blur, folds and shifts can be seen."""
    rows, columns = np.indices(SHAPE)
    stripes = 0.5 + 0.3 * np.sin(rows / 2.0) * np.sin(columns / 3.0)
    return (stripes[..., None] * np.asarray([0.3, 0.5, 0.9])).astype(np.float32)


def _only(name: str, seed: int, amount: float = 4.0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], int | None]:
    slide = damage_slide(_light(), pixel_um=1.0, seed=[seed], without=[n for n in DAMAGES if n != name], amount=amount)
    return slide.rgb, slide.lost, slide.jpeg_quality


CLEAN = damage_slide(_light(), pixel_um=1.0, seed=[0], without=["all"])


def test_without_all_nothing_happens() -> None:
    assert not CLEAN.lost.any()
    assert CLEAN.jpeg_quality is None
    again = damage_slide(_light(), pixel_um=1.0, seed=[99], without=list(DAMAGES))
    np.testing.assert_array_equal(again.rgb, CLEAN.rgb)


@pytest.mark.parametrize("name", LOSING)
def test_what_changes_the_picture_is_in_the_mask_and_nothing_else(name: str) -> None:
    changed_anywhere = False
    for seed in range(4):
        rgb, lost, _ = _only(name, seed, amount=12.0)
        changed = np.any(rgb != CLEAN.rgb, axis=-1)
        if name == "focus":  # weakly blurred margins are kept on purpose
            difference = np.abs(rgb.astype(int) - CLEAN.rgb).max(axis=-1)
            changed = difference > max(10, 0.8 * difference.max())
        assert not changed[~lost].any()
        changed_anywhere |= bool(changed.any())
        assert lost.mean() < 0.5
    assert changed_anywhere


@pytest.mark.parametrize("name", KEEPING)
def test_colour_and_light_change_the_picture_but_lose_nothing(name: str) -> None:
    rgb, lost, _ = _only(name, 3)
    assert not lost.any()
    assert (rgb != CLEAN.rgb).mean() > 0.1
    assert np.abs(rgb.astype(int) - CLEAN.rgb).mean() < 40


def test_a_fold_is_darker_and_a_tear_is_empty_glass() -> None:
    found = {"folds": False, "tears": False}
    for name in found:
        for seed in range(5):
            rgb, lost, _ = _only(name, seed, amount=12.0)
            if lost.sum() < 500:
                continue
            found[name] = True
            difference = rgb[lost].astype(int).mean() - CLEAN.rgb[lost].astype(int).mean()
            assert difference < -20 if name == "folds" else difference > 10
    assert all(found.values())


def test_blurred_zones_have_lost_their_detail() -> None:
    rgb, lost, _ = _only("focus", 1, amount=16.0)
    assert lost.any()
    assert rgb[lost][:, 1].std() < 0.6 * CLEAN.rgb[lost][:, 1].std()


def test_damages_draw_from_generators_of_their_own() -> None:
    whole = damage_slide(_light(), pixel_um=1.0, seed=[5], without=["noise", "jpeg"], amount=8.0)
    less = damage_slide(_light(), pixel_um=1.0, seed=[5], without=["noise", "jpeg", "dye", "tears"], amount=8.0)
    assert (less.lost & ~whole.lost).sum() == 0, (
        "the folds, bubbles and scratches of the same seed stay where they were"
    )


def test_the_same_seed_gives_the_same_slide() -> None:
    first, second = (damage_slide(_light(), pixel_um=1.0, seed=[1, 2]) for _ in range(2))
    np.testing.assert_array_equal(first.rgb, second.rgb)
    np.testing.assert_array_equal(first.lost, second.lost)
    assert first.jpeg_quality == second.jpeg_quality
    assert first.jpeg_quality is not None
    other = damage_slide(_light(), pixel_um=1.0, seed=[1, 3])
    assert np.any(other.rgb != first.rgb)


def test_dye_strength_scales_densities() -> None:
    light = np.full((8, 8, 3), 0.25, dtype=np.float32)
    rgb = damage_slide(light, pixel_um=1.0, seed=[2], without=[n for n in DAMAGES if n != "dye"]).rgb
    pale = damage_slide(np.full((8, 8, 3), 0.25, dtype=np.float32), pixel_um=1.0, seed=[2], without=["all"]).rgb
    glass = damage_slide(
        np.ones((8, 8, 3), np.float32), pixel_um=1.0, seed=[2], without=[n for n in DAMAGES if n != "dye"]
    )
    assert np.any(rgb != pale)
    assert np.all(glass.rgb == glass.rgb[0, 0, 0]), "no dye, no change: glass stays white"


def test_an_unknown_damage_is_refused_by_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="'folds'"):
        damage_slide(_light(), pixel_um=1.0, seed=[0], without=["fold"])
