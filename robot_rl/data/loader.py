"""Shuffled batches for training, made ahead of time, repeatable to the bit from a seed and a position."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np

from robot_rl.data.windows import WindowBatch, WindowDataset
from robot_rl.errors import ConfigError


class BatchLoader:
    """An endless stream of shuffled batches; each epoch uses every window at most once and drops the short last batch.

    Epoch k's order is a function of (seed, k) alone, so the batches depend on neither `prefetch` nor threads. An
    exception while a batch is made is raised by `next`, and the position stays at that batch.

    Args:
        dataset: Where windows come from.
        batch_size: B.
        seed: Fixes the order.
        prefetch: Batches made ahead in a background thread; 0 makes each when asked.
    """

    def __init__(self, dataset: WindowDataset, batch_size: int, *, seed: int = 0, prefetch: int = 2) -> None:
        if not 1 <= batch_size <= len(dataset):
            raise ConfigError(f"`batch_size` must lie within [1, {len(dataset)}] (windows there are), got {batch_size}")
        if prefetch < 0:
            raise ConfigError(f"`prefetch` must not be negative, got {prefetch}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self._prefetch = prefetch
        self._step = 0  # batches delivered since epoch 0
        self._order: tuple[int, np.ndarray] | None = None
        self._pending: deque[Future[WindowBatch]] = deque()
        self._thread: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        """Return batches in one epoch."""
        return len(self.dataset) // self.batch_size

    @property
    def epoch(self) -> int:
        """Epoch of the next batch."""
        return self._step // len(self)

    @property
    def batch(self) -> int:
        """Number of the next batch within its epoch."""
        return self._step % len(self)

    def __iter__(self) -> Iterator[WindowBatch]:
        return self

    def __next__(self) -> WindowBatch:
        batch = self._make(self._step) if self._prefetch == 0 else self._next_prefetched()
        self._step += 1
        return batch

    def index(self, step: int) -> np.ndarray:
        """Return which windows make batch `step`, counted from the start of epoch 0; int64 [B]."""
        epoch, batch = divmod(step, len(self))
        order = self._order
        if order is None or order[0] != epoch:
            order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset)))
            self._order = order
        return order[1][batch * self.batch_size : (batch + 1) * self.batch_size]

    def _make(self, step: int) -> WindowBatch:
        return self.dataset.gather(self.index(step))

    def _next_prefetched(self) -> WindowBatch:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        while len(self._pending) < self._prefetch:
            self._pending.append(self._thread.submit(self._make, self._step + len(self._pending)))
        try:
            batch = self._pending[0].result()
        except BaseException:
            self._forget_pending()
            raise
        self._pending.popleft()
        self._pending.append(self._thread.submit(self._make, self._step + 1 + len(self._pending)))
        return batch

    def _forget_pending(self) -> None:
        for future in self._pending:
            future.cancel()
        self._pending.clear()

    def state_dict(self) -> dict[str, int]:
        """Return the position of the next batch, as JSON values; batches made ahead do not count."""
        return {
            "seed": self.seed, "epoch": self.epoch, "batch": self.batch,
            "batch_size": self.batch_size, "n_windows": len(self.dataset),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a `state_dict` was taken, with exactly the batches that would have followed.

        Raises:
            ConfigError: The state is of another seed, batch size or data set.
        """
        own = self.state_dict()
        unlike = [
            f"{k} {state.get(k)} (here {own[k]})" for k in ("seed", "batch_size", "n_windows") if state.get(k) != own[k]
        ]
        if unlike:
            raise ConfigError(
                f"the loader's state does not fit: {', '.join(unlike)}; resume with the same data and settings"
            )
        self._forget_pending()
        self._step = int(state["epoch"]) * len(self) + int(state["batch"])

    def close(self) -> None:
        """Stop the background thread after the batch it is making; the loader can be used again afterwards."""
        self._forget_pending()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
