"""`robot-rl train`: a chunk policy by imitation from the episode store. Resumes by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.cli.config import build, plain
from robot_rl.cli.latency import aligned_episode, stream_latencies
from robot_rl.cli.model_card import ModelCard
from robot_rl.data.dataset import LazyEpisodes
from robot_rl.data.normalizer import FieldStats, fit_stats
from robot_rl.data.relative import fit_relative_stats
from robot_rl.data.splits import split_episodes
from robot_rl.data.store import EpisodeStore
from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.errors import ConfigError, StoreError
from robot_rl.imitation.summary import TrainSummary
from robot_rl.imitation.trainer import Trainer
from robot_rl.values import OUTCOMES, Episode

OF_THE_DATA = ("val_fraction", "augment", "leave_out")
"""Keys of `train` that say what is learned from; the others are the trainer's."""


def imitated(config: DictConfig, store: EpisodeStore) -> list[str]:
    """Return the ids of a store's episodes without those whose label is among `train.leave_out`.

    Raises:
        ConfigError: `train.leave_out` names what is not an outcome.
        StoreError: No episode is left of those there are.
    """
    left_out = plain(config.train.leave_out)
    if unknown := sorted(set(left_out) - set(OUTCOMES)):
        raise ConfigError(f"`train.leave_out` must name outcomes of {OUTCOMES}, got {unknown}")
    entries = store.entries()
    ids = [entry.id for entry in entries if entry.outcome not in left_out]
    if entries and not ids:
        raise StoreError(
            f"all {len(entries)} episodes of {config.store} are labelled {' or '.join(left_out)} and left out of "
            "imitation; set train.leave_out=[] to imitate them all the same, or `robot-rl mend relabel` what is "
            "labelled wrongly"
        )
    return ids


def datasets(
    config: DictConfig, store: EpisodeStore, ids: Sequence[str] | None = None
) -> tuple[WindowDataset, WindowDataset]:
    """Return training and validation windows of a store's episodes, or of those named, split by episode."""
    ids = store.ids() if ids is None else ids
    if len(ids) < 2:
        raise StoreError(f"the store at {config.store} has {len(ids)} episodes to imitate; training needs at least 2")
    split = split_episodes(ids, val_fraction=config.train.val_fraction, seed=config.seed)
    window = WindowSpec(n_obs=config.task.n_obs, horizon=config.task.horizon)
    names, augment = plain(config.task.obs), build(config.train.augment)
    open_episode = partial(aligned_episode, store, latency_ns=stream_latencies(config.latency, store))
    sides: list[Sequence[Episode]] = [LazyEpisodes([ids[i] for i in side], open_episode) for side in split]
    if augment is not None:
        sides = [[more for episode in side for more in augment(episode)] for side in sides]
    train, val = (WindowDataset(side, window, obs_names=names) for side in sides)
    return train, val


def _statistics(train: WindowDataset, relative_to: list[str]) -> dict[str, FieldStats]:
    """Return statistics of the training windows, those of relative actions among them if the policy needs them."""
    stats = fit_stats(train)
    return {**stats, "action_relative": fit_relative_stats(train, relative_to)} if relative_to else stats


def _recorded(config: DictConfig, card: ModelCard, store: EpisodeStore, n_imitated: int) -> dict[str, Any]:
    """Return what a run holds constant over resumes, besides the trainer's own settings."""
    recorded = {"policy": card.policy, "data_digest": card.data_digest, "augment": plain(config.train.augment)}
    if left_out := len(store) - n_imitated:
        recorded["left_out"] = left_out
    late = stream_latencies(config.latency, store)
    return {**recorded, "latency_ns": late} if late else recorded


def run(config: DictConfig, console: Console) -> TrainSummary:
    """Train `policy` on `store` into `run`.

    Raises:
        KeyboardInterrupt: It was told to stop; the same command goes on.
    """
    store = EpisodeStore.open(config.store)
    ids = imitated(config, store)
    train, val = datasets(config, store, ids)
    card = ModelCard(
        task=config.task.name,
        policy=plain(config.policy),
        spec=store.spec.select(plain(config.task.obs)),
        stats=_statistics(train, plain(config.policy.relative_to)),
        n_execute=config.task.n_execute,
        data_digest=store.digest(),
    )
    import torch

    torch.manual_seed(config.seed)
    settings = {key: value for key, value in plain(config.train).items() if key not in OF_THE_DATA}
    recorded = _recorded(config, card, store, len(ids))
    trainer = Trainer(card.build_model(), train, val, run_dir=config.run, seed=config.seed, config=recorded, **settings)
    trainer.check_folder()
    card.save(config.run)
    console.print(f"{len(train)} training and {len(val)} validation windows from {len(ids)} episodes")
    if len(ids) < len(store):
        labels = " or ".join(plain(config.train.leave_out))
        console.print(f"{len(store) - len(ids)} labelled {labels} are left out (train.leave_out=[] imitates them too)")
    summary = trainer.fit(resume="auto")
    if summary.status == "interrupted":
        console.print(f"stopped after {summary.step} of {config.train.steps} steps")
        raise KeyboardInterrupt  # nothing may go on with a policy that is half trained
    console.print(f"trained {summary.step} steps in {summary.seconds / 60:.1f} min; the run is in {config.run}")
    return summary
