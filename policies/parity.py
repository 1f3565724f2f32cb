"""How far an exported graph is from the torch model it came from, over random inputs within the data's range."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from policies.chunk_network import ChunkNetwork
from policies.denoising import DenoisingModel
from policies.disagreement import horizons_of, sample_with_disagreement
from policies.onnx_graphs import PARTS, flatten
from robot_rl.bundle import Graph
from robot_rl.data.normalizer import MIN_RANGE, FieldStats
from robot_rl.deploy.onnx_policy import load_graph
from robot_rl.errors import ConfigError
from robot_rl.specs import ArraySpec, RobotSpec

BATCHES = (1, 4, 7)


class RandomInputs:
    """Draws random inputs of a graph within what the training data and the specs allow."""

    def __init__(self, spec: RobotSpec, stats: Mapping[str, FieldStats], *, model: ChunkNetwork, seed: int) -> None:
        self._spec, self._stats, self._model = spec, stats, model
        self._rng = np.random.default_rng(seed)

    def __call__(self, graph: str, batch: int) -> dict[str, Any]:
        """Return the arguments of one part for a batch, by name."""
        noise = torch.from_numpy(self._rng.standard_normal((batch, *self._model.noise_shape), dtype=np.float32))
        obs = {name: torch.from_numpy(self._obs(spec, batch)) for name, spec in self._spec.obs.items()}
        if graph == "sample":
            return {"obs": obs, "noise": noise}
        if graph == "encode":
            return {"obs": obs}
        if not isinstance(self._model, DenoisingModel):
            raise ConfigError(f"{type(self._model).__name__} has no graph `{graph}`; export `sample` alone")
        times = torch.from_numpy(self._rng.choice(np.asarray(self._model.times[:-1]), batch).astype(np.float32))
        with torch.no_grad():
            return {"x": noise[:, : self._model.horizon], "t": times, "cond": self._model.encode(obs)}

    def _obs(self, spec: ArraySpec, batch: int) -> np.ndarray:
        shape = (batch, self._model.n_obs, *spec.shape)
        if spec.is_image:
            return self._rng.integers(0, 256, shape, dtype=np.uint8)
        low, high = self._range(spec)
        if np.dtype(spec.dtype).kind in "iu":
            return self._rng.integers(np.ceil(low), np.floor(high) + 1, shape).astype(spec.dtype)
        return np.asarray(low + (high - low) * self._rng.random(shape), dtype=spec.dtype)

    def _range(self, spec: ArraySpec) -> tuple[np.ndarray, np.ndarray]:
        if spec.name in self._stats:
            field = self._stats[spec.name]
            return field.min.reshape(spec.shape), field.max.reshape(spec.shape)
        ends = (0.0 if bound is None else bound for bound in (spec.low, spec.high))
        low, high = (np.asarray(end).reshape(spec.shape if np.ndim(end) else ()) for end in ends)
        return low, np.asarray(np.maximum(low, high))


def difference(
    name: str, model: ChunkNetwork, content: bytes, described: Graph, *, draw: RandomInputs, rounds: int
) -> float:
    """Return the largest |ONNX - torch|, NaN if anything is not finite.

    Of actions in normalised units, before and after they are made physical; of other outputs relative to 1 + |torch|.
    """
    session = load_graph(content, described, providers=("CPUExecutionProvider",))
    outputs, worst = list(PARTS[name](model).outputs), 0.0
    for batch in BATCHES * rounds:
        arguments = draw(name, batch)
        expected = _by_torch(name, model, arguments)
        got = session.run(outputs, {key: value.numpy() for key, value in flatten(arguments).items()})
        for output, mine, theirs in zip(outputs, got, expected, strict=True):
            error = _relative(output, np.abs(mine.astype(np.float64) - theirs), theirs, model)
            worst = float(np.maximum(worst, np.max(error)))  # np.maximum keeps NaN
    return worst


def _by_torch(name: str, model: ChunkNetwork, arguments: Mapping[str, Any]) -> list[np.ndarray]:
    """Return a graph's outputs as the model's own methods give them."""
    with torch.no_grad():
        if name == "sample":
            outputs = [model.sample(**arguments), model.sample_normalised(**arguments)]
            if horizons_of(model):
                outputs.append(sample_with_disagreement(model, **arguments)[1])
        else:
            outputs = [PARTS[name](model)(**arguments)]
    return [output.numpy().astype(np.float64) for output in outputs]


def _relative(output: str, error: np.ndarray, reference: np.ndarray, model: ChunkNetwork) -> np.ndarray:
    """Return an output's error in the unit its tolerance is stated in."""
    if output == "normalised":
        return error
    if output == "action":
        half = np.asarray((model.action_high - model.action_low).numpy(), dtype=np.float64) / 2
        rounding = 2 * np.finfo(np.float32).eps * np.abs(reference)  # of the physical number itself, whatever the model
        return np.maximum(error - rounding, 0.0) / np.where(half < MIN_RANGE, 1.0, half)
    return error / (1.0 + np.abs(reference))
