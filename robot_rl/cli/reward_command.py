"""`robot-rl reward`: a success classifier from the episodes of a store, judged on episodes that it never saw."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from robot_rl.cli.config import build, plain
from robot_rl.cli.latency import aligned_episode, stream_latencies
from robot_rl.cli.progress import bar
from robot_rl.cli.reward_report import facts_of, headline, write_reward_report
from robot_rl.cli.threads import numeric_threads
from robot_rl.data.dataset import LazyEpisodes
from robot_rl.data.normalizer import fit_stats
from robot_rl.data.splits import split_episodes
from robot_rl.data.store import EpisodeStore
from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.deploy.success import Bounds, ClassifierCard, SuccessClassifier
from robot_rl.errors import ConfigError, StoreError
from robot_rl.rl.success_classifier import (
    SuccessNetwork,
    choose_threshold,
    count_votes,
    frame_accuracy,
    frame_probabilities,
    train_classifier,
    vote_curve,
)
from robot_rl.rl.success_export import export_classifier
from robot_rl.rl.success_frames import LabelledEpisode, LabelRule, Marks, TrainingFrames, labelled_episode
from robot_rl.specs import RobotSpec
from robot_rl.values import Episode

Parts = tuple[list[str], list[str], list[str]]
"""Ids of the episodes to train on, to choose the threshold by, and to judge by."""


def three_parts(outcomes: Mapping[str, str], *, choose: float, judge: float, seed: int) -> Parts:
    """Split episodes in three, successes and others each in the same shares.

    Raises:
        ConfigError: Shares that leave nothing to train on.
        StoreError: Fewer than three successful episodes, or no other.
    """
    if not (choose > 0 and judge > 0 and choose + judge < 1):
        raise ConfigError(f"`choose` and `judge` must be positive shares below 1 together, got {choose} and {judge}")
    won = [id for id, outcome in outcomes.items() if outcome == "success"]
    rest = [id for id, outcome in outcomes.items() if outcome != "success"]
    if len(won) < 3:
        raise StoreError(f"a success classifier needs at least 3 successful episodes, got {len(won)}")
    parts: Parts = ([], [], [])
    for ids in (won, rest):
        outer = split_episodes(ids, val_fraction=judge, seed=seed)
        kept = [ids[i] for i in outer.train]
        inner = split_episodes(kept, val_fraction=choose / (1 - judge), seed=seed)
        for part, chosen in zip(parts, ([kept[i] for i in inner.train], [kept[i] for i in inner.val],
                                        [ids[i] for i in outer.val]), strict=True):  # fmt: skip
            part.extend(chosen)
    return parts


def _opened(config: DictConfig) -> tuple[EpisodeStore, dict[str, Any], dict[str, str]]:
    """Return the first store, how to open an episode of any of them by id, and how each one ended."""
    stores = [EpisodeStore.open(path) for path in plain(config.reward.stores) or [config.store]]
    openers: dict[str, Any] = {}
    outcomes: dict[str, str] = {}
    for store in stores:
        if store.spec.obs.keys() != stores[0].spec.obs.keys():
            raise StoreError(
                f"the stores hold other observations: {sorted(store.spec.obs)}, {sorted(stores[0].spec.obs)}"
            )
        late = stream_latencies(config.latency, store)
        for entry in store.entries():
            openers[entry.id] = partial(aligned_episode, store, latency_ns=late)
            outcomes[entry.id] = entry.outcome
    return stores[0], openers, outcomes


def _probabilities(
    model: SuccessNetwork, episodes: Sequence[LabelledEpisode], bounds: Sequence[Bounds]
) -> list[np.ndarray]:
    """Return the probabilities of each episode's frames, 0 outside the bounds."""
    found = []
    for episode in episodes:
        probability = frame_probabilities(model, _of(episode, model))
        inside = [
            all(item.holds({item.obs: episode.frames[item.obs][t]}) for item in bounds) for t in range(len(probability))
        ]
        found.append(np.where(inside, probability, 0.0))
    return found


def _network(config: DictConfig, spec: RobotSpec, episodes: Sequence[Episode]) -> SuccessNetwork:
    """Return a network that reads all observations of `spec`, with weights drawn from the run's seed."""
    import torch

    r, names = config.reward, list(spec.obs)
    windows = WindowDataset(episodes, WindowSpec(n_obs=1, horizon=1), obs_names=names)
    torch.manual_seed(config.seed)
    encoder = build(r.encoder)(spec, fit_stats(windows), n_obs=1)
    return SuccessNetwork(encoder, names, hidden=r.hidden, dropout=r.dropout, freeze=r.freeze)


def _of(episode: LabelledEpisode, model: SuccessNetwork) -> LabelledEpisode:
    frames = {name: episode.frames[name] for name in model.names}
    return LabelledEpisode(episode.id, frames, episode.label)


def run(config: DictConfig, console: Console) -> SuccessClassifier:
    """Train on some episodes, choose the threshold on others, judge on the rest, and write `reward.out`.

    Raises:
        StoreError: Too few episodes, or frames of one kind only.
        TrainingError: No threshold reaches the precision asked for.
    """
    r = config.reward
    store, openers, outcomes = _opened(config)
    names, bounds = list(plain(r.obs) or plain(config.task.obs)), [Bounds(**item) for item in plain(r.bounds)]
    marks: Marks = {} if r.labels is None else json.loads(Path(r.labels).read_text("utf-8"))
    rule = LabelRule(positives=r.positives, unclear=r.unclear)
    parts = three_parts(outcomes, choose=r.choose, judge=r.judge, seed=config.seed)

    def opened(id: str) -> Episode:
        episode: Episode = openers[id](id)
        return episode

    wanted = list(dict.fromkeys([*names, *(item.obs for item in bounds)]))
    train, choose, judge = ([labelled_episode(opened(id), wanted, rule, marks) for id in part] for part in parts)
    spec = store.spec.select(names)
    model = _network(config, spec, LazyEpisodes(parts[0], opened))
    data = TrainingFrames.of(
        [_of(episode, model) for episode in train], negatives=r.negatives, rng=np.random.default_rng(config.seed)
    )
    how = build(r.training, seed=config.seed)
    with numeric_threads(int(r.threads)), bar(console) as progress:
        task = progress.add_task("training the success classifier", total=how.steps)
        losses = train_classifier(model, data, how, on_step=lambda n, loss: progress.update(task, completed=n))
        curve = vote_curve(choose, _probabilities(model, choose, bounds), consecutive=r.consecutive)
        told = _probabilities(model, judge, bounds)
    threshold = choose_threshold(curve, precision=r.precision)
    votes = count_votes(judge, told, threshold=threshold, consecutive=r.consecutive)
    facts = facts_of(votes, frame_accuracy(judge, told, threshold=threshold), parts, data, control_hz=spec.control_hz)
    card = ClassifierCard(
        obs={name: spec.obs[name] for name in names}, threshold=threshold, consecutive=r.consecutive, bounds=bounds,
        facts=facts,
    )  # fmt: skip
    classifier = export_classifier(model, r.out, card, _of(judge[0], model))
    console.print(f"threshold {threshold:.2f}, {r.consecutive} frames in a row: {headline(votes)}", highlight=False)
    report = write_reward_report(Path(r.out), classifier.card, curve, losses, config)
    console.print(f"report: {report}")
    return classifier
