import numpy as np
import pytest

from robot_rl.errors import ConfigError, SpecError
from robot_rl.teleop.leader import LeaderSource
from robot_rl.teleop.source import Event, TeleopState
from tests.contracts.teleop_source import check_teleop_source

MS = 1_000_000
S = 1_000 * MS


class Pedal:
    """A clutch that is pressed by hand."""

    def __init__(self) -> None:
        self.down, self.is_open = False, False
        self.events: list[Event] = []

    def open(self) -> None:
        self.is_open = True

    def poll(self, now_ns: int) -> TeleopState:
        events, self.events = tuple(self.events), []
        return TeleopState(stamp_ns=now_ns, engaged=self.down, events=events)

    def close(self) -> None:
        self.is_open = False


def test_contract():
    pedal, sources = Pedal(), []

    def make() -> LeaderSource:
        sources.append(LeaderSource(2, clutch=pedal))
        return sources[-1]

    def engage() -> None:
        pedal.down = True
        sources[-1].push(10 * S, np.zeros(2))

    check_teleop_source(make, engage=engage, say=lambda: pedal.events.append(Event.FAILURE), lose=lambda: None)


def test_angles_are_scaled_and_shifted_and_the_gripper_mapped():
    leader = LeaderSource(
        2, scale=np.array([1.0, -0.5]), offset_rad=np.array([0.1, 0.0]), gripper_range=(1.5, -0.5), gripper_width_m=0.08
    )
    leader.push(S, np.array([0.2, 0.4]), 0.5)
    state = leader.poll(S + 5 * MS)
    assert (state.stamp_ns, state.engaged) == (S, True)
    np.testing.assert_allclose(state.joints, [0.3, -0.2])
    assert state.gripper_width_m == pytest.approx(0.04)
    leader.push(2 * S, np.zeros(2), 9.0)
    assert leader.poll(2 * S).gripper_width_m == 0.0


def test_a_leader_that_falls_silent_lets_go_but_its_pedal_is_still_heard():
    pedal = Pedal()
    leader = LeaderSource(2, clutch=pedal)
    leader.open()
    pedal.down = True
    leader.push(S, np.zeros(2))
    assert leader.poll(S + 100 * MS).engaged
    pedal.events.append(Event.DISCARD)
    state = leader.poll(S + 101 * MS)
    assert (state.engaged, state.joints, state.events) == (False, None, (Event.DISCARD,))
    leader.close()
    assert not pedal.is_open


def test_nonsense_is_refused():
    leader = LeaderSource(2)
    with pytest.raises(SpecError, match=r"must be 2 finite angles \[rad\], got \[0.0, nan\]"):
        leader.push(0, np.array([0, np.nan]))
    with pytest.raises(SpecError, match="gripper reading must be finite, got inf"):
        leader.push(0, np.zeros(2), float("inf"))
    with pytest.raises(ConfigError, match=r"`scale` must be one finite number or 2, got \[1.0, 1.0, 1.0\]"):
        LeaderSource(2, scale=np.ones(3))
    with pytest.raises(ConfigError, match="`gripper_range` must be two different readings"):
        LeaderSource(2, gripper_range=(1.0, 1.0))
