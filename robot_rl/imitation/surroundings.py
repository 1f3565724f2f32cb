"""What a run changes in its process: signal handlers, torch's threads and generator; all put back at the end."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)


class InterruptFlag:
    """Context in which the first SIGINT or SIGTERM only sets `raised`; a second one acts as it did before.

    Signals can be caught in the main thread alone; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.raised = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> InterruptFlag:
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGINT, signal.SIGTERM)
            self._before = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.raised = True
        self._restore()
        logger.warning("%s: finishing this step and saving; send it again to stop at once", signal.Signals(number).name)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextlib.contextmanager
def surroundings(threads: int | None, seed: int) -> Iterator[InterruptFlag]:
    """Set threads, seed and signal handlers for a run, and put all back as they were."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(), InterruptFlag() as interrupt:
        torch.manual_seed(stream_seed(seed, 1))
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            yield interrupt
        finally:
            torch.set_num_threads(before)


def stream_seed(seed: int, stream: int) -> int:
    """Return the seed of one of a run's random streams, so that noise and dropout are independent of each other."""
    return int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint32)[0])
