"""Bundles for `intercept` whose answers are known: hold still, go a fixed way, or answer from nowhere."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from robot_rl.bundle import Graph, Manifest, Parity, PolicyBundle, TensorInfo
from sim.intercept import SPEC

HORIZON = 8
ROBOT = SPEC.select(["agent_pos"])


def hand_bundle(path: Path, *, way: tuple[float, float] = (0.0, 0.0), created: str = "") -> PolicyBundle:
    """Publish a bundle that answers agent_pos + way for the whole chunk, whatever the noise."""
    constants = {
        "way": np.tile(np.array(way, np.float32), (HORIZON, 1)),
        "newest": np.array([0], np.int64),
        "nothing": np.array(0.0, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["obs.agent_pos", "newest"], ["present"], axis=1),
        helper.make_node("Mul", ["noise", "nothing"], ["silence"]),
        helper.make_node("Add", ["present", "silence"], ["wide"]),
        helper.make_node("Add", ["wide", "way"], ["action"]),
    ]
    shapes = {"obs.agent_pos": (1, 2), "noise": (HORIZON, 2)}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", *shape]) for n, shape in shapes.items()]
    output = helper.make_tensor_value_info("action", TensorProto.FLOAT, ["B", HORIZON, 2])
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "hand", inputs, [output], initializer=initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    described = Graph(
        "sample.onnx",
        tuple(TensorInfo(name, "float32", ("B", *shape)) for name, shape in shapes.items()),
        (TensorInfo("action", "float32", ("B", HORIZON, 2)),),
    )
    manifest = Manifest(
        robot=ROBOT, n_obs=1, horizon=HORIZON, n_execute=4, action_offset=0, action_low=(-1.0, -1.0),
        action_high=(2.0, 2.0), normaliser={}, data_digest="", family="hand", graphs={"sample": described},
        parity=Parity(0.0, 1, 1e-4), created=created,
    )  # fmt: skip
    files = {
        "sample.onnx": bytes(model.SerializeToString()), "config.yaml": b"{}",
        "weights.safetensors": b"\x02\0\0\0\0\0\0\0{}",
    }  # fmt: skip
    return PolicyBundle.publish(path, manifest, files)
