"""`robot-rl finetune algo=rl100`: rounds of offline improvement, playing and imitation; online; a one-step head.

RL-100 (Lei et al. 2025, arXiv 2510.14830, algorithm 1). The run's folder is that of a training run, which always holds
the last policy that a gate or a paired evaluation accepted. The same command goes on at the stage, and within it at the
step, where it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.cli import finetune_flywheel_stages as stages
from robot_rl.cli.config import plain, simulation
from robot_rl.cli.finetune_base import identify
from robot_rl.cli.finetune_flywheel_judge import policy_id
from robot_rl.cli.finetune_flywheel_report import evaluate, write
from robot_rl.cli.finetune_flywheel_stages import Work
from robot_rl.cli.finetune_offline import IMITATION
from robot_rl.cli.model_card import FILE as CARD
from robot_rl.cli.model_card import trained_model
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.evaluation.summary import EvaluationSummary
from robot_rl.imitation.checkpoint import CheckpointFolder, CheckpointTensors
from robot_rl.rl.rounds.collection import begin_store
from robot_rl.rl.rounds.state import RunState, StageDone

STORE, CHECKPOINTS = "store", "checkpoints"
Stage = Callable[[], StageDone | None]


def check(config: DictConfig) -> None:
    """Raise on settings that contradict each other.

    Raises:
        ConfigError: Names the setting.
    """
    algo, f = plain(config.algo), config.finetune
    rounds, judge = algo["rounds"], algo["judge"]
    if int(rounds["n"]) < 1:
        raise ConfigError(f"`algo.rounds.n` must be at least 1, got {rounds['n']}")
    if int(rounds["again"]) < 0:
        raise ConfigError(f"`algo.rounds.again` must be 0 or more, got {rounds['again']}")
    for key, value, choices in (
        ("rounds.imitate", rounds["imitate"], ("successes", "all", "none")),
        ("judge.without_simulation", judge["without_simulation"], ("keep", "take")),
        ("offline.behaviour", algo["offline"]["behaviour"], (None,)),
        ("offline.n_tuned", algo["offline"]["n_tuned"], (None,)),
    ):
        if value not in choices:
            raise ConfigError(f"`algo.{key}` must be one of {choices} in rounds, got {value!r}")
    if f.role != "both":
        raise ConfigError(f"algo={algo['name']} plays and learns by turns; leave finetune.role=both, got {f.role!r}")
    if f.hardware and (rounds["play"] or algo["online"] is not None):
        raise ConfigError(
            "with finetune.hardware=true nothing here moves the arm: set algo.rounds.play=false algo.online=null, and "
            "play each round's policy as a bundle, behind the loop's safety (docs/algorithms/rl100.md#rounds)"
        )
    if rounds["play"] or algo["online"] is not None:
        simulation(config)
    first, final = int(judge["first_seed"]), _seeds(config.evaluate)
    before = range(first, first + int(judge["test"]["max_pairs"]))
    if set(final) & set(before) or (final and final[-1] >= int(f.first_seed)):
        raise ConfigError(
            f"the seeds {final[0]} ... {final[-1]} of `evaluate` must decide and play nothing before: algo.judge has "
            f"{before[0]} ... {before[-1]}, playing those from finetune.first_seed={f.first_seed} on"
        )


def _seeds(node: Any) -> range:
    return range(int(node.first_seed), int(node.first_seed) + int(node.episodes))


def begin(config: DictConfig, console: Console) -> Work:
    """Return the run as it stands, with its own copy of the store.

    Raises:
        ConfigError: The folder holds a run with another base, seed, store or other settings.
        StoreError: The store is empty, or is not there.
    """
    algo, out = plain(config.algo), Path(config.finetune.out)
    free = {**algo, "rounds": {k: v for k, v in algo["rounds"].items() if k not in ("episodes", "lanes")}}
    constants = {"algo": free, "base": identify(config.base), "seed": int(config.seed), "store": str(config.store)}
    state = RunState(out, constants)
    if state.done:
        return Work(config, EpisodeStore.open(out / STORE), state, console)
    store = begin_store(EpisodeStore.open(config.store), out / STORE, config.finetune.demonstrations)
    return Work(config, store, state, console)


def plan(work: Work) -> Iterator[tuple[str, Stage]]:
    """Yield the stages in their order, by name."""
    play = stages.play if work.algo["rounds"]["play"] else stages.collected
    for number in range(int(work.algo["rounds"]["n"])):
        yield f"round_{number}/{stages.OFFLINE}", partial(stages.offline, work, number)
        yield f"round_{number}/play", partial(play, work, number)
        yield f"round_{number}/{IMITATION}", partial(stages.imitation, work, number)
    if work.algo["control"]:
        yield stages.CONTROL, partial(stages.control, work)
    if work.algo["online"] is not None:
        yield stages.ONLINE, partial(stages.online, work)
    if work.algo["head"]:
        yield stages.HEAD, partial(stages.head, work)


def publish(work: Work) -> None:
    """Make the run's folder a training run of the policy that stands, if it is not that already."""
    if not work.state.done or ((work.out / CARD).is_file() and policy_id(work.out) == policy_id(work.standing)):
        return
    card, model = trained_model(work.standing)
    state = {"step": len(work.state.done), "config": {"from": work.state.done[-1].policy}}
    CheckpointFolder(work.out / CHECKPOINTS).save(CheckpointTensors(model, model, {}), state, best=False)
    card.save(work.out)


def go_on(work: Work) -> bool:
    """Do the stages that are not done yet; return false if one waits for episodes."""
    publish(work)
    for name, stage in plan(work):
        if work.state.find(name) is not None:
            continue
        work.console.rule(name)
        done = stage()
        if done is None:
            return False
        work.state.record(done)
        work.console.print(f"{name}: {done.why}; {'accepted, ' if done.accepted else ''}{done.policy} stands")
        publish(work)
    return True


def run(config: DictConfig, console: Console) -> dict[str, EvaluationSummary]:
    """Do the stages, evaluate all policies at the end, and write summary.json and report.html."""
    check(config)
    work = begin(config, console)
    finished = go_on(work)
    summaries = evaluate(work) if finished else {}
    write(work, summaries, finished=finished)
    return summaries
