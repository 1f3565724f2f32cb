"""From a torch model to a policy bundle: ONNX graphs, measured against torch before anything is published.

The noise is a graph input and the whole solver loop is unrolled inside `sample`, so that torch and ONNX Runtime can be
compared action by action. `encode` and `denoise` are the parts, for samplers that run on the robot.
"""

import copy
import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save

from policies.chunk_network import ChunkNetwork
from policies.denoising import DenoisingModel
from policies.onnx_graphs import DETERMINISTIC, PARTS, check_reads, describe, to_onnx
from policies.parity import BATCHES, RandomInputs, difference
from policies.superposition import SuperposedModel
from robot_rl.bundle import Manifest, Parity, PolicyBundle, SolverInfo, refuse_existing
from robot_rl.data.normalizer import FieldStats
from robot_rl.errors import BundleError, ConfigError
from robot_rl.specs import RobotSpec

TOLERANCE = 1e-4


def export_bundle(
    model: ChunkNetwork,
    path: str | Path,
    *,
    spec: RobotSpec,
    stats: Mapping[str, FieldStats],
    n_execute: int,
    config: Mapping[str, Any],
    data_digest: str,
    graphs: Sequence[str] = ("sample",),
    parent: str = "",
    git_commit: str | None = None,
    created: str | None = None,
    tolerance: float = TOLERANCE,
    parity_rounds: int = 4,
    seed: int = 0,
) -> PolicyBundle:
    """Export a model (give it its EMA weights first), measure it against torch, and publish it.

    Args:
        model: What to export; it is copied, moved to the CPU and put into evaluation mode.
        path: Directory to create.
        spec: The robot, restricted to the observations the model reads.
        stats: Statistics the model was built with.
        n_execute: Actions to execute before asking again.
        config: The configuration it was trained with, plain values.
        data_digest: Digest of the training data.
        graphs: Which of `sample`, `encode`, `denoise`; `sample` is required, `denoise` is for models that denoise.
        parent: Id of the bundle this one was fine-tuned from.
        git_commit: Commit of the code; looked up when `None`.
        created: ISO 8601 time; now when `None`.
        tolerance: Largest allowed |ONNX - torch| in normalised actions.
        parity_rounds: Comparisons at each of the batch sizes 1, 4, 7.
        seed: Of the inputs compared.

    Raises:
        BundleError: `path` exists, the graphs differ from torch by more than `tolerance`, or they do not read exactly
            the observations of `spec`.
        ConfigError: An unknown graph, or no `sample`.
    """
    refuse_existing(path)
    if "sample" not in graphs or set(graphs) - set(PARTS):
        raise ConfigError(f"`graphs` must be `sample` and any others of {tuple(PARTS)}, got {list(graphs)}")
    frozen = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    draw = RandomInputs(spec, stats, model=frozen, seed=seed)
    contents = {name: to_onnx(PARTS[name](frozen), draw(name, 2)) for name in graphs}
    check_reads(contents["sample"], spec, deterministic=isinstance(frozen, DETERMINISTIC))
    described = {name: describe(name, content) for name, content in contents.items()}
    measured = {
        name: difference(name, frozen, contents[name], described[name], draw=draw, rounds=parity_rounds)
        for name in graphs
    }
    _check_parity(measured, tolerance)
    manifest = Manifest(
        robot=spec,
        n_obs=frozen.n_obs,
        horizon=frozen.horizon,
        n_execute=n_execute,
        action_offset=frozen.action_offset,
        action_low=tuple(map(float, frozen.action_low)),
        action_high=tuple(map(float, frozen.action_high)),
        normaliser={name: field.to_dict() for name, field in stats.items()},
        data_digest=data_digest,
        family=type(model).__name__.removesuffix("Model").lower(),
        graphs=described,
        parity=Parity(measured["sample"], parity_rounds * sum(BATCHES), tolerance),
        created=datetime.now(UTC).isoformat(timespec="microseconds") if created is None else created,
        parent=parent,
        git_commit=_current_commit() if git_commit is None else git_commit,
        solver=_solver_of(frozen),
    )
    files = {described[name].file: contents[name] for name in graphs}
    weights = {name: tensor.contiguous().clone() for name, tensor in frozen.state_dict().items()}
    # JSON is YAML too, and hydra reads it as such; so no YAML writer is needed here.
    files |= {"weights.safetensors": save(weights), "config.yaml": json.dumps(config, indent=2).encode()}
    return PolicyBundle.publish(path, manifest, files)


def _check_parity(measured: Mapping[str, float], tolerance: float) -> None:
    """Raise if a graph differs from torch by more than is allowed."""
    for name, worst in measured.items():
        if not worst <= tolerance:  # a NaN difference fails too
            raise BundleError(
                f"graph `{name}` differs from torch by {worst:.3g} in normalised units, expected at most "
                f"{tolerance:.3g}; nothing was published"
            )


def _solver_of(model: ChunkNetwork) -> SolverInfo | None:
    """Return how to step a model's denoiser; nothing where that is not how it samples."""
    if isinstance(model, SuperposedModel) or not isinstance(model, DenoisingModel):
        return None
    return solver_info(model)


def solver_info(model: DenoisingModel) -> SolverInfo:
    """Return how to step a model's denoiser, as a bundle tells it to the robot."""
    path, normalizer = model.path, model.normalizer
    return SolverInfo.from_dict(
        {
            "kind": path.kind,
            "prediction": path.prediction,
            "alpha_bar": [] if path.alpha_bar is None else np.asarray(path.alpha_bar).tolist(),
            "times": list(map(float, model.times)),
            "sampler": model.sampler,
            "clip": model.clip,
            "noise_scale": float(model.noise_scale),
            "step_noise_scale": float(model.step_noise_scale),
            "relative_to": list(model.relative_to),
            "scale": normalizer.scale.double().tolist(),
            "offset": normalizer.offset.double().tolist(),
        }
    )


def _current_commit() -> str:
    """Return the commit of the checkout this file lies in, or nothing outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # no git on this machine
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
