"""Contract of `robot_rl.teleop.source.TeleopSource`: call `check_teleop_source` from the test of any device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from robot_rl.teleop.source import Event, TeleopSource, TeleopState

S = 1_000_000_000


def check_teleop_source(
    make: Callable[[], TeleopSource],
    *,
    engage: Callable[[], None],
    say: Callable[[], None] | None = None,
    lose: Callable[[], None] | None = None,
    start_ns: int = 10 * S,
) -> None:
    """Check all the contract.

    Args:
        make: Returns a source that was not opened.
        engage: Makes the operator drive, after `open`.
        say: Makes the operator say exactly one event; `None` for a device without events.
        lose: Takes the device away; `None` where that cannot be done.
        start_ns: Time of the first poll.
    """
    source = make()
    assert isinstance(source, TeleopSource)
    source.close()  # before open is allowed
    source.open()
    now = start_ns
    resting = check_state(source.poll(now), now)
    assert not resting.engaged, "a device that nobody touched must not drive"
    engage()
    now += S // 100
    driving = check_state(source.poll(now), now)
    assert driving.engaged
    assert driving.twist is not None or driving.joints is not None, "an engaged device says where to go"
    if say is not None:
        say()
        said = check_state(source.poll(now + 1), now + 1).events
        assert len(said) == 1
        assert source.poll(now + 2).events == (), "an event is said once"
    if lose is not None:
        lose()
        now += S
        for n in range(3):
            gone = check_state(source.poll(now + n), now + n)
            assert not gone.engaged, "a device that is gone must not drive"
    source.close()
    source.close()  # twice is allowed


def check_state(state: TeleopState, now_ns: int) -> TeleopState:
    """A state is stamped now or before, finite, and its events are events."""
    assert isinstance(state, TeleopState)
    assert state.stamp_ns <= now_ns
    assert all(isinstance(event, Event) for event in state.events)
    for value in (state.twist, state.joints):
        assert value is None or (value.dtype == np.float64 and np.isfinite(value).all())
    return state
