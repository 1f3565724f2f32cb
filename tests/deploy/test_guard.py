"""Who may drive, when motion stops, and what is sent meanwhile; on a clock that the test moves."""

import numpy as np
import pytest

from robot_rl.deploy.guard import GuardSettings, SafetyGuard
from robot_rl.deploy.safety import UNLIMITED, SafetyFilter, SafetyLimits
from robot_rl.errors import ConfigError

MS = 1_000_000
STEP = 10 * MS


class Rig:
    """A guard, an arm that follows at once, and a clock."""

    def __init__(self, acceleration=UNLIMITED, velocity=1.0, **settings) -> None:
        limits = SafetyLimits(
            1, low=-10.0, high=10.0, velocity=velocity, acceleration=acceleration, start_jump=0.5, obs_age_s=0.1,
            command_gap_s=0.1, slow_start_s=0.0, workspace=UNLIMITED,
        )  # fmt: skip
        defaults = {"cameras": {}, "following_error": 0.2, "home": [0.0], "home_speed": 0.5, "step_ns": STEP}
        self.guard = SafetyGuard(SafetyFilter(limits, step_ns=STEP), GuardSettings(**{**defaults, **settings}))
        self.now, self.pose, self.sent = 1000 * MS, 0.0, []

    def tick(self, command=None, *, source="policy", joints=True, follow=True):
        """One control period; returns the verdict."""
        if joints:
            self.guard.on_joints(np.array([self.pose]), now_ns=self.now, age_ns=0)
        if command is not None:
            self.guard.on_command(np.array([command]), source=source, now_ns=self.now, age_ns=0)
        verdict = self.guard.tick(self.now)
        if verdict.action is not None:
            self.sent.append(float(verdict.action[0]))
            self.pose = self.sent[-1] if follow else self.pose
        self.now += STEP
        return verdict


def running(**settings) -> Rig:
    rig = Rig(**settings)
    rig.guard.on_source("policy")
    assert rig.tick(0.0).state == "running"
    return rig


def test_nothing_is_sent_while_nobody_drives():
    rig = Rig()
    verdict = rig.tick(0.1)
    assert (verdict.action, verdict.state, rig.guard.refused) == (None, "idle", {"policy": 1})


def test_follows_at_the_speed_limit_and_goes_idle_when_nobody_drives():
    rig = running()
    for _ in range(20):
        rig.tick(1.0)
    assert rig.sent[1:] == pytest.approx(0.01 * np.arange(1, 21))
    rig.guard.on_source("none")
    assert rig.tick().state == "idle"
    assert rig.tick(1.0).action is None


def test_a_stop_holds_for_half_a_second_and_is_latched():
    rig = running()
    rig.tick(0.3)
    rig.guard.stop("because")
    held = [rig.tick(0.3) for _ in range(80)]
    assert {v.state for v in held} == {"stopped"}
    assert {v.reason for v in held} == {"because"}
    # The stop came after the tick at 1.01 s, so holding ends with the tick at 1.51 s.
    assert [v.action is not None for v in held] == [True] * 50 + [False] * 30
    assert set(rig.sent[-50:]) == {rig.sent[-51]}
    assert rig.guard.clear() == ""
    assert rig.tick(rig.pose).state == "running"


def test_the_first_reason_stays():
    rig = running()
    rig.guard.stop("first")
    rig.guard.stop("second")
    assert rig.tick().reason == "first"


def test_silence_of_the_selected_command_stops_within_its_time_out_and_one_period():
    rig = running()
    states = [rig.tick().state for _ in range(12)]
    assert states == ["running"] * 10 + ["stopped"] * 2


def test_silence_of_the_joints_stops_within_its_time_out_and_one_period():
    rig = running()
    states = [rig.tick(0.0, joints=False).state for _ in range(12)]
    assert states == ["running"] * 10 + ["stopped"] * 2
    assert "`joint_states` is 0.110 s old" in rig.guard.tick(rig.now).reason


def test_a_camera_is_needed_only_by_those_who_need_it():
    rig = Rig(cameras={"front": 0.15}, cameras_for=("policy",))
    rig.guard.on_source("human")
    assert rig.tick(0.0, source="human").state == "running"
    rig.guard.on_source("policy")
    assert rig.tick(0.0).reason == "`front` has never been received"


def test_a_handover_keeps_the_arm_moving_without_a_jump():
    rig = running()
    for _ in range(5):
        rig.tick(1.0)
    rig.guard.on_source("human")
    for _ in range(5):
        rig.tick(-1.0, source="human")
    assert np.abs(np.diff(rig.sent)).max() <= 0.01 + 1e-12
    assert rig.guard.state == "running"


