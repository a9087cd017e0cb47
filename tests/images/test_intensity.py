"""Peaks of grey values are found where materials were put, and named no further than their distances allow."""

import numpy as np
import pytest

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.images.intensity import AROUND, BONE, METAL, SOFT, UNTOLD, describe, intensities, sparkline


def mixture(rng, materials, noise=0.03):
    """Grey values: {value: share} with Gaussian noise, bone's value being 1."""
    parts = [rng.normal(value, noise, int(share * 400_000)) for value, share in materials.items()]
    return rng.permutation(np.concatenate(parts)).astype(np.float32)


@pytest.mark.parametrize(
    ("materials", "names"),
    [
        ({0.0: 0.5, 0.2: 0.2, 1.0: 0.25, 3.0: 0.05}, [AROUND, SOFT, BONE, METAL]),
        ({0.0: 0.5, 0.2: 0.3, 1.0: 0.2}, [AROUND, SOFT, BONE]),
        ({0.2: 0.5, 1.0: 0.4, 8.0: 0.1}, [AROUND, BONE, METAL]),
        ({0.0: 0.6, 1.0: 0.4}, [AROUND, UNTOLD]),
        ({0.0: 0.6, 0.6: 0.2, 1.0: 0.2}, [AROUND, UNTOLD, UNTOLD]),
        ({0.5: 1.0}, ["not told apart"]),
    ],
)
def test_peaks_lie_at_the_materials_and_are_named_by_their_distances(rng, materials, names):
    found = describe(mixture(rng, materials)).peaks
    assert [peak.believed for peak in found] == names
    for peak, (value, share) in zip(found, materials.items(), strict=True):
        assert peak.value == pytest.approx(value, abs=0.03)
        assert peak.share == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("dtype", "scale", "shift"), [("uint8", 60, 30), ("uint16", 9000, 5000), ("int16", 6000, -1000)]
)
def test_integers_of_any_range_show_the_same_peaks(rng, dtype, scale, shift):
    values = mixture(rng, {0.0: 0.5, 0.25: 0.2, 1.0: 0.25, 3.0: 0.05}) * scale + shift
    found = describe(np.round(values).clip(0 if dtype[0] == "u" else None).astype(dtype)).peaks
    assert [peak.believed for peak in found] == [AROUND, SOFT, BONE, METAL]
    assert [(peak.value - shift) / scale for peak in found] == pytest.approx([0, 0.25, 1, 3], abs=0.04)


def test_nan_is_counted_and_left_out(rng):
    values = mixture(rng, {0.0: 0.6, 1.0: 0.4})
    values[:40_000] = np.nan
    seen = describe(values)
    assert seen.unusable == pytest.approx(0.1)
    assert len(seen.peaks) == 2
    assert describe(np.full(10, np.nan)).peaks == ()


def test_only_a_bounded_sample_is_read(monkeypatch):
    monkeypatch.setattr("tomostain.images.intensity.SAMPLE_VOXELS", 10_000)
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


def test_phantom_with_a_titanium_screw_shows_resin_bone_and_metal(tmp_path):
    from tomostain import make_phantom, read_volume
    from tomostain.steps.phantom import PhantomRecipe

    recipe = PhantomRecipe(specimens=1, slides=1, size=(24, 128, 128), materials=("Ti",), weeks=(8.0,))
    make_phantom(tmp_path / "cohort", recipe=recipe)
    ct = read_volume(tmp_path / "cohort" / "S00" / "ct.ome.zarr")
    labels = read_volume(tmp_path / "cohort" / "S00" / "labels.ome.zarr")[:]
    values, found = ct[:], intensities(ct).peaks
    by_name = {peak.believed: max(found, key=lambda p: (p.believed == peak.believed, p.share)) for peak in found}
    assert list(by_name) == [AROUND, BONE, METAL]
    for name, tissue in ((AROUND, 4), (BONE, 1), (METAL, 8)):
        spread = values[labels == tissue].std()
        assert by_name[name].value == pytest.approx(
            float(np.median(values[labels == tissue])), abs=max(0.1, float(spread))
        )
