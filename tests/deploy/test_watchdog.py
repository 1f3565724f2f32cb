"""A stream is as old as its stamp said when it came, plus the silence since."""

import pytest

from robot_rl.deploy.watchdog import Watchdog
from robot_rl.errors import ConfigError

MS = 1_000_000


def dog() -> Watchdog:
    return Watchdog({"joints": 0.1, "camera": 0.15})


def test_silence_counts_from_receipt():
    watchdog = dog()
    watchdog.saw("joints", now_ns=0)
    assert watchdog.complaint(100 * MS, ["joints"]) == ""
    assert watchdog.complaint(101 * MS, ["joints"]) == (
        "`joints` is 0.101 s old (silent for 0.101 s), at most 0.1 s allowed"
    )


def test_age_by_stamp_adds_to_silence():
    watchdog = dog()
    watchdog.saw("camera", now_ns=0, age_ns=100 * MS)
    assert watchdog.age_ns("camera", 30 * MS) == 130 * MS
    assert watchdog.complaint(50 * MS, ["camera"]) == ""
    assert "is 0.160 s old (silent for 0.060 s)" in watchdog.complaint(60 * MS, ["camera"])


def test_a_stamp_from_the_future_does_not_make_a_stream_younger():
    watchdog = dog()
    watchdog.saw("joints", now_ns=0, age_ns=-50 * MS)
    assert watchdog.age_ns("joints", 20 * MS) == 20 * MS
    watchdog.saw("joints", now_ns=0, age_ns=-101 * MS)
    assert watchdog.complaint(0, ["joints"]) == ("`joints` is stamped 0.101 s in the future; the clocks disagree")


def test_only_the_streams_asked_for_are_judged():
    watchdog = dog()
    watchdog.saw("joints", now_ns=0)
    assert watchdog.complaint(0, ["joints"]) == ""
    assert watchdog.complaint(0, ["joints", "camera"]) == "`camera` has never been received"
    assert watchdog.age_ns("camera", 0) is None


def test_refuses_what_it_cannot_watch():
    with pytest.raises(ConfigError, match=r"watchdog time-out of `joints` must be positive, got 0"):
        Watchdog({"joints": 0.0})
    with pytest.raises(ConfigError, match=r"stream `wrist` is not watched; watched are \['camera', 'joints'\]"):
        dog().saw("wrist", now_ns=0)
