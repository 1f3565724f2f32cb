"""A run of online fine-tuning: play, learn, publish, save, and go on after being killed.

An iteration plays a fixed set of seeds with the same weights and learns from them with the arm stopped. A checkpoint
follows each update, so whatever the store holds beyond it was played by the weights of the checkpoint: a run that comes
back plays only the episodes that lack and makes the same update.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from robot_rl.data.loader import BatchLoader
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.imitation.checkpoint import CheckpointFolder, CheckpointTensors, load_checkpoint
from robot_rl.metrics import MetricWriter
from robot_rl.rl.actor import Played
from robot_rl.rl.learner import CHECKPOINTS, PUBLISHED
from robot_rl.rl.optimise import restore, saved
from robot_rl.rl.ppo.online import PpoOnline
from robot_rl.rl.ppo.rollouts import Player
from robot_rl.rl.publication import Publication, publish, retract


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How long a run goes on.

    Args:
        total_steps: Environment steps; the iteration that passes them is the last.
        episodes: Played in each iteration.
        first_seed: Of the episodes; iteration i plays first_seed + i * episodes and those after it.
        eval_every: Environment steps between evaluations; `None` for none.

    Raises:
        ConfigError: A count below 1.
    """

    total_steps: int
    episodes: int = 20
    first_seed: int = 1_000_000
    eval_every: int | None = None

    def __post_init__(self) -> None:
        if min(self.total_steps, self.episodes, 1 if self.eval_every is None else self.eval_every) < 1:
            raise ConfigError(f"`total_steps`, `episodes` and `eval_every` must be at least 1, got {self}")


class Watcher(Protocol):
    """Told of each episode and each iteration; for progress bars."""

    def __call__(self, run: OnlineRun, played: Played | None) -> None:
        """`played` is the episode that ended, or `None` after an update."""


