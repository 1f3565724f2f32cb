"""A real bundle whose graph is a formula: answers are known without a trained network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from robot_rl.bundle import Graph, Manifest, Parity, PolicyBundle, TensorInfo
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec

ROBOT = RobotSpec(
    name="toy",
    obs={"q": ArraySpec(name="q", shape=(2,), unit="rad", low=-2.0, high=4.0)},
    action=ActionSpec(name="action", shape=(2,), unit="rad", low=-4.0, high=4.0),
    control_hz=20,
)
N_OBS, HORIZON = 2, 6


def ramp_graph(divide_by: float = 1.0) -> bytes:
    """action[b, h] = (newest q + (0, 1, 2, ...)[h] / 10 + noise[b, h]) / divide_by."""
    steps = np.repeat(np.arange(HORIZON, dtype=np.float32)[:, None] / 10, 2, axis=1)
    constants = {
        "steps": steps,
        "divide_by": np.array(divide_by, dtype=np.float32),
        "newest": np.array([N_OBS - 1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["obs.q", "newest"], ["q"], axis=1),  # [B, 1, 2]
        helper.make_node("Add", ["q", "steps"], ["ramp"]),
        helper.make_node("Add", ["ramp", "noise"], ["noisy"]),
        helper.make_node("Div", ["noisy", "divide_by"], ["action"]),
    ]
    inputs = [
        helper.make_tensor_value_info("obs.q", TensorProto.FLOAT, ["B", N_OBS, 2]),
        helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["B", HORIZON, 2]),
    ]
    output = helper.make_tensor_value_info("action", TensorProto.FLOAT, ["B", HORIZON, 2])
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "ramp", inputs, [output], initializer=initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., PolicyBundle]:
    def make(name: str = "bundle", *, graph: bytes | None = None, **changes) -> PolicyBundle:
        inputs = (TensorInfo("obs.q", "float32", ("B", 2, 2)), TensorInfo("noise", "float32", ("B", HORIZON, 2)))
        outputs = (TensorInfo("action", "float32", ("B", HORIZON, 2)),)
        fields = {
            "robot": ROBOT, "n_obs": N_OBS, "horizon": HORIZON, "n_execute": 3, "action_offset": -1,
            "action_low": (-3.0, -3.0), "action_high": (3.0, 3.0), "normaliser": {}, "data_digest": "",
            "family": "formula", "graphs": {"sample": Graph("sample.onnx", inputs, outputs)},
            "parity": Parity(0.0, 1, 1e-4),
        }  # fmt: skip
        files = {"sample.onnx": ramp_graph() if graph is None else graph}
        files |= {"config.yaml": b"{}", "weights.safetensors": b"\x02\0\0\0\0\0\0\0{}"}
        return PolicyBundle.publish(tmp_path / name, Manifest(**{**fields, **changes}), files)

    return make


@pytest.fixture
def nan_graph() -> bytes:
    return ramp_graph(divide_by=0.0)
