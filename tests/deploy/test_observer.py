"""Streams whose values are their own stamps in milliseconds, so that a misplaced sample shows."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.data.align import Alignment, align
from robot_rl.deploy.observer import Observer
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, Stream

MS = 1_000_000
STEP = 50 * MS
SPECS = {
    "joints": ArraySpec(name="joints", shape=(2,), unit="rad"),
    "front": ArraySpec(name="front", shape=(2, 2, 3), dtype="uint8"),
}
MAX_AGE = {"joints": 100 * MS, "front": 150 * MS}


def observer(**changes) -> Observer:
    return Observer(SPECS, **{"n_obs": 2, "step_ns": STEP, "max_age_ns": MAX_AGE, **changes})


def push(it: Observer, name: str, *stamps_ms: int, received_ms: int | None = None) -> None:
    for stamp in stamps_ms:
        value = np.full(SPECS[name].shape, stamp % 256 if name == "front" else stamp, dtype=SPECS[name].dtype)
        it.push(name, stamp * MS, value, received_ns=(stamp if received_ms is None else received_ms) * MS)


def seen(it: Observer, name: str, tick_ms: int) -> list[int]:
    sight = it.at(tick_ms * MS, now_ns=tick_ms * MS)
    assert sight.obs is not None, sight.reason
    return sight.obs[name].reshape(2, -1)[:, 0].tolist()


def test_each_step_sees_the_newest_sample_at_or_before_its_tick():
    it = observer()
    push(it, "joints", *range(0, 200, 10))
    push(it, "front", 3, 36, 69, 102)
    assert seen(it, "joints", 105) == [50, 100]
    assert seen(it, "front", 105) == [36, 102]
    assert seen(it, "joints", 100) == [50, 100]  # a sample at the tick counts
    sight = it.at(105 * MS, now_ns=105 * MS)
    assert sight.age_ns == {"joints": 5 * MS, "front": 3 * MS}
    assert (sight.obs["joints"].dtype, sight.obs["front"].shape) == (np.float32, (2, 2, 2, 3))


def test_latency_moves_a_stamp_back_to_its_capture():
    it = observer(latency_ns={"front": 30 * MS})
    push(it, "joints", *range(0, 200, 10))
    push(it, "front", 40, 73, 106, 139)  # captured at 10, 43, 76, 109
    assert seen(it, "front", 105) == [73, 106]


def test_the_first_sample_stands_in_for_those_before_it():
    it = observer(n_obs=2)
    push(it, "joints", 100)
    push(it, "front", 100)
    assert seen(it, "joints", 101) == [100, 100]
    it.reset()
    assert it.at(101 * MS, now_ns=101 * MS).reason == "`joints` has no sample yet; `front` has no sample yet"


def test_a_stale_stream_is_named_with_its_age_and_bound():
    it = observer()
    push(it, "joints", *range(0, 300, 10))
    push(it, "front", 0, 33, 66)
    assert seen(it, "front", 216) == [66, 66]
    sight = it.at(217 * MS, now_ns=217 * MS)
    assert sight.obs is None
    assert sight.reason == "`front` is stale: 151 ms old by its stamp, 150 allowed"


def test_a_stream_that_only_arrives_late_is_stale_by_receipt():
    it = observer()
    push(it, "front", 0)
    push(it, "joints", 0, received_ms=0)
    sight = it.at(10 * MS, now_ns=130 * MS)  # ROS time hardly moves, monotonic time does
    assert sight.reason == "`joints` is stale: 130 ms old by its time of receipt, 100 allowed"


def test_a_repeated_stamp_is_no_new_sample():
    it = observer()
    push(it, "joints", 0, 0, 0, received_ms=0)
    push(it, "joints", 0, received_ms=500)
    assert it.counts["joints"] == 1
    assert "500 ms old by its time of receipt" in it.at(0, now_ns=500 * MS).reason


def test_a_clock_that_jumps_ahead_makes_its_stream_stale_and_is_told():
    it = observer()
    push(it, "joints", *range(0, 100, 10))
    push(it, "front", 0, 33, 66, 1099, 1132)
    sight = it.at(240 * MS, now_ns=240 * MS)
    assert "`front` is stale: 174 ms old by its stamp, 150 allowed; its clock is 0.892 s ahead" in sight.reason


def test_a_clock_that_jumps_back_starts_the_stream_anew():
    it = observer()
    push(it, "joints", *range(1000, 1100, 10))
    push(it, "front", 1000, 1033, 1066)
    push(it, "joints", 500)
    assert "`joints` is stale: 600 ms old by its stamp" in it.at(1100 * MS, now_ns=1100 * MS).reason


def test_a_refused_sample_is_told_once_the_stream_is_stale():
    it = observer()
    push(it, "front", 0)
    push(it, "joints", 0)
    it.push("joints", 90 * MS, np.array([np.nan, 0], np.float32), received_ns=90 * MS)
    assert it.at(100 * MS, now_ns=100 * MS).obs is not None
    reason = it.at(101 * MS, now_ns=101 * MS).reason
    assert "`joints` is stale: 101 ms old" in reason
    assert "last sample refused: `joints` must be finite, got nan at index [0]" in reason


def test_old_samples_are_forgotten_but_never_the_one_in_force():
    it = observer()
    push(it, "joints", *range(100_000))
    assert len(it._buffers["joints"]._captured) <= 202  # 2 steps of 50 ms, the bound of 100 ms, and one at the edge
    push(it, "front", 99_999)
    assert seen(it, "joints", 99_999) == [99_949, 99_999]


@given(
    stamps=st.lists(st.integers(0, 2_000), min_size=2, max_size=40, unique=True).map(sorted),
    latency=st.integers(0, 40),
)
def test_agrees_with_the_alignment_of_training_data(stamps: list[int], latency: int):
    spec = RobotSpec(
        name="x", obs={"joints": SPECS["joints"]}, action=ActionSpec(name="action", shape=(1,)), control_hz=20
    )
    it = Observer(spec.obs, n_obs=1, step_ns=STEP, max_age_ns={"joints": 10_000 * MS}, latency_ns={"joints": latency})
    captured = np.array(stamps, np.int64) * MS
    values = np.repeat(np.array(stamps, np.float32)[:, None], 2, axis=1)
    action = Stream(captured + 1, np.zeros((len(stamps), 1), np.float32))
    recording = Recording({"joints": Stream(captured, values), "action": action})
    aligned = align(recording, spec, Alignment(latency_ns={"joints": latency}))
    for stamp, value in zip(captured, values, strict=True):
        it.push("joints", int(stamp), value, received_ns=int(stamp))
    for tick, row in zip(aligned.stamp_ns, aligned.obs["joints"], strict=True):
        sight = it.at(int(tick), now_ns=int(captured[-1]))
        assert sight.obs is not None
        assert sight.obs["joints"][0, 0] == stamps[row]


def test_pushing_and_looking_from_two_threads():
    it, stop = observer(), threading.Event()

    def feed() -> None:
        for stamp in range(5_000):
            push(it, "joints", stamp)
            push(it, "front", stamp)
        stop.set()

    thread = threading.Thread(target=feed)
    thread.start()
    looks = 0
    while not stop.is_set() or looks == 0:
        newest = it.counts["front"] - 1
        sight = it.at(newest * MS, now_ns=newest * MS)
        if sight.obs is not None:
            assert sight.obs["joints"][1, 0] == newest
            looks += 1
    thread.join()


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="`max_age_ns` of `front` must be positive, got None"):
        observer(max_age_ns={"joints": 1})
    with pytest.raises(ConfigError, match="`max_age_ns` of `front` must be positive, got 0"):
        observer(max_age_ns={"joints": 1, "front": 0})
    with pytest.raises(ConfigError, match=r"unknown streams \['wrist'\]; there are \['front', 'joints'\]"):
        observer(latency_ns={"wrist": 1})
    with pytest.raises(ConfigError, match="need `n_obs` >= 1"):
        observer(n_obs=0)
    with pytest.raises(ConfigError, match="there is no stream `wrist`"):
        observer().push("wrist", 0, np.zeros(2), received_ns=0)
