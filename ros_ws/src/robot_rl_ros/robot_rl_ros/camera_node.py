"""One camera: colour, aligned depth and camera_info as they are captured, by realsense2_camera's topic names."""

from __future__ import annotations

import array
import sys
import threading
from collections.abc import Sequence

import simplejpeg
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo as CameraInfoMsg
from sensor_msgs.msg import CompressedImage, Image

from robot_rl.errors import CameraTimeout, ConfigError, RobotRLError
from robot_rl.hardware.camera_health import CameraHealth, CameraVerdict, Level
from robot_rl.hardware.camera_settings import DRIVERS, CameraSettings, make_camera
from robot_rl.hardware.cameras import CameraInfo, Frame, Reconnecting, SystemCameraClock
from robot_rl_ros.conversions import ImagePublisher
from robot_rl_ros.diagnostics import ERROR, OK, WARN, Diagnostics, Health
from robot_rl_ros.params import declare
from robot_rl_ros.qos import SENSOR
from robot_rl_ros.runner import run
from robot_rl_ros.stamps import now_ns, to_msg

_READ_S = 0.1
_LEVELS: dict[Level, bytes] = {"ok": OK, "warn": WARN, "error": ERROR, "stale": DiagnosticStatus.STALE}


class RosCameraClock(SystemCameraClock):
    """Stamps by the node's clock, so that simulated time is followed."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def now_ns(self) -> int:
        """Return ROS time."""
        return now_ns(self._node)


class CameraNode(Node):
    """Publishes one camera's frames from a thread; a camera that is unplugged comes back by itself."""

    def __init__(self, *, parameter_overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("camera", parameter_overrides=list(parameter_overrides))
        self._camera_name = declare(self, "camera", str, "name of the camera; its topics lie below it")
        self._quality = declare(self, "jpeg_quality", 90, "quality of the compressed topic", low=1, high=100)
        silent_s = declare(
            self, "silent_s", 2.0, "silence after which the camera is opened again [s]", low=0.1, high=60.0
        )
        retry_s = declare(self, "retry_s", 2.0, "longest pause between tries to open it [s]", low=0.1, high=60.0)
        stale_s = declare(self, "stale_s", 0.15, "age of the newest frame that is reported as stale [s]", low=0.01)
        settings = _declare_settings(self, self._camera_name)
        self._times = RosCameraClock(self)
        driver = make_camera(settings, self._times)
        self._camera = Reconnecting(
            driver, name=self._camera_name, max_wait_s=retry_s, silent_s=silent_s, clock=self._times
        )
        self._health = CameraHealth(driver.info.fps, stale_s=stale_s)
        self._create_topics(driver.info)
        self._failure = ""
        self._defect: Exception | None = None
        self._level: Level | None = None
        self._camera.open()
        self._diagnostics = Diagnostics(self, self._judge)
        self._watch = self.create_timer(0.05, self._report_changes)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._capture, name=f"camera-{self._camera_name}", daemon=True)
        self._thread.start()

    def _create_topics(self, info: CameraInfo) -> None:
        color = f"{self._camera_name}/color"
        shape = (info.height, info.width)
        image = self.create_publisher(Image, f"{color}/image_raw", SENSOR)
        self._color = ImagePublisher(image, (*shape, 3), encoding="rgb8", frame_id=info.frame_id)
        self._color_info = self.create_publisher(CameraInfoMsg, f"{color}/camera_info", SENSOR)
        self._compressed = self.create_publisher(CompressedImage, f"{color}/image_raw/compressed", SENSOR)
        self._compressed_msg = CompressedImage(format="jpeg")
        self._compressed_msg.header.frame_id = info.frame_id
        self._info_msg: CameraInfoMsg | None = None
        self._image_topics: list[Publisher] = [image]
        self._depth: ImagePublisher | None = None
        self._depth_info: Publisher | None = None
        if info.has_depth:
            # Aligned depth lies on colour's pixels, so frame and intrinsics are colour's.
            aligned = f"{self._camera_name}/aligned_depth_to_color"
            depth = self.create_publisher(Image, f"{aligned}/image_raw", SENSOR)
            self._depth = ImagePublisher(depth, shape, encoding="16UC1", frame_id=info.frame_id)
            self._depth_info = self.create_publisher(CameraInfoMsg, f"{aligned}/camera_info", SENSOR)
            self._image_topics.append(depth)

    def close(self) -> None:
        """Stop the thread and the camera."""
        self._stop.set()
        self._thread.join()
        self._camera.close()

    def _capture(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    frame = self._camera.read(_READ_S)
                except CameraTimeout:
                    continue
                self._publish(frame)
                self._health.update(frame, self._times.now_ns() - frame.stamp_ns)
        except RobotRLError as error:
            # The node lives on, so that /diagnostics says why there are no frames.
            self._failure = str(error)
            self.get_logger().fatal(self._failure)
        except Exception as error:  # a defect: raised again where it ends the process
            self._defect = error

    def _publish(self, frame: Frame) -> None:
        """Publish what somebody listens to; nothing is copied or encoded for nobody."""
        if self._image_topics[0].get_subscription_count():
            self._color.publish(frame.color, frame.stamp_ns)
        if self._depth is not None and frame.depth is not None and self._image_topics[1].get_subscription_count():
            self._depth.publish(frame.depth, frame.stamp_ns)
        if self._compressed.get_subscription_count():
            data = simplejpeg.encode_jpeg(frame.color, self._quality, colorspace="RGB", colorsubsampling="420")
            self._compressed_msg.header.stamp = to_msg(frame.stamp_ns)
            self._compressed_msg.data = array.array("B", data)
            self._compressed.publish(self._compressed_msg)
        if self._info_msg is None:
            self._info_msg = camera_info_to_msg(self._camera.info)
        self._info_msg.header.stamp = to_msg(frame.stamp_ns)
        self._color_info.publish(self._info_msg)
        if self._depth_info is not None:
            self._depth_info.publish(self._info_msg)

    def _verdict(self) -> CameraVerdict:
        trouble = self._failure if self._failure else self._camera.trouble
        return self._health.verdict(self._times.monotonic_ns(), trouble=trouble)

    def _judge(self) -> Health:
        verdict = self._verdict()
        self._level = verdict.level
        return Health(_LEVELS[verdict.level], verdict.message, {**verdict.values, "losses": self._camera.losses})

    def _report_changes(self) -> None:
        if self._defect is not None:
            raise self._defect
        if self._verdict().level != self._level:
            self._diagnostics.publish()


def camera_info_to_msg(info: CameraInfo) -> CameraInfoMsg:
    """Return a camera's size and intrinsics as a message; K, R and P stay zero where it is not calibrated."""
    msg = CameraInfoMsg(width=info.width, height=info.height, distortion_model=info.distortion_model)
    msg.header.frame_id = info.frame_id
    msg.d, msg.k = list(info.D), list(info.K)
    if any(info.K):
        msg.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        fx, skew, cx, _, fy, cy = info.K[:6]
        msg.p = [fx, skew, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return msg


def _declare_settings(node: Node, name: str) -> CameraSettings:
    """Declare the driver's parameters and return what they say."""
    driver = declare(node, "driver", str, "where frames come from", choices=DRIVERS)
    is_device = driver != "recorded"
    settings = CameraSettings(
        driver=driver,
        frame_id=declare(node, "frame_id", f"{name}_color_optical_frame", "optical frame of the pictures"),
        width=declare(node, "width", 640 if is_device else 0, "columns [px]", low=0, high=8192),
        height=declare(node, "height", 480 if is_device else 0, "rows [px]", low=0, high=8192),
        fps=declare(node, "fps", 30.0 if is_device else 0.0, "frames a second [Hz]", low=0.0, high=1000.0),
        depth=declare(node, "depth", False, "whether to give depth aligned to colour"),
        calibration=declare(node, "calibration", "", "camera calibration file"),
        serial=declare(node, "serial", "", "serial number of a RealSense"),
        device=declare(node, "device", "", "path or number of a UVC camera"),
        fourcc=declare(node, "fourcc", "MJPG", "pixel format of a UVC camera"),
        latency_s=declare(node, "latency_s", 0.0, "from capture to receipt [s]", low=0.0, high=1.0),
        source=declare(node, "source", "", "array, video or store that is played"),
        episode=declare(node, "episode", "", "episode of the store"),
        stream=declare(node, "stream", "", "colour stream of the episode"),
        depth_stream=declare(node, "depth_stream", "", "depth stream of the episode"),
        loop=declare(node, "loop", True, "whether to play again from the first frame"),
        presence=declare(node, "presence", "", "file that must exist for a recorded camera to be there"),
    )
    if settings.depth and driver != "realsense":
        raise ConfigError(f"parameter `depth`: only a realsense has it (a recording has `depth_stream`), not {driver}")
    return settings


def main(args: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(CameraNode, args)


if __name__ == "__main__":
    sys.exit(main())
