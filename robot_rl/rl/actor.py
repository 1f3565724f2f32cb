"""The actor: plays episodes with the newest accepted weights and appends each, whole, to the store.

Weights change between episodes only. A learner that is silent, dead or mistaken never stops it: it goes on with the
last version that it accepted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from robot_rl.data.episode_file import IndexEntry
from robot_rl.data.recorder import TickRecorder
from robot_rl.errors import BundleError, EpisodeError
from robot_rl.interfaces import Env, EpisodeSink
from robot_rl.rl.pace import Pace
from robot_rl.rl.publication import Publication, newest
from robot_rl.rl.replay import FINAL
from robot_rl.rl.runner import Mode, StepRunner, runner_extras
from robot_rl.rl.scenes import Scenes
from robot_rl.values import RecordingMeta, Tick

log = logging.getLogger(__name__)

_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class ActorSettings:
    """How an actor plays.

    Args:
        first_seed: Seed of the first episode; the n-th one has this plus n, unless it begins as a failed one did.
        max_steps: Episodes are truncated after so many steps; `None` leaves the end to the environment.
        max_ahead: Updates the learner may owe before the actor waits for it between two episodes, for simulations that
            are faster than learning; `None` never waits, as on a robot.
        patience_s: How long it waits at most; a learner that stays silent is not waited for again until it speaks.
        repeat_failed: As of `Scenes`, where the environment sets a scene by its seed.
    """

    first_seed: int = 1_000_000
    max_steps: int | None = None
    max_ahead: int | None = None
    patience_s: float = 60.0
    repeat_failed: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Played:
    """One finished episode: its id in the store and how it went."""

    id: str
    seed: int
    steps: int
    success: bool
    version: int


class Actor:
    """Plays one episode after the other.

    Args:
        env: Where.
        runner: Decides every tick; its step policy is `policy`.
        policy: The module whose weights are taken from the learner; `None` for a base alone.
        sink: Takes the episodes.
        pace: Until when to warm up and how far the learner may be behind.
        published: Folder of the learner's weights.
        belongs_to: What the weights must fit.
        settings: How to play.
        task: What is attempted, in words.
        played: What the store lists already, in the order they were played.
    """

    def __init__(
        self,
        env: Env,
        runner: StepRunner,
        policy: nn.Module | None,
        sink: EpisodeSink,
        *,
        pace: Pace,
        published: str | Path,
        belongs_to: str,
        settings: ActorSettings | None = None,
        task: str = "",
        played: Sequence[IndexEntry] = (),
    ) -> None:
        self.env, self.runner, self.policy, self.sink, self.pace = env, runner, policy, sink, pace
        self.settings = ActorSettings() if settings is None else settings
        self.version, self.steps, self.episodes, self.dropped = -1, sum(past.steps for past in played), len(played), 0
        self._published, self._belongs_to, self._task = Path(published), belongs_to, task
        self._digest, self._given_up_at = "", ""
        self._scenes = Scenes(self.settings.first_seed, self.settings.repeat_failed)
        self._scenes.remember((past.seed, past.outcome == "success") for past in played)

    @property
    def finished(self) -> bool:
        """Whether the run's steps are all played."""
        return self.steps >= self.pace.total_steps

    def refresh(self) -> bool:
        """Take the newest weights if they are not those in use; return whether there were any."""
        if self.policy is None:
            return False
        found = newest(self._published, belongs_to=self._belongs_to, current=self._digest, accept=self._accept)
        if found is None:
            return False
        self.version, self._digest = found.version, found.digest
        return True

    def episode(self, *, stop: Callable[[], bool] = lambda: False) -> Played:
        """Play an episode and append it.

        Args:
            stop: Asked at each tick; true abandons the episode.

        Raises:
            EpisodeError: It was abandoned or discarded, or could not go on; nothing of it is in the store.
            StoreError: It could not be saved; the message says why, and nothing of it is in the store.
            SpecError: An observation or action is not what the robot's spec says.
        """
        seed = self._scenes.next()
        mode: Mode = "warm_up" if self.steps < self.pace.warm_up_steps else "explore"
        self.runner.reset(self._scenes.number)
        recorder = TickRecorder(self.env.spec, extra=runner_extras(self.env.spec))
        tick = self.env.reset(seed)
        recorder.start(tick)
        while not (tick.terminated or tick.truncated):
            if stop():
                raise EpisodeError("it was abandoned, as the actor was asked to stop")
            tick = self._step(recorder, tick, mode)
        if tick.info.get("outcome") == "discard":
            raise EpisodeError("it was discarded")
        success, n = recorder.success, len(recorder)
        extra: dict[str, Any] = {"mode": mode}
        if tick.truncated:
            extra[FINAL] = self.runner.final(tick)
        meta = RecordingMeta(
            task=self._task, source="policy", outcome="success" if success else "failure", seed=seed,
            policy_version=f"{self._belongs_to}@{self.version}", extra=extra,
        )  # fmt: skip
        id = self.sink.append(recorder.finish(meta))
        self.steps += n
        self.episodes += 1
        self._scenes.remember([(seed, success)])
        return Played(id=id, seed=seed, steps=n, success=success, version=self.version)

    def _step(self, recorder: TickRecorder, tick: Tick, mode: Mode) -> Tick:
        decision = self.runner.decide(tick, mode)
        after = self.env.step(decision.action)
        if decision.by_human:
            after = replace(after, by_human=True)
        if len(recorder) + 1 == self.settings.max_steps and not after.terminated:
            after = replace(after, truncated=True)
        recorder.add(after, extras={**decision.extras, "policy_version": np.int64(self.version)})
        return after

    def run(self, *, stop: Callable[[], bool], on_episode: Callable[[Played], None] | None = None) -> None:
        """Play until the run's steps are done or `stop()` is true.

        An episode that an operator discards, or that the arm's side ends, is not kept: it is played again.

        Raises:
            StoreError: As of `episode`.
        """
        while not self.finished and not stop():
            self.refresh()
            self._wait_for_learner(stop)
            try:
                played = self.episode(stop=stop)
            except EpisodeError as error:
                self.dropped += 1
                log.warning("episode %d is not kept: %s", self.episodes, error)
                continue
            if on_episode is not None:
                on_episode(played)

    def _wait_for_learner(self, stop: Callable[[], bool]) -> None:
        ahead = self.settings.max_ahead
        if ahead is None or self.policy is None or (self._digest and self._given_up_at == self._digest):
            return
        until = time.monotonic() + self.settings.patience_s
        while self.pace.allowed(self.steps) - max(0, self.version) > ahead and not stop():
            if time.monotonic() > until:
                log.warning(
                    "no newer weights than version %d for %g s; playing on with it", self.version,
                    self.settings.patience_s,
                )  # fmt: skip
                self._given_up_at = self._digest
                return
            if self.refresh():
                until = time.monotonic() + self.settings.patience_s
            else:
                time.sleep(_POLL_S)

    def _accept(self, found: Publication) -> None:
        """Load weights, or refuse them and stay as before.

        Raises:
            BundleError: They are of another network.
        """
        assert self.policy is not None
        wanted = {name: tuple(value.shape) for name, value in self.policy.state_dict().items()}
        given = {name: tuple(value.shape) for name, value in found.tensors.items()}
        if wanted != given:
            wrong = sorted({*wanted.items()} ^ {*given.items()})
            raise BundleError(f"weights of version {found.version} are of another network: {wrong[:4]}")
        self.policy.load_state_dict(dict(found.tensors))
