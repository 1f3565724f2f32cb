"""The policies of an offline run: made of its base, and left as folders of training runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from robot_rl.cli.model_card import ModelCard, trained_model
from robot_rl.errors import ConfigError
from robot_rl.imitation.checkpoint import CheckpointFolder, CheckpointTensors
from robot_rl.rl.offline.policy import Chain, OfflinePolicy

if TYPE_CHECKING:
    from policies.chain import DenoisingChain

CHECKPOINTS = "checkpoints"


def members_of(card: ModelCard, base: str, behaviour: Mapping[str, Any] | None, *, seed: int) -> list[OfflinePolicy]:
    """Return the policies to improve: the base as a chain, or an ensemble with its encoder and weights of its own.

    Args:
        card: Of the chain.
        base: Folder of the training run.
        behaviour: The ensemble's settings; `None` for the base itself.
        seed: Of the ensemble's weights.

    Raises:
        ConfigError: The base's weights are not those of its card.
    """
    import torch

    _, model = trained_model(base)
    weights = model.state_dict()
    if behaviour is not None:
        weights = {name: value for name, value in weights.items() if not name.startswith("denoiser.")}
    found = []
    for number in range(1 if behaviour is None else int(behaviour["n_members"])):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + number)
            chain = cast("DenoisingChain", card.build_model())
        _take(chain, weights, fresh_denoiser=behaviour is not None)
        found.append(OfflinePolicy(cast(Chain, chain.eval()), card.n_execute))
    return found


def _take(chain: DenoisingChain, weights: Mapping[str, Any], *, fresh_denoiser: bool) -> None:
    found = chain.load_state_dict(weights, strict=False)
    ours = ("frozen.", "denoiser.") if fresh_denoiser else ("frozen.",)
    if found.unexpected_keys or any(not name.startswith(ours) for name in found.missing_keys):
        raise ConfigError(
            f"the base's weights do not fit its card: unexpected {found.unexpected_keys}, missing {found.missing_keys}"
        )
    chain.refreeze()


def deliver(folder: Path, policy: OfflinePolicy, *, constants: Mapping[str, Any]) -> None:
    """Save a policy's weights as the last checkpoint of a folder."""
    module = cast("DenoisingChain", policy.chain)
    state = {"step": 0, "config": dict(constants)}
    CheckpointFolder(folder / CHECKPOINTS).save(CheckpointTensors(module, module, {}), state, best=False)


def started_from(folder: Path, card: ModelCard, policy: OfflinePolicy) -> None:
    """Keep the policy that a run begins with, sampled as the improved one is, to compare with; once."""
    if CheckpointFolder(folder / CHECKPOINTS).find("last") is None:
        card.save(folder)
        deliver(folder, policy, constants={})
