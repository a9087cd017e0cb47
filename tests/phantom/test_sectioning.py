"""Sections show the anatomy where their placement says, in the colours that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tomostain.images.geometry import Grid, Placement, Plane
from tomostain.images.image import Slide
from tomostain.images.resample import slide_on_plane
from tomostain.images.srgb import to_linear, to_srgb
from tomostain.phantom.colours import (
    MEASURED_WHITE,
    NOMINAL_UM,
    STAINS,
    TOLUIDINE_BLUE,
    WHITE,
    densities,
    palette,
    voxel_colours,
)
from tomostain.phantom.damage import damage_slide
from tomostain.phantom.deformation import CutRecipe, draw_placement, jacobian
from tomostain.phantom.sectioning import cut_section, finer, layer_offsets, on_slide
from tomostain.phantom.tissues import Tissue

GRID = Grid((40, 120, 120), (5.0, 5.0, 5.0), (10.0, -40.0, 25.0))
PIN_UM = np.asarray([250.0, 300.0])
RADIUS_UM = 110.0


class Pin:
    """A metal pin along z in lamellar bone, without any texture."""

    def labels_at(self, points_um: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        inside = np.linalg.norm(points_um[..., 1:] - PIN_UM, axis=-1) < RADIUS_UM
        return np.where(inside, np.uint8(Tissue.METAL), np.uint8(Tissue.LAMELLAR))

    def labels_on_plane(self, plane: Plane, offsets_um: Sequence[float]) -> npt.NDArray[np.uint8]:
        return np.stack([self.labels_at(plane.points_um(offset)) for offset in offsets_um])

    def texture_on_plane(self, plane: Plane) -> Mapping[str, npt.NDArray[Any]]:
        return {
            "lamella": np.full(plane.shape, 0.5, dtype=np.float32),
            "dye": np.zeros(plane.shape, dtype=np.float32),
            "nuclei": np.zeros(plane.shape, dtype=bool),
        }


class Layers(Pin):
    """Lamellar bone below z = 100 um, woven bone above."""

    def labels_at(self, points_um: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        return np.where(points_um[..., 0] < 100.0, np.uint8(Tissue.LAMELLAR), np.uint8(Tissue.WOVEN))


def _all_points(shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    return np.stack(np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij"), axis=-1)


def _mounted(seed: int, recipe: CutRecipe = CutRecipe()) -> tuple[Placement, npt.NDArray[np.uint8]]:
    placement = draw_placement(GRID, recipe, np.random.default_rng(seed))
    section = cut_section(Pin(), GRID, placement, voxel_um=5.0, pixel_um=1.0, stain=TOLUIDINE_BLUE, material="Ti")
    return placement, damage_slide(on_slide(section, placement), pixel_um=1.0, seed=[seed], without=["all"]).rgb


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_metal_edge_on_a_slide_lies_where_the_placement_puts_it(seed: int) -> None:
    # a thin section: in a tilted thick one the black shadow of the pin is truly wider than its middle plane
    placement, rgb = _mounted(seed, CutRecipe(thickness_um=(2.0, 2.0)))
    points_um = placement.slide_to_volume_um(_all_points(placement.slide_shape))
    index = GRID.index_of(points_um)
    inside = np.all((index > 0) & (index < np.asarray(GRID.shape) - 1), axis=-1)
    depth_um = RADIUS_UM - np.linalg.norm(points_um[..., 1:] - PIN_UM, axis=-1)
    black = rgb.max(axis=-1) < 60
    assert black[inside & (depth_um > 1.5)].all()
    assert not black[inside & (depth_um < -1.5)].any()
    assert (inside & (np.abs(depth_um) < 10)).sum() > 1000, "the edge must be on the slide for this to mean anything"


def test_outside_the_volume_there_is_empty_glass() -> None:
    placement, rgb = _mounted(5)
    index = GRID.index_of(placement.slide_to_volume_um(_all_points(placement.slide_shape)))
    outside = np.any((index < -1.5) | (index > np.asarray(GRID.shape) + 0.5), axis=-1)
    assert outside.sum() > 1000
    assert np.all(np.abs(rgb[outside].astype(int) - round(WHITE)) <= 1)


@pytest.mark.parametrize("seed", range(6))
def test_no_slide_folds_and_every_slide_shows_mostly_the_volume(seed: int) -> None:
    grid = Grid((96, 400, 300), (5.0, 5.0, 5.0))
    placement = draw_placement(grid, CutRecipe(), np.random.default_rng(seed))
    assert jacobian(placement, every_px=8).min() > 0.45
    index = grid.index_of(placement.slide_to_volume_um(_all_points(placement.slide_shape)[::16, ::16]))
    inside = np.all((index >= -0.5) & (index <= np.asarray(grid.shape) - 0.5), axis=-1)
    assert inside.mean() > 0.55
    assert np.degrees(np.arccos(abs(placement.plane(5.0).normal[0]))) <= 15.0 + 1e-6
    assert 15.0 <= placement.notes["elastic_um"] <= 80.0 + 1e-6
    moved = np.linalg.norm(placement.displacement_at(_all_points(placement.slide_shape)[::16, ::16]), axis=-1)
    assert moved.max() == pytest.approx(placement.notes["elastic_um"], rel=0.03)


def test_shrinkage_is_in_the_steps() -> None:
    recipe = CutRecipe(shrinkage=(0.07, 0.04), elastic_um=(0.0, 0.0), pixel_um=0.5)
    placements = [draw_placement(GRID, recipe, np.random.default_rng(seed)) for seed in range(40)]
    along = np.mean([1 - 0.5 / np.linalg.norm(p.step_y_um) for p in placements])
    across = np.mean([1 - 0.5 / np.linalg.norm(p.step_x_um) for p in placements])
    assert along == pytest.approx(0.07, abs=0.005)
    assert across == pytest.approx(0.04, abs=0.003)
    assert all(p.displacement_um is None for p in placements)


def test_mirrored_and_turned_slides_both_occur() -> None:
    placements = [draw_placement(GRID, CutRecipe(), np.random.default_rng(seed)) for seed in range(40)]
    facing = [p.plane(5.0).normal[0] > 0 for p in placements]
    assert 8 < sum(facing) < 32
    assert all(
        mirrored == (not up) for mirrored, up in zip((p.notes["mirrored"] for p in placements), facing, strict=True)
    )
    turned = [p.notes["rotation_deg"] for p in placements]
    assert min(turned) < -120
    assert max(turned) > 120


def test_the_slide_averaged_onto_its_plane_is_the_registered_truth() -> None:
    recipe = CutRecipe(thickness_um=(30.0, 30.0), elastic_um=(30.0, 30.0))
    placement = draw_placement(GRID, recipe, np.random.default_rng(7))
    section = cut_section(Pin(), GRID, placement, voxel_um=5.0, pixel_um=1.0, stain=TOLUIDINE_BLUE, material="Ti")
    rgb = damage_slide(on_slide(section, placement), pixel_um=1.0, seed=[7], without=["all"]).rgb
    averaged, covered = slide_on_plane(Slide(rgb, Grid(rgb.shape[:2], (1.0, 1.0)), "slide"), placement, section.coarse)
    true = section.registered()
    assert covered.mean() > 0.8
    difference = np.abs(to_linear(averaged) - to_linear(true))[covered]
    assert difference.mean() < 0.002
    assert np.quantile(difference, 0.999) < 0.15


def test_registered_pixels_are_means_of_light_not_of_display_values() -> None:
    placement = Placement((40, 40), (100.0, PIN_UM[0] - 20, PIN_UM[1] + RADIUS_UM - 20), (0, 1.0, 0), (0, 0, 1.0), 2.0)
    section = cut_section(Pin(), GRID, placement, voxel_um=5.0, pixel_um=1.0, stain=TOLUIDINE_BLUE, material="Ti")
    fine = section.transmittance.astype(np.float64).reshape(section.coarse.shape[0], 5, -1, 5, 3).mean(axis=(1, 3))
    mixed = (fine[..., 0] > 0.2 * fine[..., 0].max()) & (fine[..., 0] < 0.8 * fine[..., 0].max())
    assert mixed.any()
    white = to_linear(np.full(1, round(WHITE), dtype=np.uint8))[0]
    expected = to_srgb(white * (0.003 + 0.997 * fine))
    assert np.abs(section.registered().astype(int) - expected).max() <= 1


def test_fine_blocks_cover_the_coarse_pixels() -> None:
    coarse = Plane((6, 8), 5.0, (1.0, 2.0, 3.0), (0.0, 0.6, 0.8), (0.0, -0.8, 0.6))
    points = finer(coarse, 5).points_um().reshape(6, 5, 8, 5, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(points, coarse.points_um(), atol=1e-9)


def test_layers_span_the_section_evenly() -> None:
    offsets = layer_offsets(30.0)
    assert len(offsets) % 2 == 1
    assert np.mean(offsets) == pytest.approx(0.0)
    assert offsets[-1] - offsets[0] == pytest.approx(30.0 * (1 - 1 / len(offsets)))


def test_densities_of_layers_add_up() -> None:
    placement = Placement((20, 20), (100.0, 100.0, 100.0), (0, 1.0, 0), (0, 0, 1.0), 30.0)
    section = cut_section(Layers(), GRID, placement, voxel_um=5.0, pixel_um=1.0, stain=TOLUIDINE_BLUE, material="Ti")
    table = densities(TOLUIDINE_BLUE, "Ti")
    offsets = np.asarray(layer_offsets(30.0))
    share = float((offsets >= 0).mean())
    expected = share * table[Tissue.WOVEN] + (1 - share) * table[Tissue.LAMELLAR]
    found = -np.log10(section.transmittance.astype(np.float64)).mean(axis=(0, 1))  # the dye's grain averages out
    np.testing.assert_allclose(found, expected, rtol=0.02)


def _display_density(rgb: npt.NDArray[np.uint8], white: float) -> npt.NDArray[np.float64]:
    return np.log10(white / np.maximum(rgb.astype(np.float64), 1))


def test_colours_are_those_of_the_measured_picture() -> None:
    # what the palette shows under a lamp of the picture's own white point, in the densities it was measured in
    light = palette(TOLUIDINE_BLUE, "Mg-10Gd")
    dimmed = light * to_linear(np.full(1, 205, dtype=np.uint8)) / to_linear(np.full(1, round(WHITE), dtype=np.uint8))
    density = _display_density(to_srgb(dimmed), MEASURED_WHITE)
    matrix, cement, canal = density[Tissue.LAMELLAR], density[Tissue.CEMENT], density[Tissue.CANAL]
    assert 0.36 <= matrix[0] <= 0.54
    assert 0.25 <= matrix[1] <= 0.34
    assert matrix[2] == pytest.approx(0.06, abs=0.02)
    assert 0.7 <= cement[0] <= 1.1
    assert 0.4 <= cement[1] <= 0.56
    np.testing.assert_allclose(canal, [0.03, 0.02, 0.02], atol=0.01)


@pytest.mark.parametrize("material", ["Mg-5Gd", "Mg-10Gd", "Ti"])
def test_metal_is_black_and_peek_is_not(material: Any) -> None:
    rgb = to_srgb(palette(TOLUIDINE_BLUE, material))
    assert rgb[Tissue.METAL].max() < 15
    peek = to_srgb(palette(TOLUIDINE_BLUE, "PEEK"))[Tissue.METAL].astype(int)
    assert peek.min() > 130
    assert peek[0] > peek[1] > peek[2], "beige"


def test_a_histologist_finds_the_order_of_tissues() -> None:
    rgb = to_srgb(palette(TOLUIDINE_BLUE, "Mg-10Gd")).astype(int)
    red = rgb[:, 0]
    assert red[Tissue.OSTEOID] < red[Tissue.WOVEN] < red[Tissue.LAMELLAR] < red[Tissue.MARROW] < red[Tissue.ADIPOCYTE]
    assert rgb[Tissue.LAMELLAR, 2] > rgb[Tissue.LAMELLAR, 1] > rgb[Tissue.LAMELLAR, 0], "blue"
    assert rgb[Tissue.MARROW, 1] < min(rgb[Tissue.MARROW, 0], rgb[Tissue.MARROW, 2]), "violet"
    assert rgb[Tissue.RESIN].min() > 220
    degraded = rgb[Tissue.DEGRADATION]
    assert degraded[0] > degraded[1] > degraded[2], "brown"
    assert np.ptp(degraded) < 40, "dull"


def test_another_stain_is_another_entry() -> None:
    bone = to_srgb(palette(STAINS["H&E"], "Ti"))[Tissue.LAMELLAR].astype(int)
    assert bone[0] > bone[2] > bone[1], "pink"


def test_thicker_sections_are_darker_but_less_than_in_proportion() -> None:
    at = {um: densities(TOLUIDINE_BLUE, "Ti", um)[Tissue.LAMELLAR, 0] for um in (10.0, NOMINAL_UM, 60.0)}
    assert at[10.0] < at[NOMINAL_UM] < at[60.0] < 2 * at[NOMINAL_UM]


def test_a_voxels_colour_is_the_mean_light_of_its_subvoxels() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(Tissue), (4, 6, 8)).astype(np.uint8)
    light = palette(TOLUIDINE_BLUE, "Mg-10Gd")
    mean = light[labels].astype(np.float64).reshape(2, 2, 3, 2, 4, 2, 3).mean(axis=(1, 3, 5))
    assert np.abs(voxel_colours(labels, light).astype(int) - to_srgb(mean)).max() <= 1
    pure = np.full((2, 2, 2), Tissue.WOVEN, dtype=np.uint8)
    np.testing.assert_array_equal(voxel_colours(pure, light)[0, 0, 0], to_srgb(light[Tissue.WOVEN]))
