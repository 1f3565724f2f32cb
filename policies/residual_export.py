"""From a fine-tuned correction to a policy bundle: the graph `step` beside the unaltered graphs of its frozen base."""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from policies.export import TOLERANCE
from policies.onnx_graphs import GraphModule, describe, flatten, to_onnx
from policies.parity import BATCHES
from robot_rl.bundle import Graph, Parity, PolicyBundle, ResidualInfo, base_of, refuse_existing
from robot_rl.bundle.residual import BASE_FILE, INFO_FILE, STEP, STEP_WEIGHTS, manifest_bytes
from robot_rl.data.normalizer import FieldStats
from robot_rl.deploy.onnx_policy import load_graph
from robot_rl.errors import BundleError
from robot_rl.rl.steps import ResidualStep
from robot_rl.specs import ArraySpec, RobotSpec


class StepGraph(GraphModule):
    """Encoder, bounded correction and clamp of a `ResidualStep` where it decides, in physical units on both sides."""

    outputs: tuple[str, ...] = ("action",)
    unit_middle: Tensor
    unit_half: Tensor

    def __init__(self, step: ResidualStep) -> None:
        super().__init__()
        self.encoder, self.actor, self.names = step.encoder, step.average, step.names
        for name in ("middle", "half"):
            value = torch.as_tensor(np.asarray(getattr(step.scaler, name), np.float32))
            self.register_buffer(f"unit_{name}", value, persistent=False)

    def forward(self, obs: dict[str, Tensor], base_action: Tensor) -> Tensor:
        """Return total actions [B, A]."""
        features = self.encoder({name: obs[name][:, None] for name in self.names})  # one observation step: [B, 1, ...]
        total = self.actor.total(features, (base_action - self.unit_middle) / self.unit_half)
        out: Tensor = total * self.unit_half + self.unit_middle
        return out


def export_residual(
    step: ResidualStep,
    base: PolicyBundle,
    path: str | Path,
    *,
    spec: RobotSpec,
    stats: Mapping[str, FieldStats],
    delay_steps: int,
    config: Mapping[str, Any],
    data_digest: str,
    parent: str = "",
    created: str | None = None,
    tolerance: float = TOLERANCE,
    parity_rounds: int = 4,
    seed: int = 0,
) -> PolicyBundle:
    """Export a correction beside its base, measure it against what drove while it was learned, and publish both.

    Args:
        step: Encoder, actor and unit, with the weights to export.
        base: The frozen base; a bundle with a correction stands for the base inside it.
        path: Directory to create.
        spec: The robot with all its observations, those that base and correction read among them.
        stats: Statistics of the demonstrations, for the inputs that parity is measured on.
        delay_steps: Ticks that the base's inference took while the correction was learned.
        config: How it was learned, plain values; the base's own configuration stays in its `config.yaml`.
        data_digest: Digest of what it was learned from.
        parent: Id of the bundle whose attestation it may inherit (docs/rl.md); the base's by default.
        created: ISO 8601 time; now when `None`.
        tolerance: Largest allowed |ONNX - torch| in the agent's unit.
        parity_rounds: Comparisons at each of the batch sizes 1, 4, 7.
        seed: Of the inputs compared.

    Raises:
        BundleError: `path` exists, the base is of another robot, the graph differs from torch by more than
            `tolerance`, or it does not read what the correction reads.
    """
    refuse_existing(path)
    frozen_base = base_of(base)
    frozen_base.check_fits(spec)
    names = list(dict.fromkeys([*frozen_base.manifest.robot.obs, *step.names]))
    robot = spec.select(names)
    frozen = copy.deepcopy(step).cpu().float().eval().requires_grad_(False)
    rng = np.random.default_rng(seed)
    content = _graph(frozen, robot, stats, rng)
    described = describe(STEP, content)
    worst = _parity(frozen, content, described, robot=robot, stats=stats, rounds=parity_rounds, rng=rng)
    if not worst <= tolerance:  # a NaN difference fails too
        raise BundleError(
            f"graph `{STEP}` differs from torch by {worst:.3g} in the agent's unit, expected at most {tolerance:.3g}; "
            "nothing was published"
        )
    info, old = _info(frozen, frozen_base, robot, delay_steps), frozen_base.manifest
    manifest = replace(
        old, robot=robot, action_low=info.low, action_high=info.high, family=f"residual on {old.family}",
        graphs={**old.graphs, STEP: described}, data_digest=data_digest, parent=parent if parent else frozen_base.id,
        parity=Parity(max(worst, old.parity.max_abs_normalised), parity_rounds * sum(BATCHES), tolerance),
        created=datetime.now(UTC).isoformat(timespec="microseconds") if created is None else created, files={}, id="",
    )  # fmt: skip
    return PolicyBundle.publish(path, manifest, _files(frozen, frozen_base, info, {described.file: content}, config))


