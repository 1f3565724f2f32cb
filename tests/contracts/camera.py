"""What every `Camera` must hold: call `check_camera` with a way to make one that is plugged in."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from robot_rl.errors import CameraError, CameraTimeout
from robot_rl.hardware.cameras import Camera, Frame

ENOUGH_S = 5.0


def check_camera(make: Callable[[], Camera], *, n_frames: int = 4) -> None:
    """Assert the contract of a camera on the system's clock.

    Args:
        make: Returns a new one that is there and gives frames.
        n_frames: How many to read.
    """
    camera = make()
    with pytest.raises(CameraError, match="is not open; call open first"):
        camera.read(0.0)
    camera.close()
    camera.open()
    try:
        assert isinstance(camera, Camera)
        frames = [camera.read(ENOUGH_S) for _ in range(n_frames)]
        _check_frames(camera, frames)
        _check_timeout(camera)
    finally:
        camera.close()
    camera.close()
    with pytest.raises(CameraError, match="is not open; call open first"):
        camera.read(0.0)
    camera.open()
    again = camera.read(ENOUGH_S)
    camera.close()
    assert again.stamp_ns > frames[-1].stamp_ns, "a camera that was opened again goes on in time"


def _check_frames(camera: Camera, frames: list[Frame]) -> None:
    info = camera.info
    kept = [frame.color.copy() for frame in frames]
    for frame in frames:
        assert frame.color.shape == (info.height, info.width, 3)
        assert frame.color.dtype == np.uint8
        assert (frame.depth is not None) == info.has_depth
        if frame.depth is not None:
            assert frame.depth.shape == (info.height, info.width)
            assert frame.depth.dtype == np.uint16
        # Captured before it was received, and received before now: both on the same ROS time here.
        received_ros_ns = time.time_ns() - (time.monotonic_ns() - frame.receipt_ns)
        assert frame.stamp_ns <= received_ros_ns + 1_000_000
        assert received_ros_ns - frame.stamp_ns < 60_000_000_000
    stamps = [frame.stamp_ns for frame in frames]
    assert stamps == sorted(set(stamps)), "stamps grow strictly"
    receipts = [frame.receipt_ns for frame in frames]
    assert receipts == sorted(receipts)
    camera.read(ENOUGH_S)
    for frame, color in zip(frames, kept, strict=True):
        np.testing.assert_array_equal(frame.color, color, err_msg="a later read wrote into an earlier frame")


def _check_timeout(camera: Camera) -> None:
    """Reading without waiting gives what is there, and then says that there is nothing."""
    for _ in range(10_000):
        try:
            camera.read(0.0)
        except CameraTimeout:
            return
    raise AssertionError("10,000 reads without waiting all gave a frame")
