"""`robot-rl collect`: a script's episodes into a store, good ones or of mixed quality. Continues where it stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress

from robot_rl.cli.config import build, plain
from robot_rl.cli.progress import bar
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, StoreError
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.interfaces import Env, Policy
from robot_rl.specs import RobotSpec
from robot_rl.values import RecordingMeta

MAX_FAILURE_RATIO = 0.5
QUALITY = "quality"
"""Under this name `meta.extra` tells how good a demonstrator was asked for."""


@dataclass(frozen=True)
class Demonstrator:
    """Who acts, and what its episodes are labelled with."""

    policy: Policy
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be collected.

    Args:
        demonstrators: Take turns by the episode's seed.
        episodes: In the store at the end.
        first_seed: Of the episodes; seeds that the store has are passed over.
        max_steps: After which an attempt is given up; `None` leaves that to the environment.
        keep_failures: Store failed attempts, too.
        max_failures: More of them stop the command.
    """

    demonstrators: Sequence[Demonstrator]
    episodes: int
    first_seed: int
    max_steps: int | None
    keep_failures: bool
    max_failures: float

    @property
    def mixed(self) -> bool:
        """Whether the demonstrators are of chosen quality."""
        return QUALITY in self.demonstrators[0].extra


def read_plan(config: DictConfig) -> Plan:
    """Return what `collect` asks for, every key checked.

    Raises:
        ConfigError: A number out of range, or qualities that the task's expert cannot have.
    """
    collect, mixed = config.collect, config.collect.qualities is not None
    episodes = _whole(collect, "episodes", least=1)
    first_seed = _whole(collect, "first_seed", least=0)
    max_steps = None if collect.max_steps is None else _whole(collect, "max_steps", least=1)
    demonstrators = _misjudging(config) if mixed else [Demonstrator(build(config.task.expert))]
    if mixed and max_steps is None:
        max_steps = config.task.misjudging.max_steps
    return Plan(
        demonstrators=demonstrators, episodes=episodes, first_seed=first_seed, max_steps=max_steps,
        keep_failures=mixed or bool(collect.keep_failures),
        max_failures=math.inf if mixed else 10 + MAX_FAILURE_RATIO * episodes,
    )  # fmt: skip


def _whole(collect: DictConfig, key: str, *, least: int) -> int:
    value = collect[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not value >= least or value % 1 != 0:
        raise ConfigError(f"`collect.{key}` must be a whole number, at least {least}, got {value!r}")
    return int(value)


def _misjudging(config: DictConfig) -> list[Demonstrator]:
    """Return a demonstrator for each of `collect.qualities`, each of which errs to a side of its own."""
    qualities, misjudging = plain(config.collect.qualities), config.task.get("misjudging")
    if misjudging is None:
        raise ConfigError(
            f"`collect.qualities` needs an expert that can misjudge, and task `{config.task.name}` has none "
            "(`task.misjudging` is null); choose task=lift or task=insert, or leave it null"
        )
    if not isinstance(qualities, list) or not qualities or not all(isinstance(q, int | float) for q in qualities):
        raise ConfigError(f"`collect.qualities` must be a list of success rates such as [1.0,0.5,0.2], got {qualities}")
    try:
        return [
            Demonstrator(build(misjudging.expert, quality=float(q), seed=i), {QUALITY: float(q)})
            for i, q in enumerate(qualities)
        ]
    except ConfigError as error:
        raise ConfigError(f"`collect.qualities` is {qualities}: {error}") from error


def open_or_create(url: str, spec: RobotSpec, codecs: dict[str, str]) -> EpisodeStore:
    """Return the store at `url`, made if there is none.

    Raises:
        ConfigError: The store there holds another robot's episodes.
    """
    if not EpisodeStore.exists(url):
        return EpisodeStore.create(url, spec, codecs=codecs)
    store = EpisodeStore.open(url)
    if store.spec != spec:
        raise ConfigError(
            f"the store at {url} holds robot `{store.spec.name}` with other specs; choose another `store=`"
        )
    return store


def _collect_into(store: EpisodeStore, env: Env, plan: Plan, *, task: DictConfig, progress: Progress) -> int:
    """Append episodes until there are enough; return how many attempts failed."""
    stored = [store.read(id).meta for id in store.ids()]
    if plan.mixed and len(stored) >= plan.episodes and not any(QUALITY in meta.extra for meta in stored):
        raise ConfigError(
            f"the store at {store.url} already holds {len(stored)} episodes, none of them by demonstrators of "
            f"`collect.qualities`, and collect.episodes={plan.episodes}; give another `store=`, or ask for more"
        )
    seeds = {meta.seed for meta in stored}
    shown = progress.add_task(f"collecting `{task.name}`", total=plan.episodes, completed=len(stored))
    seed, failed = plan.first_seed, 0
    while len(store) < plan.episodes:
        if seed not in seeds:
            acting = plan.demonstrators[seed % len(plan.demonstrators)]
            meta = RecordingMeta(task=task.description, source="scripted", extra=acting.extra)
            recording, result = run_episode(env, acting.policy, seed, meta=meta, max_steps=plan.max_steps)
            failed += not result.success
            if recording is not None and (result.success or plan.keep_failures):
                store.append(recording)
                progress.update(shown, completed=len(store))
            if failed > plan.max_failures:
                raise StoreError(
                    f"the expert failed {failed} times for {len(store)} successes; something is wrong with it"
                )
        seed += 1
    return failed


def run(config: DictConfig, console: Console) -> EpisodeStore:
    """Collect `collect.episodes` episodes of the task's expert into `store`: successes, or of `collect.qualities`."""
    if config.task.expert is None:
        raise ConfigError(f"task `{config.task.name}` has no scripted expert; give human data with source=<zarr>")
    plan = read_plan(config)
    env: Env = build(config.task.env)
    try:
        store = open_or_create(config.store, env.spec, plain(config.task.codecs))
        with bar(console) as progress:
            failed = _collect_into(store, env, plan, task=config.task, progress=progress)
    finally:
        env.close()
    if plan.mixed:
        failures = sum(entry.outcome == "failure" for entry in store.entries())
        console.print(f"{len(store)} episodes in {config.store}, {failures} of them failures")
    else:
        console.print(f"{len(store)} demonstrations in {config.store} ({failed} failed attempts)")
    return store
