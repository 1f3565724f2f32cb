"""ONNX graphs of a chunk model: whole inference, or its two parts, for dynamic batch sizes."""

import json
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from policies.chunk_network import ChunkNetwork
from policies.denoising import DenoisingModel
from policies.disagreement import horizons_of, sample_with_disagreement
from policies.one_step import chunk_from
from policies.regression import RegressionModel
from robot_rl.bundle import Graph, TensorInfo
from robot_rl.deploy.onnx_policy import HORIZONS
from robot_rl.errors import BundleError, ConfigError
from robot_rl.specs import RobotSpec

OPSET = 20
DETERMINISTIC = (RegressionModel,)
"""Models that make nothing of the noise that their graph is given."""


class GraphModule(nn.Module):
    """What else becomes a graph: a module that names its outputs."""

    outputs: tuple[str, ...] = ()
    horizons: tuple[int, ...] = ()


class _Sample(nn.Module):
    """The whole of inference: observations and noise in; physical actions, and the normalised ones for parity, out.

    A mixture of horizons puts out their `disagreement` on each step too, and the file's metadata say which horizons.
    """

    def __init__(self, model: ChunkNetwork) -> None:
        super().__init__()
        self.model = model
        self.horizons = horizons_of(model)
        self.outputs = ("action", "normalised", "disagreement") if self.horizons else ("action", "normalised")

    def forward(self, obs: dict[str, Tensor], noise: Tensor) -> tuple[Tensor, ...]:
        # What `sample` does, without running the solver a second time inside the graph.
        if self.horizons:
            normalised, apart = sample_with_disagreement(self.model, obs, noise)
            return self.model.physical(obs, normalised), normalised, apart
        normalised = self.model.sample_normalised(obs, noise)
        return self.model.physical(obs, normalised), normalised


class _Encode(nn.Module):
    """Observations in, condition vector out."""

    outputs: tuple[str, ...] = ("cond",)
    horizons: tuple[int, ...] = ()

    def __init__(self, model: ChunkNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        return self.model.encode(obs)


class _Denoise(nn.Module):
    """One call of the network: noisy normalised chunk, time and condition in, native output out."""

    outputs: tuple[str, ...] = ("output",)
    horizons: tuple[int, ...] = ()

    def __init__(self, model: ChunkNetwork) -> None:
        super().__init__()
        if not isinstance(model, DenoisingModel):
            raise ConfigError(
                f"{type(model).__name__} has no `denoise` graph; export `sample` alone (`package.graphs=[sample]`)"
            )
        self.model = model

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.model.denoise(x, t, cond)


class Solve(nn.Module):
    """Condition and noise in, normalised chunk out: sampling without encoder and units, to be timed by itself."""

    outputs: tuple[str, ...] = ("normalised",)
    horizons: tuple[int, ...] = ()

    def __init__(self, model: ChunkNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Return the normalised chunk [B, H, A] for `encode`'s condition and noise [B, H, A]."""
        return chunk_from(self.model, cond, noise)


Part = _Sample | _Encode | _Denoise | Solve
PARTS: dict[str, type[Part]] = {"sample": _Sample, "encode": _Encode, "denoise": _Denoise}


def parts_of(model: ChunkNetwork) -> tuple[str, ...]:
    """Return the names of all graphs that a model has: the whole of inference, and its parts if it denoises."""
    return tuple(PARTS) if isinstance(model, DenoisingModel) else ("sample",)


def to_onnx(part: Part | GraphModule, example: Mapping[str, Any]) -> bytes:
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
    proto = program.model_proto
    if part.horizons:
        onnx.helper.set_model_props(proto, {HORIZONS: json.dumps(part.horizons)})
    return bytes(proto.SerializeToString())


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


def check_reads(content: bytes, spec: RobotSpec, *, deterministic: bool) -> None:
    """Raise unless the sampling graph uses exactly the observations of `spec` and the noise.

    Of a `deterministic` model it may use the noise or not: the exporter may take the batch size from there.
    """
    graph = onnx.load_from_string(content).graph
    used = {name for node in graph.node for name in node.input}
    used |= {"noise"} if deterministic else set()
    got = sorted(value.name for value in graph.input if value.name in used)
    expected = sorted([*(f"obs.{name}" for name in spec.obs), "noise"])
    if got != expected:
        raise BundleError(f"the graph reads {got}, expected {expected}; restrict `spec` to what the model reads")
