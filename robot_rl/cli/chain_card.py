"""The card of a run whose policy is a denoising chain: what fine-tuning makes of an imitation run's card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from robot_rl.cli.model_card import FILE, ModelCard
from robot_rl.errors import ConfigError

CHAIN = "policies.chain.DenoisingChain"


def chain_card(
    base: str | Path, *, noise: Mapping[str, Any], n_tuned: int | None = None, model: Mapping[str, Any] | None = None
) -> ModelCard:
    """Return the card of the chain that is made of a training run's policy.

    Args:
        base: Folder of the training run; one whose policy is a chain already keeps its model.
        noise: Node of `robot_rl.chain_step.ChainNoise`.
        n_tuned: Steps that are tuned, the last ones; `None` for all.
        model: Settings of the model to replace, such as {"n_steps": 1}.

    Raises:
        ConfigError: It is not the folder of a training run, which alone can be trained on.
    """
    if not (Path(base) / FILE).is_file():
        raise ConfigError(
            f"fine-tuning a policy itself needs the training run with its weights, and {base} has no {FILE}; give "
            "base=<folder of `robot-rl train`>"
        )
    card = ModelCard.load(base)
    inner = card.policy["model"] if card.policy["_target_"] == CHAIN else card.policy
    policy = {
        "_target_": CHAIN, "model": {**inner, **({} if model is None else model), "_partial_": True},
        "noise": dict(noise), "n_tuned": n_tuned,
    }  # fmt: skip
    return replace(card, policy=policy)
