"""An episode's course as a client of the graph sees it: states are heard, services are called and waited for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from robot_rl.errors import EpisodeError
from robot_rl_ros.qos import LATCHED

_POLL_S = 0.002
_RETRY_S = 0.2


class EpisodeClient:
    """Starts, ends and resets episodes through the supervisor. The node must be spun by another thread.

    Args:
        node: Owner of clients and subscriptions, in the robot's namespace.
        supervisor: The supervisor's name.
        seed_node: Node whose parameter `seed` the next reset uses, such as `sim_robot`; empty where none has one.
        timeout_s: How long to wait for an answer or a state.
    """

    def __init__(self, node: Node, *, supervisor: str, seed_node: str, timeout_s: float) -> None:
        self._node, self._supervisor, self._seed_node, self._timeout_s = node, supervisor, seed_node, timeout_s
        self._status: dict[str, Any] = {}
        self._safety: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        node.create_subscription(String, "episode/status", self._on_status, LATCHED)
        node.create_subscription(String, "safety/state", self._on_safety, LATCHED)

    @property
    def state(self) -> str:
        """The episode's state, empty while nothing was heard."""
        return str(self._status.get("state", ""))

    @property
    def index(self) -> int:
        """The number of the newest episode, -1 before the first."""
        return int(self._status.get("index", -1))

    @property
    def outcome(self) -> str | None:
        """How the newest episode ended, `None` while it runs."""
        outcome = self._status.get("outcome")
        return None if outcome is None else str(outcome)

    def reset(self, seed: int) -> None:
        """End what runs, and bring arm and scene to the start that `seed` names, where something takes a seed.

        Where nothing does, the reset that follows every episode is enough: a person is not asked for a second one.

        Raises:
            EpisodeError: The graph did not become ready in time; says what it waits for.
        """
        self.wait(lambda: self.state, "the supervisor's `episode/status`")
        if self.state == "running":
            self.end("discard")
        self.wait(lambda: self.state == "idle", "the end of the reset after the last episode")
        if self._seed_node:
            self._set_seed(seed)
        elif self.outcome is not None:
            return
        self._must("reset")
        self.wait(lambda: self.state == "idle", "the end of the reset (without `auto_reset`, somebody's reset_done)")

    def start(self) -> None:
        """Start an episode once the graph is ready for one.

        Raises:
            EpisodeError: It did not become ready in time; says why the supervisor refuses.
        """
        before = self.index
        self._must("start")
        self.wait(lambda: self.index > before, "the episode's beginning")

    def end(self, outcome: str) -> bool:
        """End the running episode as `success`, `failure` or `discard`; return whether it was not over already."""
        ended, _ = self._trigger(outcome)
        self.wait(lambda: self.state != "running", "the episode's end")
        return ended

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Return once the condition holds.

        Raises:
            EpisodeError: It did not in time.
        """
        deadline = time.monotonic() + self._timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise EpisodeError(
                    f"waited {self._timeout_s:g} s for {what}; the episode is {self.state or 'unknown'}, safety says "
                    f"{self._safety or 'nothing'}: start the graph, or see its log"
                )
            time.sleep(_POLL_S)

    def _must(self, service: str) -> None:
        """Call until it is granted; the supervisor refuses while a node is not ready."""
        deadline, answer = time.monotonic() + self._timeout_s, ""
        while time.monotonic() < deadline:
            granted, answer = self._trigger(service)
            if granted:
                return
            time.sleep(_RETRY_S)
        raise EpisodeError(f"`{self._supervisor}/{service}` was refused for {self._timeout_s:g} s: {answer}")

    def _trigger(self, service: str) -> tuple[bool, str]:
        response = self._call(Trigger, f"{self._supervisor}/{service}", Trigger.Request())
        return bool(response.success), str(response.message)

    def _set_seed(self, seed: int) -> None:
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=int(seed))
        request = SetParameters.Request(parameters=[Parameter(name="seed", value=value)])
        (result,) = self._call(SetParameters, f"{self._seed_node}/set_parameters", request).results
        if not result.successful:
            raise EpisodeError(f"node `{self._seed_node}` refuses seed {seed}: {result.reason}")

    def _call(self, kind: Any, name: str, request: Any) -> Any:
        if name not in self._clients:  # kept: to destroy one while another thread spins the node is a race
            self._clients[name] = self._node.create_client(kind, name)
        client = self._clients[name]
        self.wait(client.service_is_ready, f"service `{name}`")
        future = client.call_async(request)
        self.wait(future.done, f"the answer of `{name}`")
        return future.result()

    def _on_status(self, msg: String) -> None:
        self._status = json.loads(msg.data)

    def _on_safety(self, msg: String) -> None:
        self._safety = json.loads(msg.data)
