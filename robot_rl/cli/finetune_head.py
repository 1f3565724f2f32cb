"""The one-step head that `algo.head_lr` trains beside a policy that is fine-tuned online: built, and left as a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from omegaconf import DictConfig

from robot_rl.cli.distill_command import head_card, new_head
from robot_rl.cli.distill_teacher import is_head, open_teacher, origin, remember
from robot_rl.imitation.checkpoint import CheckpointFolder, CheckpointTensors
from robot_rl.rl.learner import CHECKPOINTS
from robot_rl.rl.ppo.companion import Companion

if TYPE_CHECKING:
    from torch import Tensor

    from policies.chain import DenoisingChain
    from policies.one_step import OneStepHead
    from robot_rl.rl.ppo.online import PpoOnline

HEAD = "head"


def make_companion(config: DictConfig, chain: DenoisingChain) -> Companion | None:
    """Return the head that `head=` names of a chain, from the base's weights where it can; `None` without `head_lr`.

    Raises:
        ConfigError: As of `new_head`.
    """
    from policies.one_step import distil_loss

    if config.algo.head_lr is None:
        return None
    teacher = open_teacher(config.base)
    head, _ = new_head(config, teacher, head_card(config, teacher, teacher.card.data_digest))
    head.train()
    moves = bool(config.algo.ppo.train_encoder)

    def error(obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        head.move_target()
        if moves:
            head.adopt(chain)
        return distil_loss(head, chain, obs, noise)

    return Companion(head, error, noise_shape=(chain.horizon, chain.action_dim), lr=float(config.algo.head_lr))


def leave_head(config: DictConfig, ppo: PpoOnline) -> Path | None:
    """Write the head of a run that ended into `<out>/head`, a training run beside its teacher's; `None` without one."""
    if ppo.companion is None:
        return None
    out, folder = Path(config.finetune.out), Path(config.finetune.out) / HEAD
    teacher, head = open_teacher(out), cast("OneStepHead", ppo.companion.head)
    if is_head(folder) and origin(folder)["id"] == teacher.id:
        return folder
    head.adopt(teacher.model)
    head_card(config, teacher, teacher.card.data_digest).save(folder)
    state = {"step": ppo.updates, "config": {"teacher": teacher.id}}
    CheckpointFolder(folder / CHECKPOINTS).save(CheckpointTensors(head, head, {}), state, best=True)
    remember(folder, teacher)
    return folder
