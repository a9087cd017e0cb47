import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from tomostain.images.geometry import Grid
from tomostain.phantom.anatomy import AnatomyRecipe, make_anatomy
from tomostain.phantom.attenuation import attenuation, electron_density
from tomostain.phantom.projection import Projector
from tomostain.phantom.tissues import Tissue
from tomostain.phantom.tomography import Tomograph, TomographyRecipe, majority, simulate, slabs

GRID = Grid((64, 96, 96), (5.0, 5.0, 5.0))
CLEAN = TomographyRecipe(photons=0, gain_error=0, phase_contrast=0, psf_sigma_px=0)


@pytest.fixture(scope="module")
def fine():
    anatomy = make_anatomy(AnatomyRecipe(), GRID, 0)
    part = Grid((4, 192, 192), (2.5,) * 3, (100 - 1.25, -1.25, -1.25))
    return anatomy.labels(part)


def discs(size: int, *places: tuple[float, float, float], tissue: Tissue, depth: int = 2) -> np.ndarray:
    """Fine labels of resin with upright cylinders (y, x, radius in CT px)."""
    y, x = (np.mgrid[: 2 * size, : 2 * size] + 0.5) / 2 - 0.5
    labels = np.full((2 * depth, 2 * size, 2 * size), Tissue.RESIN, dtype=np.uint8)
    for at_y, at_x, radius in places:
        labels[:, np.hypot(y - at_y, x - at_x) < radius] = tissue
    return labels


def scanned(labels, recipe, material="Ti", seed=0, z0=0, voxel_um=5.0):
    size = labels.shape[1] // 2
    return Tomograph(recipe, Grid((64, size, size), (voxel_um,) * 3), seed, material).scan(labels, z0)


@pytest.mark.parametrize(
    ("tissue", "material", "per_cm"),
    [
        (Tissue.RESIN, "Ti", 0.29),
        (Tissue.MARROW, "Ti", 0.29),
        (Tissue.ADIPOCYTE, "Ti", 0.22),
        (Tissue.LAMELLAR, "Ti", 1.4),
        (Tissue.WOVEN, "Ti", 1.18),
        (Tissue.METAL, "PEEK", 0.30),
        (Tissue.METAL, "Mg-10Gd", 2.4),
        (Tissue.METAL, "Ti", 11.5),
    ],
)
def test_attenuation_at_38_kev_is_as_tabulated(tissue, material, per_cm):
    assert attenuation(material, 38.0)[tissue] == pytest.approx(per_cm, rel=0.05)


def test_gas_does_not_attenuate_and_the_degradation_layer_is_close_to_its_metal():
    table = attenuation("Mg-10Gd", 38.0)
    assert table[Tissue.GAS] < 1e-3
    assert 0.94 < 0.75 * table[Tissue.METAL] < table[Tissue.DEGRADATION] < table[Tissue.METAL]
    assert electron_density("Ti")[Tissue.METAL] == pytest.approx(4.506 * (22 / 47.867) / (10 / 18.015), rel=1e-3)
    assert attenuation("Ti", 80.0)[Tissue.METAL] < 0.25 * attenuation("Ti", 38.0)[Tissue.METAL]
    with pytest.raises(ValueError, match="energy_kev"):
        attenuation("Ti", 1.0)


def test_projections_of_a_disc_are_its_chords():
    size, radius, at = 96, 20.0, (8.0, -11.0)
    fine_y, fine_x = (np.mgrid[: 8 * size, : 8 * size] + 0.5) / 8 - size / 2
    disc = (np.hypot(fine_y - at[0], fine_x - at[1]) < radius).reshape(size, 8, size, 8).mean(axis=(1, 3))
    geometry = Projector(size, 120)
    sinogram = geometry.project((disc * (1 + 0.5j)).astype(np.complex64))
    theta = np.arange(120) * np.pi / 120
    middle = at[0] * np.sin(theta) + at[1] * np.cos(theta)
    chord = 2 * np.sqrt(np.maximum(radius**2 - (geometry.places_px - middle[:, None]) ** 2, 0))
    inner = np.abs(geometry.places_px - middle[:, None]) < radius - 3
    assert np.abs(sinogram.real - chord)[inner].max() < 0.02 * 2 * radius
    np.testing.assert_allclose(sinogram.imag, sinogram.real / 2, atol=0.02)
    assert sinogram.real.sum(axis=1) == pytest.approx(np.full(120, disc.sum()), rel=1e-3)


