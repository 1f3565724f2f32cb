"""The simulated depth camera against what is known of the scene: planes, corners, the cube."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from robot_rl.cloud_transform import PointCloudTransform
from robot_rl.errors import ConfigError, SpecError
from robot_rl.pointcloud import Box, DepthView, deproject, pose_matrix, transform
from sim.depth import CloudSettings, camera_pinhole, optical_pose
from sim.env import ArmEnv
from sim.rendering import Renderer
from tests.contracts.env import check_env

SIZE = (120, 160)
WALL = """
<mujoco>
  <visual><map znear="0.01" zfar="50"/></visual><statistic extent="1"/>
  <worldbody>
    <camera name="eye" pos="0 0 0" xyaxes="1 0 0 0 0 1" fovy="60"/>
    <geom type="box" pos="0 2.1 0" size="0.5 0.1 5"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def env():
    arm_env = ArmEnv(depth_cameras=("front", "wrist"), cameras=("front",), image_size=SIZE)
    yield arm_env
    arm_env.close()


def points(env: ArmEnv, obs: dict, camera: str) -> np.ndarray:
    name = env._camera_names[camera]
    cloud = deproject(obs[f"{camera}_depth"], camera_pinhole(env._model, name, *SIZE))
    return transform(cloud, pose_matrix(optical_pose(env._data, name).astype(np.float64)))


def test_depth_is_along_the_axis_and_zero_where_nothing_is():
    model = mujoco.MjModel.from_xml_string(WALL)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = Renderer(model, 40, 60)
    depth = renderer.depth(data, "eye")
    renderer.close()
    np.testing.assert_allclose(depth[:, 30], 2.0, atol=1e-5)  # the same from top to bottom: not along the ray
    assert (depth[:, 0] == 0.0).all()
    pinhole = camera_pinhole(model, "eye", 40, 60)
    seen = deproject(depth, pinhole)
    pixel = 2.0 / pinhole.fx
    assert abs(seen[:, 0].min() + 0.5) < pixel
    assert abs(seen[:, 0].max() - 0.5) < pixel
    assert seen[:, 1].max() == pytest.approx(2.0 * np.tan(np.deg2rad(30)) * 39 / 40, abs=1e-5)


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_the_table_lies_on_its_plane_and_the_cubes_top_at_its_height(env, camera):
    tick = env.reset(3)
    cloud = points(env, tick.obs, camera)
    cube = tick.obs["cube_pose"]
    turned = (cloud - cube[:3]) @ np.stack([cube[3:6], cube[6:9], [0, 0, 1]], axis=1)
    over_cube = (np.abs(turned[:, :2]) < 0.018).all(axis=1) & (cloud[:, 2] > 0.02) & (cloud[:, 2] < 0.06)
    assert over_cube.sum() > 10
    np.testing.assert_allclose(cloud[over_cube, 2], 0.04, atol=1e-3)
    workspace = Box([0.3, -0.3, -0.01], [0.95, 0.3, 0.01])
    beside_cube = np.linalg.norm(cloud[:, :2] - cube[:2], axis=1) > 0.04
    table = cloud[workspace.holds(cloud) & beside_cube]
    assert len(table) > 1000
    to_plane = np.minimum(np.abs(table[:, 2]), np.abs(table[:, 2] - 0.001))  # the mat is 1 mm thick
    assert to_plane.max() < 1e-3
    assert np.quantile(to_plane, 0.99) < 1e-5  # all but the pixels on the mat's edge


def test_two_cameras_agree_where_the_cube_is(env):
    tick = env.reset(11)
    centre = tick.obs["cube_pose"][:3]
    for camera in ("front", "wrist"):
        cloud = points(env, tick.obs, camera)
        near = cloud[(np.abs(cloud - centre) < 0.03).all(axis=1) & (cloud[:, 2] > 0.005)]
        assert len(near) > 10
        assert (np.abs(near - centre).max(axis=1) < 0.02 * np.sqrt(2) + 1e-3).all()


def test_the_observed_cloud_is_what_the_depth_image_gives():
    settings = CloudSettings(image_size=SIZE, n_points=64)
    env = ArmEnv(depth_cameras=("front",), image_size=SIZE, point_cloud=settings)
    obs = env.reset(5).obs
    name = env._camera_names["front"]
    view = DepthView(
        depth="front_depth", pinhole=camera_pinhole(env._model, name, *SIZE),
        T_mount_camera=pose_matrix(optical_pose(env._data, name).astype(np.float64)),
    )  # fmt: skip
    add = PointCloudTransform([view], box=Box(settings.low, settings.high), n_points=64)
    np.testing.assert_allclose(add(obs)["point_cloud"], obs["point_cloud"], atol=1e-6)
    env.spec.validate_obs(obs)
    env.close()


def test_colours_come_with_their_points():
    env = ArmEnv(point_cloud=CloudSettings(cameras=("front", "wrist"), n_points=256, color=True))
    obs = env.reset(0).obs
    cloud = obs["point_cloud"]
    assert cloud.shape == (256, 6)
    on_cube = (np.abs(cloud[:, :3] - obs["cube_pose"][:3]) < 0.02).all(axis=1)
    assert on_cube.sum() > 5
    red = cloud[on_cube, 3] > 1.8 * cloud[on_cube, 4]
    assert red.mean() > 0.8
    env.close()


def test_between_renders_the_last_cloud_stands():
    env = ArmEnv(point_cloud=CloudSettings(n_points=32, every=3))
    obs = env.reset(0).obs
    away = np.append(obs["joint_position"], 0.08).astype(np.float32)
    away[0] += 0.5
    seen = [obs["point_cloud"], *(env.step(away).obs["point_cloud"] for _ in range(6))]
    fresh = [i for i in range(1, 7) if not np.array_equal(seen[i], seen[i - 1])]
    assert fresh == [3, 6]
    seen[6][:] = 0.0  # the caller's own
    assert np.array_equal(env.reset(0).obs["point_cloud"], seen[0])
    env.close()


def test_an_arm_that_sees_a_cloud_holds_the_contract():
    settings = CloudSettings(n_points=32, image_size=(48, 64))
    check_env(
        lambda: ArmEnv(max_steps=4, point_cloud=settings, depth_cameras=("wrist",), image_size=(24, 32)), n_steps=3
    )


def test_what_does_not_fit_is_named():
    with pytest.raises(ConfigError, match=r"no camera `top`; robot and scene have \['front', 'view', 'wrist'\]"):
        ArmEnv(point_cloud=CloudSettings(cameras=("top",)))
    with pytest.raises(ConfigError, match=r"no camera `side`"):
        ArmEnv(depth_cameras=("side",))
    with pytest.raises(ConfigError, match=r"`every` >= 1, got \['front'\] and 0"):
        CloudSettings(every=0)
    env = ArmEnv(point_cloud=CloudSettings(low=(5.0, 5.0, 5.0), high=(6.0, 6.0, 6.0)))
    with pytest.raises(SpecError, match="0 of them lie in the box"):
        env.reset(0)
    env.close()
