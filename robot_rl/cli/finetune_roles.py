"""Builds the actor and the learner of a fine-tuning run and runs them, together or each in a process of its own."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.config import build, plain, simulation
from robot_rl.cli.evaluate_command import environment
from robot_rl.cli.finetune_card import FinetuneCard, demonstrations, residual_bound
from robot_rl.cli.finetune_intervener import make_intervener
from robot_rl.cli.threads import numeric_threads
from robot_rl.data.store import EpisodeStore
from robot_rl.deploy.success import SuccessClassifier
from robot_rl.errors import ConfigError, RobotRLError, StoreError
from robot_rl.evaluation.permission import check_hardware_permission
from robot_rl.imitation.surroundings import InterruptFlag
from robot_rl.interfaces import Env
from robot_rl.rl.actor import Actor, ActorSettings, Played
from robot_rl.rl.algorithm import Algorithm
from robot_rl.rl.candidates import CANDIDATES
from robot_rl.rl.classified_env import ClassifiedEnv
from robot_rl.rl.feed import ReplayFeed
from robot_rl.rl.finetune import interleave, learn
from robot_rl.rl.labelling import LabelCache, labelled, rewarded
from robot_rl.rl.learner import PUBLISHED, Learner, LearnerSettings
from robot_rl.rl.pace import Pace
from robot_rl.rl.replay import added
from robot_rl.rl.rlif import rewards_of
from robot_rl.rl.runner import runner_extras
from robot_rl.rl.sampling import SymmetricSampler

log = logging.getLogger(__name__)

EPISODES = "store"
FROM_SCRATCH = "scratch"
"""What `finetune.override` names where there is no base."""
MAX_RESTARTS = 20
"""Times that each role is started again after it was killed."""
REFUSED = 3
"""Exit status of a process that ended with an error of ours: starting it again would end it the same way."""


def pace_of(config: DictConfig) -> Pace:
    """Return the run's schedule."""
    return Pace(total_steps=int(config.finetune.steps), **plain(config.algo.pace))


def online_store(config: DictConfig) -> EpisodeStore:
    """Return the store that the run's actors append to."""
    return EpisodeStore.open(Path(config.finetune.out) / EPISODES)


def create_online_store(config: DictConfig, card: FinetuneCard) -> None:
    """Make the run's store if there is none; a learner alone waits for its actor to do it, who has the robot.

    Raises:
        StoreError: The environment's robot is not the demonstrations'.
    """
    folder = Path(config.finetune.out) / EPISODES
    if EpisodeStore.exists(folder):
        return
    if config.finetune.role == "learner":
        _wait_for_store(folder)
        return
    env: Env = build(simulation(config))
    try:
        if env.spec != card.spec:
            raise StoreError(
                f"the demonstrations in {config.store} are of robot `{card.spec.name}` with other specs than those of "
                f"the task's `{env.spec.name}`; collect them again with this task"
            )
        EpisodeStore.create(folder, env.spec, extra=runner_extras(env.spec), codecs=plain(config.task.codecs))
    finally:
        env.close()


def _wait_for_store(folder: Path, poll_s: float = 0.5) -> None:
    log.info("waiting for the actor, who makes the store in %s", folder)
    while not EpisodeStore.exists(folder):
        time.sleep(poll_s)


def make_feed(config: DictConfig, card: FinetuneCard, algorithm: Algorithm) -> ReplayFeed:
    """Return a feed that holds the demonstrations, with the base's actions if the agent needs them."""
    algo = config.algo
    (reward, keep), streams = rewards_of(plain(algo)), algorithm.streams
    if (penalty := plain(algo).get("gripper_penalty")) is not None:
        reward = added(reward, build(penalty, scaler=card.scaler()))
    feed = ReplayFeed(
        card.spec.select(card.names),
        SymmetricSampler(int(algo.batch_size), float(algo.demo_ratio)),
        n_step=int(algo.n_step), gamma=float(algo.gamma), streams=streams, horizon=algorithm.horizon,
        prepare=algorithm.prepare, bound=residual_bound(card), reward=reward, demonstration_reward=reward,
        keep=keep, seed=int(config.seed),
    )  # fmt: skip
    episodes = demonstrations(config)
    if "base_action" not in streams:
        for episode in episodes:
            feed.add_demonstration(rewarded(episode))
        return feed
    base = card.build_base()
    assert base is not None
    cache = LabelCache(f"{config.store}.base_actions", card.base_id)
    for episode in labelled(episodes, base, cache, delay_steps=card.delay_steps):
        feed.add_demonstration(rewarded(episode))
    return feed


def make_learner(config: DictConfig, card: FinetuneCard) -> Learner:
    """Return the run's learner, where it stopped if it had begun."""
    f = config.finetune
    algorithm = card.build_algorithm(int(config.seed), cache=LabelCache(Path(f.out) / CANDIDATES, card.base_id))
    settings = LearnerSettings(
        log_every=f.log_every, publish_every=f.publish_every, checkpoint_every=f.checkpoint_every
    )
    feed = make_feed(config, card, algorithm)
    return Learner(
        algorithm, feed, pace_of(config), f.out, belongs_to=card.id, settings=settings, seed=int(config.seed)
    )


def make_env(config: DictConfig) -> Env:
    """Return the task's environment, as late as a measured cell, with a classifier's vote for its reward, if asked.

    Raises:
        ConfigError: The reward is to come from a classifier and none is given, or the arm must not be moved.
    """
    folder, (_, make) = config.finetune.classifier, environment(config, config.finetune.latency)
    if folder is None:
        if config.algo.reward == "classifier":
            raise ConfigError("`algo.reward=classifier` needs `finetune.classifier`, a folder of `robot-rl reward`")
        return make()
    return ClassifiedEnv(make(), SuccessClassifier(folder))


