"""The observation `point_cloud`: the same from a tick, from a recorded episode, and for several cameras."""

from __future__ import annotations

import numpy as np
import pytest

from robot_rl.cloud_transform import PointCloudTransform
from robot_rl.errors import ConfigError, SpecError
from robot_rl.pointcloud import Box, DepthView, Pinhole, deproject
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Episode, RecordingMeta

PINHOLE = Pinhole(fx=20.0, fy=20.0, cx=7.5, cy=5.5)
BOX = Box([-2, -2, 0.1], [2, 2, 0.9])
SHAPE = (12, 16)


def view(name: str, shift: float = 0.0, **more) -> DepthView:
    T = np.eye(4)
    T[0, 3] = shift
    return DepthView(depth=name, pinhole=PINHOLE, T_mount_camera=T, **more)


def depth(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(200, 1500, SHAPE).astype(np.uint16)


def test_points_outside_the_box_are_gone_and_the_rest_are_real():
    add = PointCloudTransform([view("a")], box=BOX, n_points=32)
    obs = add({"a": depth(0)})
    cloud = obs["point_cloud"]
    add.spec.validate(cloud)
    every = deproject(depth(0), PINHOLE)
    assert all((np.abs(every - point).max(axis=1) == 0).any() for point in cloud)
    assert BOX.holds(cloud).all()
    assert len(np.unique(cloud, axis=0)) == 32
    assert set(obs) == {"a", "point_cloud"}


def test_cameras_are_fused_before_sampling():
    left, right = view("a"), view("b", shift=1.5)
    both = PointCloudTransform([left, right], box=BOX, n_points=16)
    cloud, count = both.cloud({"a": depth(0), "b": depth(1)})
    assert count == 16
    assert both.reads == ("a", "b")
    alone = deproject(depth(0), PINHOLE)
    from_a = [(np.abs(alone - point).max(axis=1) == 0).any() for point in cloud]
    assert 0 < sum(from_a) < 16


def test_few_points_are_repeated_and_too_few_refused():
    few = np.zeros(SHAPE, np.uint16)
    few[3, 4:7] = 500
    add = PointCloudTransform([view("a")], box=BOX, n_points=8, min_points=3)
    cloud, count = add.cloud({"a": few})
    assert count == 3
    np.testing.assert_array_equal(cloud[:3], cloud[3:6])
    few[3, 4] = 0
    with pytest.raises(SpecError, match="at least 3 points, 2 pixels have depth and 2 of them lie in the box"):
        add({"a": few})


def test_an_episode_gets_what_its_ticks_get_colours_too():
    color = np.random.default_rng(5).integers(0, 256, (3, *SHAPE, 3), dtype=np.uint8)
    depths = np.stack([depth(n) for n in range(3)])
    add = PointCloudTransform([view("a", color="rgb")], box=BOX, n_points=10, name="cloud")
    n = 2
    zeros = np.zeros((n, 1), np.float32)
    episode = Episode(
        id="e", stamp_ns=np.arange(n), obs={"a": depths[:n], "rgb": color[:n]},
        final_obs={"a": depths[n], "rgb": color[n]}, action=zeros, action_executed=zeros, reward=zeros[:, 0],
        by_human=np.zeros(n, bool), valid=np.ones(n, bool), terminated=True, truncated=False, meta=RecordingMeta(),
    )  # fmt: skip
    seen = add.episode(episode)
    for i in range(n):
        np.testing.assert_array_equal(seen.obs["cloud"][i], add({"a": depths[i], "rgb": color[i]})["cloud"])
    assert seen.obs["cloud"].shape == (2, 10, 6)
    np.testing.assert_array_equal(seen.final_obs["cloud"], add({"a": depths[n], "rgb": color[n]})["cloud"])


def test_the_robot_gains_the_cloud_and_a_clash_or_a_gap_is_named():
    arrays = {"a": ArraySpec(name="a", shape=SHAPE, dtype="uint16", unit="mm")}
    robot = RobotSpec(name="rig", obs=arrays, action=ActionSpec(name="action", shape=(1,)), control_hz=10)
    add = PointCloudTransform([view("a")], box=BOX, n_points=4)
    more = add.robot(robot)
    assert more.obs["point_cloud"].shape == (4, 3)
    with pytest.raises(ConfigError, match="has an observation `point_cloud` already"):
        add.robot(more)
    with pytest.raises(ConfigError, match=r"reads \['b'\], robot `rig` has \['a'\]"):
        PointCloudTransform([view("b")], box=BOX).robot(robot)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"views": []}, "at least one view"),
        ({"views": [view("a"), view("b", color="c")]}, "all with colour or none"),
        ({"views": [view("a")], "n_points": 0}, "`n_points` and `min_points` must be at least 1"),
    ],
)
def test_bad_settings_say_what_was_expected(settings, text):
    with pytest.raises(ConfigError, match=text):
        PointCloudTransform(**{"box": BOX} | settings)
