"""Replay from episodes: every step becomes a transition over n steps or a chunk, gathered when it is drawn.

Episodes come whole, from the store that the robot side appends to or from memory; each is read once. What a batch holds
follows `specs` of off-policy learning: segments never cross an episode's edge, ends are told apart, and the observation
after the last action is used where an episode was cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robot_rl.errors import SpecError
from robot_rl.rl.columns import NumberColumn, PictureColumn
from robot_rl.rl.returns import episode_segments
from robot_rl.specs import RobotSpec
from robot_rl.values import Episode

Reward = Callable[[Episode], np.ndarray]
"""Makes an episode's rewards [N] from what was recorded."""
FINAL = "final_extras"
"""Key of `RecordingMeta.extra` under which extras at the final observation lie: {name: nested list}."""


def recorded_reward(episode: Episode) -> np.ndarray:
    """Return the reward that the episode was recorded with."""
    return np.asarray(episode.reward)


def success_reward(episode: Episode) -> np.ndarray:
    """Return 1 at the last step of an episode that succeeded and 0 elsewhere, whatever reward was recorded."""
    reward = np.zeros(len(episode), np.float32)
    reward[-1] = float(episode.meta.outcome == "success")
    return reward


def added(first: Reward, second: Reward) -> Reward:
    """Return the sum of two rewards, such as a task's and what its gripper's commands cost."""

    def both(episode: Episode) -> np.ndarray:
        total: np.ndarray = np.add(first(episode), second(episode))
        return total

    return both


REWARDS: Mapping[str, Reward] = {
    "recorded": recorded_reward, "success": success_reward, "classifier": recorded_reward
}  # fmt: skip
"""Rewards by the name that configurations use; a classifier's vote is what its environment recorded."""


@dataclass(frozen=True)
class TransitionBatch:
    """B transitions in physical units.

    Args:
        obs: {name: [B, O, ...]}, newest last; float32, pictures uint8.
        action: [B, H, A], commanded actions from the newest observation on.
        mask: [B, H], false for steps beyond the segment; the action there repeats the last one inside.
        reward: [B], discounted sum over the segment.
        bootstrap: [B], factor on the next state's value.
        next_obs: {name: [B, O, ...]} at the segment's end.
        by_human: [B], whether a person drove the first step.
        extras: {name: [B, ...]} at the first step.
        next_extras: {name: [B, ...]} at the segment's end; NaN where the recording does not hold them.
    """

    obs: dict[str, np.ndarray]
    action: np.ndarray
    mask: np.ndarray
    reward: np.ndarray
    bootstrap: np.ndarray
    next_obs: dict[str, np.ndarray]
    by_human: np.ndarray
    extras: dict[str, np.ndarray]
    next_extras: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.reward)


