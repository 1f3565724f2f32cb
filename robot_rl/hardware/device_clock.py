"""From a device's own clock to the host's, by the least delayed of the newest samples."""

from __future__ import annotations

from collections import deque


class DeviceClock:
    """Maps stamps of a device's clock to the host's monotonic clock.

    A sample arrives after its capture by a transport time that varies and is never negative, so the smallest
    difference host minus device of the newest samples is the clocks' offset plus the shortest transport. A sliding
    window follows the drift of crystals (some 20 ppm: 0.2 ms in ten seconds).

    Args:
        window: Number of samples that the minimum is taken over.
        transport_ns: The shortest transport time, where it is known from a latency calibration.
        jump_ns: A sample whose offset lies this far below the present one, or whose device time runs back, means that
            the device started its clock anew.
    """

    def __init__(self, *, window: int = 300, transport_ns: int = 0, jump_ns: int = 1_000_000_000) -> None:
        self._offsets: deque[int] = deque(maxlen=window)
        self._transport_ns, self._jump_ns = transport_ns, jump_ns
        self._last_ns: int | None = None

    def to_host(self, device_ns: int, received_ns: int) -> int:
        """Return when a sample was captured, in the host's nanoseconds, and learn from it.

        Args:
            device_ns: Its stamp by the device's clock.
            received_ns: Host time when it arrived.
        """
        offset = received_ns - device_ns
        ran_back = self._last_ns is not None and device_ns < self._last_ns
        if ran_back or (self._offsets and offset < min(self._offsets) - self._jump_ns):
            self._offsets.clear()
        self._last_ns = device_ns
        self._offsets.append(offset)
        return device_ns + min(self._offsets) - self._transport_ns
