import dataclasses
import zlib

import numpy as np
import pytest

from tomostain.images.geometry import Grid, Plane
from tomostain.phantom.anatomy import Anatomy, AnatomyRecipe, make_anatomy
from tomostain.phantom.fields import distance_um, hashed, noise, noise_at, uniform
from tomostain.phantom.implants import PITCH_UM, THREAD_UM, Implant, turns
from tomostain.phantom.osteons import CANAL, CEMENT, make_osteons
from tomostain.phantom.tissues import BONE, Tissue, is_any

GRID = Grid((48, 112, 112), (5.0, 5.0, 5.0))


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return make_anatomy(AnatomyRecipe(), GRID, 0)


@pytest.fixture(scope="module")
def labels(anatomy):
    return anatomy.labels(GRID)


def found_in(labels) -> set[Tissue]:
    return {Tissue(value) for value in np.unique(labels)}


def test_a_block_has_the_labels_it_has_in_the_whole(anatomy, labels):
    part = Grid((9, 41, 33), GRID.spacing_um, (17 * 5.0, 30 * 5.0, 55 * 5.0))
    np.testing.assert_array_equal(anatomy.labels(part), labels[17:26, 30:71, 55:88])


def test_a_block_of_odd_spacing_has_the_labels_it_has_in_the_whole(anatomy):
    step = 0.7
    whole = anatomy.labels(Grid((8, 60, 50), (step,) * 3, (100.1, 200.3, 150.9)))
    part = Grid((4, 31, 20), (step,) * 3, (100.1 + 3 * step, 200.3 + 11 * step, 150.9 + 29 * step))
    np.testing.assert_array_equal(anatomy.labels(part), whole[3:7, 11:42, 29:49])


def test_finer_rasters_see_the_same_tissue(anatomy, labels):
    fine = anatomy.labels(Grid((12, 120, 224), (2.5,) * 3, (100.0, 50.0, 0.0)))
    np.testing.assert_array_equal(fine[::2, ::2, ::2], labels[20:26, 10:70])


def test_threads_and_repeats_change_nothing(anatomy, labels):
    again = make_anatomy(AnatomyRecipe(), GRID, 0)
    np.testing.assert_array_equal(again.labels(GRID, workers=1), labels)


def test_another_seed_is_another_specimen(labels):
    other = make_anatomy(AnatomyRecipe(), GRID, 1).labels(GRID)
    assert (other != labels).mean() > 0.3


def test_a_plane_along_the_raster_sees_the_raster(anatomy, labels):
    plane = Plane((112, 112), 5.0, (23 * 5.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    layers = anatomy.labels_on_plane(plane, [10.0, 0.0, -5.0])
    for layer, z in zip(layers, (25, 23, 22), strict=True):
        assert (layer == labels[z]).mean() > 0.995


def test_a_tilted_plane_sees_the_tissue_at_its_points(anatomy):
    tilt = np.deg2rad(15)
    down, right = (-np.sin(tilt), np.cos(tilt), 0.0), (0.0, 0.0, 1.0)
    plane = Plane((300, 400), 1.0, (170.0, 100.0, 80.0), down, right)
    seen = anatomy.labels_on_plane(plane, [0.0, 4.0])
    for layer, offset in zip(seen, (0.0, 4.0), strict=True):
        points = plane.points_um(offset)
        rows = range(5, 300, 37)
        true = [anatomy.labels(Grid((1, 1, 400), (1.0,) * 3, tuple(points[row, 0])))[0, 0] for row in rows]
        assert (layer[5::37] == np.stack(true)).mean() > 0.99
        assert len(found_in(layer)) > 6


def test_every_tissue_occurs(labels):
    other = make_anatomy(AnatomyRecipe(), GRID, 1).labels(GRID)
    assert found_in(labels) | found_in(other) == set(Tissue)


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"canals": False}, {Tissue.CANAL}),
        ({"lacunae": False}, {Tissue.LACUNA}),
        ({"cement_lines": False}, {Tissue.CEMENT}),
        ({"woven_um": 0.0}, {Tissue.WOVEN, Tissue.OSTEOID}),
        ({"weeks": 0.0}, {Tissue.WOVEN, Tissue.OSTEOID}),
        ({"osteoid_um": 0.0}, {Tissue.OSTEOID}),
        ({"adipocyte_fraction": 0.0}, {Tissue.ADIPOCYTE}),
        ({"vessels": False}, {Tissue.VESSEL}),
        ({"fibrous_fraction": 0.0}, {Tissue.FIBROUS}),
        ({"degradation": False}, {Tissue.DEGRADATION, Tissue.GAS}),
        ({"gas": False}, {Tissue.GAS}),
        ({"cracks": False}, {Tissue.CRACK}),
        ({"resin": False}, {Tissue.RESIN}),
        ({"material": "Ti"}, {Tissue.DEGRADATION, Tissue.GAS}),
        ({"material": "PEEK"}, {Tissue.DEGRADATION, Tissue.GAS}),
        ({"cortex": False, "trabecular_fraction": 0.0}, {Tissue.LAMELLAR, Tissue.CANAL}),
    ],
)
def test_every_tissue_can_be_switched_off(change, missing, labels):
    grid = Grid((16, 112, 112), GRID.spacing_um, (80.0, 0.0, 0.0))
    anatomy = make_anatomy(dataclasses.replace(AnatomyRecipe(), **change), GRID, 0)
    without = found_in(anatomy.labels(grid))
    assert not without & missing
    assert Tissue.METAL in without


