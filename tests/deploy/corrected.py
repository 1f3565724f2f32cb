"""A real bundle whose correction is a formula: the base's action goes a tenth of the way to q, but not too far."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from robot_rl.bundle import Graph, PolicyBundle, ResidualInfo, TensorInfo
from robot_rl.bundle.residual import BASE_FILE, INFO_FILE, STEP, manifest_bytes

BOUND = 0.05


def step_graph(gain: float, bound: float = BOUND) -> bytes:
    """action[b] = base_action + clip(gain * (q - base_action), -bound, bound)."""
    constants = {"gain": np.float32(gain), "low": np.float32(-bound), "high": np.float32(bound)}
    nodes = [
        helper.make_node("Sub", ["obs.q", "base_action"], ["way"]),
        helper.make_node("Mul", ["way", "gain"], ["wanted"]),
        helper.make_node("Clip", ["wanted", "low", "high"], ["residual"]),
        helper.make_node("Add", ["base_action", "residual"], ["action"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 2]) for name in ("obs.q", "base_action")]
    output = helper.make_tensor_value_info("action", TensorProto.FLOAT, ["B", 2])
    initializers = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "step", inputs, [output], initializer=initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def corrected(q: np.ndarray, base_action: np.ndarray, gain: float = 0.1) -> np.ndarray:
    """Return what the graph answers."""
    return base_action + np.clip(gain * (q - base_action), -BOUND, BOUND)


def corrected_bundle(
    base: PolicyBundle,
    path: Path,
    *,
    gain: float = 0.1,
    bound: float = BOUND,
    told: float = BOUND,
    hold: int = 1,
    **changes: Any,
) -> PolicyBundle:
    """Publish a base with the correction; `told` is the bound that it is said to have, `hold` for how long it lasts."""
    from dataclasses import replace

    old = base.manifest
    info = ResidualInfo(
        base_id=base.id, bound=(told, told), low=(-3.5, -3.5), high=(3.5, 3.5), names=("q",), delay_steps=0,
        hold=hold,
    )  # fmt: skip
    inputs = (TensorInfo("obs.q", "float32", ("B", 2)), TensorInfo("base_action", "float32", ("B", 2)))
    graph = Graph("step.onnx", inputs, (TensorInfo("action", "float32", ("B", 2)),))
    fields = {
        "graphs": {**old.graphs, STEP: graph}, "action_low": info.low, "action_high": info.high,
        "parent": base.id, "files": {}, "id": "", **changes,
    }  # fmt: skip
    files = {name: base.file(name).read_bytes() for name in old.files}
    files |= {
        "step.onnx": step_graph(gain, bound), BASE_FILE: manifest_bytes(base),
        INFO_FILE: json.dumps(info.to_dict()).encode(),
    }  # fmt: skip
    return PolicyBundle.publish(path, replace(old, **fields), files)
