"""`robot-rl package`: a trained policy, ours or LeRobot's, becomes a bundle that a robot can run without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from robot_rl.bundle import PolicyBundle
from robot_rl.bundle.directory import CONFIG
from robot_rl.cli.config import plain
from robot_rl.cli.distill_certificate import package_head, teacher_of_head
from robot_rl.cli.distill_teacher import is_head
from robot_rl.cli.lerobot_model import is_lerobot, lerobot_model
from robot_rl.cli.model_card import ModelCard, trained_model
from robot_rl.cli.residual_package import is_finetuned, package_finetuned
from robot_rl.errors import BundleError

if TYPE_CHECKING:
    from policies.chunk_network import ChunkNetwork


def run(config: DictConfig, console: Console) -> PolicyBundle:
    """Export the averaged weights of `run` to `bundle` and check their parity with torch.

    `run` is a training run's folder, a one-step head's, a fine-tuning run's, or a checkpoint folder of LeRobot. A head
    is measured beside its teacher first, and packaged only if it keeps `distill.limits`.
    """
    if is_head(config.run):
        teacher = teacher_of_head(config)
        bundle = package_head(config, console, teacher, partial(_export, config, parent=teacher.id))
    elif is_finetuned(config.run):
        return package_finetuned(config, console, partial(_export, config))
    else:
        bundle = _export(config, config.run, config.bundle)
    parity = bundle.manifest.parity
    console.print(
        f"bundle {bundle.id} in {config.bundle}; ONNX against torch: max |difference| "
        f"{parity.max_abs_normalised:.1e} in normalised actions"
    )
    return bundle


def _export(config: DictConfig, run: str, path: str, *, parent: str = "") -> PolicyBundle:
    """Return a run's model as a bundle at `path`."""
    from policies.export import export_bundle
    from policies.onnx_graphs import parts_of

    theirs = is_lerobot(run)
    card, model = lerobot_model(run, config.lerobot) if theirs else trained_model(run)
    graphs = plain(config.package.graphs) or parts_of(model)
    return _same_bundle(path, card, model, graphs) or export_bundle(
        model,
        path,
        spec=card.spec,
        stats=card.stats,
        n_execute=card.n_execute,
        config={"task": card.task, "policy": dict(card.policy), "train": {} if theirs else plain(config.train)},
        data_digest=card.data_digest,
        graphs=graphs,
        parent=parent,
    )


def _same_bundle(path: str, card: ModelCard, model: ChunkNetwork, graphs: Sequence[str]) -> PolicyBundle | None:
    """Return the bundle that is at `path` already if it holds this very policy; the command was run before.

    Weights alone do not tell: a gate that refused everything leaves those of the base, sampled otherwise.

    Raises:
        BundleError: It lacks a graph that is asked for.
    """
    if not Path(path).exists():
        return None
    bundle = PolicyBundle.open(path)
    weights, state = bundle.weights(), model.state_dict()
    recipe = json.loads(bundle.content(CONFIG))["policy"], bundle.manifest.n_execute, bundle.manifest.robot
    if recipe != (json.loads(json.dumps(dict(card.policy))), card.n_execute, card.spec):
        return None
    same = set(weights) == set(state) and all(np.array_equal(weights[name], state[name].numpy()) for name in state)
    if same and (missing := sorted(set(graphs) - set(bundle.manifest.graphs))):
        raise BundleError(
            f"{path} holds this policy without `package.graphs` {missing}; it has {sorted(bundle.manifest.graphs)}; "
            "choose another `bundle`"
        )
    return bundle if same else None
