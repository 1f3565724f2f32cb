"""`robot-rl package`: a trained policy becomes a bundle that a robot can run without torch."""

from __future__ import annotations

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.config import plain
from robot_rl.cli.model_card import trained_model


def run(config: DictConfig, console: Console) -> PolicyBundle:
    """Export the averaged weights of the training run `run` to `bundle` and check their parity with torch."""
    from policies.export import export_bundle

    card, model = trained_model(config.run)
    bundle = export_bundle(
        model,
        config.bundle,
        spec=card.spec,
        stats=card.stats,
        n_execute=card.n_execute,
        config={"task": card.task, "policy": dict(card.policy), "train": plain(config.train)},
        data_digest=card.data_digest,
    )
    parity = bundle.manifest.parity
    console.print(
        f"bundle {bundle.id} in {config.bundle}; ONNX against torch: max |difference| "
        f"{parity.max_abs_normalised:.1e} in normalised actions"
    )
    return bundle