def test_a_clean_scan_gives_the_attenuation_back(fine):
    ct = scanned(fine, CLEAN, "Mg-10Gd")
    table, labels = attenuation("Mg-10Gd", 38.0), majority(fine)
    checked = 0
    for tissue in Tissue:
        core = ndimage.binary_erosion(labels == tissue, np.ones((1, 5, 5)))
        if core.sum() > 100:
            assert ct[core].mean() == pytest.approx(table[tissue], rel=0.02)
            checked += 1
    assert checked >= 4


def test_slices_are_not_mixed_up(fine):
    both = np.concatenate([fine, discs(96, (40, 40, 12), tissue=Tissue.METAL, depth=1)])
    ct = scanned(both, CLEAN, "Mg-10Gd")
    np.testing.assert_allclose(ct[0], scanned(fine[:2], CLEAN, "Mg-10Gd")[0], atol=2e-3)
    assert ct[2, 40, 40] == pytest.approx(attenuation("Mg-10Gd", 38.0)[Tissue.METAL], rel=0.02)
    assert ct[2, 40, 80] == pytest.approx(attenuation("Mg-10Gd", 38.0)[Tissue.RESIN], abs=0.02)


def test_the_same_seed_gives_the_same_ct_in_slabs_of_any_depth(fine):
    tall = np.concatenate([fine, fine[::-1]])
    recipe = TomographyRecipe()
    whole = scanned(tall, recipe, "Mg-10Gd", z0=4)
    np.testing.assert_array_equal(whole[2:], scanned(tall[4:], recipe, "Mg-10Gd", z0=6))
    np.testing.assert_array_equal(whole, scanned(tall, recipe, "Mg-10Gd", z0=4))
    assert (whole != scanned(tall, recipe, "Mg-10Gd", z0=4, seed=1)).mean() > 0.9


def test_noise_falls_with_the_root_of_photons_and_of_projections():
    labels = discs(96, tissue=Tissue.RESIN)

    def noise(photons, projections):
        recipe = dataclasses.replace(CLEAN, photons=photons, projections=projections)
        return scanned(labels, recipe)[:, 24:72, 24:72].std()

    assert noise(1e4, 200) / noise(1e6, 200) == pytest.approx(10, rel=0.08)
    assert noise(1e4, 100) / noise(1e4, 400) == pytest.approx(2, rel=0.08)


def test_noise_is_stronger_at_high_frequency_as_the_ramp_makes_it():
    recipe = dataclasses.replace(CLEAN, photons=1e4)
    noise = scanned(discs(96, tissue=Tissue.RESIN), recipe) - scanned(discs(96, tissue=Tissue.RESIN), CLEAN)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(96)[None])
    low, middle = (power[(a < frequency) & (frequency < b)].mean() for a, b in ((0.01, 0.05), (0.17, 0.25)))
    window = (0.5 + 0.5 * np.cos(2 * np.pi * np.array([0.035, 0.21]))) ** 2 * np.array([0.035, 0.21])
    assert middle / low == pytest.approx(window[1] / window[0], rel=0.35)


def test_titanium_streaks_along_the_line_that_joins_two_pins():
    pins = discs(96, (47.5, 20, 12), (47.5, 75, 12), tissue=Tissue.METAL)
    recipe = dataclasses.replace(CLEAN, photons=3000)
    noise = scanned(pins, recipe, voxel_um=80.0) - scanned(pins, CLEAN, voxel_um=80.0)
    between, beside = noise[:, 40:56, 38:58], noise[:, 4:20, 38:58]
    assert between.std() > 1.5 * beside.std()
    assert np.abs(np.diff(between, axis=1)).mean() > 2 * np.abs(np.diff(between, axis=2)).mean()


