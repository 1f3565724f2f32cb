"""Who is in which pool, what a batch holds, and threads that keep up (specs, off-policy: 16, 18, 19, 22, 31)."""

import time

import numpy as np
import pytest
import torch

from robot_rl.data.recorder import TickRecorder
from robot_rl.errors import SpecError, TrainingError
from robot_rl.rl.feed import ReplayFeed
from robot_rl.rl.labelling import LabelCache, base_actions, labelled, rewarded
from robot_rl.rl.replay import success_reward
from robot_rl.rl.runner import runner_extras
from robot_rl.rl.sampling import SymmetricSampler
from robot_rl.rl.tail import StoreTail
from robot_rl.values import RecordingMeta, Tick
from tests.rl.reach import SPEC, STEP_NS, Biased, make_store
from tests.rl.test_runner import Told


def recording(
    first, n=4, *, by_human=(), source="policy", outcome="success", version=3, reward=True, bare=False, hold=1
):
    """x and action of step t are first + t; the base would have done 100 (first + t); decided every `hold` steps."""
    extras = {} if bare else runner_extras(SPEC)
    recorder = TickRecorder(SPEC, extra=extras)
    recorder.start(Tick(stamp_ns=0, obs={"x": np.array([first], np.float32)}))
    for t in range(n):
        x, end = first + t, t == n - 1
        tick = Tick(
            stamp_ns=(t + 1) * STEP_NS, obs={"x": np.array([x + 1], np.float32)}, action=np.array([x], np.float32),
            reward=float(end and reward), by_human=t in by_human, truncated=end,
        )  # fmt: skip
        base = np.array([100 * x], np.float32)
        given = {"base_action": base, "action_policy": base, "chunk_offset": np.int64(t), "held": np.int64(t % hold)}
        recorder.add(tick, extras={} if bare else {**given, "policy_version": np.int64(version)})
    final = {"final_extras": {"base_action": [100.0 * (first + n)]}}
    return recorder.finish(RecordingMeta(source=source, outcome=outcome, extra={} if bare else final))


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store")


def make_feed(*, batch=8, ratio=0.5, n_step=1, seed=0, **settings):
    settings = {"streams": {"base_action": (1,)}, **settings}
    return ReplayFeed(SPEC, SymmetricSampler(batch, ratio), n_step=n_step, gamma=0.5, seed=seed, **settings)


def filled(store, *recordings, **settings):
    feed = make_feed(**settings)
    for item in recordings:
        feed.add(store.episode(store.append(item)))
    return feed


def test_segments_begin_where_a_correction_was_chosen_or_a_person_decided(store):
    feed = filled(store, recording(0, n=9, hold=4, by_human=(6,)), n_step=4, ratio=0.0, batch=64)
    batch = feed.sample()
    assert {float(x) for x in batch.obs["x"][:, 0, 0]} == {0.0, 4.0, 6.0, 8.0}
    assert feed.counts.steps == 9


def test_recordings_without_that_stream_begin_one_at_every_step(store):
    feed = filled(store, recording(0, bare=True), streams={})
    assert feed.counts.online == 4


def test_a_step_that_a_person_drove_is_in_both_pools_and_the_policys_in_one(store):
    feed = filled(store, recording(10, by_human=(1, 2)))
    assert (len(feed.online), len(feed.demonstrations)) == (4, 2)
    online, demo = feed.online.gather(np.arange(4)), feed.demonstrations.gather(np.arange(2))
    assert online.action[:, 0, 0].tolist() == [10, 11, 12, 13]
    assert demo.action[:, 0, 0].tolist() == [11, 12]
    assert demo.by_human.all()
    assert feed.online.episodes == feed.demonstrations.episodes
    assert (feed.counts.interventions, feed.counts.takeovers, feed.counts.human_steps) == (2, 1, 2)


def test_an_episode_that_a_person_recorded_is_a_demonstration(store):
    feed = filled(store, recording(10, source="human"), recording(20))
    assert (len(feed.demonstrations), len(feed.online), feed.counts.steps) == (4, 4, 4)


def test_the_base_action_after_n_steps_is_the_one_of_that_step_and_of_the_final_observation(store):
    batch = filled(store, recording(10, n=4), n_step=3).online.gather(np.arange(4))
    assert batch.next_extras["base_action"][:, 0].tolist() == [1300, 1400, 1400, 1400]


def test_a_batch_has_its_fixed_share_of_few_demonstrations_spread_evenly(store):
    feed = filled(store, recording(0, n=2, source="human"), recording(50, n=20))
    batch = feed.sample()
    assert (batch.action[:, 0, 0] < 50).tolist() == [True, False] * 4
    assert len(batch) == 8
    assert feed.metrics()["replay/demo_oversampling"] == 10.0


