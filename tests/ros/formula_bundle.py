"""A real bundle for the lift arm whose answers are known: go on from where the joints are, at a constant speed."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from robot_rl.bundle import Graph, Manifest, Parity, PolicyBundle, TensorInfo
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from sim.robots import ARM7

JOINTS = [*ARM7.joints, "gripper"]
CONTROL_HZ, HORIZON = 20.0, 16
ROBOT = RobotSpec(
    name="arm7",
    obs={
        "joint_position": ArraySpec(name="joint_position", shape=(7,), unit="rad"),
        "gripper_width": ArraySpec(name="gripper_width", shape=(1,), unit="m"),
    },
    action=ActionSpec(name="action", shape=(8,), unit="rad, m", gripper="width_m"),
    control_hz=CONTROL_HZ,
)


def formula_bundle(
    path: Path, *, per_step: float, n_execute: int = 8, created: str = "", **changes: Any
) -> PolicyBundle:
    """Publish a bundle that answers joint_position + (1, 0, 0 ...) * per_step * h, and the gripper's present width."""
    ramp = np.zeros((HORIZON, 8), np.float32)
    ramp[:, 0] = per_step * np.arange(HORIZON)
    constants = {"ramp": ramp, "newest": np.array([0], np.int64), "nothing": np.array(0.0, np.float32)}
    nodes = [
        helper.make_node("Concat", ["obs.joint_position", "obs.gripper_width"], ["both"], axis=2),
        helper.make_node("Gather", ["both", "newest"], ["present"], axis=1),  # [B, 1, 8]
        helper.make_node("Mul", ["noise", "nothing"], ["silence"]),
        helper.make_node("Add", ["present", "silence"], ["wide"]),
        helper.make_node("Add", ["wide", "ramp"], ["action"]),
    ]
    shapes = {"obs.joint_position": (1, 7), "obs.gripper_width": (1, 1), "noise": (HORIZON, 8)}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", *shape]) for n, shape in shapes.items()]
    output = helper.make_tensor_value_info("action", TensorProto.FLOAT, ["B", HORIZON, 8])
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "formula", inputs, [output], initializer=initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    described = Graph(
        "sample.onnx",
        tuple(TensorInfo(name, "float32", ("B", *shape)) for name, shape in shapes.items()),
        (TensorInfo("action", "float32", ("B", HORIZON, 8)),),
    )
    fields = {
        "robot": ROBOT, "n_obs": 1, "horizon": HORIZON, "n_execute": n_execute, "action_offset": 0,
        "action_low": (-3.0,) * 7 + (0.0,), "action_high": (4.0,) * 7 + (0.08,), "normaliser": {}, "data_digest": "",
        "family": "formula", "graphs": {"sample": described}, "parity": Parity(0.0, 1, 1e-4), "created": created,
    }  # fmt: skip
    files = {
        "sample.onnx": bytes(model.SerializeToString()), "config.yaml": b"{}",
        "weights.safetensors": b"\x02\0\0\0\0\0\0\0{}",
    }  # fmt: skip
    return PolicyBundle.publish(path, Manifest(**{**fields, **changes}), files)
