"""The safety filter fails closed, and position, velocity and acceleration limits hold together at every step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.deploy.limits import brake_speed
from robot_rl.deploy.safety import UNLIMITED, SafetyFilter, SafetyLimits, Workspace
from robot_rl.errors import ConfigError, SafetyStop

STEP = 50_000_000
DT = 0.05
S = 1_000_000_000


def limits(width: int = 2, **changes) -> SafetyLimits:
    loose = {
        "low": -1.0, "high": 1.0, "velocity": UNLIMITED, "acceleration": UNLIMITED, "start_jump": UNLIMITED,
        "obs_age_s": 0.2, "command_gap_s": 0.5, "slow_start_s": 0.0, "workspace": UNLIMITED,
    }  # fmt: skip
    return SafetyLimits(width, **{**loose, **changes})


def armed(pose=(0.0, 0.0), **changes) -> SafetyFilter:
    safety = SafetyFilter(limits(len(pose), **changes), step_ns=STEP)
    safety.arm(np.array(pose), 0)
    return safety


def send(safety: SafetyFilter, action, now_ns: int = 0):
    return safety.filter(np.asarray(action), now_ns=now_ns, obs_ns={"q": now_ns})


NAMES = [
    "low", "high", "velocity", "acceleration", "start_jump", "obs_age_s", "command_gap_s", "slow_start_s", "workspace",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_limit_is_an_error(name):
    with pytest.raises(ConfigError, match=f"safety limit `{name}`"):
        limits(**{name: None})


@pytest.mark.parametrize("name", NAMES[:-1])
def test_nan_and_other_words_are_errors(name):
    with pytest.raises(ConfigError, match=f"safety limit `{name}` must be"):
        limits(**{name: float("nan")})
    with pytest.raises(ConfigError, match=f"safety limit `{name}` must be numbers or 'unlimited', got 'none'"):
        limits(**{name: "none"})


def test_limits_that_contradict():
    with pytest.raises(ConfigError, match=r"element 1: low 0\.5 lies above high 0"):
        limits(low=[0.0, 0.5], high=[1.0, 0.0])
    with pytest.raises(ConfigError, match=r"`velocity` must be zero or more, got \[-1.0, -1.0\]"):
        limits(velocity=-1.0)
    with pytest.raises(ConfigError, match=r"`high` must be one number or 2, got 3"):
        limits(high=[1.0, 1.0, 1.0])
    with pytest.raises(ConfigError, match="workspace box is empty"):
        Workspace(lambda a: a, (0.0, 0.0, 1.0), (1.0, 1.0, 0.0))


@pytest.mark.parametrize(("side", "wanted"), [("low", -0.5), ("high", 0.5)])
def test_zero_is_a_limit(side, wanted):
    """The table at z = 0.0 must hold: `min_z or -inf` once let an arm through it."""
    safety = armed(**{side: 0.0})
    result = send(safety, [wanted, wanted])
    assert result.action_executed.tolist() == [0.0, 0.0]
    assert result.reasons == ("position of element 0, 1",)
    assert not result.stopped


def test_unlimited_can_be_said_per_element():
    result = send(armed(velocity=[1.0, UNLIMITED], low=[UNLIMITED, -0.5], high=UNLIMITED), [-0.01, -0.9])
    assert result.action_executed.tolist() == [-0.01, -0.5]
    with pytest.raises(ConfigError, match=r"safety limit `velocity` is missing \(None\)"):
        limits(velocity=[1.0, None])


@pytest.mark.parametrize("name", ["velocity", "acceleration"])
def test_zero_velocity_or_acceleration_forbids_motion(name):
    assert send(armed(**{name: 0.0}), [0.5, 0.5]).action_executed.tolist() == [0.0, 0.0]


def test_zero_in_the_workspace_box_is_a_limit():
    box = Workspace(lambda a: np.array([a[0], a[1], 0.0]), (-1.0, 0.0, 0.0), (1.0, 1.0, 0.0))
    result = send(armed((0.0, 0.4), workspace=box), [0.0, -0.4])
    assert result.action_executed.tolist() == pytest.approx([0.0, 0.0])  # half of the way
    assert result.reasons == ("workspace",)


def test_allowed_action_passes_bit_for_bit():
    action = np.array([0.1, -0.3])
    result = send(armed(velocity=100.0), action)
    assert result.action_executed.tolist() == action.tolist()
    assert result.reasons == ()


def test_velocity_limit_per_element():
    result = send(armed(velocity=[1.0, 4.0]), [0.5, -0.5])
    assert result.action_executed == pytest.approx([1.0 * DT, -4.0 * DT])
    assert result.reasons == ("velocity of element 0, 1",)


def test_acceleration_limit_builds_speed_up_step_by_step():
    safety, positions = armed((0.0,), acceleration=2.0), [0.0]
    for i in range(4):
        positions.append(send(safety, [1.0], i * STEP).action_executed.item())
    assert np.diff(positions) / DT == pytest.approx([0.1, 0.2, 0.3, 0.4])


@settings(max_examples=60)
@given(
    st.lists(st.floats(-5, 5), min_size=5, max_size=60),
    st.floats(0.05, 5), st.floats(0.05, 50), st.floats(-0.9, 0.9),
)  # fmt: skip
def test_all_limits_hold_together(wanted, velocity, acceleration, start):
    """Whatever is commanded, no step leaves the position, velocity or acceleration limits, braking included."""
    safety = armed((start,), velocity=velocity, acceleration=acceleration)
    path = [start, start]
    for i, action in enumerate(wanted):
        path.append(send(safety, [action], i * STEP).action_executed.item())
    speed = np.diff(path) / DT
    assert np.max(np.abs(path)) <= 1.0
    assert np.max(np.abs(speed)) <= velocity * (1 + 1e-9)
    assert np.max(np.abs(np.diff(speed))) / DT <= acceleration * (1 + 1e-6)


@given(st.floats(0.001, 3), st.floats(0.05, 50))
def test_braking_from_the_allowed_speed_ends_at_the_limit(distance, acceleration):
    u = acceleration * DT
    v = brake_speed(np.array([distance]), np.array([acceleration]), DT).item()
    steps = [max(v - i * u, 0.0) * DT for i in range(int(v / u) + 2)]
    assert sum(steps) == pytest.approx(distance, rel=1e-9)


def test_slow_start_ramps_the_speed_limit():
    safety = armed((0.0,), velocity=1.0, slow_start_s=1.0, high=10.0)
    positions = [0.0] + [send(safety, [10.0], i * STEP).action_executed.item() for i in range(30)]
    speed = np.diff(positions) / DT
    expected = np.minimum(0.1 + 0.9 * DT * np.arange(30), 1.0)
    assert speed == pytest.approx(expected)


def test_first_command_jump_is_refused_and_later_ones_are_not():
    result = send(armed(start_jump=0.1), [0.05, 0.3])
    assert result.stopped
    assert result.action_executed.tolist() == [0.0, 0.0]
    assert result.reasons[0].startswith("the first command jumps: element 1 is 0.3 from the present pose, at most 0.1")
    safety = armed(start_jump=0.1)
    assert not send(safety, [0.1, 0.1]).stopped
    assert not send(safety, [0.9, 0.9]).stopped


@pytest.mark.parametrize("bad", [[np.nan, 0.0], [np.inf, 0.0], [0.0, -np.inf], [0.0], [0.0, 0.0, 0.0], [[0.0, 0.0]]])
def test_not_finite_or_misshapen_action_stops_and_holds(bad):
    safety = armed()
    send(safety, [0.2, 0.3])
    result = send(safety, bad, STEP)
    assert result.stopped
    assert result.action_executed.tolist() == [0.2, 0.3]
    assert "action must be 2 finite numbers, got" in result.reasons[0]
    after = send(safety, [0.0, 0.0], 2 * STEP)  # latched
    assert after.stopped
    assert after.action_executed.tolist() == [0.2, 0.3]


def test_stale_observation_stops():
    safety = armed()
    result = safety.filter(np.zeros(2), now_ns=S // 4, obs_ns={"q": 0, "image": S // 4})
    assert result.stopped
    assert result.reasons == ("observation `q` is 0.250 s old, at most 0.2 s allowed",)
    assert armed().filter(np.zeros(2), now_ns=0, obs_ns={}).reasons[0].startswith("no observation stamps")
    assert not armed(obs_age_s=UNLIMITED).filter(np.zeros(2), now_ns=S // 4, obs_ns={"q": 0}).stopped


def test_an_observation_from_the_future_stops_since_it_would_never_grow_stale():
    result = armed().filter(np.zeros(2), now_ns=0, obs_ns={"q": 10 * S})
    assert result.stopped
    assert result.reasons == ("observation `q` is stamped 10.000 s in the future; use the clock of `now_ns`",)
    assert not armed().filter(np.zeros(2), now_ns=0, obs_ns={"q": STEP // 2}).stopped  # came while this tick began


def test_zero_age_is_a_limit():
    assert armed(obs_age_s=0.0).filter(np.zeros(2), now_ns=1, obs_ns={"q": 0}).stopped


def test_command_watchdog():
    safety = armed()
    assert safety.check_command_gap(S // 2) is None
    assert safety.check_command_gap(S // 2 + 1) == "no command for 0.500 s, at most 0.5 s allowed"
    assert send(safety, [0.0, 0.0], S // 2 + 2).stopped
    late = armed()
    assert send(late, [0.0, 0.0], S).reasons == ("no command for 1.000 s, at most 0.5 s allowed",)


def test_emergency_stop_is_latched_until_cleared_and_armed_again():
    safety = armed()
    safety.emergency_stop("button")
    assert send(safety, [0.5, 0.5]).reasons == ("e-stop: button",)
    with pytest.raises(
        SafetyStop, match=r"stopped \(e-stop: button\); find the cause, then call clear\(\) before arming"
    ):
        safety.arm(np.zeros(2), 0)
    safety.clear()
    with pytest.raises(SafetyStop, match=r"not armed \(call arm\(\) with the present pose first\)"):
        send(safety, [0.5, 0.5])
    safety.arm(np.zeros(2), S)
    assert not send(safety, [0.5, 0.5], S).stopped


def test_the_first_reason_is_kept():
    safety = armed()
    safety.emergency_stop("first")
    safety.emergency_stop("second")
    assert safety.stopped == "e-stop: first"


def test_arming_outside_the_limits_is_refused():
    safety = SafetyFilter(limits(start_jump=0.1), step_ns=STEP)
    with pytest.raises(SafetyStop, match=r"element 1 must be in \[-1, 1\], got 1.5; move the arm by hand first"):
        safety.arm(np.array([0.0, 1.5]), 0)
    with pytest.raises(SafetyStop, match="present pose must be 2 finite numbers"):
        safety.arm(np.array([0.0, np.nan]), 0)
    box = Workspace(lambda a: np.full(3, np.nan), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with pytest.raises(SafetyStop, match="outside the workspace box"):
        SafetyFilter(limits(workspace=box), step_ns=STEP).arm(np.zeros(2), 0)
    with pytest.raises(SafetyStop, match="not armed"):
        send(safety, [0.0, 0.0])


def test_a_pose_measured_just_outside_starts_at_the_limit():
    safety = armed((1.0 + 1e-6, 0.0), start_jump=0.1)
    assert send(safety, [1.0, 0.0]).action_executed.tolist() == [1.0, 0.0]


def test_workspace_that_cannot_be_met_holds():
    box = Workspace(lambda a: np.array([a[0], 0.0, 0.0]), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    result = send(armed((0.0,), workspace=box), [0.7])
    assert result.action_executed.tolist() == [0.0]
    assert not result.stopped
