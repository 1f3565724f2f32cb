"""The replay holds what the episodes hold, at real stores with compressed pictures too."""

import numpy as np
import pytest

from robot_rl.data.recorder import TickRecorder
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import SpecError
from robot_rl.rl.interventions import intervention_reward
from robot_rl.rl.replay import FINAL, TransitionPool
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import RecordingMeta, Tick

SPEC = RobotSpec(
    name="toy",
    obs={
        "x": ArraySpec(name="x", shape=(2,), unit="m"),
        "camera": ArraySpec(name="camera", shape=(16, 24, 3), dtype="uint8"),
    },
    action=ActionSpec(name="action", shape=(1,), unit="m", low=-1e3, high=1e3, kind="position"),
    control_hz=10.0,
)
EXTRA = {"base_action": ArraySpec(name="base_action", shape=(1,), unit="m")}


def obs(step):
    return {"x": np.array([step, -step], np.float32), "camera": np.full((16, 24, 3), 8 * step % 256, np.uint8)}


def recording(n, *, first=0, terminated=False, by_human=(), reward=None, final=True):
    """Step k of the episode has x = first + k, action 10 (first + k), base action 100 (first + k)."""
    recorder = TickRecorder(SPEC, extra=EXTRA)
    recorder.start(Tick(stamp_ns=0, obs=obs(first)))
    for k in range(n):
        end = k == n - 1
        tick = Tick(
            stamp_ns=(k + 1) * 100_000_000, obs=obs(first + k + 1), action=np.array([10.0 * (first + k)], np.float32),
            reward=float(end) if reward is None else reward[k], by_human=k in by_human,
            terminated=end and terminated, truncated=end and not terminated,
        )  # fmt: skip
        recorder.add(tick, extras={"base_action": np.array([100.0 * (first + k)], np.float32)})
    more = {FINAL: {"base_action": [100.0 * (first + n)]}} if final else {}
    return recorder.finish(RecordingMeta(source="policy", extra=more))


@pytest.fixture
def store(tmp_path):
    return EpisodeStore.create(tmp_path / "store", SPEC, extra=EXTRA, codecs={"camera": "png"})


def pool_of(store, **settings):
    pool = TransitionPool(SPEC, **{"n_step": 3, "gamma": 0.5, "extras": {"base_action": (1,)}, **settings})
    for id in store.ids():
        pool.add(store.episode(id))
    return pool


def test_a_transition_over_three_steps_is_what_was_recorded(store):
    store.append(recording(5, first=20, terminated=False))
    batch = pool_of(store).gather(np.arange(5))
    assert batch.obs["x"][:, 0, 0].tolist() == [20, 21, 22, 23, 24]
    assert batch.next_obs["x"][:, 0, 0].tolist() == [23, 24, 25, 25, 25]
    assert batch.action[:, 0, 0].tolist() == [200, 210, 220, 230, 240]
    assert batch.reward.tolist() == [0, 0, 0.25, 0.5, 1]
    assert batch.bootstrap.tolist() == [0.125, 0.125, 0.125, 0.25, 0.5]
    assert batch.extras["base_action"][:, 0].tolist() == [2000, 2100, 2200, 2300, 2400]
    assert batch.next_extras["base_action"][:, 0].tolist() == [2300, 2400, 2500, 2500, 2500]
    assert batch.next_obs["camera"][2, 0, 0, 0, 0] == 8 * 25 % 256  # the picture after the last action


def test_pictures_are_decoded_from_the_store_and_repeats_cost_nothing(store):
    for first in (0, 8, 16):
        store.append(recording(4, first=first))
    pool = pool_of(store, n_step=1)
    index = np.array([11, 0, 5, 5, 3])
    batch = pool.gather(index)
    assert batch.obs["camera"].shape == (5, 1, 16, 24, 3)
    assert batch.obs["camera"][:, 0, 0, 0, 0].tolist() == (8 * batch.obs["x"][:, 0, 0]).astype(int).tolist()
    assert batch.next_obs["camera"][:, 0, 0, 0, 0].tolist() == (8 * batch.next_obs["x"][:, 0, 0]).astype(int).tolist()


def test_stacked_observations_never_reach_into_the_episode_before(store):
    store.append(recording(3, first=0))
    store.append(recording(3, first=10))
    found = pool_of(store, n_step=1, n_obs=3).gather(np.arange(6)).obs["x"][..., 0]
    assert sorted(map(tuple, found.tolist())) == sorted(
        [(0, 0, 0), (0, 0, 1), (0, 1, 2), (10, 10, 10), (10, 10, 11), (10, 11, 12)]
    )


def test_chunks_end_with_their_segment(store):
    store.append(recording(4, first=1, terminated=True))
    batch = pool_of(store, horizon=3).gather(np.arange(4))
    assert batch.mask.tolist() == [[True] * 3, [True] * 3, [True, True, False], [True, False, False]]
    assert batch.action[2, :, 0].tolist() == [30, 40, 40]
    assert batch.bootstrap.tolist() == [0.125, 0, 0, 0]


def test_a_final_base_action_that_nobody_recorded_is_nan_and_never_invented(store):
    store.append(recording(2, terminated=True, final=False))
    batch = pool_of(store, n_step=1).gather(np.arange(2))
    assert np.isnan(batch.next_extras["base_action"][:, 0]).tolist() == [False, True]
    assert batch.bootstrap[1] == 0


def test_rewards_can_be_made_from_who_drove(store):
    store.append(recording(5, by_human=(2, 3)))
    pool = pool_of(store, n_step=1, reward=lambda episode: intervention_reward(episode.by_human))
    batch = pool.gather(np.arange(5))
    assert batch.reward.tolist() == [0, -1, 0, 0, 0]
    assert batch.by_human.tolist() == [False, False, True, True, False]


def test_growing_past_the_first_block_keeps_every_row(store):
    pool = TransitionPool(SPEC, n_step=1, gamma=0.9)
    store.append(recording(700, first=0))
    episode = store.episode(store.ids()[0])
    for _ in range(4):
        assert pool.add(episode) == 700
    x = pool.gather(np.arange(2800)).obs["x"][:, 0, 0]
    assert x.tolist() == [*range(700)] * 4


def test_an_episode_that_does_not_fit_is_refused_whole(store):
    store.append(recording(2))
    episode = store.episode(store.ids()[0])
    pool = TransitionPool(SPEC, n_step=1, gamma=0.9, extras={"latent": (8,)})
    with pytest.raises(SpecError, match=r"expected rows of shape `latent` \(8,\), got nothing"):
        pool.add(episode)
    assert len(pool) == 0
    assert pool.episodes == []
