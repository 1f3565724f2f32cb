"""HG-DAgger on an imitation base: play with an operator beside, add what the operator drove, imitate anew, in rounds.

Kelly et al. 2019 (arXiv 1810.02890). The operator, the base and its training settings are those of the RLIF run that it
is compared with; it plays until as many takeovers have been made, or the steps are used up. Every round imitates from
scratch, with as many updates for each step of its data as the base had: with the base's own number, four times the data
is not learned.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import Progress

from benchmarks.residual import FIRST_SEED, command
from robot_rl.cli.config import build, load_config, plain
from robot_rl.cli.finetune_intervener import make_intervener
from robot_rl.cli.model_card import torch_policy
from robot_rl.data.store import EpisodeStore
from robot_rl.rl.actor import Actor, ActorSettings
from robot_rl.rl.interventions import intervention_starts
from robot_rl.rl.pace import Pace
from robot_rl.rl.runner import StepRunner, runner_extras
from robot_rl.rl.segments import human_segments
from robot_rl.values import Episode

ROUNDS = 5


def takeovers(episode: Episode) -> int:
    """Return how often the operator took over in an episode."""
    return int(intervention_starts(np.asarray(episode.by_human, bool)).sum())


def hg_dagger(
    base: Path, folder: Path, *, seed: int, steps: int, wanted: int, settings: Sequence[str], rounds: int = ROUNDS
) -> None:
    """Run the rounds that are missing, then evaluate the last policy on the seeds that every policy is told on.

    Args:
        base: Folder of the base: its `store` and `train`.
        folder: Where this run goes.
        seed: Of the run.
        steps: Most environment steps, in all.
        wanted: Takeovers in all.
        settings: robot-rl overrides: task, base's training, operator.
        rounds: How often to imitate anew.
    """
    policy = base / "train"
    for number in range(1, rounds + 1):
        share = number / rounds
        _play(policy, folder, seed=seed, steps=round(share * steps), wanted=round(share * wanted), settings=settings)
        store = _aggregate(base / "store", folder, number)
        same = [
            f"out={folder}", f"seed={seed}", f"store={store}", f"run={folder}/train_{number}", *settings,
            f"train.steps={_updates(base / 'store', store, settings)}",
        ]  # fmt: skip
        command("train", *same)
        policy = folder / f"train_{number}"
    command("evaluate", *same, f"evaluate.out={folder / 'evaluate'}", "evaluate.what=run", "evaluate.video_episodes=0")


def _play(policy: Path, folder: Path, *, seed: int, steps: int, wanted: int, settings: Sequence[str]) -> None:
    """Play on until there are as many steps or takeovers; what is there counts."""
    config = load_config([*settings, f"seed={seed}"])
    env = build(config.task.env)
    path = folder / "played"
    store = (
        EpisodeStore.open(path) if EpisodeStore.exists(path)
        else EpisodeStore.create(path, env.spec, extra=runner_extras(env.spec), codecs=plain(config.task.codecs))
    )  # fmt: skip
    done = sum(takeovers(store.episode(id)) for id in store.ids())
    runner = StepRunner(
        env.spec, base=torch_policy(str(policy)), step=None, intervener=make_intervener(config, env.spec), seed=seed
    )
    actor = Actor(
        env, runner, None, store, pace=Pace(total_steps=steps, warm_up_steps=0), published=folder / "none",
        belongs_to=f"hg_dagger_{policy.name}", settings=ActorSettings(first_seed=FIRST_SEED * (seed + 1)),
        task=config.task.description, played=store.entries(),
    )  # fmt: skip
    with Progress() as progress:
        task = progress.add_task(f"playing, {policy.name}", total=steps)
        while not actor.finished and done < wanted:
            done += takeovers(store.episode(actor.episode().id))
            progress.update(task, completed=actor.steps)
    env.close()


def _aggregate(demonstrations: Path, folder: Path, number: int) -> Path:
    """Return a store of demonstrations and all that the operator drove so far, made whole before it takes its name."""
    target, part = folder / f"store_{number}", folder / f"store_{number}.part"
    if target.exists():
        return target
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(demonstrations, part)
    store, played = EpisodeStore.open(part), EpisodeStore.open(folder / "played")
    for id in played.ids():
        for recording in human_segments(played.episode(id), store.spec):
            store.append(recording)
    part.rename(target)
    return target


def _updates(demonstrations: Path, store: Path, settings: Sequence[str]) -> int:
    """Return the base's updates, as many times over as there is more to learn from."""
    given, grown = (sum(entry.steps for entry in EpisodeStore.open(path).entries()) for path in (demonstrations, store))
    return round(int(load_config(list(settings)).train.steps) * grown / given)


def counts(store: Path) -> dict[str, int]:
    """Return what was played: episodes, steps, steps of the operator, takeovers."""
    played = EpisodeStore.open(store)
    episodes = [played.episode(id) for id in played.ids()]
    return {
        "episodes": len(episodes), "steps": sum(map(len, episodes)),
        "human_steps": int(sum(np.asarray(e.by_human).sum() for e in episodes)),
        "takeovers": sum(map(takeovers, episodes)),
    }  # fmt: skip


def takeover_curve(store: Path, path: Path, *, bins: int = 10) -> None:
    """Save takeovers per hundred steps of the policy over a run, as JSON, so that pictures need no store."""
    played = EpisodeStore.open(store)
    rows, done = [], 0
    for id in played.ids():
        episode = played.episode(id)
        done += len(episode)
        driven = len(episode) - int(np.asarray(episode.by_human).sum())
        rows.append((done, takeovers(episode), driven))
    parts = [part for part in np.array_split(np.array(rows), min(bins, len(rows))) if len(part)]
    curve = [
        {"step": int(p[-1, 0]), "takeovers_per_100": 100.0 * float(p[:, 1].sum() / max(1, p[:, 2].sum()))}
        for p in parts
    ]
    path.write_text(json.dumps(curve))
