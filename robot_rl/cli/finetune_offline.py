"""`robot-rl finetune` with an offline stage (`algo=rl100_offline`, `algo=uni_o4`): from a store, without playing.

What it leaves is the folder of a training run, which `evaluate` and `package` take as they take any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.cli.chain_card import chain_card
from robot_rl.cli.config import build, plain
from robot_rl.cli.finetune_base import identify
from robot_rl.cli.finetune_card import demonstrations
from robot_rl.cli.finetune_checks import check_offline
from robot_rl.cli.finetune_offline_policies import deliver, members_of, started_from
from robot_rl.cli.finetune_offline_report import judge, write_summary
from robot_rl.cli.model_card import FILE as CARD
from robot_rl.cli.model_card import ModelCard
from robot_rl.cli.progress import bar
from robot_rl.cli.threads import numeric_threads
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.evaluation.summary import EvaluationSummary
from robot_rl.metrics import MetricWriter
from robot_rl.rl.offline.behaviour import BehaviourSettings, fit_behaviour
from robot_rl.rl.offline.data import OfflineData, halves, load
from robot_rl.rl.offline.dynamics import EnsembleDynamics
from robot_rl.rl.offline.dynamics_fit import DynamicsSettings, fit_dynamics
from robot_rl.rl.offline.gate import LOG, Gate, GateDecision
from robot_rl.rl.offline.improve import Improver
from robot_rl.rl.offline.iql import IqlCritic, IqlSettings, fit_critic
from robot_rl.rl.offline.ope import Rollouts, choose_starts
from robot_rl.rl.offline.policy import OfflinePolicy
from robot_rl.rl.offline.support import Support
from robot_rl.rl.replay import REWARDS
from robot_rl.values import Episode

IMITATION, MEMBERS = "imitation", "members"
LOG_EVERY = 10


@dataclass(frozen=True)
class Learned:
    """What is fitted once and then judges or pulls every policy."""

    data: OfflineData
    actor_critic: IqlCritic
    gate_critic: IqlCritic
    dynamics: EnsembleDynamics


class OfflineStage:
    """One run of the stage; goes on where it stopped.

    Args:
        config: The command's configuration.
        console: Where to speak.

    Raises:
        ConfigError: No training run as base, one that does not denoise, or a folder that holds another run.
        StoreError: An empty store.
    """

    def __init__(self, config: DictConfig, console: Console) -> None:
        self.config, self.console = config, console
        self.algo, self.out, self.seed = plain(config.algo), Path(config.finetune.out), int(config.seed)
        self.base_id = identify(config.base)
        gaussian = self.algo["behaviour"] is not None
        card = chain_card(
            config.base, noise=self.algo["noise"], n_tuned=self.algo["n_tuned"],
            model={"n_steps": 1, "noise_scale": 0.0} if gaussian else None,
        )  # fmt: skip
        self.card: ModelCard = replace(card, data_digest=EpisodeStore.open(config.store).digest())
        self._check_folder()

    def _check_folder(self) -> None:
        """Raise if the folder holds another run."""
        if not (self.out / CARD).is_file():
            return
        there, mine = ModelCard.load(self.out), self.card
        if there.data_digest != mine.data_digest:
            raise ConfigError(f"{self.out} holds a run with other data; set store back, or give another finetune.out")
        if json.dumps(there.policy, sort_keys=True) != json.dumps(mine.policy, sort_keys=True):
            raise ConfigError(
                f"{self.out} holds a run with other base, network or noise; set them back, or give another finetune.out"
            )

    @property
    def constants(self) -> dict[str, Any]:
        """What a run that goes on must have been begun with."""
        return {**self.fitted_on, "evaluation": self.algo["evaluation"]}

    @property
    def fitted_on(self) -> dict[str, Any]:
        """What critics, dynamics and imitators belong to: features of a base, and rewards of a store."""
        return {
            "base": self.base_id, "data": self.card.data_digest, "reward": self.algo["reward"],
            "gamma": float(self.algo["gamma"]), "demonstrations": self.config.finetune.demonstrations,
        }  # fmt: skip

    def run(self) -> list[GateDecision]:
        """Fit, improve and deliver; return the decisions of the policy that was delivered."""
        members = members_of(self.card, self.config.base, self.algo["behaviour"], seed=self.seed)
        learned = self.learn(members[0])
        if self.algo["behaviour"] is not None:
            with self._progress("imitating", int(self.algo["behaviour"]["steps"])) as show:
                settings: BehaviourSettings = build(self.algo["behaviour"])
                fit_behaviour(
                    members, learned.data, settings, seed=self.seed, folder=self.out / "behaviour",
                    belongs_to=self.fitted_on,
                    on_step=lambda n, values: show(n, f"imitating, loss {values['behaviour/loss']:.2f}"),
                )  # fmt: skip
        self.card.save(self.out)
        started_from(self.out / IMITATION, self.card, members[0])
        if len(members) == 1:
            return self._improve(members[0], learned, self.out)
        folders = [self.out / MEMBERS / str(i) for i in range(len(members))]
        decisions = [self._improve(m, learned, folder) for m, folder in zip(members, folders, strict=True)]
        rollouts = self.rollouts(learned)
        score = Gate(rollouts, None, replace(build(self.algo["gate"]), rule="off")).score
        values = [float(rollouts.score(member).of(score).mean()) for member in members]
        best = max(range(len(values)), key=values.__getitem__)
        self.console.print(f"member {best} is delivered: {score} {', '.join(f'{v:.4g}' for v in values)}")
        deliver(self.out, members[best], constants={**self.constants, "member": best, score: values})
        (self.out / LOG).write_bytes((folders[best] / LOG).read_bytes())
        return decisions[best]

    def learn(self, policy: OfflinePolicy) -> Learned:
        """Read the store and fit both critics and the dynamics."""
        spec = EpisodeStore.open(self.config.store).spec.select(list(self.card.spec.obs))
        data = load(
            _ended(demonstrations(self.config), self.algo["reward"]), spec, policy.chain,
            n_execute=policy.n_execute, gamma=float(self.algo["gamma"]), reward=REWARDS[self.algo["reward"]],
            stride=self.algo["stride"],
        )  # fmt: skip
        settings: IqlSettings = build(self.algo["critic"])
        check_bounds(data, settings.bounds)
        critics = []
        for number, (name, side) in enumerate(zip(("actor", "gate"), halves(data, self.seed), strict=True)):
            with self._progress(f"critic of the {name}", settings.steps) as show:
                critics.append(
                    fit_critic(
                        data.of_episodes(side), settings, seed=self.seed + 1 + number,
                        folder=self.out / f"critic_{name}", belongs_to=self.fitted_on,
                        on_step=lambda n, _, show=show: show(n, None),
                    )
                )  # fmt: skip
        model: DynamicsSettings = build(self.algo["dynamics"])
        with self._progress("dynamics", model.epochs) as show:
            dynamics = fit_dynamics(
                data, model, seed=self.seed, folder=self.out / "dynamics", belongs_to=self.fitted_on,
                on_epoch=lambda n, error: show(n, f"dynamics, held-out error {error:.3f}"),
            )  # fmt: skip
        return Learned(data, critics[0], critics[1], dynamics)

    def rollouts(self, learned: Learned) -> Rollouts:
        """Return what policies of this run are scored by."""
        evaluation = self.algo["evaluation"]
        return Rollouts(
            choose_starts(learned.data, int(evaluation["n_starts"]), seed=self.seed), learned.dynamics,
            learned.gate_critic, horizon=int(evaluation["horizon"]), gamma=float(self.algo["gamma"]), seed=self.seed,
        )  # fmt: skip

    def _improve(self, policy: OfflinePolicy, learned: Learned, folder: Path) -> list[GateDecision]:
        """Run the loop on one policy and return its decisions."""
        rollouts = self.rollouts(learned)
        support = Support(
            learned.data, rollouts.starts, learned.dynamics, learned.gate_critic, policy,
            kl=float(self.algo["evaluation"]["kl"]), seed=self.seed,
        )  # fmt: skip
        gate = Gate(rollouts, support, build(self.algo["gate"]), log=folder / LOG)
        improver = Improver(
            policy, learned.data, learned.actor_critic, gate, settings=build(self.algo["improve"]),
            clip=build(self.algo["clip"]), seed=self.seed, folder=folder / "checkpoints", constants=self.constants,
        )  # fmt: skip
        accepted = {"n": 0, "of": 0}
        resume = improver.updates if improver.updates > 0 else None
        metrics = MetricWriter(folder, tensorboard=False, resume_step=resume)
        total = improver.settings.updates
        with metrics, self._progress("improving", total, improver.updates) as show:

            def on_update(n: int, values: Mapping[str, float]) -> None:
                show(n, f"improving, {accepted['n']} of {accepted['of']} accepted")
                if n % LOG_EVERY == 0:
                    metrics.write(n, dict(values))

            def on_gate(decision: GateDecision) -> None:
                accepted["n"] += decision.accepted
                accepted["of"] += 1

            status = improver.run(on_update, on_gate)
        self.console.print(f"{status} after {improver.updates} updates: {gate.score} decided, {_tell(gate)}")
        return gate.decisions

    @contextmanager
    def _progress(self, what: str, total: int, done: int = 0) -> Iterator[Any]:
        with bar(self.console) as progress:
            task = progress.add_task(what, total=total, completed=done)

            def show(n: int, text: str | None) -> None:
                progress.update(task, completed=n, description=text)

            yield show


def check_bounds(data: OfflineData, bounds: tuple[float, float] | None) -> None:
    """Raise where a stored reward lies beyond what the critic's targets are clipped to: it would learn nothing of it.

    Raises:
        ConfigError: Names the bounds and what came.
    """
    if bounds is None:
        return
    low, high = float(data.reward.min()), float(data.reward.max())
    if low < bounds[0] or high > bounds[1]:
        raise ConfigError(
            f"`algo.critic.bounds` must hold every value there can be, got {list(bounds)}, and chunks of the store "
            f"earn {low:g} to {high:g}; set them wider or null, or algo.reward=success"
        )


def _tell(gate: Gate) -> str:
    accepted = sum(d.accepted for d in gate.decisions)
    return f"{accepted} candidates accepted and {len(gate.decisions) - accepted} rejected in this call"


def _ended(episodes: Any, reward: str) -> Iterator[Episode]:
    """Yield the episodes; where success is the reward, one that succeeded ended there and has no value beyond it."""
    for episode in episodes:
        won = reward == "success" and episode.meta.outcome == "success"
        yield cast(Episode, replace(episode, terminated=True, truncated=False)) if won else episode


def run(config: DictConfig, console: Console) -> dict[str, EvaluationSummary]:
    """Improve, evaluate where the task has a simulation, and write summary.json and report.html."""
    check_offline(config)
    stage = OfflineStage(config, console)
    with numeric_threads(int(config.finetune.threads)):
        stage.run()
    summaries = judge(config, stage.base_id, stage.out, console)
    write_summary(config, stage.card, stage.base_id, stage.out, summaries, console)
    return summaries
