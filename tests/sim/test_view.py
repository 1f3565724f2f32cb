"""A picture made from published state shows what the environment's own camera shows."""

import numpy as np
import pytest

from robot_rl.errors import ConfigError, SpecError
from sim.env import ArmEnv
from sim.view import SceneView


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_the_same_state_gives_the_same_picture(camera):
    env = ArmEnv(cameras=(camera,), image_size=(48, 64))
    view = SceneView(camera, height=48, width=64)
    try:
        for seed in (1, 2):
            tick = env.reset(seed)
            for width in (0.08, 0.03):
                for _ in range(12):
                    tick = env.step(np.append(tick.obs["joint_position"], np.float32(width)))
                position = np.concatenate([tick.obs["joint_position"], tick.obs["gripper_width"]])
                seen = view.picture(position, {"cube_pose": tick.obs["cube_pose"]}).astype(int)
                difference = np.abs(seen - tick.obs[camera].astype(int))
                assert difference.mean() < 0.5
                assert (difference > 30).mean() < 0.005
    finally:
        view.close()
        env.close()


def test_the_pinhole_projects_the_cube_to_where_it_is_seen():
    """The wrist camera turns with the arm; the front camera stands still, so its pose is the scene's."""
    view = SceneView("front", height=240, width=320)
    try:
        cube = np.array([0.5, 0.1, 0.02, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        away = np.array([0.0, -0.30975, 0.0, -2.56455, 0.0, 2.2548, 0.785, 0.08])
        picture = view.picture(away, {"cube_pose": cube}).astype(int)
        red = (picture[..., 0] > 1.8 * picture[..., 1]) & (picture[..., 0] > 90)
        rows, columns = np.nonzero(red)
        camera = view._data.camera("front")
        optical = camera.xmat.reshape(3, 3) * [1.0, -1.0, -1.0]  # MuJoCo looks along -z with y up
        x, y, z = optical.T @ (cube[:3] - camera.xpos)
        fx, _, cx, _, fy, cy = view.intrinsics[:6]
        assert [columns.mean(), rows.mean()] == pytest.approx([fx * x / z + cx, fy * y / z + cy], abs=4.0)
    finally:
        view.close()


def test_refusals():
    with pytest.raises(
        ConfigError, match=r"there is no camera `side`; robot and scene have \['front', 'view', 'wrist'\]"
    ):
        SceneView("side", height=8, width=8)
    with pytest.raises(SpecError, match="must have 7 joints and the gripper if there is one, got 7"):
        SceneView("front", height=8, width=8).picture(np.zeros(7), {})
