"""Who drives the arm: the policy, the human, or nobody.

A human takes over at once and gives back only after a quiet time. Every change of driver blends from the last executed
command, so that nothing jumps; a policy that gets the arm back must first have forgotten its old chunk. Nobody drives
with a stale, misshapen or non-finite command: then nothing is sent, and the safety filter's time-out holds the arm.
All of it is a function of the inputs and the clock it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from robot_rl.errors import ConfigError

Driver = Literal["policy", "human", "none"]


def was_taken_over(human: Sequence[bool]) -> bool:
    """Return whether a person took the arm within an episode, or never let go of it, by who drove, oldest first.

    A person who had it when the episode began and gave it to the policy, as after setting the scene up, did not.
    """
    taken = any(now and not before for before, now in pairwise(human))
    return taken or (len(human) > 0 and all(human))


@dataclass(frozen=True)
class Now:
    """One moment on both clocks: `monotonic_ns` for time-outs, `stamp_ns` in ROS time for the age of stamps."""

    monotonic_ns: int
    stamp_ns: int


@dataclass(frozen=True)
class Command:
    """Joint targets and gripper width [A], its sender's stamp (ROS time), and when it was received (monotonic)."""

    value: np.ndarray
    stamp_ns: int
    received_ns: int


@dataclass(frozen=True, kw_only=True)
class TakeoverInputs:
    """What is known at a tick.

    Args:
        policy: The policy's newest command.
        human: The operator's newest command.
        executed: The newest command that passed the safety filter, if known.
        measured: The arm's newest state, as the command that would hold it.
        intervening: The operator's device says that he wants the arm.
        intervening_ns: When it last said either (monotonic); `None` where there is no such device.
        forced: Somebody asked for a human to take over until told otherwise.
        policy_allowed: An episode is running.
        blocked: Why nobody may drive now, such as a reset that moves the arm; empty when somebody may.
    """

    policy: Command | None = None
    human: Command | None = None
    executed: Command | None = None
    measured: Command | None = None
    intervening: bool = False
    intervening_ns: int | None = None
    forced: bool = False
    policy_allowed: bool = False
    blocked: str = ""


@dataclass(frozen=True)
class Selection:
    """What to send at a tick: `value` [A], or `None` for nothing, then `driver` is "none" and `reason` says why.

    `policy_reset` asks for the policy to be reset; answer with `Takeover.policy_was_reset`. `repeated` says that the
    driver's command has just been sent and need not be sent again; it is sent once more before the receiver could
    take the sender for silent.
    """

    driver: Driver
    value: np.ndarray | None = None
    reason: str = ""
    policy_reset: bool = False
    repeated: bool = False


