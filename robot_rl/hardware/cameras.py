"""Cameras: what every driver gives, its calibration, and the wrapper that brings an unplugged one back."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from robot_rl.errors import CameraError, CameraLost, CameraTimeout, ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CameraInfo:
    """What a camera gives, and its pinhole model.

    Args:
        width: Columns.
        height: Rows.
        fps: Nominal frame rate in hertz.
        frame_id: Optical frame (z forward, x right, y down).
        K: Intrinsic matrix, 9 numbers row by row [px]; all zero means not calibrated, as in ROS.
        D: Distortion coefficients in the order of `distortion_model`.
        distortion_model: `plumb_bob`, `rational_polynomial` or `equidistant`, as ROS names them.
        has_depth: Whether frames carry depth aligned to colour.

    Raises:
        ConfigError: A size or rate that is not positive, or `K` without nine numbers.
    """

    width: int
    height: int
    fps: float
    frame_id: str
    K: tuple[float, ...] = (0.0,) * 9
    D: tuple[float, ...] = ()
    distortion_model: str = "plumb_bob"
    has_depth: bool = False

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0 or not self.fps > 0:
            raise ConfigError(
                f"camera `{self.frame_id}`: width, height and fps must be positive, "
                f"got {self.width}, {self.height}, {self.fps}"
            )
        if len(self.K) != 9:
            raise ConfigError(f"camera `{self.frame_id}`: `K` must be 9 numbers, got {len(self.K)}")

    @property
    def period_ns(self) -> int:
        """Nominal time between frames in nanoseconds."""
        return round(1e9 / self.fps)


@dataclass(frozen=True)
class Frame:
    """One picture. The arrays are the caller's: no later `read` writes into them.

    Args:
        stamp_ns: When it was captured, ROS time.
        receipt_ns: When the driver handed it over, monotonic time.
        color: uint8 [height, width, 3], RGB.
        depth: uint16 [height, width] in millimetres, aligned to colour, 0 where unknown; `None` without depth.
    """

    stamp_ns: int
    receipt_ns: int
    color: np.ndarray
    depth: np.ndarray | None = None


@runtime_checkable
class Camera(Protocol):
    """A driver. One thread uses it; `tests/contracts/camera.py` holds what it must do."""

    @property
    def info(self) -> CameraInfo:
        """What it gives; complete once it has been open."""

    def open(self) -> None:
        """Start capturing. Allowed again after `close`, and after `CameraLost`.

        Raises:
            CameraLost: It is not there.
            CameraError: It is there and refuses what was asked.
        """

    def read(self, timeout_s: float) -> Frame:
        """Return the oldest frame not read yet, captured after `open`, with a later stamp than the last one.

        Raises:
            CameraTimeout: None came within `timeout_s`.
            CameraLost: It is gone.
            CameraError: It is not open.
        """

    def close(self) -> None:
        """Stop capturing. Calling it twice is allowed."""


class CameraClock(Protocol):
    """The two times a driver needs, and a way to wait."""

    def now_ns(self) -> int:
        """Return ROS time."""

    def monotonic_ns(self) -> int:
        """Return the machine's monotonic time."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemCameraClock:
    """ROS time is the system's clock, unless a simulation says otherwise."""

    def now_ns(self) -> int:
        """Return ROS time."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Return the machine's monotonic time."""
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def stamp_of(captured_ns: int, clock: CameraClock) -> int:
    """Return the ROS time of a moment on the monotonic clock, so that a driver need not care when ROS time jumps."""
    return clock.now_ns() - (clock.monotonic_ns() - captured_ns)


