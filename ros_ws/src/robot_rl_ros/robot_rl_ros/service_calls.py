"""Calls of Trigger services from a control thread: asked once, answered later, never waited for."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from robot_rl.deploy.takeover import Now

_SEED = re.compile(r"seed (\d+)")


class PolicyReset:
    """Asks the policy to forget its plan; `answered` is called once it has, unless it was asked again meanwhile.

    Args:
        node: Owner of the client.
        service: Name; empty for a policy that needs no reset, which counts as answered at once.
        answered: Called from the executor's thread (or at once).
    """

    def __init__(self, node: Node, service: str, answered: Callable[[], None]) -> None:
        self._node, self._answered = node, answered
        self._client: Any = node.create_client(Trigger, service) if service else None
        self._asked = 0

    def ask(self) -> None:
        """Ask; without such a service nothing happens, and the caller asks again later."""
        self._asked += 1
        if self._client is None:
            self._answered()
        elif self._client.service_is_ready():
            number = self._asked
            self._client.call_async(Trigger.Request()).add_done_callback(lambda done: self._take(done, number))

    def _take(self, future: Future, number: int) -> None:
        response = future.result()
        if number != self._asked or response is None:
            return
        if response.success:
            self._answered()
        else:
            self._node.get_logger().error(f"the policy refuses to be reset: {response.message}")


class RobotReset:
    """Lets the robot bring itself, and a simulated scene, back to a start.

    Args:
        node: Owner of the client.
        service: Name; empty where a person does it.
        delay_s: Wait before the first call, from the last command that was executed: whoever still drives would
            bring the robot back at once.
        retry_s: Wait before a call that was refused is made again.
        timeout_s: Wait before a call that was not answered is made again.
    """

    def __init__(self, node: Node, service: str, *, delay_s: float, retry_s: float, timeout_s: float) -> None:
        self._node, self._service = node, service
        self._client: Any = node.create_client(Trigger, service) if service else None
        self._delay_ns, self._retry_ns = round(delay_s * 1e9), round(retry_s * 1e9)
        self._timeout_ns = round(timeout_s * 1e9)
        self._lock = threading.Lock()
        self._due_ns: int | None = None
        self._answer: str | None = None
        self._call = 0
        self.problem = ""
        self.seed: int | None = None

    @property
    def by_hand(self) -> bool:
        """Whether a person resets."""
        return self._client is None

    @property
    def pending(self) -> bool:
        """Whether the robot is still to be reset."""
        return self._due_ns is not None

    def begin(self, now: Now) -> None:
        """Begin; does nothing where a person resets."""
        self.cancel()
        if self._client is not None:
            self._due_ns = now.monotonic_ns + self._delay_ns

    def cancel(self) -> None:
        """Do not wait for the robot any more."""
        with self._lock:
            self._call += 1
            self._due_ns, self._answer, self.problem, self.seed = None, None, "", None

    def poll(self, now: Now, *, commanded_ns: int | None = None) -> bool:
        """Call when due; return whether the robot has just finished (or there is none to wait for).

        Args:
            now: This moment.
            commanded_ns: When the newest executed command was received (monotonic), if one was.
        """
        if self._client is None:
            return True
        with self._lock:
            if self._answer is not None:
                found = _SEED.search(self._answer)
                self.seed = int(found.group(1)) if found else None
                self._due_ns, self._answer = None, None
                return True
            if self._due_ns is None or now.monotonic_ns < self._due_ns:
                return False
            if commanded_ns is not None and now.monotonic_ns - commanded_ns < self._delay_ns:
                return False
            if not self._client.service_is_ready():
                self._due_ns = now.monotonic_ns + self._retry_ns
                self.problem = f"there is no service `{self._service}`"
                return False
            self._due_ns = now.monotonic_ns + self._timeout_ns
            self._call += 1
            number = self._call
        self._client.call_async(Trigger.Request()).add_done_callback(lambda done: self._take(done, number))
        return False

    def _take(self, future: Future, number: int) -> None:
        response = future.result()
        with self._lock:
            if number != self._call or response is None:
                return
            if response.success:
                self._answer, self.problem = response.message, ""
            else:
                self.problem = response.message
                self._due_ns = time.monotonic_ns() + self._retry_ns
        if not response.success:
            self._node.get_logger().warning(f"`{self._service}`: {response.message}; trying again")
