"""The gamepad source on a virtual joystick of the SDL that pygame brings: the whole way but the USB plug."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from robot_rl.errors import ConfigError, TeleopError
from robot_rl.teleop.gamepad import GamepadLayout, GamepadSource
from robot_rl.teleop.source import Event, Speeds
from tests.contracts.teleop_source import check_teleop_source

pygame = pytest.importorskip("pygame")
SPEEDS = Speeds(linear_m_s=0.1, angular_rad_s=0.5, gripper_m_s=0.05)
LAYOUT = GamepadLayout(axes={0: (1, -1.0), 1: (0, -1.0), 2: (5, -1.0), 3: (4, 1.0)}, up=5, down=4)  # of the virtual pad


class VirtualPad:
    """A joystick that SDL takes for a real one."""

    def __init__(self) -> None:
        folder = Path(pygame.__file__).parents[1] / "pygame.libs"
        found = sorted(folder.glob("libSDL2-2*"))
        if not found:
            pytest.skip(f"no SDL library in {folder}: this pygame was not installed from its wheel")
        self.sdl = ctypes.CDLL(str(found[0]))
        self.sdl.SDL_JoystickOpen.restype = ctypes.c_void_p
        self.sdl.SDL_JoystickClose.argtypes = [ctypes.c_void_p]
        self.index, self.pad = -1, None

    def plug_in(self) -> None:
        self.index = self.sdl.SDL_JoystickAttachVirtual(1, 6, 12, 1)
        assert self.index >= 0
        self.pad = ctypes.c_void_p(self.sdl.SDL_JoystickOpen(self.index))

    def unplug(self) -> None:
        if self.index >= 0:
            self.sdl.SDL_JoystickDetachVirtual(self.index)
            self.index, self.pad = -1, None

    def push(self, axis: int, deflection: float) -> None:
        assert self.sdl.SDL_JoystickSetVirtualAxis(self.pad, axis, ctypes.c_int16(round(deflection * 32767))) == 0

    def press(self, button: int, down: bool = True) -> None:
        assert self.sdl.SDL_JoystickSetVirtualButton(self.pad, button, int(down)) == 0


@pytest.fixture
def pad(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.init()
    pygame.joystick.init()
    virtual = VirtualPad()
    virtual.plug_in()
    yield virtual
    pygame.joystick.init()  # a closed source has quit it
    virtual.unplug()
    pygame.joystick.quit()
    pygame.display.quit()


@pytest.fixture
def source(pad):
    gamepad = GamepadSource(SPEEDS, layout=LAYOUT)
    gamepad.open()
    yield gamepad
    gamepad.close()


def poll(source, times: int = 1):
    for _ in range(times):
        state = source.poll(1)
    return state


def test_contract(pad):
    check_teleop_source(
        lambda: GamepadSource(SPEEDS, layout=LAYOUT),
        engage=lambda: pad.press(4),
        say=lambda: pad.press(2),
        lose=pad.unplug,
    )


def test_sticks_and_triggers_become_a_twist_in_the_base_frame(pad, source):
    poll(source, 2)
    for axis, deflection in {1: -1.0, 2: 0.55, 5: 1.0}.items():
        pad.push(axis, deflection)
    twist = poll(source, 2).twist
    half = 0.1 / np.sqrt(2)
    np.testing.assert_allclose(twist, [half, 0, half, 0, 0, -0.25], atol=1e-4)
    pad.push(1, 0.0)
    pad.push(5, -1.0)
    pad.push(4, 1.0)
    pad.push(0, 1.0)
    np.testing.assert_allclose(poll(source, 2).twist, [0, -half, -half, 0, 0, -0.25], atol=1e-4)


def test_an_axis_that_never_rested_where_its_kind_does_moves_nothing(pad):
    """The virtual pad's axis 4 rests at -1; a layout that takes it for a stick must not turn the arm by it."""
    gamepad = GamepadSource(SPEEDS)
    gamepad.open()
    assert not poll(gamepad, 3).twist.any()
    gamepad.close()


def test_triggers_at_rest_do_not_lift(pad, source):
    assert not poll(source, 3).twist.any()


def test_only_a_held_deadman_engages(pad, source):
    assert not poll(source).engaged
    pad.press(4)
    assert poll(source, 2).engaged
    pad.press(4, down=False)
    assert not poll(source, 2).engaged


def test_a_deadman_held_from_the_start_does_not_count(pad):
    pad.press(4)
    gamepad = GamepadSource(SPEEDS)
    gamepad.open()
    assert not poll(gamepad, 3).engaged
    pad.press(4, down=False)
    poll(gamepad, 2)
    pad.press(4)
    assert poll(gamepad, 2).engaged
    gamepad.close()


def test_buttons_close_open_and_say_events(pad, source):
    pad.press(0)
    assert poll(source, 2).gripper_rate_m_s == pytest.approx(-0.05)
    pad.press(0, down=False)
    pad.press(1)
    assert poll(source, 2).gripper_rate_m_s == pytest.approx(0.05)
    pad.press(7)
    assert [event for _ in range(3) for event in poll(source).events] == [Event.START]


def test_unplugged_it_lets_go_and_plugged_in_again_it_goes_on(pad, source):
    poll(source)
    pad.press(4)
    assert poll(source, 2).engaged
    pad.unplug()
    state = poll(source, 2)
    assert (state.engaged, state.twist) == (False, None)
    pad.plug_in()
    poll(source, 2)
    pad.press(4)
    assert poll(source, 2).engaged


def test_no_gamepad_is_a_clear_refusal(pad):
    with pytest.raises(TeleopError, match=r"there is no gamepad 5; SDL sees 1"):
        GamepadSource(index=5).open()
    with pytest.raises(ConfigError, match=r"`deadband` must be from 0 to below 1, got 1.0"):
        GamepadSource(deadband=1.0)
