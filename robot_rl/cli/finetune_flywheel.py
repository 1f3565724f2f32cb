"""`robot-rl finetune algo=rl100`: rounds of offline improvement, playing and imitation; online; a one-step head.

RL-100 (Lei et al. 2025, arXiv 2510.14830, algorithm 1). The run's folder is that of a training run, which always holds
the last policy that a gate or a paired evaluation accepted. The same command goes on at the stage, and within it at the
step, where it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.cli import finetune_flywheel_stages as stages
from robot_rl.cli.config import plain, simulation
from robot_rl.cli.evaluate_command import environment
from robot_rl.cli.finetune_base import identify
from robot_rl.cli.finetune_checks import check_rounds
from robot_rl.cli.finetune_flywheel_judge import policy_id
from robot_rl.cli.finetune_flywheel_report import evaluate, published_from, write
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
    check_rounds(config)
    check_scenes(config)


def check_scenes(config: DictConfig) -> None:
    """Raise unless the scenes that judge, that evaluate and that are played are different ones.

    Raises:
        ConfigError: Names the settings.
    """
    f, decide = config.finetune, scenes(config)
    judging, final = decide.values()
    if overlap := sorted(set(judging) & set(final)):
        raise ConfigError(
            f"the scenes of `evaluate` must decide nothing before: seed {overlap[0]} is also one that algo.judge "
            f"decides by ({_told(judging)}); give evaluate.first_seed or algo.judge.first_seed others"
        )
    for key, seeds in decide.items():
        if seeds and seeds[-1] >= int(f.first_seed):
            raise ConfigError(
                f"the scenes of `{key}`, {_told(seeds)}, must not be played to learn from: playing takes all seeds "
                f"from finetune.first_seed={f.first_seed} on; lower {key}.first_seed"
            )


def scenes(config: DictConfig) -> dict[str, range]:
    """Return the seeds that judge and that evaluate, by the node that names them."""
    judge, final = config.algo.judge, config.evaluate
    first, last = int(judge.first_seed), int(final.first_seed)
    return {
        "algo.judge": range(first, first + int(judge.test.max_pairs)),
        "evaluate": range(last, last + int(final.episodes)),
    }


def _told(seeds: range) -> str:
    return f"{seeds[0]} ... {seeds[-1]}"


def check_data(config: DictConfig, store: EpisodeStore) -> None:
    """Raise if a scene that judges or evaluates is among those that the data were recorded in.

    Raises:
        ConfigError: Names the node and a seed.
    """
    recorded = {entry.seed for entry in store.entries()}
    for key, seeds in scenes(config).items():
        if overlap := sorted(set(seeds) & recorded):
            raise ConfigError(
                f"the scenes of `{key}`, {_told(seeds)}, must not be in the data: {store.url} was recorded in "
                f"{len(overlap)} of them, the first of seed {overlap[0]}; give {key}.first_seed other seeds"
            )


def begin(config: DictConfig, console: Console) -> Work:
    """Return the run as it stands, with its own copy of the store.

    Raises:
        ConfigError: The folder holds a run with another base, seed, store or other settings.
        StoreError: The store is empty, or is not there.
    """
    algo, out = plain(config.algo), Path(config.finetune.out)
    free = {**algo, "rounds": {k: v for k, v in algo["rounds"].items() if k not in ("episodes", "lanes")}}
    f, simulated = config.finetune, config.task.env is not None
    constants = {
        "algo": free, "base": identify(config.base), "seed": int(config.seed), "store": str(config.store),
        "task": config.task.name, "env": environment(config, f.latency)[0] if simulated else None,
        "max_steps": f.max_steps, "first_seed": int(f.first_seed), "demonstrations": f.demonstrations,
    }  # fmt: skip
    there = EpisodeStore.exists(out / STORE)
    if not there:
        check_data(config, EpisodeStore.open(config.store))
    state = RunState(out, constants)
    store = (
        EpisodeStore.open(out / STORE) if there
        else begin_store(EpisodeStore.open(config.store), out / STORE, f.demonstrations)
    )  # fmt: skip
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
    state = {"step": len(work.state.done), "config": {"from": published_from(work)}}
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
        work.console.print(f"{name}: {done.why}; {published_from(work)} stands")
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