class Reconnecting:
    """A camera that comes back by itself: when it is lost it is opened again, with growing pauses between tries.

    `open` does not mind a camera that is not there yet. While it is away `read` raises `CameraTimeout`, never
    `CameraLost`. A camera that comes back with another size is refused with `CameraError`.

    Args:
        camera: The driver.
        name: For messages.
        first_wait_s: Pause after the first failed try; each further one doubles it.
        max_wait_s: Longest pause.
        silent_s: Time without a frame after which a camera that does not say so itself counts as lost; some drivers
            merely fall silent when the cable is pulled.
        clock: Its times.
    """

    def __init__(
        self,
        camera: Camera,
        *,
        name: str = "camera",
        first_wait_s: float = 0.1,
        max_wait_s: float = 2.0,
        silent_s: float = 2.0,
        clock: CameraClock | None = None,
    ) -> None:
        if not 0 < first_wait_s <= max_wait_s or not silent_s > 0:
            raise ConfigError(
                "`first_wait_s`, `max_wait_s` and `silent_s` must be positive and the first pause no longer than the "
                f"longest, got {first_wait_s}, {max_wait_s}, {silent_s}"
            )
        self._camera, self._name = camera, name
        self._first_wait_s, self._max_wait_s, self._silent_s = first_wait_s, max_wait_s, silent_s
        self._clock = SystemCameraClock() if clock is None else clock
        self._info: CameraInfo | None = None
        self._open = False
        self._wait_s = first_wait_s
        self._next_try_ns = self._alive_ns = 0
        self._why = "not opened yet"
        self.connected = False
        self.losses = 0
        self.tries = 0

    @property
    def info(self) -> CameraInfo:
        """What the camera gives.

        Raises:
            CameraError: It was never there.
        """
        if self._info is None:
            raise CameraError(f"camera `{self._name}` has not been there yet, so its info is not known: {self._why}")
        return self._info

    @property
    def trouble(self) -> str:
        """Why it is away, empty while it is connected."""
        return "" if self.connected else self._why

    def open(self) -> None:
        """Start; a camera that is not there is waited for in `read`.

        Raises:
            CameraError: It is there and refuses what was asked.
        """
        self._open = True
        self._alive_ns = self._clock.monotonic_ns()
        if not self.connected:
            self._try()

    def read(self, timeout_s: float) -> Frame:
        """Return the next frame.

        Raises:
            CameraTimeout: None came in time; the message says whether the camera is away and since when.
            CameraError: It is not open, or came back as another camera.
        """
        if not self._open:
            raise CameraError(f"camera `{self._name}` is not open; call open first")
        deadline = self._clock.monotonic_ns() + round(timeout_s * 1e9)
        while True:
            left_s = (deadline - self._clock.monotonic_ns()) / 1e9
            if self.connected:
                frame = self._read_connected(max(left_s, 0.0))
                if frame is not None:
                    return frame
            elif self._next_try_ns <= self._clock.monotonic_ns():
                self._try()
            elif left_s <= 0:
                away_s = (self._clock.monotonic_ns() - self._alive_ns) / 1e9
                raise CameraTimeout(
                    f"camera `{self._name}` has been away for {away_s:.1f} s, "
                    f"{self.tries} tries to open it: {self._why}"
                )
            else:
                wait_s = (self._next_try_ns - self._clock.monotonic_ns()) / 1e9
                self._clock.sleep(max(min(wait_s, left_s), 0.0))

    def _read_connected(self, timeout_s: float) -> Frame | None:
        silent_s = (self._clock.monotonic_ns() - self._alive_ns) / 1e9
        try:
            frame = self._camera.read(max(min(timeout_s, self._silent_s - silent_s), 0.0))
        except CameraLost as error:
            self._lose(str(error))
            return None
        except CameraTimeout:
            silent_s = (self._clock.monotonic_ns() - self._alive_ns) / 1e9
            if silent_s < self._silent_s:
                raise
            self._lose(f"no frame for {silent_s:.1f} s")
            return None
        self._alive_ns = self._clock.monotonic_ns()
        self._wait_s = self._first_wait_s
        return frame

    def _lose(self, why: str) -> None:
        log.warning("camera `%s` is lost: %s; it is opened again as soon as it is back", self._name, why)
        self._why, self.connected = why, False
        self.losses += 1
        self.tries = 0
        self._pause()
        self._camera.close()

    def _pause(self) -> None:
        """Put off the next try; the pauses grow until a frame comes, also where opening works and reading does not."""
        self._next_try_ns = self._clock.monotonic_ns() + round(self._wait_s * 1e9)
        self._wait_s = min(2 * self._wait_s, self._max_wait_s)

    def _try(self) -> None:
        self.tries += 1
        try:
            self._camera.open()
        except CameraLost as error:
            self._why = str(error)
            self._pause()
            return
        info = self._camera.info
        if self._info is not None and info != self._info:
            self._camera.close()
            raise CameraError(f"camera `{self._name}` came back as another one: it was {self._info}, now it is {info}")
        if self.losses:
            log.info("camera `%s` is back after %d tries", self._name, self.tries)
        self._info, self.connected = info, True
        self._alive_ns = self._clock.monotonic_ns()

    def close(self) -> None:
        """Stop."""
        self._open = self.connected = False
        self._why = "closed"
        self._camera.close()
