"""What the safety node sees of an arm, a supervisor and an e-stop, all played by the test."""

import json
import time
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from robot_rl_ros.conversions import command_to_msg, msg_to_command
from robot_rl_ros.qos import COMMAND, JOINTS, LATCHED, SENSOR
from robot_rl_ros.stamps import now_ns, to_msg
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

NAMES = [*(f"joint{i}" for i in range(1, 8)), "gripper"]
HOME = np.array([0.0, -0.30975, 0.0, -2.56455, 0.0, 2.2548, 0.7853981633974483, 0.08])
STEP_S = 0.01
EVERY = QoSProfile(depth=200, reliability=ReliabilityPolicy.RELIABLE)  # none may be missed where steps are judged


class Cell:
    """Joint states, a control source and commands from the test; the safety node under test; no arm unless asked."""

    def __init__(self, graph: Any, **params: Any) -> None:
        self.graph = graph
        self.joints = graph.publisher(JointState, "joint_states", JOINTS)
        self.selected = graph.publisher(JointTrajectory, "selected/command", COMMAND)
        self.source = graph.publisher(String, "control_source", LATCHED)
        self.button = graph.publisher(Bool, "e_stop", LATCHED)
        self.camera = graph.publisher(CameraInfo, "front/color/camera_info", SENSOR)
        self.command = graph.collect(JointTrajectory, "command", EVERY)
        self.states = graph.collect(String, "safety/state", LATCHED)
        self.pose = HOME.copy()
        self.follow = True
        self.process = graph.start("safety_node", config="safety.yaml", params=params)
        for publisher in (self.joints, self.selected, self.source, self.button):
            graph.wait_matched(publisher)
        self.states.wait()

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.states.messages[-1].data))

    def wait_state(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.states.wait(match=lambda msg: bool(json.loads(msg.data)["state"] == name)).data))

    def executed(self) -> np.ndarray:
        return np.array([msg_to_command(msg, NAMES)[1] for msg in self.command.messages])

    def beat(self, *, joints: bool = True, camera: bool = False, age_s: float = 0.0) -> None:
        """Send what an arm that follows at once would send."""
        stamp = to_msg(now_ns(self.graph.node) - round(age_s * 1e9))
        if self.command.messages and self.follow:
            self.pose = msg_to_command(self.command.messages[-1], NAMES)[1]
        if joints:
            msg = JointState(name=NAMES, position=self.pose.tolist())
            msg.header.stamp = stamp
            self.joints.publish(msg)
        if camera:
            info = CameraInfo()
            info.header.stamp = stamp
            self.camera.publish(info)

    def send(self, values: np.ndarray, *, source: str = "policy", age_s: float = 0.0) -> None:
        stamp_ns = now_ns(self.graph.node) - round(age_s * 1e9)
        self.selected.publish(command_to_msg(stamp_ns, NAMES, values, source=source))

    def drive(self, target: np.ndarray, seconds: float, *, source: str = "policy", **beat: Any) -> None:
        """Send joint states and the same command at 100 Hz."""
        for _ in range(round(seconds / STEP_S)):
            self.beat(**beat)
            self.send(target, source=source)
            time.sleep(STEP_S)

    def begin(self, source: str = "policy", **beat: Any) -> None:
        """Let `source` drive from home, standing still."""
        self.command.clear()
        self.states.clear()
        self.pose, self.follow = HOME.copy(), True
        self.source.publish(String(data=source))
        self.drive(HOME, 0.15, source=source, **beat)
        self.wait_state("running")

    def end(self) -> None:
        """Back to idle, whatever happened."""
        self.button.publish(Bool(data=False))
        self.source.publish(String(data="none"))
        time.sleep(0.1)
        assert self.graph.call(Trigger, "safety/clear").success
        time.sleep(0.05)
