"""Soft tissue and bone are found in any units, and a scan is mapped only where it does not fit as it is."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import ndimage

from tomostain.images.anchors import Anchors, GreyMap, find_anchors, find_map, fit_scale
from tomostain.images.geometry import Grid
from tomostain.images.grey_values import GreyValues
from tomostain.images.image import Volume
from tomostain.phantom.attenuation import attenuation
from tomostain.phantom.tissues import Tissue

SOFT, BONE = (float(attenuation("Ti", 38.0)[tissue]) for tissue in (Tissue.MARROW, Tissue.LAMELLAR))
NOISE = 0.1


def specimen(material, seed=0, *, bone=0.5, metal=0.12, air=0.0):
    """CT planes (1/cm) of soft tissue, old and woven bone, an implant and air, blurred and with a scan's noise."""
    rng = np.random.default_rng([seed, len(material)])
    mu = attenuation(material, 38.0)
    field = ndimage.gaussian_filter(rng.standard_normal((240, 240)), 6.0)
    edge = np.quantile(field, 1.0 - bone)
    ct = np.where(field > edge, mu[Tissue.LAMELLAR], mu[Tissue.MARROW])
    ct = np.where((field > edge) & (field < edge + 0.3 * field.std()), mu[Tissue.WOVEN], ct)
    y, x = np.indices(ct.shape)
    ct = np.where(np.hypot(y - 120, x - 100) / 240 < np.sqrt(metal / np.pi), mu[Tissue.METAL], ct)
    ct[:, : round(240 * air)] = 0.0
    return [ndimage.gaussian_filter(ct, 0.7) + NOISE * rng.standard_normal(ct.shape) for _ in range(2)]


