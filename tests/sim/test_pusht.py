from __future__ import annotations

import builtins

import numpy as np
import pytest

from robot_rl.errors import ConfigError, MissingExtraError, SpecError

pytest.importorskip("gym_pusht", reason="needs pip install --no-deps gym-pusht==0.1.8")

from sim.pusht import PushTEnv, block_keypoints, replay_episode
from tests.contracts.env import check_env


@pytest.fixture(scope="module")
def demonstrations(shared_data):
    import zarr

    group = zarr.open(str(shared_data / "pusht_cchi_v7" / "pusht_cchi_v7_replay.zarr"), mode="r")
    ends = group["meta/episode_ends"][:4]
    rows = slice(0, int(ends[-1]))
    data = {name: group[f"data/{name}"][rows] for name in ("state", "action", "keypoint")}
    starts = [0, *ends[:-1]]
    return [{k: v[a:b] for k, v in data.items()} for a, b in zip(starts, ends, strict=True)]


def test_holds_the_contract():
    check_env(lambda: PushTEnv(max_steps=15))


def test_holds_the_contract_with_pictures_and_keypoints():
    check_env(lambda: PushTEnv(obs=("image", "keypoint", "agent_pos"), max_steps=5), n_steps=4)


def test_recorded_actions_reproduce_recorded_states(demonstrations):
    env = PushTEnv()
    for episode in demonstrations[:3]:
        replay = replay_episode(env, episode["state"], episode["action"])
        assert len(replay.simulated) == len(episode["state"])
        assert np.median(replay.position_error_px) < 2e-5
        assert replay.position_error_px.max() < 1e-2
        assert replay.angle_error_rad.max() < 1e-4


def test_one_step_from_each_recorded_state_is_exact_to_float32(demonstrations):
    replay = replay_episode(PushTEnv(), demonstrations[3]["state"], demonstrations[3]["action"], open_loop=False)
    assert replay.position_error_px.max() < 5e-5
    assert replay.angle_error_rad.max() < 1e-6


def test_the_trap_position_before_angle_misplaces_the_block(demonstrations):
    """gym-pusht's own reset_to_state sets them in the other order, and lands elsewhere."""
    state = demonstrations[0]["state"][0].astype(np.float64)
    env = PushTEnv()
    env.set_state(state[:2], state[2:])
    np.testing.assert_allclose(env.state, state, atol=1e-9)
    env._gym.reset(options={"reset_to_state": state})
    assert np.linalg.norm(env.state[2:4] - state[2:4]) > 1.0


def test_keypoints_are_those_of_the_data_set(demonstrations):
    episode = demonstrations[0]
    ours = np.stack([block_keypoints(state[2:].astype(np.float64)) for state in episode["state"]])
    assert np.median(np.abs(ours - episode["keypoint"])) < 1e-4


def test_reset_is_gym_pushts_own():
    import gymnasium

    reference = gymnasium.make("gym_pusht/PushT-v0", obs_type="state", disable_env_checker=True)
    env = PushTEnv()
    for seed in (0, 41):
        expected, _ = reference.reset(seed=seed)
        tick = env.reset(seed)
        action = np.array([100.0, 400.0], np.float32)
        for _ in range(5):
            np.testing.assert_array_equal(tick.obs["agent_pos"], expected[:2].astype(np.float32))
            np.testing.assert_array_equal(tick.obs["block_pose"], expected[2:].astype(np.float32))
            expected, reward, *_ = reference.step(action.astype(np.float64))
            tick = env.step(action)
            assert tick.reward == reward
    reference.close()


def test_success_needs_more_than_95_percent_and_terminates():
    env = PushTEnv()
    away = np.array([20.0, 20.0], np.float32)
    # The goal is the T's frame at (256, 256), turned by 45 degrees.
    for offset, done in ((0.0, True), (20.0, False)):
        env.set_state(away, np.array([256.0 + offset, 256.0, np.pi / 4]))
        tick = env.step(away)
        assert tick.success is done
        assert tick.terminated is done
        assert (tick.info["coverage"] > 0.95) is done
        assert tick.reward == pytest.approx(min(tick.info["coverage"] / 0.95, 1.0))


def test_actions_are_clamped_to_the_table_and_truncate_at_the_limit():
    env = PushTEnv(max_steps=2)
    env.reset(0)
    tick = env.step(np.array([-40.0, 900.0], np.float32))
    np.testing.assert_array_equal(tick.action, [-40.0, 900.0])
    np.testing.assert_array_equal(tick.action_executed, [0.0, 512.0])
    assert env.step(np.array([1.0, 1.0], np.float32)).truncated


def test_mistakes_are_named(monkeypatch):
    with pytest.raises(ConfigError, match=r"no observation \['velocity'\]; choose from \['agent_pos', 'block_pose'"):
        PushTEnv(obs=("velocity",))
    with pytest.raises(ConfigError, match="`max_steps` must be at least 1, got 0"):
        PushTEnv(max_steps=0)
    env = PushTEnv()
    with pytest.raises(SpecError, match="`block_pose` must be 3 finite numbers"):
        env.set_state(np.zeros(2), np.zeros(2))
    with pytest.raises(SpecError, match=r"replay needs states \[N, 5\] and actions \[N, 2\]"):
        replay_episode(env, np.zeros((4, 5)), np.zeros((3, 2)))
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("gym_pusht"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"run: pip install --no-deps gym-pusht==0\.1\.8"):
        PushTEnv()
