"""Grey values of the phantom's tissues: those of one study belong together, other units and inverted ones do not."""

import numpy as np
import pytest
from scipy import ndimage

from tomostain.images.grey_values import GreyValues, check_together, check_values, groups, mismatch
from tomostain.phantom.attenuation import attenuation
from tomostain.phantom.tissues import Tissue

MATERIALS = ("Ti", "PEEK", "Mg-5Gd", "Mg-10Gd")


def specimen(material, seed=0, *, bone=0.5, metal=0.12, air=0.0, noise=0.03):
    """Grey values (1/cm) of a plane: soft tissue, bone, an implant and air, blurred by half a voxel, with noise."""
    rng = np.random.default_rng([seed, MATERIALS.index(material)])
    mu = attenuation(material, 38.0)
    field = ndimage.gaussian_filter(rng.standard_normal((200, 200)), 6.0)
    ct = np.where(field > np.quantile(field, 1.0 - bone), mu[Tissue.LAMELLAR], mu[Tissue.MARROW])
    woven = np.abs(field - np.quantile(field, 1.0 - bone)) < 0.1 * field.std()
    ct = np.where(woven & (ct > 1), mu[Tissue.WOVEN], ct)
    y, x = np.indices(ct.shape)
    r = np.hypot(y - 100, x - 90) / 200
    ct = np.where(r < np.sqrt(metal / np.pi), mu[Tissue.METAL], ct)
    ct[:, : round(200 * air)] = 0.0
    return ndimage.gaussian_filter(ct, 0.7) + noise * rng.standard_normal(ct.shape)


def known(*materials, **more):
    return {f"S{i}": GreyValues.of(specimen(m, 100 + i, **more)) for i, m in enumerate(materials)}


def windowed(values, low=-0.2, high=2.5, most=255):
    return np.floor(np.clip((values - low) / (high - low), 0, 1) * most)


OTHERS = {
    "1/mm": lambda v: 0.1 * v,
    "per pixel": lambda v: 5e-4 * v,
    "a hundred times": lambda v: 100 * v,
    "8-bit window": windowed,
    "wide 8-bit window": lambda v: windowed(v, -0.5, 13),
    "16-bit window": lambda v: windowed(v, most=65535),
    "window of 0 to 1": lambda v: windowed(v, most=1e6) / 1e6,
    "Hounsfield units": lambda v: (v / 0.27 - 1) * 1000,
    "inverted": lambda v: 2.3 - v,
    "negative": lambda v: -v,
    "inverted 8-bit window": lambda v: 255 - windowed(v),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("material", MATERIALS)
def test_a_ct_in_other_units_is_refused(other, material):
    found = mismatch(known(*MATERIALS), GreyValues.of(OTHERS[other](specimen(material, 7))))
    assert found is not None
    assert found.certain


@pytest.mark.parametrize("change", [lambda v: v, windowed, lambda v: 0.1 * v, lambda v: (v / 0.27 - 1) * 1000])
@pytest.mark.parametrize("learnt", MATERIALS)
@pytest.mark.parametrize("material", MATERIALS)
def test_another_implant_is_not_refused_whatever_the_units(learnt, material, change):
    specimens = {"S": GreyValues.of(change(specimen(learnt, 3)))}
    found = mismatch(specimens, GreyValues.of(change(specimen(material, 8))))
    assert found is None or not found.certain


@pytest.mark.parametrize(
    "more",
    [{"bone": 0.1}, {"bone": 0.9}, {"metal": 0.001}, {"air": 0.9}, {"air": 0.4, "metal": 0.3}, {"noise": 0.12}],
    ids=str,
)
@pytest.mark.parametrize("material", MATERIALS)
def test_less_bone_more_metal_air_or_noise_are_no_other_units(material, more):
    found = mismatch(known(*MATERIALS), GreyValues.of(specimen(material, 9, **more)))
    assert found is None or not found.certain


def test_the_sentence_names_both_ranges_and_what_to_do():
    new = GreyValues.of(100 * specimen("PEEK", 5))
    with pytest.raises(
        ValueError, match=r"of ct\.nrrd run from 21\.\d to 150, .* from 0\.213 to 1\.5; the CT may"
    ) as told:
        check_values(known("PEEK"), new, "ct.nrrd", any_values=False)
    assert "--any-values" in str(told.value)
    with pytest.warns(UserWarning, match=r"grey values of ct\.nrrd run from"):
        check_values(known("PEEK"), new, "ct.nrrd", any_values=True)
    check_values({}, new, "ct.nrrd", any_values=False)


def test_the_specimen_in_other_units_stands_apart_and_is_named():
    specimens = known(*MATERIALS)
    assert groups(specimens) == [["S0", "S1", "S2", "S3"]]
    check_together(specimens, any_values=False)
    specimens["B"] = GreyValues.of(100 * specimen("PEEK", 5))
    specimens["C"] = GreyValues.of(2.3 - specimen("PEEK", 6))
    assert groups(specimens) == [["S0", "S1", "S2", "S3"], ["B"], ["C"]]
    with pytest.raises(ValueError, match=r"with those of S0, S1, S2, S3 \(.*\): B \(21\.\d to 150\); C \("):
        check_together(specimens, any_values=False)
    with pytest.warns(UserWarning, match="do not overlap"):
        check_together(specimens, any_values=True)


def test_a_specimen_of_one_material_cannot_be_judged_and_is_not_refused():
    rng = np.random.default_rng(0)
    specimens = known("PEEK", "Ti", air=0.2)
    for at in (0.0, 0.27, 1.45):
        new = GreyValues.of(rng.normal(at, 0.03, (100, 100)))
        assert new.is_one_material
        found = mismatch(specimens, new)
        assert found is not None
        assert not found.certain
        assert groups({**specimens, "B": new}) == [["B", "S0", "S1"]]
        assert mismatch(specimens, GreyValues.of(rng.normal(100 + at, 0.03, (100, 100)))).certain
    assert not any(values.is_one_material for values in specimens.values())


def test_grey_values_are_those_of_the_array_and_survive_json():
    values = GreyValues.of(np.linspace(0.0, 1.0, 5001))
    assert (values.quantiles[0], values.quantiles[100], values.quantiles[-1]) == (0.0, 0.5, 1.0)
    assert (values.low, values.high) == (0.005, 0.995)
    assert GreyValues.from_json(values.to_json()) == values
    assert GreyValues.of(np.full(9, 3.0)) is None
    assert GreyValues.of(np.array([np.nan, np.inf])) is None
    for wrong in ([1.0, 2.0], [0.0] * 201, [*range(200), float("nan")], list(range(201, 0, -1))):
        with pytest.raises(ValueError, match="quantiles"):
            GreyValues.from_json(wrong)
