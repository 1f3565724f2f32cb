"""What the online stage of RL-100 is compared with: as many steps played, and the successes imitated (filtered BC).

The policy is the one that the online stage began with, and plays with the same noise; it is trained on all successes of
the run and its own, and nothing is judged. What it reaches owes nothing to reinforcement learning.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.progress import Progress

from robot_rl.cli.config import build, load_config
from robot_rl.cli.finetune_flywheel import begin
from robot_rl.cli.finetune_flywheel_judge import Ring
from robot_rl.cli.finetune_flywheel_report import outcome
from robot_rl.cli.finetune_flywheel_stages import ONLINE, Work, train
from robot_rl.cli.model_card import trained_model
from robot_rl.data.store import EpisodeStore
from robot_rl.evaluation.summary import summarise
from robot_rl.imitation.summary import write_json
from robot_rl.rl.ppo.rollouts import Player
from robot_rl.rl.ppo.tunable import TunableChain
from robot_rl.rl.rounds.collection import PlainSink, begin_store

NAME = "filtered BC, as many steps"
FOLDER, SUCCESS = "filtered_bc", "success.json"
UPDATES = 6000
FIRST_SEED = 5_000_000
_AT_ONCE = 100


def filtered_bc(overrides: Sequence[str], *, updates: int = UPDATES) -> None:
    """Play, imitate and evaluate beside a finished run, and leave the success in the form of its summary.

    Args:
        overrides: Of the run's `robot-rl finetune`.
        updates: Of imitation.
    """
    work = begin(load_config(list(overrides)), Console())
    folder = work.out / FOLDER
    if (folder / SUCCESS).is_file():
        return
    start = online_began_with(work)
    grown = replace(work, store=_played(work, folder / "store", start))
    train(grown, folder / "train", start, updates)
    write_json(folder / SUCCESS, evaluated(work, NAME, folder / "train"))


def online_began_with(work: Work) -> Path:
    """Return the training run that stood before the online stage of a finished run."""
    stages = [stage.name for stage in work.state.done]
    return work.out / work.state.done[stages.index(ONLINE) - 1].policy


def _played(work: Work, target: Path, start: Path) -> EpisodeStore:
    """Return the run's episodes and those of as many steps as the online stage plays, whole before it has its name."""
    if target.exists():
        return EpisodeStore.open(target)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    store, steps, played = begin_store(work.store, part, None), int(work.config.finetune.steps), 0
    card, model = trained_model(start)
    envs = [build(work.config.task.env) for _ in range(int(work.algo["online"]["lanes"]))]
    player = Player(
        envs, cast(TunableChain, model.eval()), card.spec, n_execute=card.n_execute, sink=PlainSink(store),
        seed=int(work.config.seed), task=work.config.task.description, max_steps=work.config.finetune.max_steps,
    )  # fmt: skip
    with Progress() as progress:
        task = progress.add_task("playing, to imitate the successes", total=steps)
        first = FIRST_SEED
        while played < steps:
            played += sum(p.steps for p in player.play(range(first, first + _AT_ONCE), FOLDER))
            progress.update(task, completed=played)
            first += _AT_ONCE
    for env in envs:
        env.close()
    part.rename(target)
    return EpisodeStore.open(target)


def evaluated(work: Work, name: str, run: Path) -> dict[str, Any]:
    """Return a policy's success on the seeds of `evaluate`, in the form of a run's summary; none is played twice."""
    first, count = int(work.config.evaluate.first_seed), int(work.config.evaluate.episodes)
    ring = Ring(work.config, work.out / "evaluate", int(work.algo["judge"]["lanes"]), work.console)
    try:
        results = ring.play(name, run, range(first, first + count))
    finally:
        ring.close()
    return outcome(summarise(results, ring.meta(run), wall_s=sum(r.seconds for r in results)))
