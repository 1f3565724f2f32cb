"""What `robot-rl finetune` refuses before anything long begins: settings of every stage that the algorithm has.

A wrong number of the last of several stages would otherwise be found after hours, when the settings of the begun run
are fixed already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robot_rl.cli.chain_card import tuned_chain
from robot_rl.cli.config import at_least, build, plain
from robot_rl.cli.distill_command import head_card, new_head
from robot_rl.cli.distill_teacher import open_teacher
from robot_rl.cli.finetune_base import identify
from robot_rl.cli.finetune_head import make_companion
from robot_rl.cli.model_card import ModelCard
from robot_rl.rl.rounds.collection import round_seeds

OFFLINE_PARTS = ("critic", "dynamics", "gate", "improve", "clip", "behaviour", "noise")


def check_base(config: DictConfig) -> None:
    """Raise where no base is named.

    Raises:
        ConfigError: `base` is null.
    """
    if config.base is None:
        identify(None)


def check_offline(config: DictConfig, where: str = "algo") -> None:
    """Raise on settings that the offline stage cannot have.

    Raises:
        ConfigError: Names the setting, or what could not be made of a node below `where`.
    """
    check_base(config)
    algo = plain(config.algo)
    counts = {f"{where}.evaluation.{key}": algo["evaluation"][key] for key in ("n_starts", "horizon")}
    at_least(1, counts if algo["stride"] is None else {**counts, f"{where}.stride": algo["stride"]})
    for name in OFFLINE_PARTS:
        if algo[name] is not None:
            build(algo[name])


def check_online(config: DictConfig, where: str = "algo") -> None:
    """Raise on settings that an online stage over the chain cannot have.

    Raises:
        ConfigError: Names the setting, or what could not be made of a node below `where`.
    """
    check_base(config)
    algo, f = plain(config.algo), config.finetune
    counts = {f"{where}.{key}": algo[key] for key in ("lanes", "episodes")} | {"finetune.steps": f.steps}
    if f.eval_every is not None:
        counts |= {"finetune.eval_every": f.eval_every, "finetune.eval_episodes": f.eval_episodes}
    at_least(1, counts)
    chain = tuned_chain(config.base, algo["chain"])
    build(algo["critic"], chain.encoder)
    build(algo["ppo"], n_execute=ModelCard.load(config.base).n_execute)
    make_companion(config, chain)


def check_rounds(config: DictConfig) -> None:
    """Raise on settings that one of the stages of `algo=rl100` cannot have.

    Raises:
        ConfigError: Names the setting, or what could not be made of a node.
    """
    algo, f = plain(config.algo), config.finetune
    counts = ("rounds.n", "rounds.lanes", "rounds.imitation.steps", "judge.block", "judge.lanes")
    at_least(1, {f"algo.{key}": OmegaConf.select(config.algo, key) for key in counts})
    at_least(0, {"algo.rounds.again": algo["rounds"]["again"], "evaluate.episodes": config.evaluate.episodes})
    round_seeds(int(f.first_seed), 0, int(algo["rounds"]["episodes"]))
    build(algo["judge"]["test"])
    check_offline(_with(config, algo["offline"]), "algo.offline")
    if algo["online"] is not None:
        check_online(_with(config, algo["online"]), "algo.online")
    if algo["head"]:
        teacher = open_teacher(config.base)
        new_head(config, teacher, head_card(config, teacher, ""))


def _with(config: DictConfig, algo: Mapping[str, Any]) -> DictConfig:
    return OmegaConf.create({**plain(config), "algo": dict(algo)})
