"""`robot-rl collect`: scripted demonstrations into an episode store. Continues where it stopped."""

from __future__ import annotations

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


def _collect_into(
    store: EpisodeStore, env: Env, expert: Policy, config: DictConfig, progress: Progress
) -> tuple[int, int]:
    """Append successful episodes until there are enough; return (kept, failed)."""
    wanted, keep_failures = int(config.collect.episodes), bool(config.collect.keep_failures)
    seeds = {store.read(id).meta.seed for id in store.ids()}
    task = progress.add_task(f"collecting `{config.task.name}`", total=wanted, completed=len(store))
    seed, failed = int(config.collect.first_seed), 0
    while len(store) < wanted:
        if seed not in seeds:
            meta = RecordingMeta(task=config.task.description, source="scripted")
            recording, result = run_episode(env, expert, seed, meta=meta)
            failed += not result.success
            if recording is not None and (result.success or keep_failures):
                store.append(recording)
                progress.update(task, completed=len(store))
            if failed > 10 + MAX_FAILURE_RATIO * wanted:
                raise StoreError(
                    f"the expert failed {failed} times for {len(store)} successes; something is wrong with it"
                )
        seed += 1
    return len(store), failed


def run(config: DictConfig, console: Console) -> EpisodeStore:
    """Collect `collect.episodes` demonstrations of the task's expert into `store`."""
    if config.task.expert is None:
        raise ConfigError(f"task `{config.task.name}` has no scripted expert; give human data with source=<zarr>")
    env: Env = build(config.task.env)
    expert: Policy = build(config.task.expert)
    try:
        store = open_or_create(config.store, env.spec, plain(config.task.codecs))
        with bar(console) as progress:
            kept, failed = _collect_into(store, env, expert, config, progress)
    finally:
        env.close()
    console.print(f"{kept} demonstrations in {config.store} ({failed} failed attempts)")
    return store
