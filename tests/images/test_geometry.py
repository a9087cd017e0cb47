"""Placements go there and back, planes hold their slide, grids know their indices."""

import dataclasses
import json
import struct

import numpy as np
import pytest

from tomostain.images.geometry import LARGE_PLANE_PX, Grid, Placement, Plane


def tilted(displaced: bool = True) -> Placement:
    y, x = np.mgrid[0:9, 0:11]
    wave = np.stack([12 * np.sin(x / 3), 9 * np.cos(y / 2)], axis=-1).astype(np.float32)
    return Placement(
        slide_shape=(480, 600),
        corner_um=(150.0, 20.0, 30.0),
        step_y_um=(0.08, 0.95, 0.03),
        step_x_um=(0.02, -0.03, 0.91),
        thickness_um=30.0,
        lattice_px=60.0,
        displacement_um=wave if displaced else None,
    )


def test_slide_to_volume_and_back_is_where_it_began(rng):
    placement = tilted()
    points = rng.uniform((0, 0), (479, 599), (500, 2))
    back = placement.volume_um_to_slide_px(placement.slide_to_volume_um(points))
    np.testing.assert_allclose(back, points, atol=1e-3)


def test_undeformed_slide_pixel_lies_at_corner_plus_steps():
    placement = tilted(displaced=False)
    at = placement.slide_to_volume_um(np.array([[10.0, 20.0]]))
    np.testing.assert_allclose(at, [[150 + 0.8 + 0.4, 20 + 9.5 - 0.6, 30 + 0.3 + 18.2]])


def test_saved_placement_maps_points_as_before(tmp_path, rng):
    placement = tilted()
    points = rng.uniform((0, 0), (479, 599), (50, 2))
    loaded = Placement.load(placement.save(tmp_path / "slide.placement.json"))
    np.testing.assert_array_equal(loaded.slide_to_volume_um(points), placement.slide_to_volume_um(points))
    assert loaded.thickness_um == 30.0


def test_placement_without_its_field_is_refused_by_name(tmp_path):
    path = tilted().save(tmp_path / "slide.placement.json")
    (tmp_path / "slide.placement.npz").unlink()
    with pytest.raises(ValueError, match=r"slide\.placement\.json is an incomplete placement"):
        Placement.load(path)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a tomostain placement"):
        Placement.load(tmp_path / "other.json")


