"""The simulated arm behind the topics of a real one: physics in real time on a thread with absolute deadlines."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from robot_rl.deploy.ticker import Ticker
from robot_rl.errors import SimulationError, SpecError
from robot_rl_ros.conversions import msg_to_command, pose9_to_msg
from robot_rl_ros.diagnostics import ERROR, OK, WARN, Diagnostics, Health
from robot_rl_ros.params import declare
from robot_rl_ros.qos import COMMAND, JOINTS, SENSOR
from robot_rl_ros.runner import run
from robot_rl_ros.stamps import now_ns, to_msg
from sim.realtime import ArmState, RealtimeArm
from sim.robots import load_robot
from sim.tasks import Lift

_MAX_CATCH_UP_S = 0.05
_TASKS = {"lift": Lift}


class SimRobotNode(Node):
    """Publishes joint states, tool pose and object pose; follows `command`; holds when commands stop."""

    def __init__(self) -> None:
        super().__init__("sim_robot")
        model = declare(self, "model", "arm7", "`arm7` or the path of an MJCF file")
        task = declare(self, "task", "lift", "what lies on the table", choices=sorted(_TASKS))
        self._joints_hz = declare(self, "joint_states_hz", 500.0, "rate of joint_states [Hz]", low=1.0, high=500.0)
        poses_hz = declare(self, "poses_hz", 100.0, "rate of the poses [Hz]", low=1.0, high=500.0)
        timeout = declare(self, "command_timeout_s", 0.1, "silence after which the arm holds [s]", low=0.01, high=1.0)
        self._object = declare(self, "object", "cube_pose", "task observation published as object_pose")
        self._base = declare(self, "base_frame", "base_link", "frame of the poses")
        declare(self, "seed", 0, "seed of the next reset; counts up with each", low=0, read_only=False)
        self._arm = RealtimeArm(load_robot(model), _TASKS[task](), command_timeout_s=timeout)
        self._timeout_ns = round(timeout * 1e9)
        if self._object not in self._arm.observe().objects:
            objects = sorted(self._arm.observe().objects)
            raise SpecError(f"parameter `object`: task {task!r} has {objects}, got {self._object!r}")
        self._command_ns = 0
        self._reset_lock = threading.Lock()
        self._reset()
        self._create_topics()
        self._poses_every = max(1, round(self._joints_hz / poses_hz))
        self._ticks = self._skipped_steps = 0
        self._stepped_ns = time.monotonic_ns()
        self._ticker = Ticker(self._tick, rate_hz=self._joints_hz, name="physics")
        self._diagnostics = Diagnostics(self, self._health)
        self._check = self.create_timer(0.1, self._raise_failure)
        self._ticker.start()

    def close(self) -> None:
        """Stop the physics."""
        self._ticker.close()

    def _create_topics(self) -> None:
        self._joints = self.create_publisher(JointState, "joint_states", JOINTS)
        self._joints_msg = JointState(name=list(self._arm.names))
        self._pose = self.create_publisher(PoseStamped, "current_pose", SENSOR)
        self._object_pose = self.create_publisher(PoseStamped, "object_pose", SENSOR)
        self._pose_msg, self._object_msg = PoseStamped(), PoseStamped()
        self.create_subscription(JointTrajectory, "command", self._on_command, COMMAND)
        self.create_service(Trigger, "~/reset", self._serve_reset)
        self.create_service(Trigger, "~/home", self._serve_home)
        self.create_service(SetBool, "~/enable", self._serve_enable)
        self.create_service(Trigger, "~/clear_fault", self._serve_clear)

    def _on_command(self, msg: JointTrajectory) -> None:
        try:
            _, target = msg_to_command(msg, self._arm.names)
        except SpecError as error:
            self.get_logger().error(f"`command` ignored: {error}", throttle_duration_sec=1.0)
            return
        self._command_ns = time.monotonic_ns()
        self._arm.set_target(target)

    def _tick(self) -> None:
        dt_ns = round(self._arm.dt_s * 1e9)
        due = (time.monotonic_ns() - self._stepped_ns) // dt_ns
        allowed = min(due, round(_MAX_CATCH_UP_S / self._arm.dt_s))
        self._skipped_steps += due - allowed
        self._stepped_ns += due * dt_ns
        self._arm.step(allowed)
        stamp_ns, state = now_ns(self), self._arm.observe()
        self._joints_msg.header.stamp = to_msg(stamp_ns)
        self._joints_msg.position, self._joints_msg.velocity = state.position.tolist(), state.velocity.tolist()
        self._joints.publish(self._joints_msg)
        if self._ticks % self._poses_every == 0:
            self._publish_poses(stamp_ns, state)
        self._ticks += 1

    def _publish_poses(self, stamp_ns: int, state: ArmState) -> None:
        self._pose.publish(pose9_to_msg(state.tcp_pose, stamp_ns, self._base, self._pose_msg))
        self._object_pose.publish(pose9_to_msg(state.objects[self._object], stamp_ns, self._base, self._object_msg))

    def _reset(self) -> int:
        seed = int(self.get_parameter("seed").value)
        self._arm.reset(seed)
        self.set_parameters([Parameter("seed", value=seed + 1)])
        return seed

    def _commanded(self) -> bool:
        """Whether somebody drives, by the clock of the wall: the physics' own lags behind on a busy machine."""
        return bool(time.monotonic_ns() - self._command_ns <= self._timeout_ns)

    def _serve_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._commanded():
            response.message = "commands still arrive; set the control source to none first, then reset"
            return response
        response.success, response.message = True, f"seed {self._reset()}"
        return response

    def _serve_home(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._commanded():
            response.message = "commands still arrive; set the control source to none, or use the safety node's home"
            return response
        try:
            self._arm.go_home()
        except SimulationError as error:
            response.message = str(error)
            return response
        response.success, response.message = True, "going home"
        return response

    def _serve_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._arm.enable(request.data)
        response.success, response.message = True, "enabled" if request.data else "disabled: holding"
        return response

    def _serve_clear(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._arm.clear_fault()
        response.success, response.message = not self._arm.fault, self._arm.fault
        return response

    def _health(self) -> Health:
        values = {
            "holding": self._arm.holding,
            "success": self._arm.success,
            "lateness p99 [ms]": self._ticker.lateness.to_dict()["p99_ms"],
            "skipped physics steps": self._skipped_steps,
        }
        if self._arm.fault:
            return Health(ERROR, self._arm.fault, values)
        if not self._arm.enabled:
            return Health(WARN, "disabled", values)
        return Health(OK, "holding" if values["holding"] else "following commands", values)

    def _raise_failure(self) -> None:
        if self._ticker.error is not None:
            raise self._ticker.error


def main(args: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(SimRobotNode, args)


if __name__ == "__main__":
    sys.exit(main())
