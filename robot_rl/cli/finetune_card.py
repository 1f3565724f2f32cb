"""What a fine-tuning run is made of, kept in its folder, so that actor, learner and evaluation build the same thing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from robot_rl.cli.config import build, plain
from robot_rl.cli.finetune_base import identify, open_base, open_sampler
from robot_rl.cli.latency import aligned_episode, stream_latencies
from robot_rl.cli.model_card import read_card
from robot_rl.data.dataset import LazyEpisodes
from robot_rl.data.normalizer import FieldStats, fit_stats
from robot_rl.data.store import EpisodeStore
from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.errors import ConfigError, StoreError
from robot_rl.imitation.summary import write_json
from robot_rl.interfaces import Policy
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.algorithm import Algorithm
from robot_rl.rl.labelling import LabelCache
from robot_rl.rl.learner import PUBLISHED
from robot_rl.rl.publication import newest
from robot_rl.rl.residual import bounds_of
from robot_rl.rl.runner import ExploringPolicy, Intervener, StepRunner, StepwisePolicy
from robot_rl.specs import RobotSpec

FILE = "finetune.json"


@dataclass(frozen=True, kw_only=True)
class FinetuneCard:
    """A run's recipe.

    Args:
        task: The task's name.
        algo: The `algo` config, plain values.
        base: Path of the frozen base, training run or bundle; `None` for learning from scratch.
        base_id: The bundle's id, or a digest of the run's weights; empty without a base.
        spec: The robot with all its observations.
        names: Observations that actor and critic read.
        stats: Statistics of the demonstrations by field.
        delay_steps: Ticks that the base's inference takes.
    """

    task: str
    algo: Mapping[str, Any]
    base: str | None
    base_id: str
    spec: RobotSpec
    names: tuple[str, ...]
    stats: Mapping[str, FieldStats]
    delay_steps: int

    @property
    def id(self) -> str:
        """Name of what the weights fit: networks, units, bounds and base. Not of how fast they are learned."""
        networks = {key: value for key, value in self.algo.items() if key not in ("pace", "batch_size", "demo_ratio")}
        parts = {**self.to_dict(), "algo": networks, "base": None}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def scaler(self) -> ActionScaler:
        """Return the agent's unit."""
        action = self.stats["action"]
        return ActionScaler.fit(action.min, action.max, widen=self.algo["widen"], floor=self.algo["floor"])

    def build_algorithm(self, seed: int, *, cache: LabelCache | None = None) -> Algorithm:
        """Return the agent with weights drawn from `seed`; `cache` keeps what a frozen base proposes, if it is asked.

        Raises:
            ConfigError: As of `build_base`.
        """
        import torch

        from policies.encoders import CompositeEncoder

        torch.manual_seed(seed)
        spec = self.spec.select(self.names)
        makes = [build(self.algo[key]) for key in ("encoder", "relative") if self.algo.get(key)]
        encoder = CompositeEncoder(spec, self.stats, n_obs=1, parts=makes)
        base = (open_sampler(self.checked_base(), self.spec), cache) if self.algo.get("chunked") else ()
        algorithm: Algorithm = build(self.algo["learner"], encoder, self.scaler(), list(self.names), *base)
        return algorithm

    def build_runner(self, algorithm: Algorithm, *, seed: int = 0, intervener: Intervener | None = None) -> StepRunner:
        """Return what decides every tick: base and correction, or the chunks that a critic chose."""
        base, step = self._drivers(algorithm)
        return StepRunner(
            self.spec, base=base, step=step, delay_steps=self.delay_steps, intervener=intervener, seed=seed
        )

    def build_policy(self, algorithm: Algorithm) -> StepwisePolicy:
        """Return the deterministic policy."""
        base, step = self._drivers(algorithm)
        return StepwisePolicy(self.spec, base=base, step=step, delay_steps=self.delay_steps)

    def _drivers(self, algorithm: Algorithm) -> tuple[Policy | None, ExploringPolicy | None]:
        if algorithm.driver is not None:
            return algorithm.driver, None
        assert isinstance(algorithm.policy, ExploringPolicy)
        return self.build_base(), algorithm.policy

    def build_base(self) -> Policy | None:
        """Return the frozen base.

        Raises:
            ConfigError: There is neither a run nor a bundle, or it is not the one that the run began with.
        """
        return None if self.base is None else open_base(self.checked_base(), self.spec)

    def checked_base(self) -> str:
        """Return the base's path after making sure that it is the one the run began with.

        Raises:
            ConfigError: It is another, or there is none.
        """
        if self.base is None:
            raise ConfigError(f"algo={self.algo['name']} needs a base and `algo.needs_base` is false; set it to true")
        if (found := identify(self.base)) != self.base_id:
            raise ConfigError(
                f"the base at {self.base} is {found} and this run began on {self.base_id}; give back the old one with "
                "base=..., or begin another run with finetune.out=..."
            )
        return self.base

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "task": self.task, "algo": dict(self.algo), "base": self.base, "base_id": self.base_id,
            "spec": self.spec.to_dict(), "names": list(self.names), "delay_steps": self.delay_steps,
            "stats": {name: stats.to_dict() for name, stats in self.stats.items()},
        }  # fmt: skip

    def save(self, folder: str | Path) -> None:
        """Write `finetune.json` into a run's folder, whole or not at all."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / FILE, self.to_dict())

    @classmethod
    def load(cls, folder: str | Path) -> FinetuneCard:
        """Read a run's `finetune.json`.

        Raises:
            ConfigError: There is none.
        """
        data = read_card(Path(folder) / FILE, expected="the folder of a run made by `robot-rl finetune`")
        return cls(**{**data, "names": tuple(data["names"])})


def demonstrations(config: DictConfig) -> LazyEpisodes:
    """Return the demonstrations to use, aligned as `train` aligns them.

    Raises:
        StoreError: There are none.
    """
    store = EpisodeStore.open(config.store)
    ids = store.ids()[: config.finetune.demonstrations]
    if not ids:
        raise StoreError(f"the store at {config.store} holds no episodes; fine-tuning needs demonstrations")
    return LazyEpisodes(ids, partial(aligned_episode, store, latency_ns=stream_latencies(config.latency, store)))


def make_card(config: DictConfig) -> FinetuneCard:
    """Return the recipe that a configuration asks for, with statistics of the demonstrations."""
    algo = plain(config.algo)
    names = tuple(algo["obs"] or plain(config.task.obs))
    window = WindowSpec(n_obs=1, horizon=1)
    dataset = WindowDataset(demonstrations(config), window, obs_names=list(names))
    base = str(Path(config.base).resolve()) if algo["needs_base"] else None
    return FinetuneCard(
        task=config.task.name,
        algo=algo,
        base=base,
        base_id="" if base is None else identify(base),
        spec=EpisodeStore.open(config.store).spec,
        names=names,
        stats=fit_stats(dataset),
        delay_steps=int(config.finetune.delay_steps),
    )


def finetuned_policy(folder: str) -> Policy:
    """Return the deterministic policy of a run with its newest weights (picklable with `functools.partial`).

    Raises:
        ConfigError: The run has published none.
    """
    card = FinetuneCard.load(folder)
    algorithm = card.build_algorithm(0)
    found = newest(Path(folder) / PUBLISHED, belongs_to=card.id)
    if found is None:
        raise ConfigError(f"{folder} holds no published weights; run `robot-rl finetune` first")
    algorithm.policy.load_state_dict(dict(found.tensors))
    return card.build_policy(algorithm)


def base_policy(folder: str) -> Policy:
    """Return a run's frozen base."""
    base = FinetuneCard.load(folder).build_base()
    if base is None:
        raise ConfigError(f"{folder} was learned from scratch; it has no base")
    return base


def residual_bound(card: FinetuneCard) -> np.ndarray:
    """Return the physical size [A] of the residual's bound, or of the whole unit without one."""
    settings, half = card.algo["learner"]["settings"], card.scaler().half
    given = {name: settings[name] for name in ("wide", "wide_alpha") if name in settings}
    return np.asarray(half * bounds_of(len(half), alpha=settings.get("alpha", 1.0), **given))