def _files(
    step: ResidualStep, base: PolicyBundle, info: ResidualInfo, graphs: Mapping[str, bytes], config: Mapping[str, Any]
) -> dict[str, bytes]:
    """Return the bundle's files by name: the base's own, byte for byte, and those of the correction."""
    return {name: base.content(name) for name in base.manifest.files} | {
        **graphs, BASE_FILE: manifest_bytes(base), INFO_FILE: json.dumps(info.to_dict(), indent=1).encode(),
        STEP_WEIGHTS: save({name: value.contiguous().clone() for name, value in step.state_dict().items()}),
        "step.yaml": json.dumps(config, indent=2).encode(),  # JSON is YAML too
    }  # fmt: skip


def _graph(step: ResidualStep, robot: RobotSpec, stats: Mapping[str, FieldStats], rng: np.random.Generator) -> bytes:
    """Return the ONNX graph after checking that it reads what the correction reads."""
    content = to_onnx(StepGraph(step), _inputs(step, robot, stats, batch=2, rng=rng))
    got = sorted(tensor.name for tensor in describe(STEP, content).inputs)
    expected = sorted([*(f"obs.{name}" for name in step.names), "base_action"])
    if got != expected:
        raise BundleError(f"the graph `{STEP}` reads {got}, expected {expected}; name in `algo.obs` what is read")
    return content


def _info(step: ResidualStep, base: PolicyBundle, robot: RobotSpec, delay_steps: int) -> ResidualInfo:
    """Return the correction's bounds: the agent's unit, within the robot's own limits."""
    scaler, action = step.scaler, robot.action
    low, high = scaler.to_physical(-np.ones_like(scaler.half)), scaler.to_physical(np.ones_like(scaler.half))
    low = low if action.low is None else np.maximum(low, action.low)
    high = high if action.high is None else np.minimum(high, action.high)
    return ResidualInfo(
        base_id=base.id,
        bound=tuple(map(float, step.actor.alpha.numpy() * scaler.half)),
        low=tuple(map(float, low)),
        high=tuple(map(float, high)),
        names=tuple(step.names),
        delay_steps=delay_steps,
        hold=step.hold.ticks,
    )


def _parity(
    step: ResidualStep, content: bytes, described: Graph, *,
    robot: RobotSpec, stats: Mapping[str, FieldStats], rounds: int, rng: np.random.Generator,
) -> float:  # fmt: skip
    """Return the largest |ONNX - torch| in the agent's unit, NaN if anything is not finite.

    Torch is asked one observation at a time, as the actor asks it; ONNX whole batches.
    """
    session = load_graph(content, described, providers=("CPUExecutionProvider",))
    worst = 0.0
    for batch in BATCHES * rounds:
        given = _inputs(step, robot, stats, batch=batch, rng=rng)
        (got,) = session.run(["action"], {key: value.numpy() for key, value in flatten(given).items()})
        base = given["base_action"].numpy()
        rows = [{name: value[i].numpy() for name, value in given["obs"].items()} for i in range(batch)]
        expected = np.stack([_decided(step, row, base[i]) for i, row in enumerate(rows)])
        rounding = 2 * np.finfo(np.float32).eps * np.abs(expected)  # of the physical number itself
        error = np.maximum(np.abs(got.astype(np.float64) - expected) - rounding, 0.0) / step.scaler.half
        worst = float(np.maximum(worst, np.max(error)))  # np.maximum keeps NaN
    return worst


def _decided(step: ResidualStep, obs: dict[str, np.ndarray], base: np.ndarray) -> np.ndarray:
    """Return the action [A] of a tick at which the correction is chosen."""
    step.renew()
    return step.act(obs, base)


def _inputs(
    step: ResidualStep, robot: RobotSpec, stats: Mapping[str, FieldStats], *, batch: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return arguments of the graph: observations within the data's range, base actions a little beyond the unit."""
    obs = {name: torch.from_numpy(_drawn(robot.obs[name], stats, batch, rng)) for name in step.names}
    unit = rng.uniform(-1.2, 1.2, (batch, len(step.scaler.half)))
    return {"obs": obs, "base_action": torch.from_numpy(step.scaler.to_physical(unit).astype(np.float32))}


def _drawn(spec: ArraySpec, stats: Mapping[str, FieldStats], batch: int, rng: np.random.Generator) -> np.ndarray:
    shape = (batch, *spec.shape)
    if spec.is_image:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    low, high = np.zeros(spec.shape), np.ones(spec.shape)
    if spec.name in stats:
        low, high = (np.reshape(end, spec.shape) for end in (stats[spec.name].min, stats[spec.name].max))
    return np.asarray(low + (high - low) * rng.random(shape)).astype(spec.dtype)
