"""A training run's model as a denoising chain: to be tuned, to explore with, and as the run that results holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_rl.chain_step import ChainNoise
from robot_rl.cli.config import build
from robot_rl.cli.model_card import ModelCard
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from policies.chain import DenoisingChain
    from policies.torch_policy import TorchPolicy

CHAIN = "policies.chain.DenoisingChain"
_STILL = {"_target_": "robot_rl.chain_step.ChainNoise", "eta": 0.0, "std_min": 0.0, "std_max": 0.0}


def tuned_chain(base: str | Path, how: Mapping[str, Any]) -> DenoisingChain:
    """Return the chain of a training run, with its averaged weights.

    Args:
        base: The run's folder.
        how: `n_tuned` and the node of `noise`, plain values.

    Raises:
        ConfigError: No training run there, or its model is none that denoises.
    """
    from robot_rl.imitation.checkpoint import load_model_weights

    card = ModelCard.load(base)
    if card.policy["_target_"] == CHAIN:
        raise ConfigError(
            f"{base} is a chain of which only the last {card.policy['n_tuned']} steps were tuned already; tune a run "
            "whose steps are all alike: that of the imitation, or one made with algo.chain.n_tuned=null"
        )
    chain: DenoisingChain = build(_node(card.policy, how), card.spec, card.stats)
    load_model_weights(chain.model, Path(base) / "checkpoints" / "last", ema=True)
    chain.refreeze()
    return chain.eval()


def run_card(base: ModelCard, how: Mapping[str, Any], chain: DenoisingChain) -> ModelCard:
    """Return the card of the run that results: the base's model where all steps were tuned, else the chain, still."""
    if chain.n_tuned == chain.n_steps:
        return base
    return replace(base, policy=_node(base.policy, {**how, "noise": _STILL}))


def exploring_policy(run: str, how: Mapping[str, Any]) -> TorchPolicy:
    """Return the policy of a fine-tuning run with the noise it explored with (picklable with `functools.partial`)."""
    from policies.torch_policy import TorchPolicy
    from robot_rl.imitation.checkpoint import load_model_weights

    card = ModelCard.load(run)
    inner = card.policy["model"] if card.policy["_target_"] == CHAIN else card.policy
    chain: DenoisingChain = build(_node(inner, how), card.spec, card.stats)
    load_model_weights(chain, Path(run) / "checkpoints" / "last", ema=True)
    return TorchPolicy(chain, card.spec, n_execute=card.n_execute)


@contextmanager
def still(chain: DenoisingChain) -> Iterator[None]:
    """Take a chain's noise away inside the block: it is then its model's deterministic sampler."""
    noise = chain.noise
    chain.use_noise(ChainNoise(eta=0.0, std_min=0.0, std_max=0.0))
    try:
        yield
    finally:
        chain.use_noise(noise)


@contextmanager
def explore(chain: DenoisingChain) -> Iterator[None]:
    """Leave a chain's noise as it is inside the block; the counterpart of `still`."""
    yield


def _node(policy: Mapping[str, Any], how: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config node of the chain of a model's node."""
    return {"_target_": CHAIN, "model": {**policy, "_partial_": True}, "noise": how["noise"], "n_tuned": how["n_tuned"]}
