"""The tail of a store: ids of new episodes as they come, from any process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from robot_rl.data.index import ListingIndex, LogIndex

_RECONCILE_S = 1.0


def follow(
    index: LogIndex | ListingIndex,
    known: set[str],
    *,
    poll_s: float,
    stop: Callable[[], bool],
    recover: Callable[[], object],
) -> Iterator[str]:
    """Yield ids that are not in `known`, oldest first, until `stop()` is true.

    Args:
        index: The store's index.
        known: Ids not to report; grows.
        poll_s: How often to look, in seconds.
        stop: Asked at every look.
        recover: Takes back what a killed transaction left, before the folder is compared with the index.
    """
    next_reconcile, version = time.monotonic() + _RECONCILE_S, -1
    while not stop():
        if time.monotonic() >= next_reconcile:
            # A writer killed between its rename and its index line shows only in the folder.
            recover()
            index.reconcile()
            next_reconcile = time.monotonic() + _RECONCILE_S
        index.refresh()
        if index.version == version:
            time.sleep(poll_s)
            continue
        version = index.version
        new = sorted(set(index.entries) - known)
        known.update(new)
        yield from new
