from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.errors import ConfigError, SpecError
from robot_rl.hardware.kinematics import Kinematics
from sim.robots import ARM7, ARM7_MJCF

# Franka Control Interface documentation, modified DH: a [m], d [m], alpha [rad] of joints 1 to 7 and the flange.
DH = [
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.316, np.pi / 2),
    (0.0825, 0.0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0.0, 0.0, np.pi / 2),
    (0.088, 0.0, np.pi / 2),
    (0.0, 0.107, 0.0),
]
HOME = np.asarray(ARM7.home)


@pytest.fixture(scope="module")
def arm() -> Kinematics:
    return Kinematics.from_mjcf(ARM7_MJCF, joints=ARM7.joints, site=ARM7.tcp)


def modified_dh(a: float, d: float, alpha: float, theta: float) -> np.ndarray:
    """Craig's modified DH transform: RotX(alpha) TransX(a) RotZ(theta) TransZ(d)."""
    ct, st_, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
    return np.array(
        [[ct, -st_, 0, a], [st_ * ca, ct * ca, -sa, -d * sa], [st_ * sa, ct * sa, ca, d * ca], [0, 0, 0, 1]]
    )


def closed_form_tool(q: np.ndarray) -> np.ndarray:
    """Pose of the hand's tool frame: flange, a turn of -45 degrees, 0.1034 m further."""
    T = np.eye(4)
    for (a, d, alpha), theta in zip(DH, [*q, 0.0], strict=True):
        T = T @ modified_dh(a, d, alpha, theta)
    return T @ modified_dh(0.0, 0.1034, 0.0, -np.pi / 4)


def random_angles(arm: Kinematics, n: int, margin: float = 0.0) -> np.ndarray:
    share = np.random.default_rng(0).uniform(margin, 1 - margin, size=(n, arm.n_joints))
    return arm.low + share * (arm.high - arm.low)


def test_forward_agrees_with_the_closed_form_over_the_joint_range(arm):
    for q in random_angles(arm, 200):
        np.testing.assert_allclose(arm.forward(q), closed_form_tool(q), atol=1e-9)


def test_joint_limits_are_the_published_ones(arm):
    np.testing.assert_array_equal(arm.low, [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
    np.testing.assert_array_equal(arm.high, [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])


def test_jacobian_agrees_with_finite_differences(arm):
    q, h = random_angles(arm, 1, margin=0.1)[0], 1e-6
    T = arm.forward(q)
    for j in range(7):
        step = h * np.eye(7)[j]
        dT = (arm.forward(q + step) - arm.forward(q - step)) / (2 * h)
        spin = dT[:3, :3] @ T[:3, :3].T  # the skew matrix of the angular velocity
        column = [*dT[:3, 3], spin[2, 1], spin[0, 2], spin[1, 0]]
        np.testing.assert_allclose(arm.jacobian(q)[:, j], column, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-0.25, 0.25), min_size=7, max_size=7))
def test_inverse_finds_the_pose_of_a_nearby_configuration(offset):
    arm = Kinematics.from_mjcf(ARM7_MJCF, joints=ARM7.joints, site=ARM7.tcp)
    target = arm.forward(HOME + offset)
    found = arm.inverse(target, start=HOME)
    np.testing.assert_allclose(arm.forward(found.joint_position), target, atol=2e-4)
    assert found.position_error_m < 1e-4
    assert found.rotation_error_rad < 1e-4


def test_inverse_of_the_pose_one_is_in_stays(arm):
    found = arm.inverse(arm.forward(HOME), start=HOME)
    np.testing.assert_array_equal(found.joint_position, HOME)
    assert found.position_error_m < 1e-12


def test_inverse_out_of_reach_keeps_to_the_limits_and_reports_the_distance(arm):
    target = arm.forward(HOME)
    target[:3, 3] = [3.0, 0.0, 0.5]
    found = arm.inverse(target, start=HOME, max_iterations=50)
    assert found.position_error_m > 1.5
    assert (found.joint_position >= arm.low).all()
    assert (found.joint_position <= arm.high).all()


def test_a_start_beyond_a_limit_is_brought_back(arm):
    start = HOME.copy()
    start[3] = 0.5
    found = arm.inverse(arm.forward(HOME), start=start, max_iterations=60)
    assert found.joint_position[3] <= arm.high[3]
    assert found.position_error_m < 1e-3


def test_mistakes_are_named(arm, tmp_path):
    with pytest.raises(ConfigError, match=r"no joint `joint9`; it has .*'joint1'"):
        Kinematics(arm.model, joints=["joint9"], site="tcp")
    with pytest.raises(ConfigError, match=r"no site `tool`; it has .*'tcp'"):
        Kinematics(arm.model, joints=ARM7.joints, site="tool")
    with pytest.raises(ConfigError, match="no robot model at"):
        Kinematics.from_mjcf(tmp_path / "none.xml", joints=ARM7.joints, site="tcp")
    with pytest.raises(SpecError, match=r"`joint_position` must be 7 finite angles \[rad\]"):
        arm.forward(np.zeros(6))
    with pytest.raises(SpecError, match="finite"):
        arm.inverse(np.eye(4), start=np.full(7, np.nan))
    free = tmp_path / "free.xml"
    free.write_text(
        "<mujoco><worldbody><body><joint name='j'/><geom size='.1'/><site name='t'/></body></worldbody></mujoco>"
    )
    with pytest.raises(ConfigError, match=r"joints \['j'\] have no `range`"):
        Kinematics.from_mjcf(free, joints=["j"], site="t")


def test_the_robot_side_needs_no_torch():
    code = "import sys, robot_rl.hardware.kinematics, sim.env, sim.expert, sim.pusht; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