def window(low, high, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return lambda planes: [np.clip(np.rint((p - low) / (high - low) * top), 0, top).astype(dtype) for p in planes]


SCALES = {
    "1/mm": lambda planes: [p / 10 for p in planes],
    "16 bits": window(-2, 14, np.uint16),
    "a window of bone": window(-0.5, 3),
    "a narrow window": window(0, 2),
    "a wide window": window(-0.2, 8),
}
ENDS = {"1/mm": (0, 10), "16 bits": (-2, 14), "a window of bone": (-0.5, 3), "a narrow window": (0, 2)}
TOPS = {"1/mm": 1, "16 bits": 65535}


def stored(scale, value):
    """Where a value in 1/cm lies on a scale."""
    low, high = ENDS.get(scale, (-0.2, 8))
    return (value - low) / (high - low) * TOPS.get(scale, 255)


def values_of(planes):
    return GreyValues.of(np.stack(planes))


def known(*materials):
    return {f"S{i}": values_of(specimen(m, 100 + i)) for i, m in enumerate(materials)}


@pytest.mark.parametrize("material", ["Ti", "PEEK", "Mg-5Gd", "Mg-10Gd"])
@pytest.mark.parametrize("scale", [None, *SCALES])
def test_soft_tissue_and_old_bone_are_found_in_any_units_beside_any_implant(material, scale):
    planes = SCALES[scale](specimen(material)) if scale else specimen(material)
    soft, bone = (stored(scale, value) if scale else value for value in (SOFT, BONE))
    found = find_anchors(planes)[0]
    assert abs(found.soft - soft) < 0.03 * (bone - soft)
    assert abs(found.bone - bone) < 0.03 * (bone - soft)


@pytest.mark.parametrize(("material", "air"), [("PEEK", 0.3), ("Mg-5Gd", 0.3), ("Ti", 0.3), ("Ti", 0.0), ("PEEK", 0.0)])
def test_air_is_no_soft_tissue_where_the_units_say_what_zero_is(material, air):
    found = find_anchors(specimen(material, air=air), units="1/cm")[0]
    assert (found.soft, found.bone) == (pytest.approx(SOFT, abs=0.04), pytest.approx(BONE, abs=0.04))


def test_a_plane_of_one_material_or_of_few_pixels_has_no_anchors():
    rng = np.random.default_rng(0)
    assert find_anchors([0.3 + 0.05 * rng.standard_normal((200, 200))]) == ()
    assert find_anchors([np.full((200, 200), 7, np.uint8)]) == ()
    assert find_anchors([plane[:60, :60] for plane in specimen("Ti")]) == ()
    assert find_anchors([]) == ()


@pytest.mark.parametrize("material", ["Ti", "PEEK", "Mg-5Gd", "Mg-10Gd"])
def test_a_scan_of_the_same_units_is_not_touched_and_another_is_mapped_onto_them(material):
    others = known("Ti", "PEEK", "Mg-5Gd", "Mg-10Gd")
    planes, target = specimen(material, 7), Anchors(SOFT, BONE)
    assert find_map(others, target, values_of(planes), find_anchors(planes)) == GreyMap()
    for scale, stored_as in SCALES.items():
        scan = stored_as(planes)
        grey_map = find_map(others, target, values_of(scan), find_anchors(scan))
        for value in (SOFT, BONE):
            mapped = float(grey_map(np.array([stored(scale, value)]))[0])
            assert abs(mapped - value) < 0.03 * (BONE - SOFT), (scale, value)


def test_an_imprecise_or_wrong_peak_changes_no_scan_that_fits():
    others, planes = known("Ti", "PEEK", "Mg-5Gd"), specimen("Mg-5Gd", 7)
    wrong = [Anchors(SOFT, 0.8 * BONE), Anchors(SOFT + 0.06, BONE - 0.06), Anchors(BONE, 1.7)]
    assert find_map(others, Anchors(SOFT, BONE), values_of(planes), wrong) == GreyMap()


def test_the_identity_changes_no_bit_and_a_map_is_a_straight_line():
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert GreyMap()(values) is not None
    np.testing.assert_array_equal(GreyMap()(values), values)
    volume = Volume(values.reshape(10, 10, 10), Grid((10, 10, 10), (5, 5, 5)), "ct", about={"units": "1/cm"})
    assert GreyMap().of(volume) is volume
    grey_map = Anchors(41, 127).onto(Anchors(SOFT, BONE))
    np.testing.assert_allclose(grey_map(np.array([41, 127, 255])), [SOFT, BONE, BONE + (BONE - SOFT) * 128 / 86])
    mapped = grey_map.of(volume)
    np.testing.assert_array_equal(mapped[2:4], grey_map(volume[2:4]))
    assert "units" not in mapped.about


def test_anchors_that_are_given_are_used_whatever_is_found(caplog):
    others, planes = known("PEEK"), specimen("PEEK", 7)
    with caplog.at_level("INFO", logger="tomostain"), warnings.catch_warnings(action="ignore"):
        given = Anchors(0.9 * SOFT, 0.9 * BONE)
        grey_map = fit_scale(others, Anchors(SOFT, BONE), values_of(planes), find_anchors(planes), "ct", given=given)
    assert grey_map == given.onto(Anchors(SOFT, BONE))
    assert "ct: grey values are mapped onto those of the training: 1.111 x value" in caplog.text
    with pytest.raises(ValueError, match="the stainer has no anchors"):
        fit_scale(others, None, values_of(planes), (), "ct", given=given)


def test_what_cannot_be_mapped_is_refused_with_what_to_do():
    others, target = known("PEEK", "Mg-5Gd"), Anchors(SOFT, BONE)
    scan = window(-0.5, 3)(specimen("PEEK", 7))
    with pytest.raises(ValueError, match=r"no peaks of soft tissue and of bone stand out; pass --anchors SOFT BONE"):
        fit_scale(others, target, values_of(scan), (), "ct")
    with pytest.raises(ValueError, match="the stainer does not know its anchors"):
        fit_scale(others, None, values_of(scan), find_anchors(scan), "ct")
    inverted = [255 - plane for plane in window(-0.2, 1.8)(specimen("Mg-5Gd", 7))]
    with pytest.raises(ValueError, match=r"grey values of ct .*pass --anchors SOFT BONE"):
        fit_scale(others, target, values_of(inverted), find_anchors(inverted), "ct")
    with pytest.warns(UserWarning, match="grey values of ct"):
        assert fit_scale(others, target, values_of(scan), find_anchors(scan), "ct", any_values=True) == GreyMap()


@pytest.mark.parametrize("values", [(127, 41), (41, 41), (np.nan, 3)])
def test_anchors_that_are_none_are_refused(values):
    with pytest.raises(ValueError, match="the smaller first"):
        Anchors(*values)
