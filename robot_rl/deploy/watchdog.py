"""Watches streams that motion depends on: how long each has been silent, and how old its newest sample is."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robot_rl.errors import ConfigError


@dataclass
class _Seen:
    received_ns: int
    age_ns: int  # at receipt, by the sample's own stamp; negative when the sender's clock is ahead


class Watchdog:
    """Judges each stream by the monotonic time of receipt and by the age its stamp had then.

    Both together are the age of the newest sample, and no jump of the ROS clock between two samples can hide a silence.

    Args:
        timeout_s: Largest age of each stream's newest sample, by name.

    Raises:
        ConfigError: A time-out is not positive.
    """

    def __init__(self, timeout_s: Mapping[str, float]) -> None:
        for name, seconds in timeout_s.items():
            if not seconds > 0:
                raise ConfigError(f"watchdog time-out of `{name}` must be positive, got {seconds}")
        self._timeout_ns = {name: round(seconds * 1e9) for name, seconds in timeout_s.items()}
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The streams."""
        return tuple(self._timeout_ns)

    def saw(self, name: str, *, now_ns: int, age_ns: int = 0) -> None:
        """Note a sample.

        Args:
            name: Its stream.
            now_ns: Monotonic time of receipt.
            age_ns: ROS time of receipt minus the sample's stamp.

        Raises:
            ConfigError: The stream is not watched.
        """
        if name not in self._timeout_ns:
            raise ConfigError(f"stream `{name}` is not watched; watched are {sorted(self._timeout_ns)}")
        with self._lock:
            self._seen[name] = _Seen(now_ns, age_ns)

    def age_ns(self, name: str, now_ns: int) -> int | None:
        """Return the age of a stream's newest sample, `None` if there never was one."""
        with self._lock:
            seen = self._seen.get(name)
        return None if seen is None else now_ns - seen.received_ns + max(seen.age_ns, 0)

    def complaint(self, now_ns: int, names: Sequence[str]) -> str:
        """Return what is wrong with the first bad one of these streams, or an empty string."""
        for name in names:
            with self._lock:
                seen = self._seen.get(name)
            timeout = self._timeout_ns[name]
            if seen is None:
                return f"`{name}` has never been received"
            age = now_ns - seen.received_ns + max(seen.age_ns, 0)
            if age > timeout:
                silent = (now_ns - seen.received_ns) / 1e9
                return (
                    f"`{name}` is {age / 1e9:.3f} s old (silent for {silent:.3f} s), "
                    f"at most {timeout / 1e9:g} s allowed"
                )
            if seen.age_ns < -timeout:
                return f"`{name}` is stamped {-seen.age_ns / 1e9:.3f} s in the future; the clocks disagree"
        return ""