class TransitionPool:
    """All transitions of the episodes added so far.

    Args:
        spec: The robot, with the observations to serve.
        n_step: Steps of a segment.
        gamma: Discount per step.
        n_obs: O, observations of a transition; before an episode's first one it is repeated.
        horizon: H, actions of a transition: 1, or `n_step` for chunk critics.
        reward: Makes the rewards; the recorded ones by default.
        extras: Further float streams to serve, with the shape of a row, such as {"base_action": (7,)}.
    """

    def __init__(
        self,
        spec: RobotSpec,
        *,
        n_step: int,
        gamma: float,
        n_obs: int = 1,
        horizon: int = 1,
        reward: Reward = recorded_reward,
        extras: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.spec, self.n_step, self.gamma = spec, n_step, gamma
        self._obs_deltas, self._action_deltas = np.arange(1 - n_obs, 1), np.arange(horizon)
        self._reward = reward
        self._obs: dict[str, NumberColumn | PictureColumn] = {}
        for name, array in spec.obs.items():
            picture = array.is_image
            self._obs[name] = PictureColumn(array.shape) if picture else NumberColumn(array.shape, _kept(array.dtype))
        self._extras = {
            name: NumberColumn(tuple(shape), np.dtype(np.float32)) for name, shape in (extras or {}).items()
        }
        self._action = NumberColumn(spec.action.shape, np.dtype(np.float32))
        self._segment = NumberColumn((4,), np.dtype(np.int64))  # first row, next row, episode's first and last row
        self._value = NumberColumn((3,), np.dtype(np.float64))  # reward, bootstrap, by_human
        self.episodes: list[str] = []

    def __len__(self) -> int:
        return len(self._segment)

    def add(self, episode: Episode, *, start: np.ndarray | None = None) -> int:
        """Take in an episode and return how many transitions it gave.

        Args:
            episode: The episode.
            start: [N] bool, at which steps a transition may begin; `None` for all valid ones.

        Raises:
            SpecError: An observation, the action or an extra is missing or has another shape; nothing was taken.
        """
        self._check(episode)
        n, first = len(episode), len(self._action)
        for name, column in self._obs.items():
            rows = episode.obs[name]
            final = rows[n - 1] if episode.final_obs is None else np.asarray(episode.final_obs[name])
            if isinstance(column, PictureColumn):
                column.append_episode(rows, final)
            else:
                column.append(np.concatenate([rows[:], final[None]]))
        self._action.append(np.concatenate([episode.action, episode.action[-1:]]))
        final_extras = episode.meta.extra.get(FINAL, {})
        for name, extra in self._extras.items():
            inside = np.asarray(episode.extras[name][:], np.float32)
            last = np.asarray(final_extras.get(name, np.full(inside.shape[1:], np.nan)), np.float32)
            extra.append(np.concatenate([inside, last[None]]))
        found = episode_segments(episode, n=self.n_step, gamma=self.gamma, reward=self._reward(episode))
        if start is not None:
            found = found.where(np.asarray(start, bool)[found.start])
        edges = np.broadcast_to([first, first + n - 1], (len(found), 2))
        rows = np.stack([first + found.start, first + found.next_step], axis=1)
        self._segment.append(np.concatenate([rows, edges], axis=1))
        human = np.asarray(episode.by_human, dtype=np.float64)[found.start]
        self._value.append(np.stack([found.reward, found.bootstrap, human], axis=1))
        self.episodes.append(episode.id)
        return len(found)

    def _check(self, episode: Episode) -> None:
        wanted = {name: array.shape for name, array in self.spec.obs.items()}
        given = {name: tuple(rows.shape[1:]) for name, rows in episode.obs.items()}
        wanted |= {"action": self.spec.action.shape} | {
            name: column.take(np.arange(0)).shape[1:] for name, column in self._extras.items()
        }
        given |= {"action": episode.action.shape[1:]} | {
            name: tuple(rows.shape[1:]) for name, rows in episode.extras.items()
        }
        wrong = {name: (shape, given.get(name)) for name, shape in wanted.items() if given.get(name) != tuple(shape)}
        if wrong:
            told = ", ".join(f"`{name}` {want}, got {got or 'nothing'}" for name, (want, got) in wrong.items())
            raise SpecError(f"episode {episode.id} does not fit the replay: expected rows of shape {told}")

    def gather(self, index: np.ndarray) -> TransitionBatch:
        """Return the transitions of the given numbers, int64 [B]."""
        segment, value = self._segment.take(index), self._value.take(index)
        now, following, first, last = segment.T
        steps = now[:, None] + self._action_deltas  # [B, H]
        end = np.minimum(following - 1, last)[:, None]
        return TransitionBatch(
            obs=self._observed(now, first),
            action=self._action.take(np.minimum(steps, end)),
            mask=steps <= end,
            reward=value[:, 0].astype(np.float32),
            bootstrap=value[:, 1].astype(np.float32),
            next_obs=self._observed(following, first),
            by_human=value[:, 2] > 0,
            extras={name: column.take(now) for name, column in self._extras.items()},
            next_extras={name: column.take(following) for name, column in self._extras.items()},
        )

    def _observed(self, newest: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
        rows = np.maximum(newest[:, None] + self._obs_deltas, first[:, None])  # [B, O]
        return {name: column.take(rows) for name, column in self._obs.items()}


def _kept(dtype: str) -> np.dtype:
    return np.dtype(np.float32) if dtype.startswith("float") else np.dtype(dtype)
