"""Plays training runs on given seeds, each episode once, and judges a candidate against the policy that stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.cli.evaluate_command import environment
from robot_rl.cli.finetune_base import identify
from robot_rl.cli.model_card import ModelCard, trained_model
from robot_rl.cli.progress import bar
from robot_rl.cli.threads import numeric_threads
from robot_rl.evaluation.ledger import Ledger
from robot_rl.evaluation.lockstep import run_lockstep
from robot_rl.evaluation.paired import PairedProgress, PairedTest
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.summary import EvaluationMeta
from robot_rl.interfaces import Env


def policy_id(run: str | Path) -> str:
    """Return what tells a run's policy from others: its weights, how it samples, and how much it executes."""
    card = ModelCard.load(run)
    parts = json.dumps([identify(run), card.policy, card.n_execute], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


class Ring:
    """Episodes of training runs side by side; every one is kept on disk and none is played twice.

    Args:
        config: The command's configuration; says the environment and its latency.
        folder: Where results are kept, one file a policy.
        lanes: Environments at most.
        console: Where to show progress.

    Raises:
        ConfigError: The task has no simulation.
    """

    def __init__(self, config: DictConfig, folder: Path, lanes: int, console: Console) -> None:
        self._config, self._folder, self._lanes, self._console = config, folder, lanes, console
        self._env, self._make_env = environment(config, config.finetune.latency)
        self._envs: list[Env] = []

    def meta(self, run: str | Path) -> EvaluationMeta:
        """Return what is evaluated when a run plays."""
        limit = self._config.finetune.max_steps
        env = self._env if limit is None else {**self._env, "max_steps_played": int(limit)}
        return EvaluationMeta(task=self._config.task.name, policy_id=policy_id(run), env=env)

    def play(self, name: str, run: str | Path, seeds: Sequence[int]) -> list[EpisodeResult]:
        """Return one result a seed.

        Args:
            name: What to call the policy.
            run: Folder of its training run.
            seeds: Of the episodes.
        """
        from policies.torch_policy import TorchBatchPolicy

        meta = self.meta(run)
        ledger = Ledger(self._folder / f"{meta.policy_id}.jsonl", meta)
        waiting = [seed for seed in seeds if seed not in ledger.results]
        if waiting:
            card, model = trained_model(run)
            policy = TorchBatchPolicy(model, card.spec, n_execute=card.n_execute)
            for _ in range(len(self._envs), min(self._lanes, len(waiting))):
                self._envs.append(self._make_env())
            with bar(self._console) as progress, numeric_threads(int(self._config.finetune.threads)):
                task = progress.add_task(f"playing {name}", total=len(waiting))

                def keep(result: EpisodeResult) -> None:
                    ledger.add(result)
                    progress.advance(task)

                run_lockstep(
                    self._envs[: len(waiting)], policy, waiting, max_steps=self._config.finetune.max_steps, on_done=keep
                )
        return [ledger.results[seed] for seed in seeds]

    def duel(self, candidate: Path, standing: Path, test: PairedTest, *, first_seed: int, block: int) -> PairedProgress:
        """Play both on the same seeds, block by block, until the test has decided."""
        n = 0
        while True:
            n = min(n + block, test.max_pairs)
            seeds = range(first_seed, first_seed + n)
            won = [[r.success for r in self.play(what, run, seeds)]
                   for what, run in (("the candidate", candidate), ("the policy that stands", standing))]  # fmt: skip
            found = test.judge(won[0], won[1])
            if found.verdict != "continue":
                return found

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()


def told(found: PairedProgress) -> str:
    """Return a verdict in one sentence."""
    d, words = found.difference, {"accept": "not worse", "reject": "worse"}
    return (
        f"{words.get(found.verdict, 'undecided')} after {found.counts.n} pairs: success {d.value:+.3f} "
        f"[{d.low:+.3f}, {d.high:+.3f}]"
    )
