"""The ticker keeps its grid, and an error ends it loudly."""

import logging
import os
import threading
import time

import pytest

from robot_rl.deploy.ticker import Ticker
from robot_rl.errors import ConfigError


def test_a_tick_that_overruns_skips_deadlines_instead_of_bursting():
    enough, calls = threading.Event(), []

    def tick() -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            time.sleep(0.055)
        if len(calls) == 4:
            enough.set()

    ticker = Ticker(tick, rate_hz=50.0, name="test")
    ticker.start()
    assert enough.wait(5)
    ticker.close()
    assert ticker.skipped >= 2  # 55 ms at 20 ms a tick sleep through at least two deadlines
    assert calls[1] - calls[0] >= 0.055
    assert ticker.ticks == len(calls)
    assert ticker.error is None
    ticker.close()


def test_an_exception_ends_the_ticking_and_stays_readable(caplog):
    def tick() -> None:
        raise ValueError("no arm")

    ticker = Ticker(tick, rate_hz=500.0, name="arm-control")
    with caplog.at_level(logging.ERROR):
        ticker.start()
        ticker._thread.join(5)
    assert str(ticker.error) == "no arm"
    assert ticker.ticks == 0
    assert "arm-control stopped" in caplog.text


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ConfigError, match="`rate_hz` of x must be positive"):
        Ticker(lambda: None, rate_hz=rate, name="x")


def test_closing_before_starting_is_allowed():
    Ticker(lambda: None, rate_hz=1.0, name="x").close()


def test_realtime_is_used_where_the_machine_allows_it_and_explained_where_not():
    seen, done = [], threading.Event()

    def tick() -> None:
        seen.append(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)
        done.set()

    ticker = Ticker(tick, rate_hz=100.0, name="rt", realtime=True)
    ticker.start()
    assert done.wait(5)
    ticker.close()
    assert (seen[0] == os.SCHED_FIFO) == (ticker.ordinary_because == "")
    assert Ticker(tick, rate_hz=100.0, name="plain").ordinary_because == "not asked for"
