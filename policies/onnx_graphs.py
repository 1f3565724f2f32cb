"""ONNX graphs of a chunk model: whole inference, or its two parts, for dynamic batch sizes."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from policies.denoising import DenoisingModel
from robot_rl.bundle import Graph, TensorInfo
from robot_rl.errors import BundleError
from robot_rl.specs import RobotSpec

OPSET = 20


class _Sample(nn.Module):
    """The whole of inference: observations and noise in; physical actions, and the normalised ones for parity, out."""

    outputs = ("action", "normalised")

    def __init__(self, model: DenoisingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, obs: dict[str, Tensor], noise: Tensor) -> tuple[Tensor, Tensor]:
        normalised = self.model.sample_normalised(obs, noise)
        # What `sample` does, without running the solver a second time inside the graph.
        return self.model.normalizer.inverse(normalised) + self.model.reference(obs), normalised


class _Encode(nn.Module):
    """Observations in, condition vector out."""

    outputs = ("cond",)

    def __init__(self, model: DenoisingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        return self.model.encode(obs)


class _Denoise(nn.Module):
    """One call of the network: noisy normalised chunk, time and condition in, native output out."""

    outputs = ("output",)

    def __init__(self, model: DenoisingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.model.denoise(x, t, cond)


Part = _Sample | _Encode | _Denoise
PARTS: dict[str, type[Part]] = {"sample": _Sample, "encode": _Encode, "denoise": _Denoise}


def to_onnx(part: Part, example: Mapping[str, Any]) -> bytes:
    """Export one part with a dynamic batch axis, weights inside the file."""
    batch = torch.export.Dim("B")
    shapes = {
        name: {key: {0: batch} for key in value} if isinstance(value, dict) else {0: batch}
        for name, value in example.items()
    }
    # The exporter warns about its own internals and about torchvision, which nothing here uses.
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registry.level
    registry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                part, (), kwargs=dict(example), dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
                input_names=list(flatten(example)), output_names=list(part.outputs), dynamic_shapes=shapes,
            )  # fmt: skip
    finally:
        registry.setLevel(level)
    if program is None:
        raise BundleError("torch.onnx.export returned no program; update torch")
    return bytes(program.model_proto.SerializeToString())


def flatten(arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return arguments under the graph's input names: `obs.<name>` for each observation."""
    flat: dict[str, Tensor] = {}
    for name, value in arguments.items():
        flat |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def describe(name: str, content: bytes) -> Graph:
    """Read names, dtypes and shapes of a graph's inputs and outputs from the file itself."""
    graph = onnx.load_from_string(content).graph

    def info(value: Any) -> TensorInfo:
        tensor = value.type.tensor_type
        shape = tuple(d.dim_param if d.dim_param else int(d.dim_value) for d in tensor.shape.dim)
        return TensorInfo(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)

    return Graph(f"{name}.onnx", tuple(map(info, graph.input)), tuple(map(info, graph.output)))


def check_reads(content: bytes, spec: RobotSpec) -> None:
    """Raise unless the sampling graph uses exactly the observations of `spec`."""
    graph = onnx.load_from_string(content).graph
    used = {name for node in graph.node for name in node.input}
    got = sorted(value.name for value in graph.input if value.name in used)
    expected = sorted([*(f"obs.{name}" for name in spec.obs), "noise"])
    if got != expected:
        raise BundleError(f"the graph reads {got}, expected {expected}; restrict `spec` to what the model reads")
