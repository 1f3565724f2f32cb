"""What the learner eats: demonstrations and the robot's episodes, as batches of tensors in fixed shares.

An episode that the policy drove goes to the online pool; its steps that a person drove are among the demonstrations
too (HIL-SERL: Luo et al. 2024, arXiv 2410.21845). Everything else is a demonstration.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robot_rl.rl.interventions import intervention_starts, out_of_reach
from robot_rl.rl.replay import Reward, TransitionBatch, TransitionPool, recorded_reward
from robot_rl.rl.runner import HELD
from robot_rl.rl.sampling import SymmetricSampler, interleaved
from robot_rl.specs import RobotSpec
from robot_rl.values import Episode

RECENT = 20
"""Episodes over which the online success rate is taken."""


@dataclass(frozen=True)
class Batch:
    """A `TransitionBatch` of both pools, as tensors, demonstrations and online items spread evenly.

    Args:
        obs: {name: [B, O, ...]}.
        action: [B, H, A], physical.
        mask: [B, H], false for steps beyond the segment.
        reward: [B].
        bootstrap: [B].
        next_obs: {name: [B, O, ...]}.
        extras: {name: [B, ...]}.
        next_extras: {name: [B, ...]}.
        rng_state: The feed's random state after drawing it: what to go on from when this was the last batch used.
    """

    obs: dict[str, Tensor]
    action: Tensor
    mask: Tensor
    reward: Tensor
    bootstrap: Tensor
    next_obs: dict[str, Tensor]
    extras: dict[str, Tensor]
    next_extras: dict[str, Tensor]
    rng_state: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.reward)


@dataclass
class FeedCounts:
    """What has come in so far, in transitions, steps and episodes."""

    demonstrations: int = 0
    online: int = 0
    interventions: int = 0
    steps: int = 0
    episodes: int = 0
    human_steps: int = 0
    takeovers: int = 0
    newest_version: int = -1
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))
    reach: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))


class ReplayFeed:
    """The two pools and the draws from them. Safe to use from several threads.

    Args:
        spec: The robot, with the observations that the agent reads.
        sampler: How a batch is shared.
        n_step: Steps of a segment.
        gamma: Discount per step.
        streams: Extras to serve, such as {"base_action": (7,)}.
        horizon: H, actions of a transition: 1, or `n_step` for critics of chunks.
        prepare: Adds to every episode the extras that are not recorded; `None` for none.
        keep: Says at which steps [N] of an online episode a transition may begin; `None` for all.
        reward: Makes the rewards of online episodes; demonstrations keep the recorded ones.
        demonstration_reward: Makes those of demonstrations.
        bound: Largest residual, to tell which corrections of people are out of its reach; in physical units [A].
        seed: Of the draws.
    """

    def __init__(
        self,
        spec: RobotSpec,
        sampler: SymmetricSampler,
        *,
        n_step: int,
        gamma: float,
        streams: Mapping[str, Sequence[int]],
        horizon: int = 1,
        prepare: Callable[[Episode], Episode] | None = None,
        keep: Callable[[Episode], np.ndarray] | None = None,
        reward: Reward = recorded_reward,
        demonstration_reward: Reward = recorded_reward,
        bound: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        def pool(reward: Reward) -> TransitionPool:
            return TransitionPool(spec, n_step=n_step, gamma=gamma, horizon=horizon, extras=streams, reward=reward)

        self.demonstrations, self.online = pool(demonstration_reward), pool(reward)
        self.gamma, self.counts, self._sampler, self._bound = gamma, FeedCounts(), sampler, bound
        self._prepare, self._keep = prepare, keep
        self._rng = np.random.default_rng(seed)
        self._lock = threading.RLock()

    def add_demonstration(self, episode: Episode) -> int:
        """Take in a demonstration and return how many transitions it gave.

        Raises:
            SpecError: It lacks what the replay serves.
        """
        prepared = episode if self._prepare is None else self._prepare(episode)
        with self._lock:
            n = self.demonstrations.add(prepared)
            self.counts.demonstrations += n
        return n

    def add(self, episode: Episode) -> int:
        """Take in an episode of an actor and return how many online transitions it gave.

        Raises:
            SpecError: It lacks what the replay serves; nothing was taken.
        """
        if episode.meta.source != "policy":
            return self.add_demonstration(episode)
        human = np.asarray(episode.by_human, bool)
        prepared = episode if self._prepare is None else self._prepare(episode)
        keep = _decisions(episode, human)
        if self._keep is not None:
            keep &= self._keep(episode)
        with self._lock:
            n = self.online.add(prepared, start=keep)
            by_person = self.demonstrations.add(prepared, start=human & keep) if human.any() else 0
            self._count(episode, human, n, by_person)
        return n

    def _count(self, episode: Episode, human: np.ndarray, n: int, by_person: int) -> None:
        c = self.counts
        c.online += n
        c.interventions += by_person
        c.demonstrations += by_person
        c.steps += len(episode)
        c.episodes += 1
        c.human_steps += int(human.sum())
        c.takeovers += int(intervention_starts(human).sum())
        c.recent.append(episode.meta.outcome == "success")
        if "policy_version" in episode.extras:
            c.newest_version = int(np.asarray(episode.extras["policy_version"][-1:])[0])
        if human.any() and self._bound is not None and "base_action" in episode.extras:
            base = np.asarray(episode.extras["base_action"][:])[human]
            c.reach.append(out_of_reach(episode.action[human] / self._bound, base / self._bound, 1.0))

    def sample(self) -> Batch:
        """Return the next batch.

        Raises:
            ConfigError: Both pools are empty.
        """
        with self._lock:
            demo, online = self._sampler.sample(len(self.demonstrations), len(self.online), self._rng)
            parts = [
                pool.gather(index) for pool, index in ((self.demonstrations, demo), (self.online, online)) if len(index)
            ]
            state = self._rng.bit_generator.state
        return joined(parts, state)

    def load_rng(self, state: Mapping[str, Any]) -> None:
        """Go on drawing from a `Batch.rng_state`."""
        with self._lock:
            self._rng.bit_generator.state = dict(state)

    def metrics(self) -> dict[str, float]:
        """Return what to log of what came in."""
        with self._lock:
            c = self.counts
            values = {
                "replay/demonstrations": c.demonstrations, "replay/online": c.online, "online/steps": c.steps,
                "online/episodes": c.episodes, "online/success": float(np.mean(c.recent)) if c.recent else float("nan"),
                "online/intervention_rate": c.human_steps / max(1, c.steps),
                "online/takeovers_per_episode": c.takeovers / max(1, c.episodes),
                "replay/demo_oversampling": self._sampler.oversampling(len(self.demonstrations), len(self.online)),
            }  # fmt: skip
            if c.reach:
                values["online/corrections_out_of_reach"] = float(np.nanmean(c.reach))
        return {name: float(value) for name, value in values.items()}


def _decisions(episode: Episode, human: np.ndarray) -> np.ndarray:
    """Return at which steps [N] something was decided: those of people, and where a held correction was chosen."""
    if HELD not in episode.extras:
        return np.ones(len(human), bool)
    return np.asarray(human | (np.asarray(episode.extras[HELD][:]) == 0))


def joined(parts: Sequence[TransitionBatch], rng_state: Mapping[str, Any]) -> Batch:
    """Return one or two batches as one of tensors, spread evenly."""
    order = interleaved(len(parts[0]), len(parts[1])) if len(parts) == 2 else np.arange(len(parts[0]))

    def one(arrays: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays)[order])

    def each(name: str) -> dict[str, Tensor]:
        return {key: one([getattr(part, name)[key] for part in parts]) for key in getattr(parts[0], name)}

    return Batch(
        obs=each("obs"),
        action=one([part.action for part in parts]),
        mask=one([part.mask for part in parts]),
        reward=one([part.reward for part in parts]),
        bootstrap=one([part.bootstrap for part in parts]),
        next_obs=each("next_obs"),
        extras=each("extras"),
        next_extras=each("next_extras"),
        rng_state=rng_state,
    )
