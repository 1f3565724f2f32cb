"""The only publisher of `selected/command`: who drives, and where the episode stands. The rules: robot_rl.deploy."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Float32, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from robot_rl.deploy.episode import EpisodeOutcome, EpisodeStates
from robot_rl.deploy.takeover import Now, Selection, Takeover
from robot_rl.deploy.ticker import Ticker
from robot_rl.errors import ConfigError, EpisodeError
from robot_rl_ros.conversions import command_to_msg
from robot_rl_ros.diagnostics import ERROR, OK, WARN, Diagnostics, Health
from robot_rl_ros.params import declare
from robot_rl_ros.qos import COMMAND, LATCHED
from robot_rl_ros.runner import run
from robot_rl_ros.service_calls import PolicyReset, RobotReset
from robot_rl_ros.stamps import now_ns
from robot_rl_ros.supervisor_inbox import SupervisorInbox


class SupervisorNode(Node):
    """Chooses between policy and human on a thread with absolute deadlines, and keeps the episode's state."""

    def __init__(self) -> None:
        super().__init__("supervisor")
        rate_hz = declare(self, "rate_hz", 100.0, "control rate [Hz]", low=20.0, high=1000.0)
        names = declare(self, "joint_names", list[str], "arm joints base to tool, then `gripper` if there is one")
        self._names = _checked_names(names)
        self._takeover = self._make_takeover()
        limit = declare(
            self, "max_episode_s", 60.0, "an episode ends with timeout after this [s]", low=0.1, high=86400.0
        )
        task = declare(self, "task", "", "what is attempted, in words; read at each start", read_only=False)
        self._episode = EpisodeStates(max_episode_s=limit, task=task)
        self._auto_reset = declare(self, "auto_reset", False, "idle again as soon as the robot's reset has answered")
        self._reset_first = declare(self, "reset_first", False, "reset the robot before the first episode too")
        self._robot_reset = RobotReset(
            self,
            declare(
                self, "reset_service", "", "Trigger that resets the robot, such as sim_robot/reset; empty: by hand"
            ),
            delay_s=declare(self, "reset_delay_s", 0.3, "silence of commands before that [s]", low=0.0, high=60.0),
            retry_s=declare(self, "reset_retry_s", 1.0, "wait after it was refused [s]", low=0.1, high=60.0),
            timeout_s=declare(self, "reset_timeout_s", 30.0, "wait for its answer [s]", low=0.1, high=600.0),
        )
        service = declare(
            self, "policy_reset_service", "policy/reset", "Trigger called before the policy drives, or empty"
        )
        self._policy_reset = PolicyReset(self, service, self._policy_was_reset)
        self._lock = threading.RLock()  # the takeover and the episode
        needs_recorder = declare(self, "needs_recorder", False, "no episode starts that the recorder would not take")
        self._inbox = SupervisorInbox(self, self._names, needs_recorder=needs_recorder)
        self._forced = False
        self._seed: int | None = None
        self._selection = Selection("none", reason="starting")
        self._published: dict[str, Any] = {}
        self._source = ""
        self._msg = command_to_msg(0, self._names, np.zeros(len(self._names)))
        self._create_topics()
        self._create_services()
        self._diagnostics = Diagnostics(self, self._health)
        self._publish_source("none")
        self._publish_status(self._describe())
        self._ticker = Ticker(self._tick, rate_hz=rate_hz, name="supervisor", realtime=True)
        self._ticker.start()
        self._check = self.create_timer(0.1, self._raise_failure)

    def close(self) -> None:
        """Stop, and say that nobody drives and no episode runs, so that nobody waits for one."""
        self._ticker.close()
        self._publish_source("none")
        self._publish_status({**self._published, "state": "idle"})

    def _make_takeover(self) -> Takeover:
        def seconds(name: str, default: float, description: str, low: float) -> float:
            return float(declare(self, name, default, f"{description} [s]", low=low, high=10.0))

        return Takeover(
            len(self._names),
            has_gripper=self._names[-1] == "gripper",
            handover_s=seconds("handover_s", 0.5, "a new driver's commands are blended in over this", 0.0),
            release_s=seconds("release_s", 0.5, "quiet time after which a human has let go", 0.0),
            command_timeout_s=seconds("command_timeout_s", 0.1, "longest age of a command or joint state", 0.01),
            intervening_timeout_s=seconds(
                "intervening_timeout_s", 0.25, "longest silence of the operator's device", 0.1
            ),
            wait_s=seconds("wait_s", 0.5, "how long the arm holds for a new driver's first command", 0.0),
        )

    def _create_topics(self) -> None:
        self._selected = self.create_publisher(JointTrajectory, "selected/command", COMMAND)
        self._control_source = self.create_publisher(String, "control_source", LATCHED)
        self._status = self.create_publisher(String, "episode/status", LATCHED)
        self._reward = self.create_publisher(Float32, "episode/reward", COMMAND)

    def _create_services(self) -> None:
        self.create_service(Trigger, "~/start", self._serve(self._start))
        for outcome in ("success", "failure", "discard"):
            self.create_service(Trigger, f"~/{outcome}", self._serve(self._finisher(outcome)))
        self.create_service(Trigger, "~/reset", self._serve(self._reset))
        self.create_service(Trigger, "~/reset_done", self._serve(self._reset_done))
        self.create_service(SetBool, "~/intervene", self._intervene)

    # Services; the executor's thread

    def _serve(self, act: Callable[[Now], None]) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        def serve(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            with self._lock:
                try:
                    act(self._now())
                    response.success, response.message = True, f"episode {self._episode.index}: {self._episode.state}"
                except EpisodeError as error:
                    response.success, response.message = False, str(error)
            return response

        return serve

    def _start(self, now: Now) -> None:
        if problem := self._inbox.not_ready():
            raise EpisodeError(f"no episode can start: {problem}")
        self._episode.task = str(self.get_parameter("task").value)
        self._episode.start(now, seed=self._seed)
        self._seed = None  # of one episode only

    def _finisher(self, outcome: EpisodeOutcome) -> Callable[[Now], None]:
        return lambda now: self._episode.finish(outcome)

    def _reset(self, now: Now) -> None:
        self._episode.reset()
        self._robot_reset.begin(now)

    def _reset_done(self, now: Now) -> None:
        self._episode.reset_done()
        self._robot_reset.cancel()

    def _intervene(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self._lock:
            self._forced = bool(request.data)
            if not self._forced:
                self._takeover.resume()
        response.success, response.message = True, "a human has the arm" if request.data else "as the devices say"
        return response

    def _policy_was_reset(self) -> None:
        with self._lock:
            self._takeover.policy_was_reset(self._now())

    # The control thread

    def _tick(self) -> None:
        with self._lock:
            now = self._now()
            self._step_episode(now)
            inputs = self._inbox.inputs(
                forced=self._forced, policy_allowed=self._episode.state == "running", blocked=self._blocked()
            )
            selection = self._takeover.update(now, inputs)
            changed, self._selection = selection.reason != self._selection.reason, selection
            status = self._describe()
            moved = status != self._published
        self._publish_source(selection.driver)
        if selection.value is not None and not selection.repeated:
            msg = command_to_msg(now.stamp_ns, self._names, selection.value, self._msg, source=selection.driver)
            self._selected.publish(msg)
        if moved:
            self._publish_reward(status)
            self._publish_status(status)
        if selection.policy_reset:
            self._policy_reset.ask()
        if changed and "stale" not in selection.reason:  # that one holds a time and would change at every tick
            self._note_reason(selection)

    def _step_episode(self, now: Now) -> None:
        moved = self._episode.update(now)
        if self._inbox.stopped and self._episode.state == "running":
            self._episode.finish("failure")  # so that clearing the stop never sets a policy going again by itself
        if self._reset_first and self._episode.state == "idle":
            self._episode.reset()
            self._reset_first, moved = False, True
        if self._episode.state != "resetting":
            return
        if moved:
            self._robot_reset.begin(now)
        if self._robot_reset.poll(now, commanded_ns=self._inbox.executed_ns):
            if not self._robot_reset.by_hand:
                self._inbox.forget_executed()
            self._seed = self._seed if self._robot_reset.seed is None else self._robot_reset.seed
            if self._auto_reset:
                self._episode.reset_done()

    def _blocked(self) -> str:
        if self._inbox.safety:
            return self._inbox.safety
        if self._episode.state == "resetting" and self._robot_reset.pending:
            return f"the robot is being reset {self._robot_reset.problem}".strip()
        return ""

    def _describe(self) -> dict[str, Any]:
        return {**self._episode.to_dict(), "intervene": self._forced}

    def _publish_source(self, driver: str) -> None:
        if driver != self._source:
            self._source = driver
            self._control_source.publish(String(data=driver))

    def _publish_status(self, status: dict[str, Any]) -> None:
        self._published = status
        self._status.publish(String(data=json.dumps(status)))

    def _publish_reward(self, status: dict[str, Any]) -> None:
        """The reward of an episode is 1 at a success and 0 elsewhere; it comes before the status that ends it."""
        if status["state"] in ("running", status["outcome"]):
            self._reward.publish(Float32(data=1.0 if status["outcome"] == "success" else 0.0))

    def _note_reason(self, selection: Selection) -> None:
        if selection.reason:
            self.get_logger().info(f"{selection.driver} drives: {selection.reason}", throttle_duration_sec=0.5)

    # Health

    def _health(self) -> Health:
        selection, episode = self._selection, self._episode
        values = {
            "driver": selection.driver,
            "reason": selection.reason,
            "episode": episode.index,
            "state": episode.state,
            "reset": self._robot_reset.problem,
            "lateness p99 [ms]": self._ticker.lateness.to_dict()["p99_ms"],
            "skipped ticks": self._ticker.skipped,
            "priority": self._ticker.ordinary_because or "SCHED_FIFO",
        }
        if episode.state == "running" and selection.driver == "none":
            return Health(ERROR if self._inbox.safety else WARN, f"nobody drives: {selection.reason}", values)
        if self._robot_reset.problem:
            return Health(WARN, self._robot_reset.problem, values)
        return Health(OK, f"{episode.state}, {selection.driver} drives", values)

    def _raise_failure(self) -> None:
        if self._ticker.error is not None:
            raise self._ticker.error

    def _now(self) -> Now:
        return Now(time.monotonic_ns(), now_ns(self))


def _checked_names(names: list[str]) -> list[str]:
    if not names or len(set(names)) != len(names) or "gripper" in names[:-1]:
        raise ConfigError(f"`joint_names` must be different names with `gripper` last, if there is one; got {names}")
    return names


def main(args: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(SupervisorNode, args)


if __name__ == "__main__":
    sys.exit(main())
