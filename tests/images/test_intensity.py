"""Peaks of grey values are found where materials were put, and named no further than their distances allow."""

import numpy as np
import pytest

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.images.intensity import AIR, AROUND, BONE, METAL, SOFT, describe, intensities, sparkline
from tomostain.io.volumes import read_volume
from tomostain.phantom.tissues import BONE as TISSUES_OF_BONE
from tomostain.phantom.tissues import IMPLANT, Tissue, is_any


def mixture(rng, materials, noise=0.03):
    """Grey values: {value: share} with Gaussian noise, bone's value being 1."""
    parts = [rng.normal(value, noise, int(share * 400_000)) for value, share in materials.items()]
    return rng.permutation(np.concatenate(parts)).astype(np.float32)


@pytest.mark.parametrize(
    ("materials", "names"),
    [
        ({0.0: 0.5, 0.2: 0.2, 1.0: 0.25, 3.0: 0.05}, [AROUND, SOFT, BONE, METAL]),
        ({0.0: 0.6, 0.2: 0.1, 1.0: 0.29, 3.0: 0.01}, [None] * 4),
        ({0.0: 0.5, 0.2: 0.3, 1.0: 0.2}, [None] * 3),
        ({0.2: 0.5, 1.0: 0.4, 8.0: 0.1}, [None] * 3),
        ({0.0: 0.4, 0.2: 0.2, 1.0: 0.2, 1.5: 0.2}, [None] * 4),
        ({0.0: 0.6, 1.0: 0.4}, [None] * 2),
        ({0.0: 0.6, 0.6: 0.2, 1.0: 0.2}, [None] * 3),
        ({0.5: 1.0}, [None]),
    ],
)
def test_peaks_lie_at_the_materials_and_are_named_only_where_they_fit_one_story(rng, materials, names):
    found = describe(mixture(rng, materials)).peaks
    assert [peak.material for peak in found] == names
    for peak, (value, share) in zip(found, materials.items(), strict=True):
        assert peak.value == pytest.approx(value, abs=0.03)
        assert peak.share == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("materials", "names"),
    [
        ({0.27: 0.4, 1.43: 0.4, 11.5: 0.2}, [SOFT, BONE, METAL]),
        ({0.0: 0.3, 0.27: 0.2, 1.43: 0.3, 11.5: 0.2}, [AIR, SOFT, BONE, METAL]),
        ({0.27: 0.4, 1.2: 0.3, 2.1: 0.1, 11.5: 0.2}, [SOFT, None, None, METAL]),
        ({0.27: 0.4, 1.43: 0.38, 5.9: 0.02, 11.5: 0.2}, [SOFT, BONE, None, METAL]),
        ({0.27: 0.4, 1.43: 0.6}, [None, None]),
        ({0.27: 0.4, 1.43: 0.3, 2.4: 0.3}, [None] * 3),
        ({1.43: 0.8, 11.5: 0.2}, [None, None]),
        ({0.27: 0.4, 0.45: 0.3, 1.43: 0.3}, [None] * 3),
    ],
)
def test_attenuation_knows_where_zero_is_and_bone_is_named_only_beside_metal(rng, materials, names):
    values = mixture(rng, materials, noise=0.02)
    assert [peak.material for peak in describe(values, units="1/cm").peaks] == names
    scaled = describe(values / 10, units="1/mm").peaks
    assert [peak.material for peak in scaled] == names


@pytest.mark.parametrize(
    ("dtype", "scale", "shift"), [("uint8", 60, 30), ("uint16", 9000, 5000), ("int16", 6000, -1000)]
)
def test_integers_of_any_range_show_the_same_peaks(rng, dtype, scale, shift):
    values = mixture(rng, {0.0: 0.5, 0.25: 0.2, 1.0: 0.25, 3.0: 0.05}) * scale + shift
    found = describe(np.round(values).clip(0 if dtype[0] == "u" else None).astype(dtype)).peaks
    assert [peak.material for peak in found] == [AROUND, SOFT, BONE, METAL]
    assert [(peak.value - shift) / scale for peak in found] == pytest.approx([0, 0.25, 1, 3], abs=0.04)


def test_nan_is_counted_and_left_out(rng):
    values = mixture(rng, {0.0: 0.6, 1.0: 0.4})
    values[:40_000] = np.nan
    seen = describe(values)
    assert seen.unusable == pytest.approx(0.1)
    assert len(seen.peaks) == 2
    assert describe(np.full(10, np.nan)).peaks == ()


def test_only_a_bounded_sample_is_read(monkeypatch):
    monkeypatch.setattr("tomostain.images.sampling.SAMPLE_VOXELS", 10_000)
    read = []

    class Watched:
        shape, dtype = (500, 300, 400), np.dtype(np.uint16)

        def __getitem__(self, window):
            read.append([range(*part.indices(n)) for part, n in zip(window, self.shape, strict=True)])
            return np.ones([len(part) for part in read[-1]], np.uint16)

    seen = intensities(Volume(Watched(), Grid((500, 300, 400), (5, 5, 5)), "v"))
    assert seen.voxels <= 10_000
    assert len(read) == 24
    assert all(len(columns) == 400 for _, _, columns in read)
    assert (seen.low, seen.high) == (1, 1)


def test_sparkline_is_blank_for_none_and_full_for_most():
    assert sparkline(np.array([0, 2000, 1, 10_000_000]), width=4) == " ▁ █"


def test_what_is_named_in_phantoms_of_all_materials_is_what_the_labels_say(tmp_path):
    from tomostain.phantom.cohort import CohortRecipe, write_cohort

    recipe = CohortRecipe(specimens=4, slides=0, size=(24, 112, 112), seed=104)
    named = {}
    for specimen in write_cohort(tmp_path, recipe)["specimens"]:
        ct = read_volume(tmp_path / specimen["ct"])
        labels, values = read_volume(tmp_path / specimen["labels"])[:], ct[:]
        seen = intensities(ct)
        near = float(seen.edges[-1] - seen.edges[0]) / 100
        for peak in seen.peaks:
            if peak.material:
                found = labels[np.abs(values - peak.value) < near]
                share = {
                    BONE: is_any(found, TISSUES_OF_BONE).mean(),
                    METAL: (found == Tissue.METAL).mean(),
                    SOFT: 1 - is_any(found, TISSUES_OF_BONE | IMPLANT).mean(),
                }[peak.material]
                assert share > 0.6, (specimen["material"], peak)
                named.setdefault(specimen["material"], []).append(peak.material)
    assert named == {"Ti": [SOFT, BONE, METAL]}
