import numpy as np
import pytest

from robot_rl.deploy.latency import LatencyHistogram
from robot_rl.errors import ConfigError, SafetyStop
from robot_rl.evaluation.replay import Replayed, ReplayLimits, judge_replay, rotation_steps
from robot_rl.specs import ActionSpec, RobotSpec

JOINTS = RobotSpec(
    name="toy", action=ActionSpec(name="action", shape=(2,), low=-1.0, high=1.0), control_hz=10.0
)  # fmt: skip


def replayed(chunks: np.ndarray, *, recorded=None, incumbent=None, ms: float = 5.0) -> Replayed:
    latency = LatencyHistogram()
    for _ in range(10):
        latency.record(round(ms * 1e6))
    return Replayed(chunks, chunks if recorded is None else recorded, incumbent, latency)


def smooth(n: int = 20, h: int = 6) -> np.ndarray:
    time = np.arange(h)[None, :] + np.arange(n)[:, None]
    return np.stack([np.sin(0.2 * time), np.cos(0.2 * time)], axis=-1)


def failed(result) -> list[str]:
    return [check.name for check in result.checks if not check.ok]


def test_what_repeats_the_recording_holds_every_check():
    result = judge_replay(replayed(smooth()), JOINTS, ReplayLimits(), velocity=np.full(2, 3.0))
    assert (result.ok, [c.name for c in result.checks]) == (True, ["range", "speed", "jerk", "difference", "latency"])


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda c: c + np.array([0.3, 0.0]), ["range"]),
        (lambda c: c[::-1] * -1.0, ["difference"]),
        (lambda c: c + 0.02 * np.resize([1, -1], c.shape[1])[None, :, None] * np.array([0, 1]), ["range", "jerk"]),
    ],
)
def test_each_fault_is_found_by_its_check(change, names):
    given = replayed(change(smooth()), recorded=smooth())
    assert failed(judge_replay(given, JOINTS, ReplayLimits(jerk=2.0))) == names


def test_speed_and_latency_are_held_against_the_robots_own():
    result = judge_replay(replayed(smooth(), ms=101.0), JOINTS, ReplayLimits(), velocity=np.full(2, 0.5))
    assert failed(result) == ["speed", "latency"]
    assert judge_replay(replayed(smooth(), ms=101.0), JOINTS, ReplayLimits(latency=None)).ok


def test_the_difference_names_the_worst_axis_and_an_axis_that_never_moves_has_none():
    chunks = smooth()
    still = np.concatenate([chunks[..., :1], np.zeros_like(chunks[..., :1])], axis=-1)
    moved = still + np.array([0.9, 5.0])
    said = judge_replay(replayed(moved, recorded=still), JOINTS, ReplayLimits(outside=None)).reason
    assert "of axis 0's range" in said
    against = judge_replay(replayed(chunks, incumbent=-chunks[:, :3]), JOINTS, ReplayLimits(incumbent=0.1))
    assert failed(against) == ["incumbent"]


def turned(degrees: np.ndarray) -> np.ndarray:
    """Return rot6d of turns about z, the columns not of unit length."""
    a = np.radians(degrees)
    zero = np.zeros_like(a)
    return np.stack([2 * np.cos(a), 2 * np.sin(a), zero, -3 * np.sin(a), 3 * np.cos(a), zero], axis=-1)


def test_rotation_from_one_pose_to_the_next_is_the_geodesic_angle():
    np.testing.assert_allclose(np.degrees(rotation_steps(turned(np.array([0.0, 5, 17, 7])))), [5, 12, 10], atol=1e-6)
    with pytest.raises(SafetyStop, match="is no rotation"):
        rotation_steps(np.ones((2, 6)))


def test_a_pose_policy_that_turns_too_fast_falls():
    pose = RobotSpec(name="toy", action=ActionSpec(name="action", shape=(9,), kind="pose_rot6d"), control_hz=10.0)
    for step, ok in ((11.0, True), (13.0, False)):
        chunk = np.concatenate([np.zeros((4, 3)), turned(step * np.arange(4))], axis=-1)[None].repeat(10, axis=0)
        assert ("rotation" not in failed(judge_replay(replayed(chunk), pose, ReplayLimits()))) is ok


def test_limits_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="`ticks` must be at least 10, got 5"):
        ReplayLimits(ticks=5)
    with pytest.raises(ConfigError, match="`jerk` must be 0 or more, or null"):
        ReplayLimits(jerk=-1.0)


def test_an_element_that_opens_and_closes_may_jump():
    chunks = smooth()
    chunks[:, :, 1] = np.where(np.arange(chunks.shape[1]) < 3, 0.9, -0.9)
    given, velocity = replayed(chunks, recorded=smooth()), np.full(2, 3.0)
    limits = ReplayLimits(difference=None)
    assert failed(judge_replay(given, JOINTS, limits, velocity=velocity)) == ["speed", "jerk"]
    assert judge_replay(given, JOINTS, limits, velocity=velocity, switches=[-1]).ok
    fast = judge_replay(given, JOINTS, limits, velocity=np.full(2, 0.1), switches=[-1])
    assert failed(fast) == ["speed"]  # of the other one
