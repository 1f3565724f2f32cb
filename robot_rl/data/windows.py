"""Training windows: the last O observations and H actions around a step, never across an episode's edge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from robot_rl.data.dataset import ACTION, EpisodeTable
from robot_rl.errors import ConfigError
from robot_rl.values import Episode


@dataclass(frozen=True)
class WindowSpec:
    """Which steps around the newest observation make one window.

    Args:
        n_obs: O, observation steps, the newest one last.
        horizon: H, action steps.
        action_offset: Step of the first action relative to the newest observation: 0, or 1-O for models whose chunk
            starts at the oldest observation (Diffusion Policy, LeRobot).
    """

    n_obs: int
    horizon: int
    action_offset: int = 0

    def __post_init__(self) -> None:
        for name, value in (("n_obs", self.n_obs), ("horizon", self.horizon)):
            if value < 1:
                raise ConfigError(f"`{name}` must be at least 1 step, got {value}")

    @property
    def obs_deltas(self) -> np.ndarray:
        """Steps of the observations relative to the newest one, int64 [O]."""
        return np.arange(1 - self.n_obs, 1, dtype=np.int64)

    @property
    def action_deltas(self) -> np.ndarray:
        """Steps of the actions relative to the newest observation, int64 [H]."""
        return np.arange(self.action_offset, self.action_offset + self.horizon, dtype=np.int64)


@dataclass(frozen=True)
class WindowBatch:
    """B windows in physical units.

    `mask` is false where an action step lies outside the episode, or on a tick that is not valid; the action there
    is the nearest one inside and is no target.
    """

    obs: dict[str, np.ndarray]  # {name: [B, O, ...]} float32, pictures uint8
    action: np.ndarray  # [B, H, A] float32
    mask: np.ndarray  # [B, H] bool

    def __len__(self) -> int:
        return len(self.action)


class WindowDataset:
    """All windows of a set of episodes: one for each valid step, which is its newest observation.

    Steps outside the episode repeat its first or last row. An older observation inside the window may be an invalid
    tick; its row is what alignment put there, as the deployed history would hold it.

    Args:
        episodes: The episodes, a list or a `LazyEpisodes` over a store.
        window: Which steps make a window.
        obs_names: Observations to serve; `None` takes all of the first episode.
        subset: Positions of the episodes to use, such as one side of a split; `None` takes all.
        stride: Take every stride-th valid step of each episode.
        max_memory_bytes: Budget for low-dimensional columns in memory; what exceeds it is read from the episodes. What
            they leave of it keeps decoded pictures.
        max_open: Episodes kept open at a time.
        threads: Threads that read and decode.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        window: WindowSpec,
        *,
        obs_names: Sequence[str] | None = None,
        subset: Sequence[int] | np.ndarray | None = None,
        stride: int = 1,
        max_memory_bytes: int = 2**31,
        max_open: int = 64,
        threads: int = 2,
    ) -> None:
        if stride < 1:
            raise ConfigError(f"`stride` must be at least 1 step, got {stride}")
        self.window = window
        self.table = EpisodeTable(
            episodes,
            obs_names,
            subset=subset,
            max_memory_bytes=max_memory_bytes,
            max_open=max_open,
            threads=threads,
        )
        self.obs_names = self.table.obs_names
        self._newest = _newest_rows(self.table, stride)
        if len(self._newest) == 0:
            raise ConfigError(f"none of the {len(self.table.valid)} steps is valid; check alignment's age limit")

    def __len__(self) -> int:
        return len(self._newest)

    def gather(self, index: np.ndarray) -> WindowBatch:
        """Return the windows of the given numbers, int64 [B].

        Raises:
            IndexError: A number outside `[0, len(self))`.
        """
        index = np.asarray(index, dtype=np.int64)
        if index.ndim != 1 or (index.size and not 0 <= index.min() <= index.max() < len(self)):
            raise IndexError(f"`index` must be int64[B] within [0, {len(self)}), got shape {index.shape}: {index}")
        table, newest = self.table, self._newest[index]
        episode = table.episode_of(newest)
        first, last = table.starts[episode][:, None], table.starts[episode + 1][:, None] - 1
        obs_rows = np.clip(newest[:, None] + self.window.obs_deltas, first, last)  # [B, O]
        wanted = newest[:, None] + self.window.action_deltas  # [B, H]
        action_rows = np.clip(wanted, first, last)
        obs = table.gather(self.obs_names, obs_rows.reshape(-1))
        action = table.gather([ACTION], action_rows.reshape(-1))[ACTION]
        return WindowBatch(
            obs={name: obs[name].reshape(*obs_rows.shape, *table.row_shape[name]) for name in self.obs_names},
            action=action.reshape(*action_rows.shape, *table.row_shape[ACTION]),
            mask=(wanted == action_rows) & table.valid[action_rows],
        )

    def batches(self, batch_size: int) -> Iterator[WindowBatch]:
        """Yield every window once, in order, the last batch short: for held-out losses."""
        for start in range(0, len(self), batch_size):
            yield self.gather(np.arange(start, min(start + batch_size, len(self)), dtype=np.int64))

    def close(self) -> None:
        """Stop the reading threads."""
        self.table.close()


def _newest_rows(table: EpisodeTable, stride: int) -> np.ndarray:
    """Return the rows that may be a window's newest observation: each episode's valid ones, every stride-th."""
    rows: np.ndarray = np.flatnonzero(table.valid)
    if stride == 1:
        return rows
    before = np.concatenate([[0], np.cumsum(table.valid)])  # valid rows before each row
    rank = before[rows] - before[table.starts[table.episode_of(rows)]]
    chosen: np.ndarray = rows[rank % stride == 0]
    return chosen