@pytest.mark.parametrize("shape", [(64, 64, 64), (32, 32, 32), (64, 192, 192), (40, 224, 224)])
@pytest.mark.parametrize("implant", ["screw", "pin"])
def test_the_implant_takes_a_tenth_to_a_third_of_any_field(shape, implant):
    for seed in range(3):
        grid = Grid(shape, (5.0, 5.0, 5.0))
        axes = [np.arange(0, n * 5.0, 11.0) for n in shape]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        made = make_anatomy(AnatomyRecipe(implant=implant), grid, seed)
        assert 0.1 < (made.architecture.implant.distance_um(points) < 0).mean() < 0.3


def test_magnesium_degrades_with_time_and_titanium_does_not():
    whole, part = Grid((96, 224, 224), (5.0,) * 3), Grid((24, 56, 56), (20.0,) * 3, (7.5,) * 3)

    def metal(material, weeks):
        found = make_anatomy(AnatomyRecipe(material=material, weeks=weeks), whole, 5).labels(part)
        return (found == Tissue.METAL).mean()

    young, old = metal("Mg-5Gd", 1.0), metal("Mg-5Gd", 24.0)
    assert old < 0.9 * young
    assert metal("Ti", 1.0) == metal("Ti", 24.0) > young


def test_woven_bone_lies_nearer_to_the_implant_than_old_bone(anatomy, labels):
    axes = [np.arange(n) * 5.0 for n in GRID.shape]
    distance = anatomy.architecture.implant.distance_um(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
    near, far = distance[labels == Tissue.WOVEN], distance[labels == Tissue.LAMELLAR]
    assert np.median(near) < 0.6 * np.median(far)
    assert near.min() > -6 - 5 * 3


def test_osteoid_is_a_thin_seam_on_woven_bone(anatomy):
    from scipy import ndimage

    grid = Grid((24, 224, 224), (2.5,) * 3, (100.0, 0.0, 0.0))
    fine = anatomy.labels(grid)
    to_bone = ndimage.distance_transform_edt(~is_any(fine, BONE | {Tissue.CRACK, Tissue.GAS}), sampling=2.5)
    seam = to_bone[fine == Tissue.OSTEOID]
    assert np.quantile(seam, 0.98) < 18
    assert np.median(seam) < 9


def test_bone_volume_follows_the_recipe():
    grid = Grid((24, 56, 56), (10.0,) * 3)
    little, much = (
        is_any(
            make_anatomy(AnatomyRecipe(cortex=False, trabecular_fraction=f, woven_um=0.0), GRID, 2).labels(grid), BONE
        ).mean()
        for f in (0.1, 0.5)
    )
    assert much > 1.5 * little


def test_canals_and_osteons_have_the_sizes_of_the_literature():
    from scipy import ndimage

    osteons = make_osteons(100.0, 1100.0, 2000.0, 3, canals=True, cement=True)
    canals, count = ndimage.label(osteons.kind == CANAL)
    widths = 2 * np.sqrt(np.bincount(canals.ravel())[1:] / np.pi)
    assert count > 15
    assert np.quantile(widths, 0.1) > 25
    assert np.quantile(widths, 0.9) < 170
    assert 40 < np.median(widths) < 90
    assert 0.01 < (osteons.kind == CEMENT).mean() < 0.12


def test_lacunae_are_a_few_percent_of_bone_and_denser_in_woven_bone(anatomy):
    from scipy import ndimage

    fine = anatomy.labels(Grid((32, 224, 224), (2.5,) * 3, (80.0, 0.0, 0.0)))
    lacunae = fine == Tissue.LACUNA
    nearest = ndimage.distance_transform_edt(
        ~np.isin(fine, [Tissue.WOVEN, Tissue.LAMELLAR]), return_distances=False, return_indices=True
    )
    kind = np.where(np.isin(fine, [Tissue.WOVEN, Tissue.LAMELLAR, Tissue.LACUNA]), fine[tuple(nearest)], 255)
    woven, lamellar = ((kind == t)[lacunae].sum() / (kind == t).sum() for t in (Tissue.WOVEN, Tissue.LAMELLAR))
    assert 0.003 < lamellar < 0.03
    assert woven > 1.5 * lamellar


def test_texture_is_in_range_and_nuclei_are_in_cells(anatomy):
    plane = Plane((300, 300), 1.0, (120.0, 150.0, 150.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    labels, texture = anatomy.labels_on_plane(plane)[0], anatomy.texture_on_plane(plane)
    assert 0 <= texture["lamella"].min() < 0.1
    assert 0.9 < texture["lamella"].max() <= 1
    assert np.abs(texture["dye"]).max() <= 1
    assert texture["dye"].std() > 0.1
    cells = {Tissue.MARROW, Tissue.VESSEL, Tissue.FIBROUS, Tissue.LACUNA}
    assert found_in(labels[texture["nuclei"]]) <= cells
    assert texture["nuclei"][labels == Tissue.MARROW].mean() > 0.02


def test_lamellae_are_three_to_seven_um_apart(anatomy):
    plane = Plane((400, 400), 0.5, (120.0, 300.0, 300.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    phase = np.exp(2j * np.pi * anatomy.texture_on_plane(plane)["lamella"])
    bone = anatomy.labels_on_plane(plane)[0] == Tissue.LAMELLAR
    step_y, step_x = (np.angle(phase[1:, :-1] / phase[:-1, :-1]), np.angle(phase[:-1, 1:] / phase[:-1, :-1]))
    per_um = np.hypot(step_y, step_x)[bone[:-1, :-1]] / (2 * np.pi * 0.5)
    assert 1 / 9 < np.median(per_um) < 1 / 3


def test_labels_are_the_same_on_every_machine():
    """Only exact IEEE operations and integer hashes lead to a label, so one checksum holds everywhere."""
    grid = Grid((16, 64, 64), (10.0,) * 3)
    assert zlib.crc32(make_anatomy(AnatomyRecipe(), grid, 7).labels(grid).tobytes()) == 1079009259


def test_hashes_are_even_and_independent():
    cells = np.arange(20000)
    first, second = uniform(3, 1, cells, cells * 0), uniform(3, 2, cells, cells * 0)
    assert abs(first.mean() - 0.5) < 0.01
    assert abs(first.var() - 1 / 12) < 0.003
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03
    assert len(np.unique(hashed(0, 0, cells))) == len(cells)


def test_noise_has_unit_variance_and_its_distance_a_unit_slope():
    axes = tuple(np.arange(60) * 10.0 for _ in range(3))
    values = noise(axes, 50.0, 1, 4)
    assert abs(values.mean()) < 0.15
    assert values.std() == pytest.approx(1.0, abs=0.1)
    slope = np.gradient(distance_um(noise(tuple(a / 10 for a in axes), 20.0, 1, 4), 20.0))
    assert np.sqrt(sum(s**2 for s in slope).mean()) == pytest.approx(1.0, abs=0.15)
    points = np.array([[30.0, 440.0, 10.0], [590.0, 0.0, 250.0]])
    np.testing.assert_allclose(noise_at(points, 50.0, 1, 4), [values[3, 44, 1], values[59, 0, 25]], atol=1e-5)


def test_angles_are_those_of_arctan2():
    angle = np.linspace(0, 2 * np.pi, 4001)[:-1]
    np.testing.assert_allclose(turns(np.sin(angle), np.cos(angle)), angle / (2 * np.pi), atol=3e-6)


def test_a_screw_is_two_mm_thick_with_a_thread_of_its_pitch():
    screw = Implant("screw", np.zeros(3), np.eye(3), 1000.0)
    along = np.arange(0, 4 * PITCH_UM, 5.0)
    surface = [
        np.interp(
            0.0,
            screw.distance_um(np.stack([np.full(2000, s), np.arange(2000.0), np.zeros(2000)], 1)),
            np.arange(2000.0),
        )
        for s in along
    ]
    assert max(surface) == pytest.approx(1000, abs=1)
    assert min(surface) == pytest.approx(1000 - THREAD_UM, abs=1)
    np.testing.assert_allclose(surface[: -int(PITCH_UM / 5)], surface[int(PITCH_UM / 5) :], atol=0.01)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"material": "Fe"}, "material"),
        ({"implant": "plate"}, "implant"),
        ({"weeks": -1.0}, "weeks"),
        ({"woven_fraction": 1.2}, "woven_fraction"),
        ({"woven_um": float("nan")}, "woven_um"),
    ],
)
def test_impossible_recipes_are_refused_by_name(change, word):
    with pytest.raises(ValueError, match=word):
        AnatomyRecipe(**change)


def test_fields_of_view_without_room_for_tissue_are_refused():
    with pytest.raises(ValueError, match="60 um"):
        make_anatomy(AnatomyRecipe(), Grid((4, 64, 64), (5.0,) * 3), 0)
    with pytest.raises(ValueError, match="three axes"):
        make_anatomy(AnatomyRecipe(), Grid((64, 64), (5.0,) * 2), 0)
