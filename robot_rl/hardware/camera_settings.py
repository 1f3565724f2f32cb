"""From settings to a camera: the one place that knows every driver."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robot_rl.errors import ConfigError
from robot_rl.hardware.camera_info import load_camera_info
from robot_rl.hardware.cameras import Camera, CameraClock, CameraInfo
from robot_rl.hardware.recorded_camera import RecordedCamera, from_npy, from_store, from_video

Driver = Literal["realsense", "uvc", "recorded"]
DRIVERS: tuple[Driver, ...] = ("realsense", "uvc", "recorded")


@dataclass(frozen=True, kw_only=True)
class CameraSettings:
    """What is asked of a camera. Empty text and 0 mean: not given.

    Args:
        driver: `realsense`, `uvc` or `recorded`.
        width: Columns; a recording has its own.
        height: Rows; likewise.
        fps: Frames a second; a video or an episode has its own.
        frame_id: Optical frame.
        depth: Depth aligned to colour (RealSense).
        calibration: Camera calibration file; the intrinsics of a RealSense are its own without one.
        serial: Serial number of a RealSense; empty takes the only one.
        device: Path or number of a UVC camera.
        fourcc: Pixel format of a UVC camera.
        latency_s: Of a UVC camera without time of capture, or the shortest transport of a RealSense.
        source: What is played: an .npy array, a video, or a store.
        episode: Episode of the store.
        stream: Its colour stream.
        depth_stream: Its depth stream.
        loop: Play again from the first frame.
        presence: File that must exist for a recorded camera to be there.
    """

    driver: Driver
    frame_id: str
    width: int = 0
    height: int = 0
    fps: float = 0.0
    depth: bool = False
    calibration: str = ""
    serial: str = ""
    device: str = ""
    fourcc: str = "MJPG"
    latency_s: float = 0.0
    source: str = ""
    episode: str = ""
    stream: str = ""
    depth_stream: str = ""
    loop: bool = True
    presence: str = ""


def make_camera(settings: CameraSettings, clock: CameraClock | None = None) -> Camera:
    """Return the camera, not open yet.

    Raises:
        ConfigError: A setting is missing or contradicts another.
        MissingExtraError: The driver's library is not installed.
    """
    if settings.driver not in DRIVERS:
        raise ConfigError(f"`driver` must be one of {DRIVERS}, got {settings.driver!r}")
    if settings.driver == "recorded":
        camera = _recorded(settings, clock)
        if settings.calibration:
            camera.info = load_camera_info(settings.calibration, camera.info)
        return camera
    info = CameraInfo(
        width=settings.width, height=settings.height, fps=settings.fps, frame_id=settings.frame_id,
        has_depth=settings.depth,
    )  # fmt: skip
    if settings.calibration:
        info = load_camera_info(settings.calibration, info)
    if settings.driver == "realsense":
        from robot_rl.hardware.realsense import RealSenseCamera

        return RealSenseCamera(info, serial=settings.serial, transport_s=settings.latency_s, clock=clock)
    from robot_rl.hardware.uvc import UvcCamera

    if not settings.device:
        raise ConfigError("`device` is missing: the path (/dev/v4l/by-id/...) or number of the UVC camera")
    device = int(settings.device) if settings.device.isdigit() else settings.device
    return UvcCamera(device, info, latency_s=settings.latency_s, fourcc=settings.fourcc, clock=clock)


def _recorded(settings: CameraSettings, clock: CameraClock | None) -> RecordedCamera:
    source, presence = settings.source, settings.presence if settings.presence else None
    if not source:
        raise ConfigError("`source` is missing: the .npy array, video or store that the recorded camera plays")
    common = {"frame_id": settings.frame_id, "loop": settings.loop, "presence": presence, "clock": clock}
    if settings.episode:
        depth = settings.depth_stream if settings.depth_stream else None
        camera = from_store(source, episode=settings.episode, stream=settings.stream, depth_stream=depth, **common)  # type: ignore[arg-type]
    elif Path(source).suffix == ".npy":
        camera = from_npy(source, fps=settings.fps if settings.fps > 0 else 30.0, **common)  # type: ignore[arg-type]
    else:
        camera = from_video(source, **common)  # type: ignore[arg-type]
    for name in ("width", "height"):
        asked, got = getattr(settings, name), getattr(camera.info, name)
        if asked not in (0, got):
            raise ConfigError(f"`{name}` must be {got}, as {source} was recorded (or 0), got {asked}")
    return camera
