"""An `Env` over topics: a real arm, or the simulated one behind the topics of a real one, as RL sees it.

It stands where the policy node would: it publishes `policy/command`, answers `policy/reset`, and everything between it
and the arm (who drives, limits, watchdogs) stays as it is. Time passes here whether `step` is called or not.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from robot_rl.data.plan import RecordingPlan
from robot_rl.deploy.clock import MonotonicClock
from robot_rl.errors import ConfigError, EpisodeError, SimulationError, SpecError
from robot_rl.specs import RobotSpec
from robot_rl.teleop.scripted import SuccessJudge
from robot_rl.values import Obs, Tick
from robot_rl_ros.conversions import command_to_msg, msg_to_command
from robot_rl_ros.episode_client import EpisodeClient
from robot_rl_ros.graphs import config_file
from robot_rl_ros.obs_sources import ObsSource, make_observer, subscribe
from robot_rl_ros.qos import COMMAND, LATCHED
from robot_rl_ros.runner import spin_in_thread
from robot_rl_ros.stamps import now_ns

_REPEAT_NS = 30_000_000  # the graph takes a driver who is silent for 100 ms for gone


class RosEnv:
    """Plays the policy of a running graph, one control period at a time; an `Env`.

    A tick's deadlines lie one period apart from the reset's, on the monotonic clock, and its stamp is the deadline in
    ROS time. A deadline that the caller missed is skipped and counted in `skipped`; the stamps show it. `action` is
    what was asked for, or what the human who had the arm asked for (`by_human`); `action_executed` is the newest
    command that passed the safety node. An episode ends as the supervisor says: success and failure terminate, a
    timeout or a discarded episode truncates, and so does a supervisor that was started anew. The seed fixes the scene
    where a node takes it (`seed_node`); physics in real time is not repeatable to the bit.

    Args:
        plan: The recorder's parameter file, a path or a name in the package's `config/`: topics, types, specs.
        obs: Observations, by their names in the plan; all of them when empty.
        namespace: The robot's.
        supervisor: Name of the supervisor.
        seed_node: Node whose parameter `seed` the next reset uses; empty where there is none.
        succeeded: Says of an observation whether the task is done; the supervisor is then told. `None`: others say.
        max_age_s: Age beyond which an observation is stale.
        timeout_s: How long to wait for the graph.

    Raises:
        ConfigError: The plan does not hold, or names no joints for the action.
    """

    def __init__(
        self,
        plan: str | Path = "recorder_lift.yaml",
        *,
        obs: Sequence[str] = (),
        namespace: str = "arm",
        supervisor: str = "supervisor",
        seed_node: str = "sim_robot",
        succeeded: SuccessJudge | None = None,
        max_age_s: float = 0.2,
        timeout_s: float = 60.0,
    ) -> None:
        made = RecordingPlan.from_yaml(config_file(str(plan)))
        self._spec = made.schema.spec.select(list(obs)) if obs else made.schema.spec
        self._names = made.streams["action"].names
        if len(self._names) != self._spec.action.size:
            raise ConfigError(f"{plan}: stream `action` must name its {self._spec.action.size} joints: `names`")
        self._succeeded = succeeded
        self._clock, self._lock, self._closing = MonotonicClock(), threading.Lock(), ExitStack()
        self._executed: np.ndarray | None = None
        self._selected: np.ndarray | None = None
        self._source, self._by_human, self._is_running = "none", False, False
        self._deadline_ns = self._ros_offset_ns = 0
        self._last: Obs = {}
        self.skipped = 0
        self._sources = {
            name: ObsSource(topic=s.topic, type=s.type, max_age_s=max_age_s, field=s.field, names=s.names)
            for name in self._spec.obs
            if (s := made.streams[name])
        }
        self._observer = make_observer(self._spec.obs, self._sources, n_obs=1, step_ns=self._spec.step_ns)
        self._node = self._make_node(namespace)
        self._episode = EpisodeClient(self._node, supervisor=supervisor, seed_node=seed_node, timeout_s=timeout_s)
        self._connect()

    def _make_node(self, namespace: str) -> Node:
        if not rclpy.ok():
            rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
            self._closing.callback(rclpy.try_shutdown)
        node = Node("policy_env", namespace=namespace)
        self._closing.callback(node.destroy_node)
        return node

    def _connect(self) -> None:
        node = self._node
        self._command = node.create_publisher(JointTrajectory, "policy/command", COMMAND)
        self._msg = command_to_msg(0, self._names, np.zeros(len(self._names)))
        subscribe(node, self._spec.obs, self._sources, lambda: self._observer)
        node.create_subscription(JointTrajectory, "command", self._on_executed, COMMAND)
        node.create_subscription(JointTrajectory, "selected/command", self._on_selected, COMMAND)
        node.create_subscription(String, "control_source", self._on_source, LATCHED)
        node.create_service(Trigger, "policy/reset", _granted)
        self._closing.enter_context(spin_in_thread(node))

    @property
    def spec(self) -> RobotSpec:
        """What passes in and out."""
        return self._spec

    def reset(self, seed: int) -> Tick:
        """Let the robot and the scene be reset, start an episode, and return what is seen.

        Raises:
            EpisodeError: The graph was not ready in time; says for what it waits.
        """
        self._is_running = False
        self._episode.reset(seed)
        ready_ns = self._clock.now_ns()
        if self._succeeded is not None:
            self._succeeded.reset()
        self._episode.start()
        with self._lock:
            self._executed = self._selected = None
        self._episode.wait(lambda: self._sees_all_since(ready_ns), "observations of the new start")
        self._is_running = True
        self._deadline_ns = self._clock.now_ns()
        self._ros_offset_ns = now_ns(self._node) - self._deadline_ns
        return Tick(stamp_ns=self._deadline_ns + self._ros_offset_ns, obs=self._observe())

    def step(self, action: np.ndarray) -> Tick:
        """Command `action` for one control period.

        Raises:
            SimulationError: No episode is running.
            SpecError: The action has the wrong shape or dtype, or is not finite.
            EpisodeError: An observation is missing or stale; the episode is discarded.
        """
        if not self._is_running:
            raise SimulationError("no episode is running: the last one ended or none began; call reset(seed) first")
        wanted = self._spec.action.validate(action).copy()
        with self._lock:
            self._by_human = self._source == "human"
        self._drive(wanted)
        obs = self._observe()
        if self._succeeded is not None and self._succeeded(obs) and self._episode.state == "running":
            self._episode.end("success")
        state, outcome = self._episode.state, self._episode.outcome  # in this order: the outcome comes with the state
        if outcome is None and state != "running":
            outcome = "discard"  # the supervisor was started anew and knows nothing of this episode
        self._is_running = outcome is None
        return self._tick(obs, wanted, outcome)

    def render(self) -> np.ndarray:
        """Return the newest picture among the observations, uint8 [height, width, 3].

        Raises:
            SimulationError: No observation is a picture, or none came yet.
        """
        pictures = [self._last[name] for name, spec in self._spec.obs.items() if spec.is_image and name in self._last]
        if not pictures:
            raise SimulationError(
                "there is no picture: `obs` must name a camera, and reset(seed) must have been called"
            )
        return pictures[0].copy()

    def close(self) -> None:
        """Discard a running episode and leave the graph. Calling it twice is allowed."""
        try:
            if self._is_running and self._episode.state == "running":
                self._episode.end("discard")
        finally:
            self._is_running = False
            self._closing.close()

    def _drive(self, wanted: np.ndarray) -> None:
        """Send the command, again and again until the period is over."""
        step_ns = self._spec.step_ns
        self._deadline_ns += step_ns
        late_ns = self._clock.now_ns() - self._deadline_ns
        if late_ns > 0:
            missed = -(-late_ns // step_ns)
            self.skipped += missed
            self._deadline_ns += missed * step_ns
        while (now := self._clock.now_ns()) < self._deadline_ns and self._episode.state == "running":
            self._command.publish(command_to_msg(now_ns(self._node), self._names, wanted, self._msg, source="policy"))
            self._clock.sleep_until(min(now + _REPEAT_NS, self._deadline_ns))
        self._clock.sleep_until(self._deadline_ns)

    def _observe(self) -> Obs:
        sight = self._observer.at(self._deadline_ns + self._ros_offset_ns, now_ns=self._clock.now_ns())
        if sight.obs is None:
            self._is_running = False
            if self._episode.state == "running":
                self._episode.end("discard")
            raise EpisodeError(f"there is no observation at this tick, the episode is discarded: {sight.reason}")
        self._last = {name: sight.obs[name][-1].copy() for name in self._spec.obs}
        return dict(self._last)

    def _sees_all_since(self, monotonic_ns: int) -> bool:
        now = self._clock.now_ns()
        sight = self._observer.at(now_ns(self._node), now_ns=now)
        return sight.obs is not None and max(sight.age_ns.values()) < now - monotonic_ns

    def _tick(self, obs: Obs, wanted: np.ndarray, outcome: str | None) -> Tick:
        with self._lock:
            executed, selected, by_human = self._executed, self._selected, self._by_human
        action = selected if by_human and selected is not None else wanted
        success = outcome == "success"
        return Tick(
            stamp_ns=self._deadline_ns + self._ros_offset_ns,
            obs=obs,
            action=action,
            action_executed=(action if executed is None else executed).copy(),
            by_human=by_human,
            reward=float(success),
            success=success,
            terminated=outcome in ("success", "failure"),
            truncated=outcome in ("timeout", "discard"),
            info={} if outcome is None else {"outcome": outcome},
        )

    def _on_executed(self, msg: JointTrajectory) -> None:
        value = self._read(msg)
        with self._lock:
            self._executed = value

    def _on_selected(self, msg: JointTrajectory) -> None:
        value = self._read(msg)
        with self._lock:
            self._selected = value

    def _read(self, msg: JointTrajectory) -> np.ndarray | None:
        try:
            return msg_to_command(msg, self._names)[1].astype(np.float32)
        except SpecError as error:
            self._node.get_logger().error(f"a command was ignored: {error}", throttle_duration_sec=1.0)
            return None

    def _on_source(self, msg: String) -> None:
        with self._lock:
            self._source = msg.data
            self._by_human |= msg.data == "human"


def _granted(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
    """There is no plan to forget: what is commanded next follows from what is seen next."""
    response.success = True
    return response
