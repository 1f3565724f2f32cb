"""USB cameras that speak UVC, and anything else OpenCV opens."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from robot_rl.errors import CameraError, CameraLost, CameraTimeout, ConfigError
from robot_rl.hardware.cameras import CameraClock, CameraInfo, Frame, SystemCameraClock, stamp_of

_QUEUED = 2
_OLDEST_NS = 1_000_000_000
_BACKENDS = {"v4l2": cv2.CAP_V4L2, "any": cv2.CAP_ANY}


def capture_time_ns(position_ms: float, read_ns: int, latency_ns: int) -> int:
    """Return when a frame was captured, on the monotonic clock.

    V4L2 drivers stamp each buffer with the monotonic clock and OpenCV hands that on as the position in the stream.
    Where it is something else (zero, a position in a file, wall time) it cannot lie in the last second before the
    read, and the time of the read minus the configured latency is what is left.

    Args:
        position_ms: `CAP_PROP_POS_MSEC` after the read.
        read_ns: Monotonic time after the read.
        latency_ns: From exposure to the read, from a latency calibration.
    """
    position_ns = round(position_ms * 1e6)
    return position_ns if 0 <= read_ns - position_ns < _OLDEST_NS else read_ns - latency_ns


class UvcCamera:
    """A camera behind OpenCV's `VideoCapture`.

    A thread reads it, because a read of V4L2 blocks for ten seconds when the device hangs; a frame that nobody
    fetched gives way to a newer one.

    Args:
        device: Path such as `/dev/v4l/by-id/...` (stable), or a number.
        info: What is asked of it; another size is refused.
        latency_s: From exposure to the read, used where the driver gives no time of capture.
        fourcc: Pixel format asked for; empty leaves the choice to the driver. MJPG is what USB 2 can carry at 30 Hz.
        backend: `v4l2` or `any`.
        capture: Makes the OpenCV object.
        clock: Its times.

    Raises:
        ConfigError: An unknown backend, a fourcc of another length, depth asked for, or a negative latency.
    """

    def __init__(
        self,
        device: str | int,
        info: CameraInfo,
        *,
        latency_s: float = 0.0,
        fourcc: str = "MJPG",
        backend: str = "v4l2",
        capture: Callable[[Any, int], Any] = cv2.VideoCapture,
        clock: CameraClock | None = None,
    ) -> None:
        if backend not in _BACKENDS:
            raise ConfigError(f"`backend` must be one of {sorted(_BACKENDS)}, got {backend!r}")
        if len(fourcc) not in (0, 4):
            raise ConfigError(f"`fourcc` must be four letters or empty, got {fourcc!r}")
        if info.has_depth or not latency_s >= 0:
            raise ConfigError(
                f"a UVC camera has no depth and a latency >= 0 s, got has_depth={info.has_depth}, latency_s={latency_s}"
            )
        self.info = info
        self.dropped = 0
        self._device, self._fourcc, self._backend = device, fourcc, _BACKENDS[backend]
        self._latency_ns = round(latency_s * 1e9)
        self._make = capture
        self._clock = SystemCameraClock() if clock is None else clock
        self._frames: queue.Queue[Frame | CameraError] = queue.Queue(_QUEUED)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Start the device and its thread.

        Raises:
            CameraLost: There is no such device.
            CameraError: It does not give the size that was asked for.
        """
        self.close()
        capture = self._make(self._device, self._backend)
        if not capture.isOpened():
            capture.release()
            raise CameraLost(f"camera {self._device} cannot be opened: not plugged in, no permission, or in use")
        if self._fourcc:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self._fourcc))
        for what, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, self.info.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, self.info.height),
            (cv2.CAP_PROP_FPS, self.info.fps),
        ):
            capture.set(what, value)
        got = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        if got != (self.info.width, self.info.height):
            capture.release()
            raise CameraError(
                f"camera {self._device} must give {self.info.width} x {self.info.height}, it gives {got[0]} x {got[1]}"
                "; ask for a size it has (v4l2-ctl --list-formats-ext)"
            )
        self._frames, self._stop = queue.Queue(_QUEUED), threading.Event()
        work = (capture, self._frames, self._stop)
        self._thread = threading.Thread(target=self._capture, args=work, name=f"uvc-{self._device}", daemon=True)
        self._thread.start()

    def _capture(self, capture: Any, frames: queue.Queue[Frame | CameraError], stop: threading.Event) -> None:
        """Read until stopped or lost; the capture object belongs to this thread."""
        try:
            while not stop.is_set():
                ok, picture = capture.read()
                read_ns = self._clock.monotonic_ns()
                if not ok:
                    self._put(
                        frames, CameraLost(f"camera {self._device} gives no more frames; it was unplugged or hangs")
                    )
                    return
                captured_ns = capture_time_ns(capture.get(cv2.CAP_PROP_POS_MSEC), read_ns, self._latency_ns)
                color = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
                self._put(frames, Frame(stamp_of(captured_ns, self._clock), read_ns, color))
        except cv2.error as error:
            self._put(frames, CameraLost(f"camera {self._device}: {error}"))
        finally:
            capture.release()

    def _put(self, frames: queue.Queue[Frame | CameraError], item: Frame | CameraError) -> None:
        while True:
            try:
                frames.put_nowait(item)
            except queue.Full:
                try:
                    frames.get_nowait()
                    self.dropped += 1
                except queue.Empty:
                    continue
            else:
                return

    def read(self, timeout_s: float) -> Frame:
        """Return the next frame.

        Raises:
            CameraTimeout: None came within `timeout_s`.
            CameraLost: The device gave up.
            CameraError: It is not open.
        """
        if self._thread is None:
            raise CameraError(f"camera {self._device} is not open; call open first")
        try:
            item = self._frames.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            raise CameraTimeout(f"camera {self._device} gave no frame within {timeout_s:g} s") from None
        if isinstance(item, CameraError):
            self.close()
            raise item
        return item

    def close(self) -> None:
        """Stop. A device that hangs is left to its thread, which ends with the read it is in."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        self._thread = None