def test_the_first_command_of_a_new_driver_may_not_jump():
    rig = running()
    rig.guard.on_source("none")
    rig.guard.on_source("policy")
    assert "the first command jumps: element 0 is 0.6" in rig.tick(0.6).reason


def test_a_command_from_before_the_driver_is_not_its_first():
    rig = running()
    rig.guard.on_source("none")
    rig.guard.on_source("policy")
    assert rig.tick().action is None
    assert rig.guard.state == "idle"


def test_an_e_stop_stays_pressed():
    rig = running()
    rig.guard.on_e_stop(True)
    assert rig.tick(0.0).reason == "e-stop pressed"
    assert rig.guard.clear() == "the e-stop is still pressed; release it first"
    rig.guard.on_e_stop(False)
    assert rig.tick(0.0).state == "stopped"
    assert rig.guard.clear() == ""


def test_an_arm_that_does_not_follow_stops_after_a_fifth_of_a_second():
    rig = running()
    states = [rig.tick(3.0, follow=False).state for _ in range(60)]
    stopped = states.index("stopped")
    assert stopped == pytest.approx(20 + 20, abs=2)  # 0.2 rad at 1 rad/s, then 0.2 s


def test_a_slow_source_is_followed_in_straight_lines():
    """Commands at 20 Hz, ticks at 100 Hz: no bursts, as `ArmEnv` moves its targets."""
    rig = running(velocity=UNLIMITED)
    for n in range(1, 8):
        rig.tick(0.1 * n)
        for _ in range(4):
            rig.tick()
    assert np.diff(rig.sent[-20:]) == pytest.approx(0.02)


def test_brakes_before_a_far_target_instead_of_running_past_it():
    rig = running(velocity=2.0, acceleration=5.0)
    for _ in range(200):
        rig.tick(1.0)
    velocity = np.diff(rig.sent) / 0.01
    assert max(rig.sent) <= 1.0 + 1e-9
    assert rig.sent[-1] == pytest.approx(1.0, abs=1e-4)
    assert np.abs(np.diff(velocity)).max() / 0.01 <= 5.0 + 1e-6


def test_a_moving_target_is_followed_without_lag():
    rig = running(velocity=2.0, acceleration=5.0)
    targets = 0.01 * 1.0 * np.arange(1, 200)
    for target in targets:
        rig.tick(float(target))
    assert rig.sent[-1] == pytest.approx(targets[-1], abs=0.011)  # one period of interpolation


def test_goes_home_in_a_straight_line_and_ends_idle():
    rig = Rig()
    rig.pose = 0.3
    rig.tick()
    assert rig.guard.home() == ""
    verdicts = [rig.tick() for _ in range(70)]
    assert verdicts[0].state == "homing"
    assert verdicts[-1].state == "idle"
    assert np.diff(rig.sent)[:58] == pytest.approx(-0.005)
    assert rig.pose == pytest.approx(0.0)


def test_homing_is_refused_while_somebody_drives_or_without_joints():
    assert Rig().guard.home() == "cannot start: `joint_states` has never been received"
    rig = running()
    assert rig.guard.home() == "homing needs state idle and control source 'none', got running, 'policy'"


def test_a_driver_ends_homing():
    rig = Rig()
    rig.pose = 0.3
    rig.tick()
    rig.guard.home()
    rig.tick()
    rig.guard.on_source("human")
    assert rig.tick().state == "idle"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"following_error": None}, "`following_error` is missing"),
        ({"home_speed": [1.0, 2.0]}, "`home_speed` must be one number or 1, got 2"),
        ({"sources": ("none",)}, "'none' means that nobody drives and is no source"),
        ({"command_timeout_s": 0.0}, "time-out of `selected/command` must be positive"),
    ],
)
def test_settings_that_do_not_fit(change, text):
    with pytest.raises(ConfigError, match=text):
        Rig(**change)


def test_what_a_source_would_miss_is_known_before_it_begins():
    rig = Rig(cameras={"front": 0.1}, cameras_for=["policy"])
    assert rig.guard.missing(rig.now) == {"policy": ("joint_states", "front"), "human": ("joint_states",)}
    rig.guard.on_source("policy")
    rig.tick()
    assert rig.guard.missing(rig.now) == {"policy": ("front",), "human": ()}
    rig.guard.on_stream("front", now_ns=rig.now, age_ns=0)
    assert rig.guard.missing(rig.now) == {"policy": (), "human": ()}
    assert rig.tick(0.0).state == "running"
    rig.now += 150 * MS
    assert rig.guard.missing(rig.now) == {"policy": ("joint_states", "front"), "human": ("joint_states",)}
