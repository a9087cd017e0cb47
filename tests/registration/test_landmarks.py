"""Landmarks give the plane, name their outliers, and are refused where they say nothing."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomostain.registration.landmarks import fit_landmarks, read_landmarks, similarity


@pytest.fixture
def known():
    turn = Rotation.from_euler("xyz", [170, 8, 40], degrees=True).as_matrix()
    rng = np.random.default_rng(3)
    points = rng.uniform(-800, 800, (8, 2))
    volume = np.asarray([300.0, 900.0, 1000.0]) + 1.05 * points @ turn[:, 1:].T
    return points, volume, 1.05 * turn[:, 1:]


def test_exact_landmarks_give_the_exact_pose(known):
    points, volume, axes = known
    pose = similarity(points, volume)
    np.testing.assert_allclose(pose.axes, axes, atol=1e-9)
    np.testing.assert_allclose(pose.centre_um, [300, 900, 1000], atol=1e-6)


def test_outliers_are_named_and_do_not_move_the_pose(known):
    points, volume, axes = known
    moved = volume.copy()
    moved[2] += [400.0, -300.0, 0.0]
    found = fit_landmarks(points, moved, tuple(f"L{i}" for i in range(8)))
    assert found.outliers == ("L2",)
    np.testing.assert_allclose(found.pose.axes, axes, atol=1e-9)
    assert found.distance_um[2] == pytest.approx(500.0)


def test_landmarks_on_a_line_are_refused():
    points = np.column_stack([np.arange(5.0) * 100, np.zeros(5)])
    with pytest.raises(ValueError, match="one line"):
        fit_landmarks(points, np.column_stack([np.zeros(5), points]), tuple("abcde"))


def test_csv_is_read_with_names_or_line_numbers(tmp_path):
    file = tmp_path / "l.csv"
    rows = ["name,slide_y_px,slide_x_px,volume_y_um,volume_x_um", "apex,1,2,3,4", ",5,6,7,8", "a,0,9,1,1", "b,9,0,2,2"]
    file.write_text("\n".join(rows) + "\n")
    found = read_landmarks(file)
    assert found.names == ("apex", "line 3", "a", "b")
    np.testing.assert_array_equal(found.slide_px[0], [1, 2])
    np.testing.assert_array_equal(found.volume_um[1], [0, 7, 8])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("slide_y_px,slide_x_px,volume_y_um\n1,2,3\n", "lacks the column volume_x_um"),
        ("slide_y_px,slide_x_px,volume_y_um,volume_x_um\n1,2,3,four\n", "line 2: every coordinate must be a number"),
        ("slide_y_px,slide_x_px,volume_y_um,volume_x_um\n1,2,3,4\n", "holds 1 landmarks; set at least 4"),
    ],
)
def test_faulty_csv_is_reported_by_name(tmp_path, text, fault):
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"bad.csv.*{fault}"):
        read_landmarks(file)
