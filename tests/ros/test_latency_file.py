"""The policy node with a latency file: observations are as old as they are, commands go out ahead of time."""

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed here; pip install 'robot-rl[train]'")

from robot_rl_ros.conversions import msg_to_command
from robot_rl_ros.obs_sources import make_observer, read_sources, with_latency
from robot_rl_ros.qos import COMMAND
from robot_rl_ros.up import Running
from trajectory_msgs.msg import JointTrajectory

from calibration.files import save_calibration, today
from robot_rl.errors import ConfigError
from robot_rl.latency_calibration import LatencyCalibration, LatencySamples
from tests.ros.formula_bundle import HORIZON, ROBOT, formula_bundle
from tests.ros.formula_bundle import JOINTS as NAMES
from tests.ros.graph_kit import wait_for
from tests.ros.test_policy_node import HOME, SOURCES, Arm, described, refusal

MS = 1_000_000
LEAD_STEPS = 5


def cell(**late_ms: float) -> LatencyCalibration:
    return LatencyCalibration(
        observation={name: LatencySamples(np.array([late * MS])) for name, late in late_ms.items()},
        action=LatencySamples(np.array([LEAD_STEPS * 50 * MS])),
    )


def test_the_node_sends_rows_ahead_of_time(ros_graph, tmp_path: Path) -> None:
    measured = cell(joint_position=10, a_stream_this_policy_does_not_read=40)
    file = save_calibration(measured.to_file(date=today(), method="test"), tmp_path / "latency.yaml")
    bundle = formula_bundle(tmp_path / "bundle", per_step=0.01)
    commands = ros_graph.collect(JointTrajectory, "policy/command", COMMAND)
    arm = Arm(ros_graph.node)
    with Running([described(bundle.path, latency_file=str(file))]):
        wait_for(lambda: ros_graph.node.count_publishers("/arm/policy/command"), "the node")
        time.sleep(0.5)
        arm.start()
        wait_for(lambda: len(commands) > 25, "commands of the policy")
    rows = {round((msg_to_command(msg, NAMES)[1][0] - HOME[0]) / 0.01) for msg in commands.messages}
    assert min(rows) >= LEAD_STEPS
    assert LEAD_STEPS + 7 <= max(rows) < HORIZON


def test_a_policy_sees_a_late_stream_as_it_was_captured() -> None:
    sources = with_latency(read_sources(SOURCES), cell(joint_position=30))
    assert sources["joint_position"].latency_s == pytest.approx(0.03)
    assert sources["gripper_width"].latency_s == 0.0
    observer = make_observer(ROBOT.obs, sources, n_obs=1, step_ns=50 * MS)
    for stamp in range(0, 201, 10):
        observer.push("joint_position", stamp * MS, np.full(7, stamp, np.float32), received_ns=stamp * MS)
        observer.push("gripper_width", stamp * MS, np.full(1, stamp, np.float32), received_ns=stamp * MS)
    seen = observer.at(150 * MS, now_ns=200 * MS).obs
    assert seen is not None
    assert (seen["joint_position"][-1, 0], seen["gripper_width"][-1, 0]) == (180.0, 150.0)


def test_a_latency_is_given_in_one_place_and_by_the_right_file(tmp_path: Path) -> None:
    twice = tmp_path / "observations.yaml"
    twice.write_text(SOURCES.read_text().replace("field: position\n", "field: position\n  latency_s: 0.01\n", 1))
    with pytest.raises(ConfigError, match=r"observations \['joint_position'\] have `latency_s` in the observations"):
        with_latency(read_sources(twice), cell(joint_position=30))
    with_latency(read_sources(twice), cell(gripper_width=30))
    process = described(tmp_path, latency_file=str(tmp_path / "none.yaml"))
    assert "none.yaml cannot be read" in refusal(process, tmp_path)
