"""What is switched off for the loop's thread, that it is put back, and that the loop makes no garbage of its own."""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from robot_rl.deploy.clock import MAX_SPIN_NS, MonotonicClock
from robot_rl.deploy.priority import pin, realtime
from robot_rl.deploy.runners import SyncRunner
from robot_rl.deploy.timing import Timing, garbage_paused, split_cores
from robot_rl.errors import ConfigError
from tests.deploy.test_loop import PointEnv, RampPolicy, SimulatedClock, build

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores and priorities are asked of Linux")


def test_all_is_put_back_afterwards():
    interval, enabled = sys.getswitchinterval(), gc.isenabled()
    with Timing(switch_us=50).applied() as how:
        assert how == "ordinary priority"
        assert sys.getswitchinterval() == pytest.approx(50e-6)
        assert not gc.isenabled()
    assert sys.getswitchinterval() == pytest.approx(interval)
    assert gc.isenabled() == enabled


def test_collection_that_was_off_stays_off():
    gc.disable()
    try:
        with garbage_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@linux
def test_a_thread_is_kept_on_its_core_and_let_go_again():
    cores = os.sched_getaffinity(0)
    last = max(cores)
    with Timing(cores=[last]).applied() as how:
        assert os.sched_getaffinity(0) == {last}
        assert how == f"core {last}; ordinary priority"
    assert os.sched_getaffinity(0) == cores
    with pin([4095]) as refused:
        assert refused.startswith("pinning to core 4095 of [")
        assert os.sched_getaffinity(0) == cores


@linux
def test_priority_is_taken_or_refused_in_words_and_given_back():
    told = []

    def ask() -> None:
        before = os.sched_getscheduler(0)
        with realtime() as refused:
            inside = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        after = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        told.extend([refused, inside == os.SCHED_FIFO, after == before])

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    refused, was_first, was_given_back = told
    assert was_given_back
    assert was_first == (refused == "")
    assert refused == "" or "was refused" in refused


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(ConfigError, match=r"`timing\.cores` must name at least one core"):
        Timing(cores=[])
    with pytest.raises(ConfigError, match=r"`timing\.switch_us` must be positive, got 0"):
        Timing(switch_us=0)
    with pytest.raises(ConfigError, match="`spin_ns` must be in"):
        MonotonicClock(spin_ns=MAX_SPIN_NS + 1)


def test_loop_and_inference_get_cores_of_their_own_where_there_are_two():
    assert split_cores([0, 1]) == ([1], [0])
    assert split_cores([2, 4, 6]) == ([6], [2, 4])
    assert split_cores([3]) is None


@pytest.mark.parametrize("spin_ns", [0, 500_000])
def test_a_spinning_clock_never_wakes_up_early(spin_ns):
    clock = MonotonicClock(spin_ns=spin_ns)
    for _ in range(5):
        deadline = clock.now_ns() + 2_000_000
        clock.sleep_until(deadline)
        assert clock.now_ns() >= deadline


def test_the_report_says_how_the_loop_was_scheduled():
    loop, _ = build(PointEnv(SimulatedClock(0)), RampPolicy(), make_runner=SyncRunner, timing=Timing())
    assert loop.run(seed=0, ticks=3).scheduling == "ordinary priority"


def test_the_time_that_preparing_takes_is_no_silence_of_the_loop():
    clock = SimulatedClock(0)

    class Slow(Timing):
        @contextmanager
        def applied(self) -> Iterator[str]:
            clock.advance(10**10)  # a large heap on a busy machine
            yield "slowly"

    loop, _ = build(PointEnv(clock), RampPolicy(), make_runner=SyncRunner, timing=Slow())
    report = loop.run(seed=0, ticks=3)
    assert (report.stopped, report.scheduling) == (None, "slowly")


def test_ticks_leave_no_garbage_that_only_a_collection_finds():
    """What is paused is not needed: a run ten times as long leaves no more unreachable cycles behind."""
    left = []
    for ticks in (30, 300):
        loop, seen = build(PointEnv(SimulatedClock(0)), RampPolicy(), make_runner=SyncRunner)
        gc.collect()
        gc.disable()
        try:
            loop.run(seed=0, ticks=ticks)
        finally:
            gc.enable()
        del loop
        seen.clear()
        left.append(gc.collect())
    assert left[1] <= left[0] + 20
