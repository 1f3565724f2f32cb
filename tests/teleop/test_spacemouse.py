"""The SpaceMouse source behind a cap that is moved by hand here: the device itself cannot run without its hardware."""

import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

from robot_rl.errors import ConfigError, MissingExtraError, TeleopError
from robot_rl.teleop.source import Event, Speeds
from robot_rl.teleop.spacemouse import SpaceMouseSource, open_spacemouse
from tests.contracts.teleop_source import check_teleop_source

MS = 1_000_000
S = 1_000 * MS
SPEEDS = Speeds(linear_m_s=0.1, angular_rad_s=0.5, gripper_m_s=0.05)


@dataclass
class Cap:
    """Holds what pyspacemouse would read; every push is a report with a time of its own."""

    t: float = 0.0
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0
    buttons: list[int] = field(default_factory=lambda: [0, 0, 0])
    lost: bool = False
    closed: bool = False

    def read(self) -> "Cap":
        if self.lost:
            raise OSError("device disconnected")
        return self

    def push(self, **axes: float) -> None:
        self.t += 0.01
        for name, value in axes.items():
            setattr(self, name, value)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def cap() -> Cap:
    return Cap()


@pytest.fixture
def source(cap):
    mouse = SpaceMouseSource(SPEEDS, deadband=0.1, events={2: Event.SUCCESS}, open_device=lambda: cap)
    mouse.open()
    return mouse


def test_contract(cap):
    check_teleop_source(
        lambda: SpaceMouseSource(SPEEDS, events={2: Event.SUCCESS}, open_device=lambda: cap),
        engage=lambda: cap.push(x=0.5),
        say=lambda: cap.push(buttons=[0, 0, 1]),
        lose=lambda: setattr(cap, "lost", True),
    )


def test_a_push_becomes_a_twist_without_its_dead_middle(cap, source):
    cap.push(x=0.55, z=0.1, roll=-1.0)
    state = source.poll(S)
    assert state.engaged
    np.testing.assert_allclose(state.twist, [0.05, 0, 0, -0.5, 0, 0])


def test_letting_go_releases_after_the_hold(cap, source):
    cap.push(x=1.0)
    assert source.poll(S).engaged
    cap.push(x=0.0)
    assert source.poll(S + 200 * MS).engaged
    assert not source.poll(S + 201 * MS).engaged


def test_a_push_that_is_no_longer_reported_lets_go(cap, source):
    cap.push(x=1.0)
    source.poll(S)
    assert source.poll(S + 500 * MS).engaged
    assert not source.poll(S + 800 * MS).engaged


def test_buttons_engage_and_move_the_gripper(cap, source):
    cap.push(buttons=[1, 0, 0])
    assert (source.poll(S).engaged, source.poll(S).gripper_rate_m_s) == (True, -0.05)
    cap.push(buttons=[0, 1, 0])
    assert source.poll(S).gripper_rate_m_s == 0.05
    cap.push(buttons=[0, 0, 1])
    assert source.poll(2 * S).events == (Event.SUCCESS,)
    assert source.poll(2 * S).events == ()


def test_a_device_that_comes_back_is_found_again(cap):
    present = [cap]

    def open_device() -> Cap:
        if not present:
            raise TeleopError("no SpaceMouse")
        return present[0]

    source = SpaceMouseSource(SPEEDS, open_device=open_device)
    source.open()
    cap.lost = True
    present.clear()
    assert not source.poll(S).engaged
    assert not source.poll(3 * S).engaged
    fresh = Cap()
    present.append(fresh)
    fresh.push(y=1.0)
    assert source.poll(4 * S).engaged
    source.close()
    assert fresh.closed


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspacemouse", None)
    with pytest.raises(MissingExtraError, match=r"pyspacemouse .* pip install 'robot-rl\[teleop\]'"):
        open_spacemouse()
    with pytest.raises(ConfigError, match="need 0 <= deadband < 1"):
        SpaceMouseSource(deadband=1.0)