def test_a_damaged_field_is_reported_in_one_short_sentence(tmp_path):
    """Zipfile quotes a header that is damaged whole: kilobytes of it."""
    path = tilted().save(tmp_path / "slide.placement.json")
    data = bytearray((tmp_path / "slide.placement.npz").read_bytes())
    struct.pack_into("<H", data, 26, 4000)  # the length of the member's name
    (tmp_path / "slide.placement.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"slide\.placement\.npz cannot be read: ") as told:
        Placement.load(path)
    assert len(str(told.value)) < 500


def test_plane_holds_every_slide_pixel_and_lies_flat():
    placement = tilted()
    plane = placement.plane(5.0)
    corners = placement.slide_to_volume_um(np.array([[0.0, 0.0], [0.0, 599.0], [479.0, 0.0], [479.0, 599.0]]))
    inside = (corners - np.asarray(plane.corner_um)) @ np.stack([plane.down, plane.right], axis=1)
    assert inside.min() >= -1e-6
    assert (inside <= np.asarray(plane.shape) * 5.0).all()
    assert np.dot(plane.down, plane.right) == pytest.approx(0, abs=1e-12)
    off = (placement.slide_to_volume_um(np.array([[100.0, 200.0]])) - np.asarray(plane.corner_um)) @ plane.normal
    assert off == pytest.approx(0, abs=1e-9)


def test_mirrored_slide_keeps_its_columns():
    placement = dataclasses.replace(tilted(displaced=False), step_x_um=(0.02, -0.03, -0.91))
    plane = placement.plane(5.0)
    columns = placement.volume_um_to_slide_px(plane.points_um()[20])[:, 1]
    assert columns[0] == pytest.approx(0, abs=8)
    assert (np.diff(columns) > 0).all()


@pytest.mark.parametrize("spacing", [(0.0, 5.0), (float("nan"), 5.0), (-1.0, 5.0)])
def test_grid_refuses_impossible_spacing(spacing):
    with pytest.raises(ValueError, match="positive and finite"):
        Grid((4, 4), spacing)


def test_grid_index_of_origin_is_zero(ct_grid):
    np.testing.assert_allclose(ct_grid.index_of(np.array([2.5, -5.0, 10.0])), 0)
    np.testing.assert_allclose(ct_grid.index_of(np.array([7.5, 0.0, 20.0])), [1, 1, 2])


def windowed() -> Placement:
    """``tilted`` on a canvas with 100 px of glass above and 40 px to the left of it."""
    own = tilted()
    corner = np.asarray(own.corner_um) - 100 * np.asarray(own.step_y_um) - 40 * np.asarray(own.step_x_um)
    confidence = np.full((48, 60), 0.8, dtype=np.float32)
    return dataclasses.replace(
        own,
        slide_shape=(700, 900),
        corner_um=tuple(corner),
        window_px=((100, 580), (40, 640)),
        confidence=confidence,
    )


def test_a_placement_of_a_window_maps_its_pixels_as_the_plain_one_does(tmp_path, rng):
    loaded = Placement.load(windowed().save(tmp_path / "slide.placement.json"))
    points = rng.uniform((0, 0), (479, 599), (200, 2))
    np.testing.assert_allclose(
        loaded.slide_to_volume_um(points + np.asarray([100, 40])), tilted().slide_to_volume_um(points), atol=1e-6
    )
    np.testing.assert_allclose(
        loaded.volume_um_to_slide_px(tilted().slide_to_volume_um(points)), points + np.asarray([100, 40]), atol=1e-3
    )
    assert loaded.plane(5.0).shape == tilted().plane(5.0).shape
    np.testing.assert_allclose(loaded.confidence_at(points + np.asarray([100, 40])), 0.8)
    np.testing.assert_array_equal(loaded.confidence_at(np.asarray([[50.0, 300.0], [300.0, 660.0]])), 0)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"step_y_um": [0.0, 2e3, 0.0]}, "the length of step_y_um must lie between 0.001 and 1000, not at 2000"),
        ({"step_x_um": [0.0, 0.0, 1e-9]}, "the length of step_x_um"),
        ({"step_x_um": [0.08, 0.95, 0.03]}, "nearly parallel"),
        ({"corner_um": [float("nan"), 0, 0]}, "corner_um must lie between"),
        ({"corner_um": [0, 1e9, 0]}, "corner_um must lie between"),
        ({"thickness_um": 1e12}, "thickness_um must lie between 0 and 5000"),
        ({"thickness_um": float("nan")}, "thickness_um must lie between 0 and 5000"),
        ({"lattice_px": 1e-9}, "lattice_px must lie between"),
        ({"lattice_px": 6.0}, "the displacement covers 48 x 60 px"),
        ({"lattice_px": 6e4}, "the displacement covers"),
        ({"slide_shape": [1e9, 10]}, "slide_shape must lie between"),
        ({"slide_shape": [480.5, 600]}, "whole numbers"),
        ({"expected_tre_um": -1.0}, "expected_tre_um must lie between"),
        ({"window_px": [[0, 481], [0, 600]]}, "not part of a slide"),
        ({"window_px": [[9, 9], [0, 600]]}, "not part of a slide"),
    ],
)
def test_numbers_that_no_placement_has_are_refused_by_name(tmp_path, change, fault):
    path = tilted().save(tmp_path / "slide.placement.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=fault):
        Placement.load(path)


def test_displacement_and_confidence_out_of_bounds_are_refused(tmp_path):
    for change, fault in (
        ({"displacement_um": np.full((9, 11, 2), 5e4, np.float32)}, "larger than the slide"),
        ({"confidence": np.full((4, 4), 1.5, np.float32)}, "does not lie in 0 .. 1"),
    ):
        path = dataclasses.replace(tilted(), **change).save(tmp_path / "slide.placement.json")
        with pytest.raises(ValueError, match=fault):
            Placement.load(path)


def test_a_placement_as_large_as_a_house_needs_no_memory():
    huge = dataclasses.replace(tilted(displaced=False), step_y_um=(0.0, 900.0, 0.0), step_x_um=(0.0, 0.0, 900.0))
    plane = huge.plane(5.0)
    assert plane.shape[0] * plane.shape[1] > LARGE_PLANE_PX
    part = plane.within(Grid((40, 100, 120), (5.0, 5.0, 5.0)))
    assert part.shape[0] <= 102
    assert part.shape[1] <= 122
    at = np.asarray(part.corner_um) - np.asarray(plane.corner_um)
    np.testing.assert_allclose(at / 5.0, np.round(at / 5.0), atol=1e-6)
    with pytest.raises(ValueError, match=r"too large for pixels of 0\.1 um"):
        huge.plane(0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"spacing_um": float("nan")},
        {"spacing_um": 0.0},
        {"corner_um": [0, 0, float("inf")]},
        {"down": [0.0, 2.0, 0.0]},
        {"right": [0.0, 1.0, 0.0]},
        {"shape": [0, 5]},
        {"shape": [1e12, 5]},
        {"right": None},
    ],
)
def test_a_damaged_plane_is_refused(change):
    plane = tilted().plane(5.0)
    assert Plane.from_json(plane.to_json()) == plane
    with pytest.raises(ValueError, match=r"between|unit vectors|incomplete"):
        Plane.from_json(plane.to_json() | change)


def test_grid_refuses_an_origin_that_is_not_finite():
    with pytest.raises(ValueError, match="origin_um must be finite"):
        Grid((4, 4), (1.0, 1.0), (0.0, float("nan")))