class OnlineRun:
    """One run in one folder; continues from the last checkpoint there.

    The checkpoint's averaged weights (`ema`) are the tuned chain's own: nothing is averaged, what was trained is what
    is evaluated.

    Args:
        ppo: Learns.
        player: Plays with the same chain, into `store`.
        store: The run's episodes.
        run_dir: Holds checkpoints, published weights and metrics.
        settings: How long.
        belongs_to: Name of what the weights fit.
        constants: What must not change when the run is resumed, plain JSON.
        demonstrations: For the imitation term, if there is one.
        evaluate: Returns what an evaluation found, by name.

    Raises:
        CheckpointError: The checkpoint there is damaged or of another network.
        ConfigError: It was made with other constants.
    """

    def __init__(
        self,
        ppo: PpoOnline,
        player: Player,
        store: EpisodeStore,
        run_dir: str | Path,
        settings: RunSettings,
        *,
        belongs_to: str,
        constants: Mapping[str, Any],
        demonstrations: BatchLoader | None = None,
        evaluate: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        self.ppo, self.player, self.store, self.dir = ppo, player, store, Path(run_dir)
        self.settings, self.belongs_to, self.constants = settings, belongs_to, dict(constants)
        self._demonstrations, self._evaluate = demonstrations, evaluate
        self.steps, self.seconds, self.played = 0, 0.0, 0
        self._checkpoints = CheckpointFolder(self.dir / CHECKPOINTS)
        resumed = self._resume()
        retract(self.dir / PUBLISHED, after=ppo.updates if resumed else -1)
        self._metrics = MetricWriter(self.dir, tensorboard=False, resume_step=ppo.updates if resumed else None)
        if not resumed:
            self._leave()
        self.publish()

    @property
    def finished(self) -> bool:
        """Whether the run's steps are all played and learned from."""
        return self.steps >= self.settings.total_steps

    def run(self, *, stop: Callable[[], bool] = lambda: False, watch: Watcher | None = None) -> None:
        """Go on to the end of the run, or until `stop()` is true, asked before each episode.

        Raises:
            TrainingError: As of `PpoOnline.update`. Nothing was published; the last checkpoint stands.
            StoreError: An episode could not be saved.
        """
        if self._evaluate is not None and self.settings.eval_every is not None and self.steps == 0:
            self._metrics.write(self.ppo.updates, {"online/steps": 0.0, **self._evaluate()})
        while not self.finished and not stop():
            self.iterate(stop=stop, watch=watch)

    def iterate(self, *, stop: Callable[[], bool] = lambda: False, watch: Watcher | None = None) -> None:
        """Play an iteration's episodes and learn from them; if stopped before all are played, only play."""
        s, began = self.settings, time.monotonic()
        first = s.first_seed + self.ppo.updates * s.episodes
        seeds, version = list(range(first, first + s.episodes)), f"{self.belongs_to}@{self.ppo.updates}"
        there = {entry.seed: entry.id for entry in self.store.entries() if entry.policy_version == version}

        def on_done(played: Played) -> None:
            there[played.seed] = played.id
            self.played += played.steps
            if watch is not None:
                watch(self, played)

        lacking = [seed for seed in seeds if seed not in there]
        self.player.play(lacking, version, self.ppo.updates, stop=stop, on_done=on_done)
        if any(seed not in there for seed in seeds):
            return
        collected = time.monotonic()
        batch = self.ppo.decisions([self.store.episode(there[seed]) for seed in seeds], self.player)
        values = self.ppo.update(batch, share=min(1.0, self.steps / s.total_steps), demonstrations=self._demonstrations)
        before, self.steps = self.steps, self.steps + batch.steps
        learned = time.monotonic()
        self.seconds += learned - began
        values |= {
            "online/steps": float(self.steps), "online/episodes": float(self.ppo.updates * s.episodes),
            "online/success": batch.successes / batch.episodes, "online/episode_steps": batch.steps / batch.episodes,
            "collect/seconds": collected - began, "update/seconds": learned - collected,
        }  # fmt: skip
        if self._due(before) and self._evaluate is not None:
            values |= self._evaluate()
        self._metrics.write(self.ppo.updates, values)
        self._leave()
        self.publish()
        if watch is not None:
            watch(self, None)

    def publish(self) -> None:
        """Publish the weights as they are.

        Raises:
            TrainingError: A weight is not finite.
        """
        version, facts = self.ppo.updates, {"updates": self.ppo.updates, "steps": self.steps}
        tensors = self.ppo.chain.state_dict()
        publish(self.dir / PUBLISHED, Publication(version, tensors, facts), belongs_to=self.belongs_to)

    def close(self) -> None:
        """Finish the metric file and the demonstrations' thread. Calling it twice is allowed."""
        self._metrics.close()
        if self._demonstrations is not None:
            self._demonstrations.close()

    def _due(self, before: int) -> bool:
        every = self.settings.eval_every
        return every is not None and (self.steps // every > before // every or self.finished)

    def _leave(self) -> None:
        """Save all that the store does not hold."""
        ppo = self.ppo
        rng = base64.b64encode(ppo.generator.get_state().numpy().tobytes()).decode()
        state = {
            "step": ppo.updates, "steps": self.steps, "seconds": self.seconds, "rng": rng, "ppo": ppo.state(),
            "demonstrations": None if self._demonstrations is None else self._demonstrations.state_dict(),
            "config": self.constants,
        }  # fmt: skip
        tensors = CheckpointTensors(ppo.modules(), cast(nn.Module, ppo.chain), saved(ppo.optimisers()))
        self._checkpoints.save(tensors, state, best=False)

    def _resume(self) -> bool:
        path, ppo = self._checkpoints.find("last"), self.ppo
        if path is None:
            return False
        state, tensors = load_checkpoint(
            path, model=ppo.modules(), ema=cast(nn.Module, ppo.chain), expected_config=self.constants
        )
        restore(ppo.optimisers(), tensors)
        ppo.load_state(state["ppo"])
        ppo.generator.set_state(torch.frombuffer(bytearray(base64.b64decode(state["rng"])), dtype=torch.uint8))
        if self._demonstrations is not None and state["demonstrations"] is not None:
            self._demonstrations.load_state_dict(state["demonstrations"])
        self.steps, self.seconds, self.played = state["steps"], state["seconds"], state["steps"]
        return True
