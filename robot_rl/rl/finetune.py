"""Actor and learner together: in one process by turns, which repeats exactly, or each in its own."""

from __future__ import annotations

import logging
from collections.abc import Callable

from robot_rl.data.store import EpisodeStore
from robot_rl.rl.actor import Actor, Played
from robot_rl.rl.feed import ReplayFeed
from robot_rl.rl.learner import Learner
from robot_rl.rl.tail import StoreTail
from robot_rl.values import Episode

log = logging.getLogger(__name__)

_WAIT_S = 0.2


def interleave(
    actor: Actor,
    learner: Learner,
    episode_of: Callable[[str], Episode],
    *,
    stop: Callable[[], bool] = lambda: False,
    on_episode: Callable[[Played], None] | None = None,
) -> None:
    """Play an episode, make the updates it allows, hand over the weights, and so on to the end of the run.

    What is in the replay and where the learner stands are those of a run that was interrupted, if it was: updates
    that are owed come first.

    Args:
        actor: Plays; the learner publishes where it looks.
        learner: Learns; its feed must hold what was played before.
        episode_of: Opens an episode by its id: `store.episode`.
        stop: Asked between updates and between episodes.
        on_episode: Called after an episode and its updates.

    Raises:
        TrainingError: As of `Learner.update`.
        StoreError: As of `Actor.episode`.
    """
    feed: ReplayFeed = learner.feed
    learner.catch_up(feed.sample, stop=stop)
    while not actor.finished and not stop():
        learner.publish()
        actor.refresh()
        played = actor.episode()
        feed.add(episode_of(played.id))
        learner.catch_up(feed.sample, stop=stop)
        if on_episode is not None:
            on_episode(played)
    _leave(learner)


def learn(learner: Learner, store: EpisodeStore, *, stop: Callable[[], bool]) -> None:
    """Learn from a store that actors in other processes fill, until the run is over or `stop()` is true.

    Raises:
        TrainingError: As of `Learner.update`, or the replay cannot be fed any more.
    """
    tail = StoreTail(learner.feed, store)
    try:
        while not learner.finished and not stop():
            made = learner.catch_up(tail.next, stop=stop)
            if made:
                learner.publish()
            elif not learner.finished:
                tail.wait_for_news(_WAIT_S)
        learner.log(**{"feed/starved_s": tail.starved_s, "feed/refused": float(len(tail.refused))})
        _leave(learner)
    finally:
        tail.close()


def _leave(learner: Learner) -> None:
    learner.publish()
    learner.checkpoint()
    learner.log()
