"""`robot-rl finetune`: reinforcement learning on top of a policy, actor and learner joined by store and weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress, TaskID

from robot_rl.cli.config import at_least, plain
from robot_rl.cli.evaluate_command import environment
from robot_rl.cli.finetune_card import FILE, FinetuneCard, base_policy, finetuned_policy, make_card
from robot_rl.cli.finetune_judge import Subject, judge_all, write_outcome
from robot_rl.cli.finetune_ppo import is_ppo
from robot_rl.cli.finetune_ppo import run as run_ppo
from robot_rl.cli.finetune_report import sections
from robot_rl.cli.finetune_roles import (
    create_online_store,
    online_store,
    run_both,
    run_by_turns,
    run_role,
)  # fmt: skip
from robot_rl.cli.progress import bar
from robot_rl.errors import ConfigError
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.evaluation.summary import EvaluationSummary
from robot_rl.metrics import MetricWriter
from robot_rl.rl.actor import Actor, Played
from robot_rl.rl.learner import PUBLISHED, Learner
from robot_rl.rl.publication import newest

CURVE = "curve"


def prepare(config: DictConfig) -> FinetuneCard:
    """Make the run's folder: recipe and store, or check that the ones there are of this configuration.

    Raises:
        ConfigError: The folder holds another run.
    """
    out, card = Path(config.finetune.out), make_card(config)
    if (out / FILE).is_file():
        there = FinetuneCard.load(out)
        if there.id != card.id:
            raise ConfigError(
                f"{out} holds a run with another base, network, unit or demonstrations ({there.id}, now {card.id}); "
                "set them back, or give another finetune.out"
            )
    card.save(out)
    create_online_store(config, card)
    return card


class _Curve:
    """Advances the bar, and evaluates the deterministic policy every so many environment steps."""

    def __init__(self, config: DictConfig, card: FinetuneCard, progress: Progress, task: TaskID) -> None:
        self._config, self._card, self._progress, self._task = config, card, progress, task
        every = config.finetune.eval_every
        self._every: int | None = None if every is None else int(every)
        self._env: Any = None if every is None else environment(config, config.finetune.latency)[1]()
        folder = Path(config.finetune.out) / CURVE
        self._last, self._writer = (
            0,
            None if every is None else MetricWriter(folder, tensorboard=False, resume_step=10**9),
        )

    def __call__(self, played: Played, actor: Actor, learner: Learner) -> None:
        success = learner.feed.metrics()["online/success"]
        self._progress.update(
            self._task, completed=actor.steps, description=f"fine-tuning, last episodes {100 * success:.0f} %"
        )
        if self._every is not None and self._writer is not None and actor.steps // self._every > self._last:
            self._last = actor.steps // self._every
            self._writer.write(actor.steps, {"eval/success": self._success(learner), "eval/updates": learner.updates})

    def _success(self, learner: Learner) -> float:
        policy = self._card.build_policy(learner.algorithm)
        first, n = int(self._config.search.first_seed), int(self._config.finetune.eval_episodes)
        results = [run_episode(self._env, policy, seed, record=False)[1] for seed in range(first, first + n)]
        return sum(result.success for result in results) / n

    def close(self) -> None:
        if self._env is not None and self._writer is not None:
            self._env.close()
            self._writer.close()


def train(config: DictConfig, card: FinetuneCard, console: Console) -> None:
    """Play and learn to the end of the run, or one role of it."""
    f = config.finetune
    if f.role not in ("both", "actor", "learner"):
        raise ConfigError(f"`finetune.role` must be both, actor or learner, got {f.role!r}")
    if f.role != "both":
        run_role(config, f.role)
        return
    with bar(console) as progress:
        task = progress.add_task("fine-tuning", total=f.steps)
        if f.workers > 0:
            store = online_store(config)

            def look() -> None:
                progress.update(task, completed=min(f.steps, sum(entry.steps for entry in store.entries())))

            run_both(config, look)
            return
        curve = _Curve(config, card, progress, task)
        try:
            run_by_turns(config, curve)
        finally:
            curve.close()


def judge(config: DictConfig, card: FinetuneCard, console: Console) -> dict[str, EvaluationSummary]:
    """Evaluate the deterministic policy, and the base it stands on, on the same unseen seeds."""
    out = config.finetune.out
    found = newest(Path(out) / PUBLISHED, belongs_to=card.id)
    if found is None:
        raise ConfigError(f"{out} holds no published weights to evaluate")
    subjects = {
        "fine-tuned": Subject(f"{card.id}@{found.digest[:12]}", partial(finetuned_policy, str(out)), videos=True)
    }
    if card.base is not None:
        subjects["base"] = Subject(card.base_id, partial(base_policy, str(out)))
    return judge_all(config, subjects, Path(out), console)


def run(config: DictConfig, console: Console) -> dict[str, EvaluationSummary]:
    """Fine-tune, evaluate, and write summary.json and report.html; the same command continues a run.

    Raises:
        ConfigError: A setting that one of its stages cannot have; before the first one begins.
    """
    stage = plain(config.algo).get("stage")
    at_least(1 if stage is None else 0, {"evaluate.episodes": config.evaluate.episodes})
    if stage == "offline":
        from robot_rl.cli import finetune_offline

        return finetune_offline.run(config, console)
    if stage == "rounds":
        from robot_rl.cli import finetune_flywheel

        return finetune_flywheel.run(config, console)
    if is_ppo(config):
        return run_ppo(config, console)
    at_least(1, {"finetune.steps": config.finetune.steps})
    card = prepare(config)
    train(config, card, console)
    if config.finetune.role != "both":
        return {}
    summaries = judge(config, card, console)
    out = Path(config.finetune.out)
    write_outcome(
        out, summaries, console, facts={"card": card.id, "base": card.base_id, "finetune": plain(config.finetune)},
        title=f"Fine-tuning of {card.task} by {card.algo['name']}", subtitle=summaries["fine-tuned"].headline(),
        sections=sections(out, summaries, config),
    )  # fmt: skip
    return summaries