def check_permission(config: DictConfig, card: FinetuneCard) -> None:
    """Raise unless the run may move the arm: a real one only on a validated base, or one that the operator named.

    Raises:
        ConfigError: A real arm, and no base that can have been validated.
        BundleError: The base was not validated, or `finetune.override` names another.
    """
    f = config.finetune
    if not f.hardware or (f.override and f.override in (card.base_id, FROM_SCRATCH if card.base is None else None)):
        return
    if card.base is None or not (Path(card.base) / "manifest.json").is_file():
        what = f"base {card.base_id}" if card.base else FROM_SCRATCH
        raise ConfigError(
            f"a real arm learns on a bundle that was validated in simulation, this run on {what}: give base=<bundle>, "
            f"or allow it by name with finetune.override={card.base_id or FROM_SCRATCH}"
        )
    check_hardware_permission(PolicyBundle.open(card.base), override=f.override)


def make_actor(config: DictConfig, card: FinetuneCard, store: EpisodeStore, algorithm: Algorithm) -> Actor:
    """Return an actor that goes on where the store ends."""
    check_permission(config, card)
    f, env = config.finetune, make_env(config)
    runner = card.build_runner(algorithm, seed=int(config.seed), intervener=make_intervener(config, card.spec))
    settings = ActorSettings(
        first_seed=f.first_seed,
        max_steps=f.max_steps,
        max_ahead=f.max_ahead,
        patience_s=f.patience_s,
        repeat_failed=f.repeat_failed,
    )
    return Actor(
        env, runner, algorithm.policy, store, pace=pace_of(config), published=Path(f.out) / PUBLISHED,
        belongs_to=card.id, settings=settings, task=config.task.description,
        played=store.entries(),
    )  # fmt: skip


def run_by_turns(config: DictConfig, on_episode: Callable[[Played, Actor, Learner], None]) -> None:
    """Run actor and learner by turns in this process; the same seed gives the same run.

    Raises:
        TrainingError: The learner's loss is not finite.
    """
    card, store = FinetuneCard.load(config.finetune.out), online_store(config)
    with numeric_threads(int(config.finetune.threads)), InterruptFlag() as interrupt:
        learner = make_learner(config, card)
        for id in store.ids():
            learner.feed.add(store.episode(id))
        actor = make_actor(config, card, store, learner.algorithm)
        try:
            interleave(
                actor, learner, store.episode, stop=lambda: interrupt.raised,
                on_episode=lambda played: on_episode(played, actor, learner),
            )  # fmt: skip
        finally:
            learner.close()
            actor.env.close()
        if interrupt.raised:
            raise KeyboardInterrupt


def run_role(config: DictConfig, role: str, *, stop: Callable[[], bool] = lambda: False) -> None:
    """Run the actor or the learner in this process until the run is over or a signal asks to stop."""
    card, store = FinetuneCard.load(config.finetune.out), online_store(config)
    with numeric_threads(int(config.finetune.threads)), InterruptFlag() as interrupt:
        if role == "learner":
            learner = make_learner(config, card)
            try:
                learn(learner, store, stop=lambda: interrupt.raised or stop())
            finally:
                learner.close()
            return
        actor = make_actor(config, card, store, card.build_algorithm(int(config.seed)))
        try:
            actor.run(stop=lambda: interrupt.raised or stop())
        finally:
            actor.env.close()


def _child(config: dict[str, Any], role: str, parent: int) -> None:
    """Run a role in a spawned process, which ends when its parent is gone."""
    logging.basicConfig(level=logging.INFO, format=f"{role}: %(message)s")
    try:
        run_role(OmegaConf.create(config), role, stop=lambda: os.getppid() != parent)
    except RobotRLError as error:
        log.error("%s: %s", type(error).__name__, error)
        raise SystemExit(REFUSED) from error


def start_role(config: DictConfig, role: str) -> BaseProcess:
    """Start a role in a process of its own."""
    process = get_context("spawn").Process(target=_child, args=(plain(config), role, os.getpid()), name=role)
    process.start()
    return process


def run_both(config: DictConfig, on_look: Callable[[], None], *, poll_s: float = 0.5) -> None:
    """Run both roles to the end, each in its process, and start one that was killed again.

    A learner that ends with an error stays ended, and the actor plays the run's steps to the end with the last weights.

    Args:
        config: The configuration.
        on_look: Called now and then, for progress.
        poll_s: How often to look.

    Raises:
        RobotRLError: A role ended with an error or was killed too often; its message was logged.
    """
    running = {role: start_role(config, role) for role in ("learner", "actor")}
    restarts = dict.fromkeys(running, 0)
    failed: list[str] = []
    try:
        while running:
            time.sleep(poll_s)
            on_look()
            for role, process in list(running.items()):
                if process.is_alive():
                    continue
                process.join()
                if process.exitcode == 0:
                    del running[role]
                elif process.exitcode == REFUSED or restarts[role] >= MAX_RESTARTS:
                    failed.append(role)
                    del running[role]
                    if role == "actor" and "learner" in running:
                        running.pop("learner").terminate()
                else:
                    restarts[role] += 1
                    log.warning("the %s was killed (exit code %s); starting it again", role, process.exitcode)
                    running[role] = start_role(config, role)
    finally:
        for process in running.values():
            process.join(timeout=30)
            if process.is_alive():
                process.kill()
    if failed:
        raise RobotRLError(
            f"{' and '.join(failed)} ended with an error (above); episodes and checkpoints are in {config.finetune.out}"
        )
