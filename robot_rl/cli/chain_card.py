"""A training run's policy as a denoising chain: its card, itself with weights, and with or without its noise.

What fine-tuning a policy itself needs of an imitation run, offline (`finetune_offline`) and online (`finetune_ppo`). A
run whose policy is a chain already, of which all steps were tuned, is a base like any other: so stages follow stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from robot_rl.chain_step import ChainNoise
from robot_rl.cli.config import build
from robot_rl.cli.model_card import FILE, ModelCard
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from policies.chain import DenoisingChain
    from policies.torch_policy import TorchPolicy

CHAIN = "policies.chain.DenoisingChain"
_STILL = {"_target_": "robot_rl.chain_step.ChainNoise", "eta": 0.0, "std_min": 0.0, "std_max": 0.0}


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
        ConfigError: It is not the folder of a training run, which alone can be trained on, or a chain of which some
            steps are frozen.
    """
    if not (Path(base) / FILE).is_file():
        raise ConfigError(
            f"fine-tuning a policy itself needs the training run with its weights, and {base} has no {FILE}; give "
            "base=<folder of `robot-rl train`>"
        )
    card = ModelCard.load(base)
    if card.policy["_target_"] == CHAIN and card.policy.get("n_tuned") is not None:
        raise ConfigError(
            f"{base} is a chain of which only the last {card.policy['n_tuned']} steps were tuned already; tune a run "
            "whose steps are all alike: that of the imitation, or one made with n_tuned=null"
        )
    return replace(card, policy=_node(card, {"noise": dict(noise), "n_tuned": n_tuned}, model))


def tuned_chain(base: str | Path, how: Mapping[str, Any]) -> DenoisingChain:
    """Return the chain of a training run, with its averaged weights.

    Args:
        base: The run's folder.
        how: `n_tuned` and the node of `noise`, plain values.

    Raises:
        ConfigError: As of `chain_card`, or its model is none that denoises.
    """
    from robot_rl.imitation.checkpoint import load_model_weights

    chain = cast("DenoisingChain", chain_card(base, noise=how["noise"], n_tuned=how["n_tuned"]).build_model())
    load_model_weights(chain.model, Path(base) / "checkpoints" / "last", ema=True)
    chain.refreeze()
    return chain.eval()


def run_card(base: ModelCard, how: Mapping[str, Any], chain: DenoisingChain) -> ModelCard:
    """Return the card of the run that results: the base's own where all steps were tuned, else the chain, still."""
    if chain.n_tuned == chain.n_steps:
        return base
    return replace(base, policy=_node(base, {**how, "noise": _STILL}))


def exploring_policy(run: str, how: Mapping[str, Any]) -> TorchPolicy:
    """Return the policy of a fine-tuning run with the noise it explored with (picklable with `functools.partial`)."""
    from policies.torch_policy import TorchPolicy
    from robot_rl.imitation.checkpoint import load_model_weights

    card = ModelCard.load(run)
    chain: DenoisingChain = build(_node(card, how), card.spec, card.stats)
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


def _node(card: ModelCard, how: Mapping[str, Any], model: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the config node of the chain of a card's model, some settings of the model replaced."""
    inner = card.policy["model"] if card.policy["_target_"] == CHAIN else card.policy
    changed = {**inner, **({} if model is None else model), "_partial_": True}
    return {"_target_": CHAIN, "model": changed, "noise": how["noise"], "n_tuned": how["n_tuned"]}
