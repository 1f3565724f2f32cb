"""What a policy sees at a tick, assembled from streams that arrive at their own rates.

The rule is the one data are aligned with (`robot_rl.data.align`): the newest sample captured at or before the tick, so
that a policy is shown at run time what it was shown in training. A stream whose newest sample is too old, by its stamp
or by the monotonic time of its receipt, makes the whole observation void, with a reason that names the stream.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robot_rl.errors import ConfigError, SpecError
from robot_rl.specs import ArraySpec
from robot_rl.values import Obs


@dataclass(frozen=True)
class Sight:
    """What is seen at a tick.

    Args:
        obs: Stacked observations {name: [O, ...]}, oldest first; `None` when a stream is missing or stale.
        reason: Which stream and why, when `obs` is `None`; else empty.
        age_ns: Age of the newest sample used, by stream; streams without one are left out.
    """

    obs: Obs | None
    reason: str = ""
    age_ns: Mapping[str, int] = field(default_factory=dict)


class Observer:
    """Buffers the streams of an observation. `push` may be called from other threads than `at`.

    Args:
        specs: Spec of each observation by name.
        n_obs: O, how many observation steps to stack.
        step_ns: Control period: the distance of the stacked steps.
        max_age_ns: How old the newest sample of a stream may be at a tick; every stream needs one.
        latency_ns: How much later than capture a stream's stamps are; zero where not given.

    Raises:
        ConfigError: A stream without a bound on its age, a bound that is not positive, or an unknown stream.
    """

    def __init__(
        self,
        specs: Mapping[str, ArraySpec],
        *,
        n_obs: int,
        step_ns: int,
        max_age_ns: Mapping[str, int],
        latency_ns: Mapping[str, int] | None = None,
    ) -> None:
        given = {} if latency_ns is None else latency_ns
        if n_obs < 1 or step_ns < 1:
            raise ConfigError(f"need `n_obs` >= 1 and `step_ns` >= 1, got {n_obs} and {step_ns}")
        if unknown := sorted({*max_age_ns, *given} - set(specs)):
            raise ConfigError(
                f"`max_age_ns` and `latency_ns` name unknown streams {unknown}; there are {sorted(specs)}"
            )
        for name in specs:
            if not max_age_ns.get(name, 0) > 0:
                raise ConfigError(f"`max_age_ns` of `{name}` must be positive, got {max_age_ns.get(name)}")
        keep_ns = n_obs * step_ns
        self._step_ns, self._n_obs = step_ns, n_obs
        self._buffers = {
            name: _Buffer(spec, latency_ns=given.get(name, 0), max_age_ns=max_age_ns[name], keep_ns=keep_ns)
            for name, spec in specs.items()
        }
        self._lock = threading.Lock()

    @property
    def counts(self) -> dict[str, int]:
        """How many samples of each stream were taken since the beginning."""
        with self._lock:
            return {name: buffer.taken for name, buffer in self._buffers.items()}

    def reset(self) -> None:
        """Forget all samples; the first one after this stands in for those before it, as in training."""
        with self._lock:
            for buffer in self._buffers.values():
                buffer.clear()

    def push(self, name: str, stamp_ns: int, value: np.ndarray, *, received_ns: int) -> None:
        """Take one sample. One that its spec refuses is dropped, and the reason is told once the stream is stale.

        Args:
            name: The stream.
            stamp_ns: Its stamp, ROS time.
            value: The sample; it is kept, so it must not change afterwards.
            received_ns: When it came, monotonic time.

        Raises:
            ConfigError: No such stream.
        """
        if name not in self._buffers:
            raise ConfigError(f"there is no stream `{name}`; there are {sorted(self._buffers)}")
        with self._lock:
            self._buffers[name].push(stamp_ns, value, received_ns)

    def refuse(self, name: str, reason: str) -> None:
        """Note that a sample came which could not be read; the reason is told once the stream is stale."""
        with self._lock:
            self._buffers[name].refused = reason

    def at(self, tick_ns: int, *, now_ns: int) -> Sight:
        """Return what is seen at a tick.

        Args:
            tick_ns: The tick, ROS time.
            now_ns: The present monotonic time.
        """
        ticks = [tick_ns - k * self._step_ns for k in range(self._n_obs - 1, -1, -1)]
        with self._lock:
            faults = [f for buffer in self._buffers.values() if (f := buffer.fault(tick_ns, now_ns)) is not None]
            ages = {name: age for name, b in self._buffers.items() if (age := b.age_ns(tick_ns)) is not None}
            if faults:
                return Sight(None, "; ".join(faults), ages)
            return Sight({name: buffer.rows(ticks) for name, buffer in self._buffers.items()}, age_ns=ages)


class _Buffer:
    """The last samples of one stream, in order of capture."""

    def __init__(self, spec: ArraySpec, *, latency_ns: int, max_age_ns: int, keep_ns: int) -> None:
        self._spec, self._latency_ns, self._max_age_ns, self._keep_ns = spec, latency_ns, max_age_ns, keep_ns
        self.taken = 0
        self.clear()

    def clear(self) -> None:
        self._captured: list[int] = []
        self._received: list[int] = []
        self._values: list[np.ndarray] = []
        self.refused = ""

    def push(self, stamp_ns: int, value: np.ndarray, received_ns: int) -> None:
        captured = stamp_ns - self._latency_ns
        try:
            array = self._spec.validate(value)
        except SpecError as error:
            self.refused = str(error)
            return
        if self._captured and captured == self._captured[-1]:
            return  # a repeated stamp is no new sample: a source that repeats its last picture has stalled
        if self._captured and captured < self._captured[-1]:
            self.clear()  # its clock went back; what came before cannot be compared with what comes now
        self.taken += 1
        self.refused = ""
        self._captured.append(captured)
        self._received.append(received_ns)
        self._values.append(array)
        self._forget(captured - self._keep_ns - self._max_age_ns)

    def _forget(self, before_ns: int) -> None:
        n = bisect.bisect_right(self._captured, before_ns) - 1  # one sample at or before the bound must stay
        if n > 0:
            for column in (self._captured, self._received, self._values):
                del column[:n]

    def age_ns(self, tick_ns: int) -> int | None:
        i = bisect.bisect_right(self._captured, tick_ns) - 1
        return tick_ns - self._captured[i] if i >= 0 else None

    def fault(self, tick_ns: int, now_ns: int) -> str | None:
        name, bound = self._spec.name, self._max_age_ns
        i = bisect.bisect_right(self._captured, tick_ns) - 1
        if i < 0:
            text = f"`{name}` has no sample yet" if not self._captured else f"`{name}` has only samples from the future"
        else:
            by_stamp, by_receipt = tick_ns - self._captured[i], now_ns - self._received[i]
            if max(by_stamp, by_receipt) <= bound:
                return None
            clock = "by its stamp" if by_stamp > bound else "by its time of receipt"
            text = f"`{name}` is stale: {max(by_stamp, by_receipt) / 1e6:.0f} ms old {clock}, {bound / 1e6:.0f} allowed"
        ahead = len(self._captured) - 1 - i
        if ahead and self._captured[-1] - tick_ns > bound:
            text += f"; its clock is {(self._captured[-1] - tick_ns) / 1e9:.3f} s ahead"
        return text + (f"; last sample refused: {self.refused}" if self.refused else "")

    def rows(self, ticks: list[int]) -> np.ndarray:
        """Return the rows [O, ...] seen at the ticks; the oldest sample stands in for those before it."""
        return np.stack([self._values[max(bisect.bisect_right(self._captured, t) - 1, 0)] for t in ticks])
