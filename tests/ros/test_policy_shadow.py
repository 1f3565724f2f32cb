"""The policy node as a shadow beside another one that drives, and the bundle that is taken back between episodes."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from tests.ros.graph_kit import wait_for

pytest.importorskip("onnx", reason="onnx is not installed here; pip install 'robot-rl[train]'")

from robot_rl_ros.conversions import command_to_msg, msg_to_command
from robot_rl_ros.graphs import Process
from robot_rl_ros.qos import COMMAND, LATCHED
from robot_rl_ros.stamps import now_ns
from robot_rl_ros.up import Running
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from robot_rl.bundle import PolicyBundle
from robot_rl.bundle.accepted import read_accepted
from robot_rl.evaluation.rollback import OUTCOMES, promote
from tests.ros.formula_bundle import JOINTS as NAMES
from tests.ros.formula_bundle import formula_bundle
from tests.ros.test_policy_node import HOME, Arm, described


class Operator:
    """Commands one pose at 50 Hz, as the supervisor would after choosing."""

    def __init__(self, node, pose: np.ndarray) -> None:
        self._node, self._pose = node, pose
        self._publisher = node.create_publisher(JointTrajectory, "selected/command", COMMAND)
        self._timer = node.create_timer(0.02, self._publish)

    def _publish(self) -> None:
        self._publisher.publish(command_to_msg(now_ns(self._node), NAMES, self._pose, source="human"))


def test_a_shadow_computes_compares_and_never_commands(ros_graph, tmp_path: Path):
    bundle = formula_bundle(tmp_path / "bundle", per_step=0.0)
    offset = np.linspace(0.1, 0.8, 8)
    arm, _operator = Arm(ros_graph.node), Operator(ros_graph.node, HOME - offset)
    ours = described(tmp_path / "bundle", shadow=True, shadow_log=str(tmp_path / "shadow.jsonl"))
    commands = ros_graph.collect(JointTrajectory, "policy/command", COMMAND)
    with Running([ours]):
        differences = ros_graph.collect(JointTrajectory, "policy/difference", COMMAND)
        summary = ros_graph.collect(String, "policy/shadow", LATCHED)
        acts = ros_graph.collect(String, "policy/shadows", LATCHED)
        wait_for(lambda: arm._states.get_subscription_count() > 0, "the node's subscription")
        arm.start()
        differences.wait(20, timeout_s=30.0)
        arm.end()
        found = json.loads(summary.wait(timeout_s=10.0).data)
        assert json.loads(acts.wait().data) == {"bundle": bundle.id, "trial": ""}
        assert ros_graph.node.count_publishers("policy/command") == 0
    assert commands.messages == []
    _, value = msg_to_command(differences.messages[-1], NAMES)
    np.testing.assert_allclose(value, offset, atol=1e-5)
    assert found["bundle"] == bundle.id
    assert found["compared"] >= 20
    np.testing.assert_allclose(found["difference_median"], offset, atol=1e-5)
    assert 0 < found["inference_p50_ms"] <= found["inference_p99_ms"]
    assert json.loads((tmp_path / "shadow.jsonl").read_text()) == found


def promoted(folder: Path) -> tuple[Path, PolicyBundle, PolicyBundle]:
    """Return a folder of two bundles, the one to go back to, and the one that drives."""
    folder.mkdir()
    old = formula_bundle(folder / "old", per_step=0.01, created="2026-01-01T00:00:00+00:00")
    new = formula_bundle(folder / "new", per_step=-0.02, created="2026-02-01T00:00:00+00:00")
    promote(folder, new.id, incumbent=old.id, successes=20, trials=20, reason="validated")
    return folder, old, new


def fail(arm: Arm) -> None:
    """End the episode as the supervisor does."""
    arm._status.publish(String(data=json.dumps({"state": "failure", "index": arm.index, "outcome": "failure"})))


def counted(folder: Path) -> int:
    """Return how many episodes the node has counted."""
    path = folder / OUTCOMES
    return path.read_text().count('"success"') if path.exists() else 0


def test_a_bundle_that_fails_is_taken_back_before_the_next_episode(ros_graph, tmp_path: Path):
    folder, old, new = promoted(tmp_path / "bundles")
    arm = Arm(ros_graph.node)
    process = Process(
        name="policy", module="robot_rl_ros.policy_node",
        parameters={**described(folder).parameters, "rollback_patience": 10},
    )  # fmt: skip
    with Running([process]):
        driving = ros_graph.collect(String, "policy/driving", LATCHED)
        commands = ros_graph.collect(JointTrajectory, "policy/command", COMMAND)
        wait_for(lambda: arm._states.get_subscription_count() > 0, "the node's subscription")
        for n in (1, 2):
            arm.start()
            commands.wait(3, timeout_s=30.0)
            assert min(msg_to_command(m, NAMES)[1][0] for m in commands.messages) <= HOME[0] + 1e-6
            assert json.loads(driving.messages[-1].data)["bundle"] == new.id
            fail(arm)
            wait_for(lambda n=n: counted(folder) == n, "the episode's count")
            commands.clear()
        wait_for(lambda: read_accepted(folder).bundle == old.id, "the way back")  # two failures are evidence of 14
        arm.start()
        wait_for(lambda: json.loads(driving.messages[-1].data)["bundle"] == old.id, "the incumbent")
        commands.clear()
        commands.wait(3, timeout_s=10.0)
    values = [msg_to_command(m, NAMES)[1][0] - HOME[0] for m in commands.messages]
    assert min(values) >= -1e-6
    assert max(values) > 0
    assert read_accepted(folder).refused == (new.id,)


def test_rescued_successes_are_failures_and_without_the_incumbent_nothing_moves(ros_graph, tmp_path: Path):
    folder, old, _ = promoted(tmp_path / "bundles")
    shutil.rmtree(folder / "old")
    arm, drivers = Arm(ros_graph.node), ros_graph.publisher(String, "control_source", LATCHED)
    with Running([described(folder, rollback_patience=10)]):
        driving = ros_graph.collect(String, "policy/driving", LATCHED)
        commands = ros_graph.collect(JointTrajectory, "policy/command", COMMAND)
        wait_for(lambda: arm._states.get_subscription_count() > 0, "the node's subscription")
        ros_graph.wait_matched(drivers)
        for n in (1, 2):
            drivers.publish(String(data="policy"))
            arm.start()
            commands.wait(3, timeout_s=30.0)
            drivers.publish(String(data="human"))
            commands.wait(len(commands.messages) + 20, timeout_s=10.0)
            arm._status.publish(String(data=json.dumps({"state": "success", "index": arm.index, "outcome": "success"})))
            wait_for(lambda n=n: counted(folder) == n, "the episode's count")
            commands.clear()
        wait_for(lambda: read_accepted(folder).bundle == old.id, "the way back")
        arm.start()
        wait_for(lambda: json.loads(driving.messages[-1].data)["bundle"] == "", "nobody")
        time.sleep(0.5)
        assert not commands.messages
    rows = [json.loads(line) for line in (folder / OUTCOMES).read_text().splitlines()[1:]]
    assert [row.get("success") for row in rows] == [False, False, None]
