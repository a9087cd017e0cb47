"""Placements go there and back, planes hold their slide, grids know their indices."""

import dataclasses
import struct

import numpy as np
import pytest

from tomostain.images.geometry import Grid, Placement


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


def test_a_damaged_field_is_told_in_one_short_sentence(tmp_path):
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
