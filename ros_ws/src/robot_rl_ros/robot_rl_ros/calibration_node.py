"""Guides a person to the views of a board that a calibration needs, or takes them by itself; then calibrates.

`calibration.session.CaptureSession` decides everything; the calibration is `robot-rl calibrate`, in its own process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from calibration.session import CaptureSession
from calibration.session_command import describe
from robot_rl.errors import CalibrationError, RobotRLError
from robot_rl_ros.calibration_params import declare_board, declare_job, declare_rules, read_intrinsics
from robot_rl_ros.conversions import image_to_array
from robot_rl_ros.diagnostics import OK, WARN, Diagnostics, Health
from robot_rl_ros.params import declare
from robot_rl_ros.qos import JOINTS, LATCHED, SENSOR
from robot_rl_ros.runner import run
from robot_rl_ros.stamps import now_ns, to_ns

_TAIL = 2000
_SILENT_NS = 2_000_000_000


class CalibrationNode(Node):
    """Looks at the newest picture `rate_hz` times a second, so that a slow detection never lags behind the camera."""

    def __init__(self, *, parameter_overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("calibration", parameter_overrides=list(parameter_overrides))
        camera = declare(self, "camera", str, "name of the camera; its topics lie below it")
        is_automatic = declare(self, "auto", False, "take a view as soon as it is good")
        rate_hz = declare(self, "rate_hz", 8.0, "pictures looked at a second", low=0.5, high=60.0)
        poses = declare(self, "pose_topic", "current_pose", "tool pose, geometry_msgs/PoseStamped")
        joints = declare(self, "joint_topic", "joint_states", "sensor_msgs/JointState")
        board = declare_board(self)
        self._job = declare_job(self, board, camera=camera)
        self._session = CaptureSession(
            board, self._job.captures, purpose=self._job.purpose, rules=declare_rules(self),
            intrinsics=read_intrinsics(self._job), is_automatic=is_automatic,
        )  # fmt: skip
        self._state, self._trouble, self._said = "looking", "", ""
        self._summary: dict[str, Any] | None = None
        self._image: Image | None = None
        self._seen_ns = 0
        self._running: subprocess.Popen[str] | None = None
        self._output: list[str] = []
        self._status = self.create_publisher(String, "calibration/status", LATCHED)
        self._topic = f"{camera}/color/image_raw"
        self.create_subscription(Image, self._topic, self._take_image, SENSOR)
        self.create_subscription(PoseStamped, poses, self._take_pose, SENSOR)
        self.create_subscription(JointState, joints, self._take_joints, JOINTS)
        for name, act in {"take": self._take, "discard_last": self._discard, "finish": self._finish}.items():
            self.create_service(Trigger, f"~/{name}", self._answer(act))
        self._timer = self.create_timer(1.0 / rate_hz, self._tick)
        self._diagnostics = Diagnostics(self, self._health)
        self._publish()

    def close(self) -> None:
        """End a calibration that is running."""
        if self._running is not None:
            self._running.kill()
            self._reader.join()

    # Topics

    def _take_image(self, msg: Image) -> None:
        self._image, self._seen_ns = msg, now_ns(self)

    def _take_pose(self, msg: PoseStamped) -> None:
        p, o = msg.pose.position, msg.pose.orientation
        if msg.header.frame_id not in ("", self._job.base_frame):
            self._job = replace(self._job, base_frame=msg.header.frame_id)
        self._session.add_pose(to_ns(msg.header.stamp), np.array([p.x, p.y, p.z]), np.array([o.x, o.y, o.z, o.w]))

    def _take_joints(self, msg: JointState) -> None:
        arm = [value for name, value in zip(msg.name, msg.position, strict=False) if name != "gripper"]
        self._session.add_joints(to_ns(msg.header.stamp), np.array(arm))

    def _tick(self) -> None:
        """Look at the newest picture, or for the end of a running calibration."""
        if self._running is not None:
            self._look_for_end(self._running)
            return
        msg, self._image = self._image, None
        if msg is None:
            return
        if msg.header.frame_id not in ("", self._job.frame):
            self._job = replace(self._job, frame=msg.header.frame_id)
        before = self._session.n_views
        try:
            verdict = self._session.look(image_to_array(msg), to_ns(msg.header.stamp))
            self._trouble = ""
        except RobotRLError as error:
            self._trouble = str(error)
            self._say(self._trouble)
            self._publish()
            return
        if self._session.n_views > before:
            self._say_progress()
        else:
            self._say(verdict.sentence, key=verdict.sentence.split(":")[0])
        self._publish()

    # Services

    def _answer(self, act: Callable[[], str]) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            try:
                response.success, response.message = True, act()
            except RobotRLError as error:
                response.success, response.message = False, str(error)
            self._publish()
            return response

        return answer

    def _take(self) -> str:
        self._check_idle()
        name = self._session.take(now_ns(self))
        self._state = "looking"
        self._say_progress()
        return name

    def _discard(self) -> str:
        self._check_idle()
        name = self._session.discard_last()
        self._state = "looking"
        return f"discarded {name}"

    def _finish(self) -> str:
        """Start the calibration; its result comes on the status topic."""
        self._check_idle()
        if self._session.n_views == 0:
            raise CalibrationError("no view was taken yet; show the board, and call take or give auto:=true")
        words = self._job.arguments()
        self.get_logger().info("robot-rl " + " ".join(words))
        command = [sys.executable, "-m", "robot_rl.cli.main", *words]
        self._running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._output = []
        self._reader = threading.Thread(target=self._read, args=(self._running,), name="calibrate", daemon=True)
        self._reader.start()
        self._state = "calibrating"
        return f"calibrating from {self._session.n_views} views; the result comes on calibration/status"

    def _check_idle(self) -> None:
        if self._running is not None:
            raise CalibrationError("a calibration is running; wait for its result on calibration/status")

    # The calibration

    def _read(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is not None:
            self._output.extend(process.stdout)

    def _look_for_end(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            return
        self._reader.join()
        self._running, output = None, "".join(self._output).strip()
        try:
            if process.returncode != 0:
                raise CalibrationError(output[-_TAIL:])
            self._summary = self._job.summary()
            self._state, self._trouble, self._session.is_automatic = "done", "", False
            self.get_logger().info(f"calibrated: {describe(self._summary)}")
        except RobotRLError as error:
            self._state, self._trouble = "failed", str(error)
            self.get_logger().error(f"the calibration failed, more views may help: {error}")
        self._publish()

    # Reports

    def _say(self, sentence: str, *, key: str = "") -> None:
        """Log a sentence unless the last one said the same."""
        key = key if key else sentence
        if key != self._said:
            self._said = key
            self.get_logger().info(sentence)

    def _say_progress(self) -> None:
        status = self._session.status()
        next_ = "; ".join(status["suggestions"])
        end = "enough: call calibration/finish" if status["complete"] else f"next: {next_}"
        self._say(f"view {status['views']} of {status['wanted']} taken; {end}")

    def _publish(self) -> None:
        status = {"state": self._state, **self._session.status(), "trouble": self._trouble, "result": self._summary}
        self._status.publish(String(data=json.dumps({**status, "stamp_ns": now_ns(self)})))

    def _health(self) -> Health:
        values = {"views": self._session.n_views, "state": self._state}
        if self._trouble:
            return Health(WARN, self._trouble, values)
        if now_ns(self) - self._seen_ns > _SILENT_NS:
            return Health(WARN, f"no pictures on {self._topic}", values)
        return Health(OK, self._state, values)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(CalibrationNode, args)


if __name__ == "__main__":
    sys.exit(main())
