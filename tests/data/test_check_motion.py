"""Lag, stuck readings, ends of the range, jumps and idle time, each planted with a known value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robot_rl.data.checks.lag import LagEstimator, Lags
from tests.data.check_stores import HZ, Arrays, arrays, fill, on_grid, only, path_of, planted, raised, verdict_on


def lags_of(lag: int, *, columns: tuple[int, ...] = (0, 1, 2), episodes: int = 5, steps: bool = False) -> Lags | None:
    """Return the lags found where state column `columns[a]` follows action a by `lag`, among columns of noise."""
    estimator = LagEstimator(3, 6, 15)
    for seed in range(episodes):
        rng = np.random.default_rng(seed)
        motion, t = path_of(rng), np.arange(100) / HZ
        action, state = motion(t)[:, :3], rng.normal(size=(100, 6))
        state[:, columns] = motion(t - lag / HZ)[:, :3]
        if steps:  # the action is the step that the state takes `lag` ticks later
            action, state[:, columns] = (
                np.diff(motion(np.append(t, t[-1] + 1 / HZ)), axis=0)[:, :3],
                motion(t - lag / HZ)[:, :3],
            )
        estimator.add(action, state)
    return estimator.result(min_correlation=0.5)


@pytest.mark.parametrize("lag", [0, 1, 3, 8, 14])
def test_a_lag_is_found_to_the_tick_and_each_element_finds_its_state(lag: int):
    lags = lags_of(lag, columns=(4, 0, 3))
    assert lags is not None
    assert [(m.action, m.state, m.frames, m.mode) for m in lags.matches] == [
        (0, 4, lag, "follows"), (1, 0, lag, "follows"), (2, 3, lag, "follows"),
    ]  # fmt: skip
    assert (lags.frames, lags.low, lags.high) == (lag, lag, lag)
    assert min(m.correlation for m in lags.matches) > 0.9999


def test_actions_that_are_steps_are_matched_with_the_movement_they_make():
    lags = lags_of(3, steps=True)
    assert lags is not None
    assert [(m.state, m.frames, m.mode) for m in lags.matches] == [(a, 3, "moves by") for a in range(3)]


def test_where_nothing_follows_there_is_no_lag():
    estimator = LagEstimator(2, 2, 10)
    for seed in range(6):
        estimator.add(*np.random.default_rng(seed).normal(size=(2, 200, 2)))
    assert estimator.result(min_correlation=0.5) is None


def test_memory_of_the_lags_does_not_grow_with_the_episodes():
    estimator = LagEstimator(2, 2, 10)
    size = estimator._xy.nbytes
    for seed in range(40):
        estimator.add(*np.random.default_rng(seed).normal(size=(2, 30, 2)))
    assert estimator._xy.nbytes == size


def test_a_sound_store_raises_nothing_and_tells_its_lag(tmp_path: Path):
    verdict = verdict_on(planted(tmp_path))
    assert raised(verdict) == []
    assert [(f.check, f.value, f.unit) for f in verdict.findings] == [("lag", 2.0, "frames")]
    assert verdict.measures["lag"]["ms"] == 100.0
    assert [m["state"] for m in verdict.measures["lag"]["elements"]] == ["q[0]", "q[1]", "q[2]", "q[3]"]


def test_a_slow_arm_is_worth_a_look(tmp_path: Path):
    verdict = verdict_on(planted(tmp_path), lag_ms=80)
    lag = only(verdict, "lag", episode="")
    assert (lag.severity, lag.value, lag.threshold) == ("warn", 2.0, pytest.approx(1.6))


def shifted(data: Arrays, ticks: int) -> Arrays:
    """Return an episode whose actions come `ticks` later than they were."""
    action = np.concatenate([np.repeat(data["action"][:1], ticks, axis=0), data["action"][:-ticks]])
    return {**data, "action": action}


def test_actions_stamped_after_what_they_caused(tmp_path: Path):
    store = fill(tmp_path, [on_grid(shifted(arrays(i), 4)) for i in range(6)])
    lag = only(verdict_on(store), "lag", episode="")
    assert lag.value == -2.0
    assert lag.advice.startswith("the state moves before its action")


def test_actions_that_are_the_state_of_the_same_tick(tmp_path: Path):
    store = fill(tmp_path, [on_grid({**(data := arrays(i)), "action": data["q"][:-1]}) for i in range(6)])
    copy = only(verdict_on(store), "copy", episode="")
    assert copy.what == "4 of 4 action elements copy the state of the same tick"


def test_an_action_that_nothing_follows_is_named(tmp_path: Path):
    store = fill(tmp_path, [])
    for i in range(6):
        data = arrays(i)
        data["q"][:, 1] = np.random.default_rng(i).normal(size=len(data["q"]))
        data["force"] = np.random.default_rng(i + 9).normal(size=data["force"].shape).astype(np.float32)
        store.append(on_grid(data), id=f"e{i}")
    found = only(verdict_on(store), "unfollowed", episode="")
    assert (found.stream, found.element) == ("action", 1)


def test_a_joint_that_sticks_while_its_action_moves(tmp_path: Path):
    def fault(data: Arrays) -> None:
        data["q"][40:70, 1] = data["q"][40, 1]

    found = only(verdict_on(planted(tmp_path, fault), jump_range=1), "frozen")
    assert (found.severity, found.stream, found.element) == ("warn", "q", 1)
    assert (found.start_s, found.end_s, found.value) == (2.0, 3.5, 1.5)
    assert "(25 % of the episode)" in found.what


def test_a_joint_that_never_reads_anything_else_fails_the_episode(tmp_path: Path):
    def fault(data: Arrays) -> None:
        data["q"][:, 2] = 0.25

    found = only(verdict_on(planted(tmp_path, fault)), "frozen")
    assert (found.severity, found.element, found.value) == ("fail", 2, 6.0)


def test_a_sensor_that_falls_silent_is_one_finding_for_the_stream(tmp_path: Path):
    def fault(data: Arrays) -> None:
        data["force"][60:] = data["force"][60]

    found = only(verdict_on(planted(tmp_path, fault)), "frozen")
    assert (found.stream, found.element, found.start_s, found.value) == ("force", None, 3.0, 3.0)


def test_a_joint_at_rest_because_its_action_rests_is_fine(tmp_path: Path):
    def rest(data: Arrays) -> None:
        data["action"][40:90] = data["action"][40]
        data["q"][42:92] = data["action"][40]

    assert raised(verdict_on(planted(tmp_path, rest), jump_range=1)) == []


def test_the_share_of_frames_at_a_stop_is_exact(tmp_path: Path):
    stores = []
    for i in range(6):
        data = arrays(i)
        data["q"][30:60, 0] = 2.0  # the upper end of the store's range, 30 of 120 frames
        data["q"][90:121, 0] = 2.0  # where an episode ends is no saturation
        stores.append(on_grid(data))
    verdict = verdict_on(fill(tmp_path, stores), jump_range=10, min_correlation=0.95)
    found = [f for f in raised(verdict) if f.check == "saturated"]
    assert [(f.stream, f.element, f.value, f.episode) for f in found] == [("q", 0, 0.25, "")]
    assert "stuck at its upper end 2" in found[0].what


def test_a_step_that_no_joint_can_take(tmp_path: Path):
    def fault(data: Arrays) -> None:
        data["q"][50, 1] += 1.5

    found = only(verdict_on(planted(tmp_path, fault)), "jump")
    assert (found.stream, found.element) == ("q", 1)
    assert found.value == pytest.approx(1.5, abs=0.2)
    assert found.start_s in (2.45, 2.5)
    assert found.what.startswith("2 jumps")  # there and back


def test_an_angle_that_wraps_is_told_from_a_jump(tmp_path: Path):
    def fault(data: Arrays) -> None:
        data["q"][50:, 1] += 2 * np.pi

    found = only(verdict_on(planted(tmp_path, fault)), "wrap")
    assert found.what.startswith("1 wrap, the largest +6.")
    assert (found.start_s, found.advice) == (2.45, "unwrap the angle or learn its sine and cosine")


@pytest.mark.parametrize(("head", "check"), [(True, "idle_head"), (False, "idle_tail")])
def test_idle_time_is_measured_to_a_tenth_of_a_second(tmp_path: Path, head: bool, check: str):
    def fault(data: Arrays) -> None:
        for name in ("q", "action", "camera"):
            rows = data[name]
            if head:
                data[name] = np.concatenate([np.repeat(rows[:1], 32, axis=0), rows[:-32]])
            else:
                data[name] = np.concatenate([rows[:-32], np.repeat(rows[-33:-32], 32, axis=0)])

    found = only(verdict_on(planted(tmp_path, fault)), check)
    assert found.value == pytest.approx(1.6, abs=0.1)
    assert found.start_s == pytest.approx(0.0 if head else 6.0 - found.value)


def test_an_episode_in_which_nothing_moves(tmp_path: Path):
    def fault(data: Arrays) -> None:
        for name in ("q", "action", "camera"):
            data[name][:] = data[name][:1]

    found = only(verdict_on(planted(tmp_path, fault)), "idle")
    assert found.what == "nothing moves in the whole episode (6.00 s)"
