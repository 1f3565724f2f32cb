"""Keeps a feed up to date with a store and batches ready, on threads of its own, so that the learner never waits."""

from __future__ import annotations

import logging
import queue
import threading
import time

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import SpecError, StoreError, TrainingError
from robot_rl.rl.feed import Batch, ReplayFeed

log = logging.getLogger(__name__)

AHEAD = 4
"""Batches prepared before they are asked for."""


class StoreTail:
    """Follows a store into a feed and prepares batches. `close` ends its threads.

    An episode that cannot be read or does not fit is logged, counted and passed over: one bad file must not end a run.

    Args:
        feed: Takes the episodes.
        store: Where actors append; what is there already is read first, in the order of the ids.
        poll_s: How often to look.
    """

    def __init__(self, feed: ReplayFeed, store: EpisodeStore, *, poll_s: float = 0.05) -> None:
        self._feed, self._store, self._poll_s = feed, store, poll_s
        self.refused: dict[str, str] = {}
        self.starved_s = 0.0
        self._stop, self._news = threading.Event(), threading.Event()
        self._batches: queue.Queue[Batch] = queue.Queue(maxsize=AHEAD)
        self._failure: BaseException | None = None
        there = store.ids()
        for id in there:
            self._take(id)
        self._ids = store.follow(poll_s=poll_s, stop=self._stop.is_set, seen=there)
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True)
            for work in (self._follow, self._prepare)
        ]
        for thread in self._threads:
            thread.start()

    def next(self) -> Batch:
        """Return the next batch, waiting for it if need be; the wait is counted in `starved_s`.

        Raises:
            TrainingError: A thread has failed.
        """
        began = time.monotonic()
        while True:
            self.check()
            try:
                batch = self._batches.get(timeout=0.2)
            except queue.Empty:
                continue
            self.starved_s += time.monotonic() - began
            return batch

    def wait_for_news(self, timeout_s: float) -> bool:
        """Wait until an episode has come in; return whether one has.

        Raises:
            TrainingError: A thread has failed.
        """
        self.check()
        came = self._news.wait(timeout_s)
        self._news.clear()
        return came

    def check(self) -> None:
        """Raise what ended a thread.

        Raises:
            TrainingError: A thread has failed.
        """
        if self._failure is not None:
            raise TrainingError(f"the replay cannot be fed any more: {self._failure!r}") from self._failure

    def close(self) -> None:
        """End the threads. Calling it twice is allowed."""
        self._stop.set()
        while any(thread.is_alive() for thread in self._threads):
            with self._batches.mutex:
                self._batches.queue.clear()
                self._batches.not_full.notify_all()
            for thread in self._threads:
                thread.join(timeout=0.05)

    def _guarded(self, work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except Exception as error:  # told to the learner, who raises it
            self._failure = error

    def _follow(self) -> None:
        for id in self._ids:
            self._take(id)
            self._news.set()

    def _take(self, id: str) -> None:
        try:
            self._feed.add(self._store.episode(id))
        except (SpecError, StoreError) as error:
            self.refused[id] = str(error)
            log.warning("episode %s is left out of the replay: %s", id, error)

    def _prepare(self) -> None:
        while not self._stop.is_set():
            if len(self._feed.online) + len(self._feed.demonstrations) == 0:
                time.sleep(self._poll_s)
                continue
            self._batches.put(self._feed.sample())
