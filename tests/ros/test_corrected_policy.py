"""The policy node with a bundle that corrects its base: at each tick, by what is seen; slower where it inherits."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed here; pip install 'robot-rl[train]'")

import onnx
from onnx import TensorProto, helper
from robot_rl_ros.bundle_source import BundleSource
from robot_rl_ros.conversions import msg_to_command
from robot_rl_ros.qos import COMMAND
from robot_rl_ros.up import Running
from trajectory_msgs.msg import JointTrajectory

from robot_rl.bundle import Graph, PolicyBundle, ResidualInfo, TensorInfo
from robot_rl.bundle.residual import BASE_FILE, INFO_FILE, STEP, manifest_bytes
from robot_rl.errors import BundleError
from robot_rl.evaluation.inheritance import inherit
from robot_rl.evaluation.statistics import clopper_pearson
from robot_rl.evaluation.validation import ValidationRecord
from tests.ros.formula_bundle import CONTROL_HZ, formula_bundle
from tests.ros.formula_bundle import JOINTS as NAMES
from tests.ros.graph_kit import wait_for
from tests.ros.test_policy_node import HOME, Arm, described

GOAL, BOUND, J = 0.35, 0.03, 2
VELOCITY = [2.0] * 7 + [0.2]


def corrected_bundle(base: PolicyBundle, path: Path, *, goal: float = GOAL, parent: str = "") -> PolicyBundle:
    """Publish a base whose third joint is drawn from where it is towards a goal, at most by a bound."""
    mask, zero = np.eye(8, dtype=np.float32)[J : J + 1], np.zeros((1, 1), np.float32)
    constants = {
        "mask": mask, "zero": zero, "goal": np.full((1, 8), goal, np.float32), "low": np.float32(-BOUND),
        "high": np.float32(BOUND), "one": np.array([1], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Shape", ["obs.joint_position"], ["b"], end=1),
        helper.make_node("Concat", ["b", "one"], ["column"], axis=0),
        helper.make_node("Expand", ["zero", "column"], ["no_gripper"]),
        helper.make_node("Concat", ["obs.joint_position", "no_gripper"], ["present"], axis=1),  # [B, 8]
        helper.make_node("Sub", ["goal", "present"], ["way"]),
        helper.make_node("Clip", ["way", "low", "high"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "mask"], ["residual"]),
        helper.make_node("Add", ["base_action", "residual"], ["action"]),
    ]
    shapes = {"obs.joint_position": 7, "base_action": 8}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", n]) for name, n in shapes.items()]
    output = helper.make_tensor_value_info("action", TensorProto.FLOAT, ["B", 8])
    initializers = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "step", inputs, [output], initializer=initializers)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    old = base.manifest
    info = ResidualInfo(
        base_id=base.id, bound=(BOUND,) * 8, low=old.action_low, high=old.action_high, names=("joint_position",),
        delay_steps=0,
    )  # fmt: skip
    graph_info = Graph(
        "step.onnx", tuple(TensorInfo(name, "float32", ("B", n)) for name, n in shapes.items()),
        (TensorInfo("action", "float32", ("B", 8)),),
    )  # fmt: skip
    manifest = replace(
        old, graphs={**old.graphs, STEP: graph_info}, parent=parent if parent else base.id, files={}, id=""
    )
    files = {name: base.file(name).read_bytes() for name in old.files}
    files |= {
        "step.onnx": bytes(content), BASE_FILE: manifest_bytes(base), INFO_FILE: json.dumps(info.to_dict()).encode()
    }  # fmt: skip
    return PolicyBundle.publish(path, manifest, files)


def test_base_and_correction_drive_together(shared_graph, tmp_path):
    base = formula_bundle(tmp_path / "base", per_step=0.0)
    corrected_bundle(base, tmp_path / "bundles" / "one")
    arm, commands = Arm(shared_graph.node), shared_graph.collect(JointTrajectory, "policy/command", COMMAND)

    def newest() -> np.ndarray:
        return msg_to_command(commands.messages[-1], NAMES)[1]

    with Running([described(tmp_path / "bundles")]):
        wait_for(lambda: arm._states.get_subscription_count(), "the node", timeout_s=60)
        arm.start()
        wait_for(lambda: len(commands) > 5, "commands", timeout_s=60)
        assert newest() == pytest.approx(HOME + BOUND * np.eye(8)[J], abs=1e-5)
        arm.position = HOME + 0.04 * np.eye(8)[J]  # nearer to the goal than the bound
        wait_for(lambda: abs(newest()[J] - GOAL) < 1e-5, "the goal", timeout_s=10)
        assert np.delete(newest(), J) == pytest.approx(np.delete(HOME, J), abs=1e-5)


def test_a_real_arm_is_slower_with_weights_that_inherit(tmp_path):
    base = formula_bundle(tmp_path / "base", per_step=0.0)
    parent = corrected_bundle(base, tmp_path / "parent")
    child = corrected_bundle(base, tmp_path / "child", goal=0.3, parent=parent.id)

    def source(bundle, *, velocity=VELOCITY, hardware=True) -> BundleSource:
        return BundleSource(bundle.path, n_joints=8, hardware=hardware, override="", min_success=0.5, velocity=velocity)

    with pytest.raises(BundleError, match="has no validation record"):
        source(child).first()
    ValidationRecord(
        bundle_id=parent.id, task="lift", seeds=(0, 1), succeeded=(0, 1), success=clopper_pearson(2, 2),
        date="2026-03-04T05:06:07+00:00", env={}, code_version="1",
    ).write(parent.path)  # fmt: skip
    inherit(child, parent)
    with pytest.raises(BundleError, match="`velocity` must hold 8 of them, got"):
        source(child, velocity=()).first()
    slow = source(child)
    np.testing.assert_allclose(slow.max_step(slow.first()), np.array(VELOCITY) * 0.5 / CONTROL_HZ)
    assert source(parent).max_step(source(parent).first()) is None
    assert source(child, hardware=False).max_step(child) is None