def test_gain_errors_make_rings_around_the_axis():
    recipe = dataclasses.replace(CLEAN, gain_error=0.003)
    labels = discs(96, tissue=Tissue.RESIN)
    rings = ndimage.gaussian_filter((scanned(labels, recipe) - scanned(labels, CLEAN))[0], 1.0)
    assert rings.std() > 0.01

    def explained(at_y, at_x):
        y, x = np.mgrid[:96, :96]
        radius = np.rint(np.hypot(y - at_y, x - at_x) * 2).astype(int)
        seen = (radius < 90) & (y > at_y)  # over 180 degrees a detector pixel draws half a ring
        count = np.maximum(np.bincount(radius[seen]), 1)
        profile = np.bincount(radius[seen], rings[seen]) / count
        return 1 - (rings - profile[np.minimum(radius, 89)])[seen].var() / rings[seen].var()

    assert explained(47.5, 47.5) > 0.75
    assert explained(47.5, 60.5) < 0.4
    later, far = (
        ndimage.gaussian_filter((scanned(labels, recipe, z0=z) - scanned(labels, CLEAN))[0], 1.0) for z in (2, 50)
    )
    assert np.corrcoef(rings.ravel(), later.ravel())[0, 1] > 0.95
    assert abs(np.corrcoef(rings.ravel(), far.ravel())[0, 1]) < 0.3


def test_phase_contrast_lifts_the_dense_side_of_an_edge():
    labels = discs(96, (47.5, 47.5, 20), tissue=Tissue.LAMELLAR)
    plain, phase = scanned(labels, CLEAN)[0], scanned(labels, dataclasses.replace(CLEAN, phase_contrast=0.3))[0]
    change = phase - plain
    y, x = np.mgrid[:96, :96] - 47.5
    radius = np.hypot(y, x)
    assert change[(radius > 18) & (radius < 19.5)].mean() > 0.02
    assert change[(radius > 20.5) & (radius < 22)].mean() < -0.02
    assert abs(change[radius < 12].mean()) < 0.005


def test_beam_hardening_cups_metal():
    labels = discs(96, (47.5, 47.5, 30), tissue=Tissue.METAL)
    ct = scanned(labels, dataclasses.replace(CLEAN, beam_hardening=0.1))[0]
    radius = np.hypot(*(np.mgrid[:96, :96] - 47.5))
    assert ct[radius < 5].mean() < 0.99 * ct[(radius > 24) & (radius < 27)].mean()
    assert ct[radius < 5].mean() < attenuation("Ti", 38.0)[Tissue.METAL]


def test_blur_widens_an_edge_by_its_sigma():
    labels = discs(96, (47.5, 10, 37.5), tissue=Tissue.LAMELLAR)
    widths = []
    for sigma in (0.0, 2.0):
        edge = np.diff(scanned(labels, dataclasses.replace(CLEAN, psf_sigma_px=sigma))[0, 47:49, 30:66].mean(axis=0))
        edge = edge / edge.sum()
        at = np.arange(len(edge))
        widths.append((edge * (at - (edge * at).sum()) ** 2).sum())
    assert widths[1] - widths[0] == pytest.approx(4.0, rel=0.25)


def test_a_wrong_axis_doubles_edges():
    labels = discs(96, (47.5, 47.5, 20), tissue=Tissue.LAMELLAR)
    right, wrong = (scanned(labels, dataclasses.replace(CLEAN, axis_offset_px=o))[0] for o in (0.0, 4.0))
    radius = np.hypot(*(np.mgrid[:96, :96] - 47.5))
    halo = (radius > 22) & (radius < 24)
    assert right[halo].std() < 0.03
    assert wrong[halo].std() > 0.15


@pytest.mark.parametrize(("scaling", "steps"), [("uint16", 65535), ("uint8", 255)])
def test_integers_give_the_attenuation_back(fine, scaling, steps):
    recipe = dataclasses.replace(CLEAN, scaling=scaling)
    scanner = Tomograph(recipe, GRID, 0, "Mg-10Gd")
    stored, true = scanner.scan(fine, 0), Tomograph(CLEAN, GRID, 0, "Mg-10Gd").scan(fine, 0)
    assert stored.dtype == scaling == scanner.dtype
    slope, intercept = scanner.slope_intercept
    low, high = scanner.window_per_cm
    assert slope * steps == pytest.approx(high - low)
    np.testing.assert_allclose(stored * slope + intercept, true, atol=slope * 0.51)
    assert scanner.attributes["slope"] == slope
    assert scanner.attributes["intercept"] == intercept


