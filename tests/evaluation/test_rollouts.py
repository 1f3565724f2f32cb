from __future__ import annotations

import numpy as np
import pytest

from robot_rl.errors import ConfigError, SpecError
from robot_rl.evaluation.rollouts import EpisodeResult, run_episode
from robot_rl.values import ActionChunk, RecordingMeta
from tests.evaluation.point_mass import STEP_NS, Noisy, PointMass, Ramp, Straight


def test_asks_again_after_n_execute_actions_and_takes_rows_by_stamp():
    policy = Ramp(n_obs=2, n_execute=3, horizon=5)
    recording, _ = run_episode(PointMass(max_steps=8), policy, 40)
    assert [call.stamp_ns // STEP_NS for call in policy.asked] == [0, 3, 6]
    np.testing.assert_allclose(recording.streams["action"].data[:, 0], np.array([0, 1, 2, 0, 1, 2, 0, 1]) / 100)


def test_asks_again_when_the_chunk_is_shorter_than_n_execute():
    policy = Ramp(n_execute=8, horizon=2)
    run_episode(PointMass(max_steps=5), policy, 40)
    assert [call.stamp_ns // STEP_NS for call in policy.asked] == [0, 2, 4]


def test_a_chunk_of_half_rate_holds_each_row_for_two_ticks():
    policy = Ramp(n_execute=6, horizon=3, step_ns=2 * STEP_NS)
    recording, _ = run_episode(PointMass(max_steps=6), policy, 40)
    np.testing.assert_allclose(recording.streams["action"].data[:, 0], np.array([0, 0, 1, 1, 2, 2]) / 100)


def test_history_is_oldest_first_and_starts_with_the_first_observation_repeated():
    policy = Ramp(n_obs=3, n_execute=2)
    run_episode(PointMass(max_steps=4), policy, 40)
    assert [call.obs["count"][:, 0].tolist() for call in policy.asked] == [[0, 0, 0], [0, 1, 2]]
    assert all(call.noise is None for call in policy.asked)


def test_result_adds_up_what_happened():
    # From 1.5 m in steps of at most 1 m: distances 0.5 and 0, so the return is -0.5.
    _, result = run_episode(PointMass(), Straight(), 15)
    assert result == EpisodeResult(
        seed=15, success=True, return_=-0.5, max_reward=0.0, steps=2, terminated=True, truncated=False,
        seconds=0.0, inference_p50_ms=0.0,
    )  # fmt: skip
    assert 0 < result.inference_p50_ms < 1e3 * result.seconds


def test_recording_is_on_the_grid_and_says_how_it_ended():
    meta = RecordingMeta(task="reach", source="policy", policy_version="abc", extra={"note": 1})
    recording, _ = run_episode(PointMass(max_steps=3), Ramp(), 40, meta=meta)
    assert recording.meta == RecordingMeta(
        task="reach", outcome="failure", source="policy", on_grid=True, terminated=False, truncated=True,
        policy_version="abc", seed=40, extra={"note": 1},
    )  # fmt: skip
    assert recording.streams["count"].data[:, 0].tolist() == [0, 1, 2, 3]
    assert recording.streams["count"].stamp_ns.tolist() == [0, STEP_NS, 2 * STEP_NS, 3 * STEP_NS]
    assert len(recording.streams["action"]) == 3


def test_without_record_there_is_no_recording():
    assert run_episode(PointMass(), Straight(), 5, record=False)[0] is None


def test_max_steps_truncates_but_does_not_override_termination():
    recording, cut = run_episode(PointMass(), Straight(), 25, max_steps=2)
    assert (recording.meta.terminated, recording.meta.truncated) == (False, True)
    assert (cut.steps, cut.terminated, cut.truncated, cut.success) == (2, False, True, False)
    _, whole = run_episode(PointMass(), Straight(), 15, max_steps=2)
    assert (whole.steps, whole.terminated, whole.truncated, whole.success) == (2, True, False, True)


def test_frames_at_the_start_every_second_step_and_the_end():
    levels: list[int] = []
    run_episode(
        PointMass(max_steps=5),
        Ramp(),
        40,
        record=False,
        on_frame=lambda f: levels.append(f[0, 0, 0] // 8),
        frame_every=2,
    )
    assert levels == [0, 2, 4, 5]


def test_a_seedable_policy_repeats_whatever_it_did_before():
    env, policy = PointMass(), Noisy()
    first = run_episode(env, policy, 7)[0].streams["action"].data
    run_episode(env, policy, 8)
    again = run_episode(env, Noisy(), 7)[0].streams["action"].data
    assert np.array_equal(first, again)


def test_a_nan_action_is_refused():
    class Bad(Straight):
        def act(self, policy_input):
            return ActionChunk(policy_input.stamp_ns, STEP_NS, np.full((1, 1), np.nan, np.float32))

    with pytest.raises(SpecError, match="`action` must be finite, got nan"):
        run_episode(PointMass(), Bad(), 5)


def test_a_chunk_that_misses_its_own_tick_is_refused():
    class Late(Straight):
        def act(self, policy_input):
            return ActionChunk(policy_input.stamp_ns + STEP_NS, STEP_NS, np.zeros((4, 1), np.float32))

    with pytest.raises(SpecError, match=r"asked at 0 ns and its chunk covers 100000000 to 400000000 ns; row 0 must be"):
        run_episode(PointMass(), Late(), 5)


@pytest.mark.parametrize("name", ["frame_every", "max_steps"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(ConfigError, match=f"`{name}` must be at least 1, got 0"):
        run_episode(PointMass(), Straight(), 5, **{name: 0})


def test_periods_that_are_not_whole_nanoseconds_take_every_row_once():
    # 30 Hz: the environment's stamps round the exact time, the chunk's step rounds the period.
    rows = []

    class Thirty(PointMass):
        def step(self, action):
            tick = super().step(action)
            rows.append(round(float(action[0]) * 100))
            return type(tick)(stamp_ns=round(self._n * 1e9 / 30), obs=tick.obs, action=action, truncated=tick.truncated)

    run_episode(Thirty(max_steps=24), Ramp(n_execute=8, horizon=8, step_ns=round(1e9 / 30)), 40, record=False)
    assert rows == list(range(8)) * 3
