"""Intel RealSense cameras: colour, and depth aligned to it. The only file that imports pyrealsense2."""

from __future__ import annotations

import importlib
import logging
import math
from typing import Any

import numpy as np

from robot_rl.errors import CameraError, CameraLost, CameraTimeout, ConfigError, MissingExtraError
from robot_rl.hardware.cameras import CameraClock, CameraInfo, Frame, SystemCameraClock, stamp_of
from robot_rl.hardware.device_clock import DeviceClock

log = logging.getLogger(__name__)

_MODELS = {
    "brown_conrady": "plumb_bob", "inverse_brown_conrady": "plumb_bob", "modified_brown_conrady": "plumb_bob",
    "none": "plumb_bob", "kannala_brandt4": "equidistant", "ftheta": "equidistant",
}  # fmt: skip


def _library() -> Any:
    try:
        return importlib.import_module("pyrealsense2")
    except ImportError as error:
        raise MissingExtraError("pyrealsense2", "realsense") from error


class RealSenseCamera:
    """A RealSense through librealsense's pipeline, with its own intrinsics and its own clock.

    Stamps come from the device's hardware clock, mapped to the host's by `DeviceClock`; librealsense's own mapping
    (global time) is switched off because it follows the wall clock, which may jump.

    Args:
        serial: Serial number; empty takes the only one.
        info: What is asked of it; intrinsics are read from the device when `K` is all zero.
        transport_s: Shortest time from capture to receipt, from a latency calibration.
        clock: Its times.

    Raises:
        MissingExtraError: pyrealsense2 is not installed.
        ConfigError: A negative transport time, or a rate that is no whole number.
    """

    def __init__(
        self,
        info: CameraInfo,
        *,
        serial: str = "",
        transport_s: float = 0.0,
        clock: CameraClock | None = None,
    ) -> None:
        if not transport_s >= 0 or info.fps != int(info.fps):
            raise ConfigError(
                f"a RealSense needs transport_s >= 0 and whole fps, got transport_s={transport_s}, fps={info.fps}"
            )
        self._rs = _library()
        self._asked = self._info = info
        self._serial = serial
        self._transport_ns = round(transport_s * 1e9)
        self._context = self._rs.context()
        self._clock = SystemCameraClock() if clock is None else clock
        self._pipeline: Any = None
        self._align: Any = None
        self._mm_per_unit = 1.0
        self._device_clock = DeviceClock()
        self._name = f"RealSense {serial}" if serial else "RealSense"

    @property
    def info(self) -> CameraInfo:
        """What it gives; intrinsics are the device's once it has been open."""
        return self._info

    def open(self) -> None:
        """Start the streams.

        Raises:
            CameraLost: It is not plugged in.
            CameraError: It does not have this mode, or another program uses it.
        """
        self.close()
        rs = self._rs
        device = self._find()
        for sensor in device.query_sensors():
            if sensor.supports(rs.option.global_time_enabled):
                sensor.set_option(rs.option.global_time_enabled, 0.0)
        config = rs.config()
        config.enable_device(device.get_info(rs.camera_info.serial_number))
        mode = (self._asked.width, self._asked.height)
        config.enable_stream(rs.stream.color, *mode, rs.format.rgb8, int(self._asked.fps))
        if self._asked.has_depth:
            config.enable_stream(rs.stream.depth, *mode, rs.format.z16, int(self._asked.fps))
        pipeline = rs.pipeline(self._context)
        try:
            profile = pipeline.start(config)
        except RuntimeError as error:
            raise CameraError(
                f"{self._name} refuses {mode[0]} x {mode[1]} at {self._asked.fps:g} Hz"
                f"{' with depth' if self._asked.has_depth else ''}: {error}; see rs-enumerate-devices for its modes"
            ) from error
        self._pipeline = pipeline
        self._device_clock = DeviceClock(transport_ns=self._transport_ns)
        self._read_profile(profile)

    def _find(self) -> Any:
        rs = self._rs
        found = {d.get_info(rs.camera_info.serial_number): d for d in self._context.query_devices()}
        if self._serial and self._serial in found:
            return found[self._serial]
        if self._serial or not found:
            raise CameraLost(f"{self._name} is not there; RealSense cameras found: {sorted(found)}")
        if len(found) > 1:
            raise CameraError(f"several RealSense cameras are there, {sorted(found)}; say which by `serial`")
        return next(iter(found.values()))

    def _read_profile(self, profile: Any) -> None:
        rs = self._rs
        if self._asked.has_depth:
            self._align = rs.align(rs.stream.color)
            self._mm_per_unit = 1000.0 * _depth_scale(profile.get_device(), rs)
        if not any(self._asked.K):
            model = profile.get_stream(rs.stream.color).as_video_stream_profile().get_intrinsics()
            self._info = CameraInfo(
                width=self._asked.width, height=self._asked.height, fps=self._asked.fps,
                frame_id=self._asked.frame_id, has_depth=self._asked.has_depth,
                K=(model.fx, 0.0, model.ppx, 0.0, model.fy, model.ppy, 0.0, 0.0, 1.0),
                D=tuple(model.coeffs), distortion_model=_MODELS[model.model.name],
            )  # fmt: skip

    def read(self, timeout_s: float) -> Frame:
        """Return the next frame.

        Raises:
            CameraTimeout: None came within `timeout_s`.
            CameraLost: The device is gone.
            CameraError: It is not open.
        """
        if self._pipeline is None:
            raise CameraError(f"{self._name} is not open; call open first")
        try:
            came, frames = self._pipeline.try_wait_for_frames(max(1, math.ceil(timeout_s * 1000)))
        except RuntimeError as error:
            self.close()
            raise CameraLost(f"{self._name} gives no more frames: {error}") from error
        received_ns = self._clock.monotonic_ns()
        if not came:
            if not self._is_there():
                self.close()
                raise CameraLost(f"{self._name} was unplugged")
            raise CameraTimeout(f"{self._name} gave no frame within {timeout_s:g} s")
        color = frames.get_color_frame()
        stamp_ns = stamp_of(self._captured_ns(color, received_ns), self._clock)
        depth = None
        if self._align is not None:
            depth = self._millimetres(self._align.process(frames).get_depth_frame())
        # librealsense reuses the memory of a frame that nobody holds any more.
        return Frame(stamp_ns, received_ns, np.array(color.get_data()), depth)

    def _captured_ns(self, frame: Any, received_ns: int) -> int:
        """Return when a frame was captured, on the monotonic clock."""
        device_ns = round(frame.get_timestamp() * 1e6)
        if frame.get_frame_timestamp_domain() == self._rs.timestamp_domain.hardware_clock:
            return self._device_clock.to_host(device_ns, received_ns)
        age_ns: int = self._clock.now_ns() - device_ns
        return received_ns - max(age_ns, 0)

    def _millimetres(self, frame: Any) -> np.ndarray:
        units = np.array(frame.get_data())
        if abs(self._mm_per_unit - 1.0) < 1e-6:
            return units
        return np.minimum(np.round(units * self._mm_per_unit), np.iinfo(np.uint16).max).astype(np.uint16)

    def _is_there(self) -> bool:
        serials = [d.get_info(self._rs.camera_info.serial_number) for d in self._context.query_devices()]
        return self._serial in serials if self._serial else bool(serials)

    def close(self) -> None:
        """Stop the streams."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            try:
                pipeline.stop()
            except RuntimeError as error:  # an unplugged device cannot be stopped, and need not be
                log.info("%s: %s", self._name, error)


def _depth_scale(device: Any, rs: Any) -> float:
    """Return metres a depth unit."""
    for sensor in device.query_sensors():
        if sensor.supports(rs.option.depth_units):
            return float(sensor.get_option(rs.option.depth_units))
    raise CameraError("the device has no depth sensor; ask for colour only")
