import numpy as np
import pytest

from calibration.files import load_calibration, save_calibration
from calibration.latency import Signal, chirp, lag_between, lag_samples
from calibration.motion_signals import picture_change, speed, turning_speed
from robot_rl.calibration_types import CalibrationFile, Pose
from robot_rl.data.align import Alignment, to_episode
from robot_rl.errors import CalibrationError, ConfigError
from robot_rl.latency_calibration import LatencyCalibration, LatencySamples
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, Stream
from tests.calibration.hand_eye_rig import moving

MS = 1_000_000
DATE = "2030-01-01T00:00:00+00:00"


def motion(time_s: np.ndarray) -> np.ndarray:
    """Two channels [M, 2] of a motion that never repeats itself."""
    return np.stack(
        [np.interp(time_s, np.arange(3000) / 100, chirp(30, rate_hz=100)), np.sin(0.3 * time_s**1.3)], axis=1
    )


def signal(
    rate_hz: float, *, late_ms: float, jitter_ms: float = 0.0, seed: int = 0, noise: float = 0.0, held: bool = False
) -> Signal:
    """The motion, seen at a rate and stamped late."""
    rng = np.random.default_rng(seed)
    true_s = np.arange(0.5, 29.0, 1 / rate_hz)
    stamps = 1e9 * true_s + MS * (late_ms + jitter_ms * rng.uniform(-1, 1, len(true_s)))
    value = motion(true_s) + noise * rng.standard_normal((len(true_s), 2))
    return Signal(stamp_ns=np.sort(stamps.astype(np.int64)), value=value, held=held)


@pytest.mark.parametrize(("rate_hz", "late_ms"), [(500, 4.0), (100, 37.3), (30, 85.0), (30, -21.0)])
def test_a_lag_is_found_to_a_fraction_of_a_sample(rate_hz: float, late_ms: float) -> None:
    found = lag_between(signal(200, late_ms=0.0), signal(rate_hz, late_ms=late_ms, noise=0.02))
    assert 1e3 * found.lag_s == pytest.approx(late_ms, abs=1.0)
    assert found.correlation > 0.99


def test_scale_offset_and_unit_do_not_matter() -> None:
    late = signal(100, late_ms=30.0)
    other = Signal(stamp_ns=late.stamp_ns, value=250.0 * late.value + 17.0)
    here = signal(200, late_ms=0.0)
    assert lag_between(here, other).lag_s == pytest.approx(lag_between(here, late).lag_s, abs=1e-9)


def test_a_command_is_held_until_the_next_one() -> None:
    commanded = signal(20, late_ms=0.0, held=True)
    ticks = np.arange(commanded.stamp_ns[0], commanded.stamp_ns[-1], 2 * MS)
    done = Signal(stamp_ns=ticks + 60 * MS, value=commanded.at((ticks - ticks[0]) * 1e-9, int(ticks[0])))
    assert 1e3 * lag_between(commanded, done).lag_s == pytest.approx(60.0, abs=1.5)
    line = Signal(stamp_ns=commanded.stamp_ns, value=commanded.value)
    assert 1e3 * lag_between(line, done).lag_s == pytest.approx(60.0 + 25.0, abs=4.0)  # half of 50 ms too long


def test_windows_give_the_distribution_over_repetitions() -> None:
    found = lag_samples(signal(200, late_ms=0.0), signal(30, late_ms=50.0, jitter_ms=8.0, noise=0.02), window_s=4.0)
    assert 5 <= len(found) <= 7
    assert found.median_ns / MS == pytest.approx(50.0, abs=2.0)
    assert 0 < found.spread_ns < 8 * MS


def test_the_camera_turns_as_fast_as_the_arm_so_its_latency_needs_no_calibration() -> None:
    trajectory, stamps, evidence = moving(offset_s=-0.045, n_pictures=300, seed=0)
    times = np.arange(0, 14_000_000_000, 4 * MS)
    arm = turning_speed(times, [Pose.from_matrix(T) for T in trajectory.at(times)])
    order = np.argsort(stamps)
    kept = order[np.append(True, np.diff(stamps[order]) > 5 * MS)]
    camera = turning_speed(stamps[kept], [Pose.from_matrix(T) for T in evidence.T_camera_board[kept]])
    found = lag_between(arm, camera, max_lag_s=0.2)
    assert 1e3 * found.lag_s == pytest.approx(45.0, abs=10.0)


def test_pictures_change_as_fast_as_what_moves_in_them() -> None:
    true_s = np.arange(0.5, 20.0, 1 / 30)
    place = 60 + 40 * motion(true_s)[:, 0]
    columns = np.arange(160.0)
    pictures = [np.broadcast_to(255 * np.exp(-(((columns - x) / 30) ** 2)), (8, 160)) for x in place]
    camera = picture_change(np.round(1e9 * true_s + 70 * MS).astype(np.int64), pictures)
    fine_s = np.arange(0.5, 20.0, 1 / 200)
    arm = speed(np.round(1e9 * fine_s).astype(np.int64), motion(fine_s)[:, :1])
    assert 1e3 * lag_between(arm, camera, max_lag_s=0.2).lag_s == pytest.approx(70.0, abs=4.0)