def test_a_narrow_window_clips_as_users_do(fine):
    recipe = dataclasses.replace(CLEAN, scaling="uint8", window_per_cm=(0.5, 1.0))
    stored = scanned(fine, recipe, "Mg-10Gd")
    labels = majority(fine)
    assert np.median(stored[labels == Tissue.METAL]) == 255
    assert np.median(stored[labels == Tissue.MARROW]) == 0


def test_the_circular_mask_zeroes_what_is_outside_the_circle(fine):
    ct = scanned(fine, dataclasses.replace(CLEAN, circular_mask=True), "Mg-10Gd")
    assert not ct[:, :10, :10].any()
    assert (ct[:, 48, 1:-1] != 0).all()
    assert (ct != 0).mean() == pytest.approx(np.pi / 4, abs=0.01)


def test_slices_that_are_not_square_are_scanned_alike():
    wide = discs(96, (40, 40, 12), tissue=Tissue.LAMELLAR)[:, 32:144]
    grid = Grid((64, 56, 96), (5.0,) * 3)
    ct = Tomograph(CLEAN, grid, 0, "Ti").scan(np.ascontiguousarray(wide), 0)
    assert ct.shape == (2, 56, 96)
    assert ct[0, 20:28, 36:44].mean() == pytest.approx(attenuation("Ti", 38.0)[Tissue.LAMELLAR], rel=0.01)
    assert ct[0, 10:40, 70:90].mean() == pytest.approx(attenuation("Ti", 38.0)[Tissue.RESIN], rel=0.02)


def test_slabs_of_any_depth_are_the_same_specimen():
    grid = Grid((18, 40, 36), (5.0,) * 3)
    anatomy = make_anatomy(AnatomyRecipe(), grid, 1)
    found = [np.concatenate([labels for _, labels in slabs(anatomy, grid, depth)]) for depth in (4, 32)]
    np.testing.assert_array_equal(*found)
    assert found[0].shape == (36, 80, 72)
    centre = anatomy.labels(Grid((18, 40, 36), (5.0,) * 3, (-1.25,) * 3))
    np.testing.assert_array_equal(found[0][::2, ::2, ::2], centre)


def test_simulate_streams_ct_and_labels_that_belong_together():
    grid = Grid((14, 64, 64), (5.0,) * 3)
    anatomy = make_anatomy(AnatomyRecipe(), grid, 1)
    parts = list(simulate(anatomy, TomographyRecipe(), grid, 3, depth=8))
    assert [part.z0 for part in parts] == [0, 8]
    ct = np.concatenate([part.ct for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    assert ct.shape == labels.shape == grid.shape
    assert ct[labels == Tissue.METAL].mean() > ct[labels == Tissue.WOVEN].mean() > ct[labels == Tissue.MARROW].mean()
    np.testing.assert_array_equal(ct, np.concatenate([p.ct for p in simulate(anatomy, TomographyRecipe(), grid, 3)]))


def test_the_majority_of_eight_wins_and_no_tissue_gains_from_ties():
    eight = np.array([[5, 5, 5, 1, 1, 1, 5, 1], [2, 2, 2, 7, 7, 7, 9, 9], [7, 7, 7, 2, 2, 2, 9, 9]], dtype=np.uint8)
    fine = np.concatenate([row.reshape(2, 2, 2) for row in eight], axis=2)
    np.testing.assert_array_equal(majority(fine), [[[5, 2, 7]]])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"photons": -1.0}, "photons"),
        ({"projections": 0}, "projections"),
        ({"scaling": "int8"}, "scaling"),
        ({"window_per_cm": (1.0, 0.0)}, "window_per_cm"),
        ({"gain_error": float("inf")}, "gain_error"),
    ],
)
def test_impossible_scans_are_refused_by_name(change, word):
    with pytest.raises(ValueError, match=word):
        TomographyRecipe(**change)


def test_slabs_that_do_not_fit_are_refused(fine):
    with pytest.raises(ValueError, match="half the voxel size"):
        Tomograph(CLEAN, Grid((4, 10, 10), (5.0,) * 3), 0, "Ti").scan(fine, 0)
    with pytest.raises(ValueError, match="even slice"):
        scanned(fine, CLEAN, z0=1)
