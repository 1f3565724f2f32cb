"""What the base would have done in demonstrations, and rewards for those that were recorded without any.

The residual's critic needs the base's action at every step of a batch, those of demonstrations too. Each frame is shown
to the frozen base as an actor would have shown it: chunk by chunk, from an empty queue at each episode's start (the
released ResFiT code never empties it in between).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from robot_rl.deploy.history import ObsHistory
from robot_rl.errors import StoreError
from robot_rl.interfaces import Policy
from robot_rl.rl.replay import FINAL
from robot_rl.rl.runner import BaseQueue
from robot_rl.values import Episode


def base_actions(episode: Episode, base: Policy, *, delay_steps: int = 0) -> np.ndarray:
    """Return what the base does at each observation of an episode, the final one included, float32 [N+1, A].

    Where the final observation was not recorded, the last row repeats the one before; no segment reads it.

    Args:
        episode: A demonstration.
        base: The frozen base; one that draws numbers draws them from a seed made of the episode's id.
        delay_steps: As of `robot_rl.rl.runner.BaseQueue`.
    """
    queue, history = BaseQueue(base, delay_steps=delay_steps), ObsHistory(base.n_obs)
    queue.reset(int.from_bytes(hashlib.sha256(episode.id.encode()).digest()[:4], "big"))
    n, rows = len(episode), list[np.ndarray]()
    step_ns = int(np.median(np.diff(episode.stamp_ns))) if n > 1 else 1
    frames = {name: values[:] for name, values in episode.obs.items()}
    for t in range(n + 1):
        last = t == n
        if last and episode.final_obs is None:
            rows.append(rows[-1])
            break
        obs = {name: np.asarray(episode.final_obs[name] if last and episode.final_obs is not None else values[t])
               for name, values in frames.items()}  # fmt: skip
        stamp_ns = int(episode.stamp_ns[-1]) + step_ns if last else int(episode.stamp_ns[t])
        rows.append(queue.action(stamp_ns, history.push(obs))[0])
    return np.stack(rows).astype(np.float32)


def with_base(episode: Episode, labels: np.ndarray) -> Episode:
    """Return the episode with the extra `base_action`, also at its final observation."""
    final = {**episode.meta.extra.get(FINAL, {}), "base_action": labels[-1].tolist()}
    meta = replace(episode.meta, extra={**episode.meta.extra, FINAL: final})
    return replace(episode, extras={**episode.extras, "base_action": labels[:-1]}, meta=meta)


class LabelCache:
    """Base actions of demonstrations on disk, so that a run that comes back does not work them out again.

    Other labels of the same shape for every step, such as candidate chunks, are kept in the same way.

    Args:
        folder: Where they lie, such as beside the demonstrations' store.
        base_id: Which base: its bundle's id, or a digest of its weights. Labels of another base are in another folder.
    """

    def __init__(self, folder: str | Path, base_id: str) -> None:
        self._folder = Path(folder) / base_id

    def get(
        self, episode: Episode, make: Callable[[Episode], np.ndarray], *, row: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """Return an episode's labels, made and kept if they are not there.

        Args:
            episode: The episode.
            make: Makes its labels, [N+1, ...].
            row: Shape of a row; `None` for that of an action.

        Raises:
            StoreError: Those that are there do not fit the episode.
        """
        path = self._folder / f"{episode.id}.npy"
        if path.is_file():
            labels = np.asarray(np.load(path, allow_pickle=False))
            if labels.shape != (len(episode) + 1, *(episode.action.shape[1:] if row is None else row)):
                raise StoreError(
                    f"{path} holds labels {labels.shape} for an episode of {len(episode)} steps; delete it"
                )
            return labels
        labels = make(episode)
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        with part.open("wb") as file:
            np.save(file, labels, allow_pickle=False)
        os.replace(part, path)
        return labels


def labelled(
    episodes: Sequence[Episode], base: Policy, cache: LabelCache, *, delay_steps: int = 0
) -> Iterator[Episode]:
    """Yield the demonstrations with the base's actions."""
    for episode in episodes:
        yield with_base(episode, cache.get(episode, lambda e: base_actions(e, base, delay_steps=delay_steps)))


def rewarded(episode: Episode) -> Episode:
    """Return a successful demonstration that was recorded without reward as one that ends with reward 1.

    The last step then ends the task (HIL-SERL, ResFiT: sparse reward on a demonstration's last transition). One that
    has a reward, or is not known to have succeeded, is returned as it is.
    """
    if episode.meta.outcome != "success" or np.any(np.asarray(episode.reward) != 0):
        return episode
    reward = np.zeros(len(episode), np.float32)
    reward[-1] = 1.0
    return replace(episode, reward=reward, terminated=True, truncated=False)
