"""The keyboard source on a real pseudo-terminal."""

import os
import termios

import numpy as np
import pytest

from robot_rl.errors import ConfigError, TeleopError
from robot_rl.teleop.keyboard import EVENTS, GRIPPER, HELP, MOTION, KeyboardSource
from robot_rl.teleop.source import Event, Speeds
from tests.contracts.teleop_source import check_teleop_source

MS = 1_000_000
S = 1_000 * MS


@pytest.fixture
def terminal():
    operator, device = os.openpty()
    yield operator, device
    for fd in (operator, device):
        try:
            os.close(fd)
        except OSError:
            assert fd == operator  # a test hung up


@pytest.fixture
def keyboard(terminal):
    source = KeyboardSource(Speeds(linear_m_s=0.1, angular_rad_s=0.5, gripper_m_s=0.05), fd=terminal[1])
    source.open()
    yield source
    source.close()


def test_contract(terminal):
    operator, device = terminal
    check_teleop_source(
        lambda: KeyboardSource(fd=device),
        engage=lambda: os.write(operator, b" "),
        say=lambda: os.write(operator, b"2"),
        lose=lambda: os.close(operator),
    )


def test_a_key_moves_while_it_repeats_and_stops_soon_after(terminal, keyboard):
    os.write(terminal[0], b" w")
    state = keyboard.poll(S)
    assert state.engaged
    np.testing.assert_allclose(state.twist, [0.1, 0, 0, 0, 0, 0])
    assert keyboard.poll(S + 149 * MS).twist[0] == pytest.approx(0.1)
    os.write(terminal[0], b"w")
    assert keyboard.poll(S + 149 * MS).twist[0] == pytest.approx(0.1)
    assert keyboard.poll(S + 298 * MS).twist[0] == pytest.approx(0.1)
    still = keyboard.poll(S + 299 * MS)
    assert not still.twist.any()
    assert still.engaged


def test_every_motion_key_moves_its_axis(terminal, keyboard):
    for n, (key, (axis, direction)) in enumerate(MOTION.items()):
        os.write(terminal[0], key.upper().encode())  # caps lock must not change anything
        twist = keyboard.poll((n + 1) * S).twist
        wanted = np.zeros(6)
        wanted[axis] = direction * (0.1 if axis < 3 else 0.5)
        np.testing.assert_allclose(twist, wanted)


def test_opposite_keys_cancel_and_the_gripper_has_two(terminal, keyboard):
    os.write(terminal[0], b"wsz")
    state = keyboard.poll(S)
    assert not state.twist.any()
    assert state.gripper_rate_m_s == pytest.approx(-0.05)


def test_space_again_or_silence_opens_the_clutch(terminal, keyboard):
    os.write(terminal[0], b" ")
    assert keyboard.poll(S).engaged
    os.write(terminal[0], b" ")
    assert not keyboard.poll(2 * S).engaged
    os.write(terminal[0], b" ")
    assert keyboard.poll(3 * S).engaged
    assert keyboard.poll(8 * S).engaged
    assert not keyboard.poll(8 * S + 1).engaged
    os.write(terminal[0], b"w")
    assert not keyboard.poll(9 * S).engaged  # it takes the clutch again, not any key


def test_speed_keys_scale_between_a_tenth_and_the_whole(terminal, keyboard):
    os.write(terminal[0], b"-w")
    assert keyboard.poll(S).twist[0] == pytest.approx(0.08)
    os.write(terminal[0], b"-" * 20 + b"w")
    assert keyboard.poll(2 * S).twist[0] == pytest.approx(0.01)
    os.write(terminal[0], b"+" * 20 + b"w")
    assert keyboard.poll(3 * S).twist[0] == pytest.approx(0.1)


def test_events_come_in_order(terminal, keyboard):
    os.write(terminal[0], b"12345t")
    assert keyboard.poll(S).events == (
        Event.START, Event.SUCCESS, Event.FAILURE, Event.DISCARD, Event.RESET, Event.TOGGLE,
    )  # fmt: skip


def test_the_terminal_is_given_back_as_it_was(terminal):
    before = termios.tcgetattr(terminal[1])
    source = KeyboardSource(fd=terminal[1])
    source.open()
    assert not termios.tcgetattr(terminal[1])[3] & (termios.ECHO | termios.ICANON)
    source.close()
    assert termios.tcgetattr(terminal[1])[3] == before[3]


def test_no_terminal_is_a_clear_refusal():
    read, write = os.pipe()
    with pytest.raises(TeleopError, match="needs a terminal, and its input is none"):
        KeyboardSource(fd=read).open()
    os.close(read)
    os.close(write)
    with pytest.raises(ConfigError, match=r"must be positive, got 0.0 and 5.0"):
        KeyboardSource(hold_s=0.0)


def test_the_help_names_every_key():
    assert all(f"{key} " in HELP or f"{key}:" in HELP for key in [*MOTION, *GRIPPER, *EVENTS])
