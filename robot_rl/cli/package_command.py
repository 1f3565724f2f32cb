"""`robot-rl package`: a trained policy, ours or LeRobot's, becomes a bundle that a robot can run without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.config import plain
from robot_rl.cli.lerobot_model import is_lerobot, lerobot_model
from robot_rl.cli.model_card import trained_model

if TYPE_CHECKING:
    from policies.chunk_network import ChunkNetwork


def run(config: DictConfig, console: Console) -> PolicyBundle:
    """Export the averaged weights of `run` to `bundle` and check their parity with torch.

    `run` is a training run's folder, or a checkpoint folder of LeRobot.
    """
    from policies.export import export_bundle
    from policies.onnx_graphs import parts_of

    theirs = is_lerobot(config.run)
    card, model = lerobot_model(config.run, config.lerobot) if theirs else trained_model(config.run)
    bundle = _same_bundle(config.bundle, model) or export_bundle(
        model,
        config.bundle,
        spec=card.spec,
        stats=card.stats,
        n_execute=card.n_execute,
        config={"task": card.task, "policy": dict(card.policy), "train": {} if theirs else plain(config.train)},
        data_digest=card.data_digest,
        graphs=plain(config.package.graphs) or parts_of(model),
    )
    parity = bundle.manifest.parity
    console.print(
        f"bundle {bundle.id} in {config.bundle}; ONNX against torch: max |difference| "
        f"{parity.max_abs_normalised:.1e} in normalised actions"
    )
    return bundle


def _same_bundle(path: str, model: ChunkNetwork) -> PolicyBundle | None:
    """Return the bundle that is at `path` already if it holds these very weights; the command was run before."""
    if not Path(path).exists():
        return None
    bundle = PolicyBundle.open(path)
    weights, state = bundle.weights(), model.state_dict()
    same = set(weights) == set(state) and all(np.array_equal(weights[name], state[name].numpy()) for name in state)
    return bundle if same else None
