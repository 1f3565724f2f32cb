"""The learner: updates at a bounded ratio to what the robot lived through, publishes weights, survives being killed.

A checkpoint holds agent, targets, optimisers, random states and counters. The replay is not in it: it is built again
from the store, so a learner that comes back owes the updates for all that is there and makes them.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.imitation.checkpoint import CheckpointFolder, CheckpointTensors, load_checkpoint
from robot_rl.metrics import MetricWriter
from robot_rl.rl.algorithm import Algorithm
from robot_rl.rl.feed import Batch, ReplayFeed
from robot_rl.rl.optimise import restore, saved
from robot_rl.rl.pace import Pace
from robot_rl.rl.publication import Publication, publish, retract

CHECKPOINTS, PUBLISHED = "checkpoints", "published"


@dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """When the learner speaks and saves, in updates.

    Args:
        log_every: A line of metrics.
        publish_every: Weights to the actors.
        checkpoint_every: A checkpoint.
        tensorboard: Write TensorBoard events too.
    """

    log_every: int = 200
    publish_every: int = 500
    checkpoint_every: int = 2000
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if min(self.log_every, self.publish_every, self.checkpoint_every) < 1:
            raise ConfigError(f"`log_every`, `publish_every` and `checkpoint_every` must be at least 1, got {self}")


class Learner:
    """One run's learner; continues from the last checkpoint in `run_dir`.

    Args:
        algorithm: What learns.
        feed: Where batches come from, and what there is to learn from.
        pace: How many updates.
        run_dir: Holds checkpoints, published weights and metrics.
        belongs_to: Name of what the weights fit (`robot_rl.rl.publication`).
        settings: When to speak and save.
        seed: Of the noise.

    Raises:
        CheckpointError: The checkpoint there is damaged or of another network.
        ConfigError: It was made with another pace or for something else.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        feed: ReplayFeed,
        pace: Pace,
        run_dir: str | Path,
        *,
        belongs_to: str,
        settings: LearnerSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.algorithm, self.feed, self.pace = algorithm, feed, pace
        self.dir, self.belongs_to = Path(run_dir), belongs_to
        self.settings = LearnerSettings() if settings is None else settings
        self.updates, self.seconds = 0, 0.0
        self._generator = torch.Generator().manual_seed(seed)
        self._values: dict[str, float] = {}
        self._rng_state: Mapping[str, Any] | None = None
        self._checkpoints = CheckpointFolder(self.dir / CHECKPOINTS)
        self._constants = {"belongs_to": belongs_to, "pace": asdict(pace), "gamma": feed.gamma}
        resumed = self._resume()
        retract(self.dir / PUBLISHED, after=self.updates if resumed else -1)
        self._metrics = MetricWriter(
            self.dir, tensorboard=self.settings.tensorboard, resume_step=self.updates if resumed else None
        )
        self.publish()

    @property
    def owed(self) -> int:
        """Updates that what is in the replay allows and that have not been made."""
        return max(0, self.pace.allowed(self.feed.counts.steps) - self.updates)

    @property
    def finished(self) -> bool:
        """Whether all steps of the run are in the replay and all their updates made."""
        return self.feed.counts.steps >= self.pace.total_steps and self.owed == 0

    def update(self, batch: Batch) -> None:
        """Make one update, and speak and save when it is time.

        Raises:
            TrainingError: The loss or a weight is not finite. Nothing was published; the last checkpoint stands.
        """
        began = time.monotonic()
        train_actor = self.pace.trains_actor(self.updates)
        if train_actor:
            self._anneal()
        self._values |= self.algorithm.update(batch, self._generator, actor=train_actor)
        self.updates += 1
        self._rng_state = batch.rng_state
        self.seconds += time.monotonic() - began
        if self.updates % self.settings.log_every == 0:
            self.log()
        if self.updates % self.settings.publish_every == 0:
            self.publish()
        if self.updates % self.settings.checkpoint_every == 0:
            self.checkpoint()

    def _anneal(self) -> None:
        actor = self.algorithm.optimisers().get("actor")
        if actor is not None and self.pace.actor_anneal != 1.0:
            for group in actor.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * self.pace.actor_rate(self.updates)

    def catch_up(self, next_batch: Callable[[], Batch], *, stop: Callable[[], bool] = lambda: False) -> int:
        """Make the updates that are owed and return how many were made.

        Raises:
            TrainingError: As of `update`.
        """
        before = self.updates
        while self.owed > 0 and not stop():
            self.update(next_batch())
        return self.updates - before

    def log(self, **more: float) -> None:
        """Write a line of metrics (docs/rl.md says what each is)."""
        self._metrics.write(self.updates, {**self.metrics(), **more})

    def metrics(self) -> dict[str, float]:
        """Return what there is to log."""
        counts, bounds = self.feed.counts, self.algorithm.bounds
        values = {**self._values, **self.feed.metrics()}
        values["learner/lag"] = float(self.updates - max(0, counts.newest_version))
        values["learner/utd"] = self.pace.effective_utd(self.updates, counts.steps)
        values["learner/updates_per_s"] = self.updates / self.seconds if self.seconds > 0 else float("nan")
        if bounds is not None and "critic/q_max" in values:
            values |= {"critic/bound": bounds[1], "critic/q_max_over_bound": values["critic/q_max"] - bounds[1]}
        return values

    def publish(self) -> None:
        """Give the actors the weights as they are.

        Raises:
            TrainingError: A weight is not finite.
        """
        tensors = self.algorithm.policy.state_dict()
        facts = {"updates": self.updates, "steps": self.feed.counts.steps}
        publish(self.dir / PUBLISHED, Publication(self.updates, tensors, facts), belongs_to=self.belongs_to)

    def checkpoint(self) -> Path:
        """Save all that the store does not hold."""
        rng = {"noise": _text(self._generator.get_state()), "torch": _text(torch.get_rng_state())}
        state = {
            "step": self.updates, "seconds": self.seconds, "rng": rng, "batches": self._rng_state,
            "values": {k: v for k, v in self._values.items() if v == v}, "config": self._constants,
        }  # fmt: skip
        tensors = CheckpointTensors(self.algorithm.agent, self.algorithm.policy, saved(self.algorithm.optimisers()))
        return self._checkpoints.save(tensors, state, best=False)

    def close(self) -> None:
        """Finish the metric files. Calling it twice is allowed."""
        self._metrics.close()

    def _resume(self) -> bool:
        path = self._checkpoints.find("last")
        if path is None:
            return False
        state, tensors = load_checkpoint(
            path, model=self.algorithm.agent, ema=self.algorithm.policy, expected_config=self._constants
        )
        restore(self.algorithm.optimisers(), tensors)
        self._generator.set_state(_tensor(state["rng"]["noise"]))
        torch.set_rng_state(_tensor(state["rng"]["torch"]))
        if state["batches"] is not None:
            self.feed.load_rng(state["batches"])
        self.updates, self.seconds, self._values = state["step"], state["seconds"], state["values"]
        self._rng_state = state["batches"]
        return True


def _text(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
