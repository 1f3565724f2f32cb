"""Depth to points to a cloud of fixed size, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.errors import ConfigError, SpecError
from robot_rl.pointcloud import (
    Box,
    DepthView,
    Pinhole,
    check_transform,
    deproject,
    farthest_points,
    fixed_size,
    pose_matrix,
    transform,
)

PINHOLE = Pinhole(fx=2.0, fy=4.0, cx=1.0, cy=0.5)


def random_pose(rng: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    T = np.eye(4)
    T[:3, :3] = q * np.sign(np.linalg.det(q))
    T[:3, 3] = rng.standard_normal(3)
    return T


def test_deprojection_by_hand_skips_unknown_pixels_and_keeps_colours_beside_their_points():
    depth = np.array([[0, 2000, 0], [0, 0, 500]], dtype=np.uint16)  # (row 0, column 1) and (row 1, column 2)
    color = np.zeros((2, 3, 3), dtype=np.uint8)
    color[0, 1], color[1, 2] = (255, 0, 51), (0, 102, 0)
    expected = [[0.0, -0.25, 2.0, 1.0, 0.0, 0.2], [0.25, 0.0625, 0.5, 0.0, 0.4, 0.0]]
    np.testing.assert_allclose(deproject(depth, PINHOLE, color), expected, atol=1e-7)
    metres = np.where(depth > 0, depth / 1000, np.nan).astype(np.float32)
    metres[0, 0], metres[1, 0] = -1.0, np.inf
    np.testing.assert_allclose(deproject(metres, PINHOLE), np.array(expected)[:, :3], atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_projecting_the_points_gives_their_pixels_back(seed):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.2, 3.0, (5, 7)).astype(np.float32)
    x, y, z = deproject(depth, PINHOLE).T
    columns, rows = PINHOLE.fx * x / z + PINHOLE.cx, PINHOLE.fy * y / z + PINHOLE.cy
    expected = np.indices(depth.shape).reshape(2, -1)
    np.testing.assert_allclose([rows, columns], expected, atol=1e-5)


def test_transform_takes_camera_points_to_the_base_and_back():
    rng = np.random.default_rng(0)
    T, points = random_pose(rng), rng.standard_normal((10, 6)).astype(np.float32)
    moved = transform(points, T)
    np.testing.assert_allclose(moved[:, :3], (T @ np.c_[points[:, :3], np.ones(10)].T).T[:, :3], atol=1e-6)
    np.testing.assert_array_equal(moved[:, 3:], points[:, 3:])
    np.testing.assert_allclose(transform(moved, np.linalg.inv(T)), points, atol=1e-5)


def test_a_pose_of_nine_numbers_is_a_transform():
    T = random_pose(np.random.default_rng(3))
    np.testing.assert_allclose(pose_matrix(np.concatenate([T[:3, 3], T[:3, 0], T[:3, 1]])), T, atol=1e-12)


def test_farthest_points_on_a_line_by_hand():
    points = np.array([[0.0], [1], [2], [3], [10]]) * [[1.0, 0, 0]]
    assert farthest_points(points, 4).tolist() == [
        4,
        0,
        3,
        1,
    ]  # mean 3.2; then 0; then 3 (3 from 0); then 1, as far as 2
    assert sorted(farthest_points(points, 5).tolist()) == [0, 1, 2, 3, 4]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 30))
def test_farthest_points_is_the_greedy_choice_whatever_the_order(seed, n):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((40, 3)).astype(np.float32)
    slow = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmax())]
    while len(slow) < n:
        gaps = np.linalg.norm(points[:, None] - points[slow], axis=2).min(axis=1)
        slow.append(int(gaps.argmax()))
    assert farthest_points(points, n).tolist() == slow
    order = rng.permutation(40)
    assert order[farthest_points(points[order], n)].tolist() == slow


def test_duplicates_are_chosen_once_each():
    assert sorted(farthest_points(np.zeros((6, 3)), 6).tolist()) == list(range(6))


def test_a_small_cloud_is_repeated_and_counted_and_an_empty_one_refused():
    points = np.arange(9, dtype=np.float32).reshape(3, 3)
    cloud, count = fixed_size(points, 7)
    assert count == 3
    np.testing.assert_array_equal(cloud, points[[0, 1, 2, 0, 1, 2, 0]])
    whole, count = fixed_size(points, 3)
    assert count == 3
    np.testing.assert_array_equal(whole, points)
    thinned, count = fixed_size(points, 2)
    assert count == 2
    np.testing.assert_array_equal(thinned, points[farthest_points(points, 2)])
    with pytest.raises(SpecError, match="empty, 7 points are needed"):
        fixed_size(points[:0], 7)


def test_a_wrist_camera_follows_the_pose_it_is_mounted_on():
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.2, 1.0, (4, 5)).astype(np.float32)
    T_base_tcp, T_tcp_camera = random_pose(rng), random_pose(rng)
    pose = np.concatenate([T_base_tcp[:3, 3], T_base_tcp[:3, 0], T_base_tcp[:3, 1]])
    riding = DepthView(depth="d", pinhole=PINHOLE, T_mount_camera=T_tcp_camera, mount="tcp_pose")
    fixed = DepthView(depth="d", pinhole=PINHOLE, T_mount_camera=T_base_tcp @ T_tcp_camera)
    assert riding.reads == ("d", "tcp_pose")
    obs = {"d": depth, "tcp_pose": pose}
    np.testing.assert_allclose(riding.points(obs), fixed.points(obs), atol=1e-6)
    with pytest.raises(SpecError, match=r"needs \['tcp_pose'\], the observation has \['d'\]"):
        riding.points({"d": depth})


def test_box_keeps_its_faces():
    box = Box([0, 0, 0], [1, 1, 1])
    points = np.array([[0.0, 0, 0], [1, 1, 1], [0.5, 0.5, 1.001], [-0.001, 0.5, 0.5]])
    assert box.holds(points).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: Pinhole(fx=0.0, fy=1.0, cx=0.0, cy=0.0), ConfigError, "`fx` and `fy` must be positive"),
        (lambda: Pinhole(fx=float("nan"), fy=1.0, cx=0.0, cy=0.0), ConfigError, "finite"),
        (lambda: Pinhole.from_matrix((0.0,) * 9), ConfigError, "not calibrated"),
        (lambda: Pinhole.from_matrix((1, 2, 3)), ConfigError, r"`K` must be \(fx, 0, cx"),
        (lambda: Pinhole.from_matrix((5, 0.1, 2, 0, 5, 2, 0, 0, 1)), ConfigError, r"`K` must be"),
        (lambda: Box([0, 0, 0], [1, 0, 1]), ConfigError, "low < high"),
        (lambda: check_transform(np.eye(3), "T_base_camera"), ConfigError, r"`T_base_camera` .*\(4, 4\), got \(3, 3\)"),
        (lambda: check_transform(np.diag([2.0, 1, 1, 1]), "T"), ConfigError, r"orthonormal .* is 3 and det R 2"),
        (lambda: check_transform(np.diag([-1.0, 1, 1, 1]), "T"), ConfigError, "right-handed"),
        (lambda: check_transform(np.eye(4) + np.eye(4, k=-3), "T"), ConfigError, "transposed"),
        (lambda: deproject(np.zeros((4, 4), np.int32), PINHOLE), SpecError, r"got int32\(4, 4\)"),
        (lambda: deproject(np.zeros((4, 4, 1), np.uint16), PINHOLE), SpecError, r"got uint16\(4, 4, 1\)"),
        (
            lambda: deproject(np.zeros((4, 4), np.uint16), PINHOLE, np.zeros((2, 4, 3), np.uint8)),
            SpecError,
            r"uint8\(4, 4, 3\), aligned to the depth, got uint8\(2, 4, 3\)",
        ),
        (lambda: farthest_points(np.zeros((3, 3)), 4), SpecError, r"1 <= n <= 3 points, got n = 4"),
    ],
)
def test_what_does_not_fit_is_named(build, error, text):
    with pytest.raises(error, match=text):
        build()