def test_signals_that_say_nothing_about_a_lag_are_refused() -> None:
    here, rng = signal(100, late_ms=0.0), np.random.default_rng(0)
    noise = Signal(stamp_ns=here.stamp_ns, value=rng.standard_normal(here.value.shape))
    with pytest.raises(CalibrationError, match="do not resemble each other"):
        lag_between(here, noise)
    still = Signal(stamp_ns=here.stamp_ns, value=np.ones_like(here.value))
    with pytest.raises(CalibrationError, match="check that something moved"):
        lag_between(here, still)
    with pytest.raises(CalibrationError, match="is at the end of the search; raise `max_lag_s`"):
        lag_between(here, signal(100, late_ms=100.0), max_lag_s=0.05)
    time = (here.stamp_ns - here.stamp_ns[0]) * 1e-9
    sine = Signal(stamp_ns=here.stamp_ns, value=np.sin(2 * np.pi * 3.0 * time))
    with pytest.raises(CalibrationError, match="the motion repeats itself"):
        lag_between(sine, sine)
    with pytest.raises(CalibrationError, match="must have the same channels, got 2 and 1"):
        lag_between(here, sine)
    with pytest.raises(CalibrationError, match="record for longer"):
        lag_samples(here, here, window_s=40.0)
    with pytest.raises(CalibrationError, match="increasing stamps"):
        Signal(stamp_ns=here.stamp_ns[::-1], value=here.value)


def test_a_file_holds_the_distribution_and_gives_it_back(tmp_path) -> None:
    cell = LatencyCalibration(
        observation={
            "camera": LatencySamples(np.array([50, 52, 51]) * MS),
            "joints": LatencySamples(np.array([4 * MS])),
        },
        action=LatencySamples(np.array([80, 90]) * MS),
    )
    path = save_calibration(cell.to_file(date=DATE, method="test"), tmp_path / "latency.yaml")
    file = load_calibration(path, kind="latency", allow_stale=True)
    assert file.residuals["camera_median_ms"] == 51.0
    again = LatencyCalibration.from_file(file)
    assert again.observation["camera"].samples_ns.tolist() == [50 * MS, 51 * MS, 52 * MS]
    assert again.lead_ns == 85 * MS
    assert again.alignment_ns() == {"camera": 51 * MS, "joints": 4 * MS}
    assert again.alignment_ns(action=True)["action"] == -85 * MS


def test_another_kind_of_file_and_empty_samples_are_refused() -> None:
    other = CalibrationFile(
        kind="workspace", values={"low_m": [0.0]}, frames={}, date=DATE, device_serial="", method="", residuals={},
        image_digest="",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="kind `latency` is needed here, got `workspace`"):
        LatencyCalibration.from_file(other)
    with pytest.raises(ConfigError, match="one or more values in ns"):
        LatencySamples(np.array([]))


def test_draws_are_measured_values() -> None:
    samples, rng = LatencySamples(np.array([1, 2, 7]) * MS), np.random.default_rng(0)
    assert {samples.draw(rng) for _ in range(60)} == {1 * MS, 2 * MS, 7 * MS}
    assert samples.minus(MS).samples_ns.tolist() == [0, MS, 6 * MS]


def test_alignment_with_measured_latencies_sees_what_the_arm_saw() -> None:
    spec = RobotSpec(
        name="r", obs={"q": ArraySpec(name="q", shape=(1,))}, action=ActionSpec(name="action", shape=(1,)),
        control_hz=20
    )  # fmt: skip
    captured = np.arange(0, 2_000 * MS, 10 * MS)
    commands = np.arange(0, 1_900 * MS, 50 * MS)
    recording = Recording({
        "q": Stream(captured + 30 * MS, (captured / 1e9).astype(np.float32)[:, None]),
        "action": Stream(commands, (commands / 1e9).astype(np.float32)[:, None]),
    })  # fmt: skip
    cell = LatencyCalibration(
        observation={"q": LatencySamples(np.array([30 * MS]))}, action=LatencySamples(np.array([100 * MS]))
    )
    episode = to_episode(recording, spec, Alignment(latency_ns=cell.alignment_ns()))
    np.testing.assert_allclose(np.asarray(episode.obs["q"][:])[:, 0], episode.stamp_ns / 1e9, atol=1e-6)
    np.testing.assert_allclose(episode.action[:, 0], episode.stamp_ns / 1e9, atol=1e-6)
    ahead = to_episode(recording, spec, Alignment(latency_ns=cell.alignment_ns(action=True)))
    late = ahead.stamp_ns[5:] / 1e9
    np.testing.assert_allclose(ahead.action[5:, 0], late - 0.1, atol=1e-6)  # what the arm does now was sent 100 ms ago
