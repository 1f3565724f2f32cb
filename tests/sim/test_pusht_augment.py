"""Demonstrations moved by symmetries of PushT stay demonstrations of the same physics."""

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.values import Episode, RecordingMeta
from sim.pusht import PushTEnv, replay_episode
from sim.pusht_augment import GOAL_POSE, hindsight, hindsight_and_mirror, mirror


def _demonstration(n: int = 60) -> Episode:
    """Drive the pusher through the block by a fixed script, so that the block moves and turns."""
    env = PushTEnv()
    tick = env.reset(3)
    rows, actions = [], []
    start, block = tick.obs["agent_pos"], tick.obs["block_pose"][:2]
    for i in range(n):
        wiggle = np.array([20 * np.sin(i / 5), 0])
        action = (start + (block - start) * min(1.6 * i / n, 1.3) + wiggle).clip(30, 480).astype(np.float32)
        rows.append(np.concatenate([tick.obs["agent_pos"], tick.obs["block_pose"]]))
        actions.append(action)
        tick = env.step(action)
    env.close()
    states, action_array = np.array(rows, dtype=np.float32), np.array(actions, dtype=np.float32)
    ones = np.ones(n, dtype=bool)
    return Episode(
        id="demo", stamp_ns=np.arange(n, dtype=np.int64) * 10**8,
        obs={"agent_pos": states[:, :2], "block_pose": states[:, 2:], "image": np.zeros((n, 4, 4, 3), np.uint8)},
        final_obs=None, action=action_array, action_executed=action_array,
        reward=np.zeros(n, np.float32), by_human=ones,
        valid=ones, terminated=False, truncated=True, meta=RecordingMeta(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def demo() -> Episode:
    episode = _demonstration()
    poses = np.asarray(episode.obs["block_pose"])
    assert np.abs(poses[-1] - poses[0]).max() > 5, "the script must move the block, or the tests below show nothing"
    return episode


def test_hindsight_ends_on_the_goal_and_keeps_distances(demo: Episode) -> None:
    moved = hindsight(demo)
    last = np.asarray(moved.obs["block_pose"])[-1]
    np.testing.assert_allclose(last[:2], GOAL_POSE[:2], atol=1e-4)
    np.testing.assert_allclose(np.exp(1j * last[2]), np.exp(1j * GOAL_POSE[2]), atol=1e-5)
    for one, other in (("agent_pos", "block_pose"),):
        before = np.linalg.norm(np.asarray(demo.obs[one]) - np.asarray(demo.obs[other])[:, :2], axis=1)
        after = np.linalg.norm(np.asarray(moved.obs[one]) - np.asarray(moved.obs[other])[:, :2], axis=1)
        np.testing.assert_allclose(after, before, atol=1e-3)


def test_a_demonstration_that_ends_on_the_goal_is_its_own_hindsight(demo: Episode) -> None:
    once = hindsight(demo)
    twice = hindsight(once)
    np.testing.assert_allclose(twice.action, once.action, atol=1e-3)


def test_the_mirror_undoes_itself_and_keeps_the_goal(demo: Episode) -> None:
    back = mirror(mirror(demo))
    np.testing.assert_allclose(back.action, demo.action, atol=1e-4)
    np.testing.assert_allclose(back.obs["block_pose"], demo.obs["block_pose"], atol=1e-4)
    x, y, angle = GOAL_POSE
    assert (512 - y, 512 - x, np.pi / 2 - angle) == pytest.approx(GOAL_POSE)


def test_physics_agrees_with_the_mirror(demo: Episode) -> None:
    """Mirrored actions from the mirrored start give the mirrored states: the symmetry is the environment's own."""
    image = mirror(demo)
    states = np.concatenate([np.asarray(image.obs["agent_pos"]), np.asarray(image.obs["block_pose"])], axis=1)
    env = PushTEnv()
    replay = replay_episode(env, states, image.action)
    env.close()
    assert np.median(replay.position_error_px) < 0.01
    assert np.percentile(replay.position_error_px, 95) < 1.0


def test_pictures_are_left_out_since_they_cannot_be_moved(demo: Episode) -> None:
    assert [set(e.obs) for e in hindsight_and_mirror(demo)] == [{"agent_pos", "block_pose"}] * 2


def test_an_episode_without_a_block_is_refused(demo: Episode) -> None:
    from dataclasses import replace

    with pytest.raises(ConfigError, match="needs the observation `block_pose`"):
        hindsight(replace(demo, obs={"agent_pos": demo.obs["agent_pos"], "block_pose_": demo.obs["block_pose"]}))