class Takeover:
    """Chooses the driver at every tick and blends between drivers.

    Args:
        width: A, elements of a command.
        has_gripper: The last element is a gripper; where the measured pose is the start, the gripper starts from the
            last executed width, because starting from the measured one would let go of what it holds.
        handover_s: Time over which a new driver's commands are blended in; 0 takes them over at once.
        release_s: Quiet time after which a human counts as having let go.
        command_timeout_s: Age beyond which a command or a joint state is stale.
        intervening_timeout_s: Silence after which the operator's device counts as lost.
        wait_s: How long a new driver may leave the arm holding before its first command.
        retry_s: How often to ask again for a reset of the policy that was not answered.

    Raises:
        ConfigError: A time that is negative or not a number, or a time-out of zero.
    """

    def __init__(
        self,
        width: int,
        *,
        has_gripper: bool = True,
        handover_s: float = 0.5,
        release_s: float = 0.5,
        command_timeout_s: float = 0.1,
        intervening_timeout_s: float = 0.25,
        wait_s: float = 0.5,
        retry_s: float = 1.0,
    ) -> None:
        if width < 1:
            raise ConfigError(f"`width` must be at least 1, got {width}")
        self._width, self._has_gripper = width, has_gripper
        self._handover_ns = _to_ns("handover_s", handover_s)
        self._release_ns = _to_ns("release_s", release_s)
        self._timeout_ns = _to_ns("command_timeout_s", command_timeout_s, positive=True)
        self._device_timeout_ns = _to_ns("intervening_timeout_s", intervening_timeout_s, positive=True)
        self._repeat_ns = round(0.6 * self._timeout_ns)
        self._wait_ns, self._retry_ns = _to_ns("wait_s", wait_s), _to_ns("retry_s", retry_s, positive=True)
        self._owner: Driver = "none"
        self._driving = False  # the owner's commands are being sent
        self._lost = False  # the operator's device fell silent while it had the arm
        self._engaged_ns = 0
        self._hold_until_ns = 0
        self._last: np.ndarray | None = None
        self._last_ns = 0
        self._sent: Command | None = None  # the last one passed on as it came
        self._sent_ns = 0
        self._from, self._from_ns = np.zeros(width), 0
        self._reset_done: Now | None = None
        self._asked_ns: int | None = None

    def update(self, now: Now, inputs: TakeoverInputs) -> Selection:
        """Return what to send at this tick."""
        owner = self._decide(now, inputs)
        if owner != self._owner:
            self._change(owner, now)
        if owner == "none":
            return Selection("none", reason=self._why_nobody(inputs))
        ask = owner == "policy" and self._asks_for_reset(now)
        command = inputs.policy if owner == "policy" else inputs.human
        fault = self._fault(command, now)
        if command is not None and not fault:
            return self._drive(owner, command, now=now, inputs=inputs, ask=ask)
        return self._without_command(owner, fault, now=now, ask=ask)

    def policy_was_reset(self, now: Now) -> None:
        """Let commands of the policy through that it sends from now on."""
        if self._owner == "policy" and self._reset_done is None:
            self._reset_done = now

    def resume(self) -> None:
        """Let the policy drive again after the operator's device was lost; somebody said so explicitly."""
        self._lost = False

    def _decide(self, now: Now, inputs: TakeoverInputs) -> Driver:
        alive = inputs.intervening_ns is not None and (
            0 <= now.monotonic_ns - inputs.intervening_ns <= self._device_timeout_ns
        )
        engaged = inputs.forced or (inputs.intervening and alive)
        if engaged:
            self._lost, self._engaged_ns = False, now.monotonic_ns
        elif not inputs.policy_allowed:
            self._lost = False  # nothing to give back to; the next episode starts afresh
        elif self._owner == "human" and inputs.intervening and not alive:
            self._lost = True
        released = now.monotonic_ns - self._engaged_ns >= self._release_ns
        if inputs.blocked:
            return "none"
        if engaged or (self._owner == "human" and not self._lost and not released):
            return "human"
        return "policy" if inputs.policy_allowed and not self._lost else "none"

    def _why_nobody(self, inputs: TakeoverInputs) -> str:
        if inputs.blocked:
            return inputs.blocked
        if self._lost:
            return "the operator's device fell silent while it had the arm; engage again, or end the intervention"
        return "no episode is running"

    def _change(self, owner: Driver, now: Now) -> None:
        sent_ns = now.monotonic_ns - self._last_ns
        in_motion = self._last is not None and self._owner != "none" and sent_ns <= self._timeout_ns
        self._hold_until_ns = now.monotonic_ns + self._wait_ns if in_motion else 0
        self._owner, self._driving = owner, False
        self._reset_done = self._asked_ns = None

    def _asks_for_reset(self, now: Now) -> bool:
        if self._reset_done is not None:
            return False
        if self._asked_ns is not None and now.monotonic_ns - self._asked_ns < self._retry_ns:
            return False
        self._asked_ns = now.monotonic_ns
        return True

    def _fault(self, command: Command | None, now: Now) -> str:
        """Return why the owner's command cannot be used, or an empty text."""
        if command is None:
            return f"no command from the {self._owner}"
        if self._owner == "policy":
            done = self._reset_done
            if done is None or command.received_ns <= done.monotonic_ns or command.stamp_ns < done.stamp_ns:
                return "no command from the policy since its reset"
        if not self._is_fresh(command, now):
            ages = (now.monotonic_ns - command.received_ns, now.stamp_ns - command.stamp_ns)
            return "the {}'s command is stale: received {:.3f} s ago, stamped {:.3f} s ago".format(
                self._owner, *(age / 1e9 for age in ages)
            )
        if command.value.shape != (self._width,) or not np.isfinite(command.value).all():
            return f"the {self._owner}'s command must be {self._width} finite numbers, got {command.value.tolist()}"
        return ""

    def _drive(self, owner: Driver, command: Command, *, now: Now, inputs: TakeoverInputs, ask: bool) -> Selection:
        if not self._driving:
            start = self._start(now, inputs)
            if start is None:
                return Selection("none", reason="no fresh joint state to start from", policy_reset=ask)
            self._driving, self._from, self._from_ns, self._sent = True, start, now.monotonic_ns, None
        elapsed = now.monotonic_ns - self._from_ns
        share = 1.0 if elapsed >= self._handover_ns else elapsed / self._handover_ns
        weight = share * share * (3.0 - 2.0 * share)  # starts and ends at rest
        if share == 1.0:
            repeated = command is self._sent and now.monotonic_ns - self._sent_ns < self._repeat_ns
            if not repeated:
                self._sent, self._sent_ns = command, now.monotonic_ns
            self._last, self._last_ns = command.value, now.monotonic_ns
            return Selection(owner, command.value.copy(), policy_reset=ask, repeated=repeated)
        return self._send(owner, self._from + weight * (command.value - self._from), now=now, ask=ask)

    def _without_command(self, owner: Driver, fault: str, *, now: Now, ask: bool) -> Selection:
        """Hold for a bounded time while a driver lets go or begins; otherwise send nothing."""
        letting_go = owner == "human" and self._driving and now.monotonic_ns > self._engaged_ns
        beginning = not self._driving and now.monotonic_ns < self._hold_until_ns
        if self._last is not None and (letting_go or beginning):
            return self._send(owner, self._last, now=now, ask=ask, reason=fault)
        if self._driving:
            self._driving, self._hold_until_ns = False, 0
            self._reset_done = self._asked_ns = None
        return Selection("none", reason=fault, policy_reset=ask)

    def _send(self, owner: Driver, value: np.ndarray, *, now: Now, ask: bool, reason: str = "") -> Selection:
        self._last, self._last_ns = value, now.monotonic_ns
        return Selection(owner, value.copy(), reason, ask)

    def _start(self, now: Now, inputs: TakeoverInputs) -> np.ndarray | None:
        """Return where a new driver starts: the executed command, the last one sent, or the measured pose."""
        executed, measured = inputs.executed, inputs.measured
        if executed is not None and self._is_usable(executed, now):
            return executed.value
        if self._last is not None and now.monotonic_ns - self._last_ns <= self._timeout_ns:
            return self._last
        if measured is None or not self._is_usable(measured, now):
            return None
        start = measured.value.copy()
        if self._has_gripper and executed is not None and np.isfinite(executed.value).all():
            start[-1] = executed.value[-1]
        return start

    def _is_usable(self, command: Command, now: Now) -> bool:
        return (
            self._is_fresh(command, now)
            and command.value.shape == (self._width,)
            and bool(np.isfinite(command.value).all())
        )

    def _is_fresh(self, command: Command, now: Now) -> bool:
        received, stamped = now.monotonic_ns - command.received_ns, now.stamp_ns - command.stamp_ns
        return 0 <= received <= self._timeout_ns and abs(stamped) <= self._timeout_ns  # a stamp ahead is a clock's jump


def _to_ns(name: str, value_s: float, *, positive: bool = False) -> int:
    if not (value_s > 0 if positive else value_s >= 0) or value_s == float("inf"):
        raise ConfigError(f"`{name}` must be {'positive' if positive else 'zero or more'} seconds, got {value_s}")
    return round(value_s * 1e9)
