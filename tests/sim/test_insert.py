"""The peg goes in where it fits and nowhere else, and the expert does it from observations."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from robot_rl.errors import ConfigError, SpecError
from robot_rl.interfaces import Policy
from robot_rl.values import PolicyInput
from sim.arm import SimArm
from sim.env import ArmEnv
from sim.insert import BLOCK_HEIGHT_M, PEG_LENGTH_M, Insert
from sim.insert_expert import InsertExpert, InsertPhase
from sim.robots import load_robot
from sim.scene import build_scene
from tests.contracts.env import check_env


def make_env(**task):
    return ArmEnv(task=Insert(**task), max_steps=80)


@pytest.fixture(scope="module")
def env():
    return make_env()


def ask(expert, tick, *, shift_m=(0.0, 0.0)):
    obs = {name: value[None].copy() for name, value in tick.obs.items()}
    obs["hole_pose"][0, :2] += np.array(shift_m, np.float32)
    return expert.act(PolicyInput(obs=obs, stamp_ns=tick.stamp_ns)).action[0]


def insert(env, expert, seed, **how):
    tick = env.reset(seed)
    expert.reset()
    ticks, phases = [tick], []
    while not (tick.terminated or tick.truncated):
        tick = env.step(ask(expert, tick, **how))
        ticks.append(tick)
        phases.append(expert.phase)
    return ticks, phases


def tip_in_hole(tick):
    """Return the tip's place in the frame of the hole's mouth [m]."""
    peg, hole = np.asarray(tick.obs["peg_pose"], float), np.asarray(tick.obs["hole_pose"], float)
    axes = np.stack([hole[3:6], hole[6:9], np.cross(hole[3:6], hole[6:9])], axis=1)
    return axes.T @ (peg[:3] - PEG_LENGTH_M / 2 * np.cross(peg[3:6], peg[6:9]) - hole[:3])


def pushed_straight_down(off_m, *, yaw=0.0, force_n=40.0, **task):
    """Return how deep [m] a peg gets in two seconds that a guide holds off the hole's axis and a force pushes."""
    spec = mujoco.MjSpec()
    spec.option.timestep = 0.002
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    Insert(**task).add_to(spec)
    peg = spec.body("peg")
    for joint in list(peg.joints):
        spec.delete(joint)
    peg.pos = (0.5 + off_m[0], off_m[1], BLOCK_HEIGHT_M + PEG_LENGTH_M / 2 + 0.002)
    peg.quat = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
    peg.add_joint(type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, 0, 1), damping=20.0, limited=True, range=(-0.05, 0.1))
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qfrc_applied[0] = -force_n
    mujoco.mj_step(model, data, 1000)
    return BLOCK_HEIGHT_M - (data.body("peg").xpos[2] - PEG_LENGTH_M / 2)


def test_it_is_an_environment():
    check_env(make_env)


@pytest.mark.parametrize("off_m", [(0.0, 0.0), (0.0004, 0.0), (0.0004, -0.0004)])
def test_a_peg_within_half_the_clearance_goes_in(off_m):
    assert pushed_straight_down(off_m) > 0.045


@pytest.mark.parametrize("off_m", [(0.001, 0.0), (0.0, -0.001), (0.001, 0.001), (0.002, 0.0), (0.005, 0.0)])
def test_a_peg_that_is_a_millimetre_off_stays_out(off_m):
    assert pushed_straight_down(off_m) < 0.006  # no deeper than the bevel and a little
    assert pushed_straight_down(off_m, bevel_m=0.0) < 0.004


def test_a_turned_peg_stays_out():
    assert pushed_straight_down((0.0, 0.0), yaw=0.02) > 0.045
    assert pushed_straight_down((0.0, 0.0), yaw=0.1) < 0.006


def test_the_peg_is_held_from_the_start_and_stays_where_it_is_held(env):
    tick = env.reset(0)
    width = float(tick.obs["gripper_width"][0])
    assert 0.017 < width < 0.0205
    hold = np.append(tick.obs["joint_position"], 0.0).astype(np.float32)
    before = tick.obs["peg_pose"][:3] - tick.obs["tcp_pose"][:3]
    for _ in range(20):
        tick = env.step(hold)
    assert np.abs(tick.obs["peg_pose"][:3] - tick.obs["tcp_pose"][:3] - before).max() < 5e-4
    assert tick.action_executed[-1] == 0.0  # the gripper's target begins closed: nothing opens it on the way


def test_an_opened_gripper_drops_the_peg(env):
    tick = env.reset(1)
    opened = np.append(tick.obs["joint_position"], 0.08).astype(np.float32)
    for _ in range(30):
        tick = env.step(opened)
    assert tick.obs["peg_pose"][2] < 0.06