def test_the_same_seed_and_episodes_give_the_same_batches_also_after_a_resume(store):
    items = [recording(0, source="human"), recording(50, n=20)]
    ids = [store.append(item) for item in items]

    def fresh(seed=0):
        feed = make_feed(seed=seed)
        for id in ids:
            feed.add(store.episode(id))
        return feed

    feed = fresh()
    first, second = feed.sample(), feed.sample()
    assert torch.equal(fresh().sample().action, first.action)
    again = fresh(seed=9)
    again.load_rng(first.rng_state)
    assert torch.equal(again.sample().action, second.action)
    assert not torch.equal(second.action, first.action)


def test_corrections_that_no_residual_could_reproduce_are_counted(store):
    feed = filled(store, recording(0, by_human=(0, 1)), bound=np.full(1, 50.0))
    assert feed.metrics()["online/corrections_out_of_reach"] == 0.5  # |1 - 100| > 50, |0 - 0| is not


def test_the_learner_gets_every_episode_that_was_there_and_that_comes(store):
    store.append(recording(0))
    feed = make_feed()
    tail = StoreTail(feed, store, poll_s=0.01)
    try:
        assert feed.counts.steps == 4
        for k in range(3):
            store.append(recording(10 * k, n=5))
        until = time.monotonic() + 20
        while feed.counts.episodes < 4 and time.monotonic() < until:
            tail.wait_for_news(0.1)
        assert (feed.counts.steps, feed.counts.episodes, feed.counts.newest_version) == (19, 4, 3)
        assert len(tail.next()) == 8
    finally:
        tail.close()
        tail.close()


def test_an_episode_that_does_not_fit_is_left_out_and_said(store, caplog):
    bad = store.append(recording(0, bare=True))
    feed = make_feed()
    tail = StoreTail(feed, store)
    tail.close()
    assert list(tail.refused) == [bad]
    assert "is left out of the replay" in caplog.text
    assert len(feed.online) == 0


def test_a_thread_that_fails_is_heard_of(store):
    feed = filled(store, recording(0))
    feed.sample = lambda: 1 / 0
    tail = StoreTail(feed, store, poll_s=0.01)
    try:
        with pytest.raises(TrainingError, match="the replay cannot be fed any more: ZeroDivisionError"):
            tail.next()
    finally:
        tail.close()


def test_demonstrations_are_shown_to_the_base_from_an_empty_queue_each(store):
    base = Told(n_execute=3)
    for first in (10, 20):
        episode = store.episode(store.append(recording(first, n=5, bare=True)))
        told = base_actions(episode, base)[:, 0].tolist()
        assert told == [100 * first, 100 * first + 1, 100 * first + 2, 100 * first + 300, 100 * first + 301,
                        100 * first + 302]  # fmt: skip


def test_labels_are_made_once_for_each_base(store, tmp_path):
    episode = store.episode(store.append(recording(10, bare=True)))
    cache = LabelCache(tmp_path / "labels", "a")
    (first,) = labelled([episode], Told(), cache)
    (second,) = labelled([episode], None, cache)  # no base is asked
    assert np.array_equal(first.extras["base_action"], second.extras["base_action"])
    (other,) = labelled([episode], Biased(0.5), LabelCache(tmp_path / "labels", "b"))
    assert not np.array_equal(first.extras["base_action"], other.extras["base_action"])
    feed = make_feed()
    assert feed.add_demonstration(first) == 4
    assert feed.demonstrations.gather(np.array([3])).next_extras["base_action"].item() == 1004


def test_without_labels_a_demonstration_is_refused_by_a_residuals_replay(store):
    episode = store.episode(store.append(recording(10, bare=True)))
    with pytest.raises(SpecError, match=r"`base_action` \(1,\), got nothing"):
        make_feed().add_demonstration(episode)


def test_a_success_recorded_without_reward_ends_with_reward_1(store):
    episode = rewarded(store.episode(store.append(recording(0, reward=False))))
    assert (episode.reward.tolist(), episode.terminated, episode.truncated) == ([0, 0, 0, 1], True, False)
    failed = store.episode(store.append(recording(0, reward=False, outcome="failure")))
    assert rewarded(failed) is failed
    told = store.episode(store.append(recording(0)))
    assert rewarded(told) is told
    assert [success_reward(e).tolist() for e in (episode, failed)] == [[0, 0, 0, 1], [0, 0, 0, 0]]