def test_hole_and_grasp_differ_by_seed_within_their_ranges(env):
    holes, along, up = [], [], []
    for seed in range(40):
        tick = env.reset(seed)
        holes.append([*tick.obs["hole_pose"][:2], np.arctan2(tick.obs["hole_pose"][4], tick.obs["hole_pose"][3])])
        peg, tool = tick.obs["peg_pose"], tick.obs["tcp_pose"]
        offset = peg[:3] - tool[:3]
        along.append(float(offset @ tool[3:6]))
        up.append(float(offset @ np.cross(tool[3:6], tool[6:9])))
    low, high = np.min(holes, axis=0), np.max(holes, axis=0)
    assert (low >= [0.44, -0.08, -0.3]).all()
    assert (high <= [0.56, 0.08, 0.3]).all()
    assert (high - low > [0.08, 0.1, 0.4]).all()
    assert np.abs(along).max() < 0.0035
    assert np.ptp(along) > 0.003
    assert 0.003 < np.ptp(up) < 0.0065


def test_the_expert_inserts_ten_pegs_and_the_tip_is_where_only_a_fitting_one_can_be(env):
    expert = InsertExpert()
    assert isinstance(expert, Policy)
    for seed in range(10):
        ticks, phases = insert(env, expert, seed)
        assert ticks[-1].success
        assert sum(tick.reward for tick in ticks) == 1.0
        assert len(phases) <= 45
        assert phases[0] is InsertPhase.OVER
        x, y, z = tip_in_hole(ticks[-1])
        assert z < -0.025
        assert max(abs(x), abs(y)) < 0.0005 + 2e-4


def test_an_expert_that_aims_wrong_finds_the_hole_by_searching(env):
    ticks, phases = insert(env, InsertExpert(), 8, shift_m=(0.0, 0.0045))
    assert InsertPhase.SEARCH in phases
    assert ticks[-1].success


def test_contact_stays_shallow_while_the_arm_presses_beside_the_hole(env):
    expert, tick = InsertExpert(), env.reset(0)
    expert.reset()
    model, data = env._model, env._data
    peg, block = model.geom("peg").id, model.body("block").id
    deepest, touched = 0.0, False
    while not (tick.terminated or tick.truncated):
        tick = env.step(ask(expert, tick, shift_m=(0.012, 0.0)))
        for contact in data.contact:
            if peg in contact.geom and block in model.geom_bodyid[contact.geom]:
                deepest, touched = min(deepest, contact.dist), True
    assert touched
    assert deepest > -4e-4
    assert not tick.success


def test_the_expert_repeats_an_episode_whatever_came_before(env):
    expert = InsertExpert()
    first = np.stack([tick.action for tick in insert(env, expert, 1)[0][1:]])
    insert(env, expert, 2)
    np.testing.assert_array_equal(first, np.stack([tick.action for tick in insert(env, expert, 1)[0][1:]]))
    other = np.stack([tick.action for tick in insert(env, InsertExpert(seed=1), 1)[0][1:]])
    n = min(len(first), len(other))
    assert np.abs(first[:n] - other[:n]).max() > 1e-3


def test_a_peg_beside_the_block_is_no_success():
    task = Insert()
    model = build_scene(load_robot(), task)
    data = mujoco.MjData(model)
    arm = SimArm(model, data, load_robot())
    for x, done in ((0.5, True), (0.7, False)):
        data.joint("peg").qpos[:] = [x, 0.0, PEG_LENGTH_M / 2 + 0.02, 1.0, 0.0, 0.0, 0.0]
        mujoco.mj_kinematics(model, data)
        assert task.succeeded(arm) is done


def test_mistakes_are_named(env):
    with pytest.raises(ConfigError, match=r"sizes must not be negative, got \{'clearance_m': -0.001\}"):
        Insert(clearance_m=-0.001)
    with pytest.raises(ConfigError, match=r"bevel_m < depth_m < 0\.05"):
        Insert(depth_m=0.06)
    with pytest.raises(ConfigError, match=r"needs a gripper that opens more than 0\.02 m, got none"):
        ArmEnv(load_robot(gripper=None), Insert()).reset(0)
    with pytest.raises(ConfigError, match="the insert expert needs a robot with a gripper"):
        InsertExpert(load_robot(gripper=None))
    obs = {name: value[None] for name, value in env.reset(0).obs.items() if name != "hole_pose"}
    with pytest.raises(SpecError, match=r"needs observations \['hole_pose'\]"):
        InsertExpert().act(PolicyInput(obs=obs, stamp_ns=0))
