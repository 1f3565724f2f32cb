"""The camera node: stamps, values, lazily compressed pictures, calibration, being unplugged, refusals."""

import time

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from robot_rl_ros.conversions import image_to_array
from robot_rl_ros.qos import SENSOR
from robot_rl_ros.stamps import now_ns, to_ns
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, Stream

FPS = 50
CALIBRATION = """
image_width: 16
image_height: 12
camera_matrix: {rows: 3, cols: 3, data: [10.5, 0, 8.25, 0, 11.5, 6.75, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0.001, 0.002, 0.0]}
"""


def _pictures(n: int = 200) -> np.ndarray:
    """Red is the index, green 200."""
    out = np.zeros((n, 12, 16, 3), np.uint8)
    out[..., 0] = np.arange(n)[:, None, None]
    out[..., 1] = 200
    return out


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / "clip.npy", _pictures())
    return tmp_path / "clip.npy"


def _start(graph, source, **params):
    common = {"camera": "wrist", "source": source, "fps": float(FPS)}
    return graph.start("camera_node", config="camera_recorded.yaml", params={**common, **params})


def _status(inbox, level, *, timeout_s=5.0):
    return inbox.wait(match=lambda msg: msg.status[0].level == level, timeout_s=timeout_s).status[0]


def test_frames_carry_their_capture_time_and_intrinsics(ros_graph, source, tmp_path):
    (tmp_path / "wrist.yaml").write_text(CALIBRATION)
    images = ros_graph.collect(Image, "wrist/color/image_raw", SENSOR)
    infos = ros_graph.collect(CameraInfo, "wrist/color/camera_info", SENSOR)
    process = _start(ros_graph, source, calibration=tmp_path / "wrist.yaml")
    images.wait(30, timeout_s=10)
    received_ns = now_ns(ros_graph.node)
    infos.wait(30)
    stamps = np.array([to_ns(m.header.stamp) for m in images.messages])
    shown = np.array([image_to_array(m)[3, 4] for m in images.messages])
    steps = np.diff(stamps)
    frames = np.diff(shown[:, 0].astype(int))
    assert (frames > 0).all(), "in order, none twice"
    np.testing.assert_allclose(steps, frames * 1e9 / FPS, atol=2e6, err_msg="stamps are when each frame was due")
    assert (shown[:, 1:] == [200, 0]).all()
    assert 0 <= received_ns - stamps[29] < 1e9
    assert images.messages[0].header.frame_id == "wrist_color_optical_frame"
    assert (images.messages[0].encoding, images.messages[0].step) == ("rgb8", 48)
    info = infos.messages[-1]
    assert list(info.k) == [10.5, 0, 8.25, 0, 11.5, 6.75, 0, 0, 1]
    assert list(info.p) == [10.5, 0, 8.25, 0, 0, 11.5, 6.75, 0, 0, 0, 1, 0]
    assert list(info.d) == [0.1, -0.2, 0.001, 0.002, 0.0]
    assert (info.width, info.height, info.distortion_model) == (16, 12, "plumb_bob")
    both = {to_ns(m.header.stamp) for m in infos.messages} & set(stamps.tolist())
    assert len(both) >= 10, "an image and its camera_info have one stamp"
    assert process.interrupt() == 0


def test_compressed_pictures_come_while_somebody_listens(ros_graph, source):
    _start(ros_graph, source)
    compressed = ros_graph.collect(CompressedImage, "wrist/color/image_raw/compressed", SENSOR)
    msg = compressed.wait(5, timeout_s=10)
    assert msg.format == "jpeg"
    picture = cv2.imdecode(np.frombuffer(msg.data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (12, 16, 3)
    assert abs(int(picture[5, 5, 1]) - 200) < 8
    assert picture[5, 5, 0] < 20
    assert ros_graph.node.count_publishers("/arm/wrist/aligned_depth_to_color/image_raw") == 0


def test_an_episode_with_depth_plays_as_a_camera(ros_graph, tmp_path):
    spec = RobotSpec(
        name="arm",
        obs={
            "wrist": ArraySpec(name="wrist", shape=(12, 16, 3), dtype="uint8"),
            "depth": ArraySpec(name="depth", shape=(12, 16), dtype="uint16", unit="mm"),
        },
        action=ActionSpec(name="action", shape=(1,)),
        control_hz=10.0,
    )
    store = EpisodeStore.create(tmp_path / "store", spec, codecs={"wrist": "png"})
    stamps = np.arange(20, dtype=np.int64) * 20_000_000
    depth = 1000 + np.arange(20, dtype=np.uint16)[:, None, None] + np.zeros((1, 12, 16), np.uint16)
    action = Stream(stamps, np.zeros((20, 1), np.float32))
    streams = {"wrist": Stream(stamps, _pictures(20)), "depth": Stream(stamps, depth), "action": action}
    store.append(Recording(streams), id="one")
    images = ros_graph.collect(Image, "wrist/color/image_raw", SENSOR)
    depths = ros_graph.collect(Image, "wrist/aligned_depth_to_color/image_raw", SENSOR)
    _start(ros_graph, tmp_path / "store", episode="one", stream="wrist", depth_stream="depth")
    depths.wait(10, timeout_s=10)
    time.sleep(0.1)
    red = {to_ns(m.header.stamp): int(image_to_array(m)[0, 0, 0]) for m in images.messages}
    millimetres = {to_ns(m.header.stamp): int(image_to_array(m)[0, 0]) for m in depths.messages}
    assert depths.messages[0].encoding == "16UC1"
    both = sorted(set(red) & set(millimetres))
    assert len(both) >= 5
    assert [millimetres[t] - 1000 for t in both] == [red[t] for t in both], "same capture, same stamp"


def test_a_camera_that_is_unplugged_is_reported_and_comes_back_by_itself(ros_graph, source, tmp_path):
    plug = tmp_path / "video0"
    images = ros_graph.collect(Image, "wrist/color/image_raw", SENSOR)
    diagnostics = ros_graph.collect(DiagnosticArray, "/diagnostics", 10)
    _start(ros_graph, source, presence=plug, retry_s=0.2)
    status = _status(diagnostics, DiagnosticStatus.ERROR, timeout_s=10)
    assert "away: " in status.message
    assert "video0 is missing" in status.message
    assert len(images) == 0
    plug.touch()
    images.wait(20)
    diagnostics.clear()
    status = _status(diagnostics, DiagnosticStatus.OK)
    assert {v.key: v.value for v in status.values}["losses"] == "0"
    plug.unlink()
    _status(diagnostics, DiagnosticStatus.ERROR)
    time.sleep(0.1)
    images.clear()
    time.sleep(0.3)
    assert len(images) == 0
    plug.touch()
    images.wait(20)
    diagnostics.clear()
    status = _status(diagnostics, DiagnosticStatus.OK)
    assert {v.key: v.value for v in status.values}["losses"] == "1"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"camera": None}, "parameter `camera` of node `camera` is missing"),
        ({"driver": "webcam"}, "parameter `driver` of node `camera` must be one of"),
        ({"source": "nothing.npy"}, "nothing.npy cannot be played as a camera"),
        ({"jpeg_quality": 0}, "parameter `jpeg_quality` of node `camera`"),
        ({"width": 640}, "`width` must be 16, as "),
        ({"depth": True}, "only a realsense has it"),
        ({"driver": "uvc", "fps": 0.0}, "width, height and fps must be positive, got 640, 480, 0.0"),
        ({"driver": "uvc"}, "`device` is missing"),
        ({"calibration": "no.yaml"}, "camera calibration no.yaml cannot be read"),
    ],
)
def test_bad_parameters_are_refused(ros_context, source, params, message):
    """The same node class as in its process, made here because nine processes would take ten seconds."""
    from rclpy.parameter import Parameter
    from robot_rl_ros.camera_node import CameraNode

    given = {"camera": "wrist", "source": str(source), "driver": "recorded", **params}
    overrides = [Parameter(name, value=value) for name, value in given.items() if value is not None]
    with pytest.raises(ConfigError, match=message):
        CameraNode(parameter_overrides=overrides)


def test_a_refusal_ends_the_process_with_code_2(ros_graph):
    process = ros_graph.start("camera_node", config="camera_recorded.yaml")
    assert process.wait() == 2
    assert "parameter `camera` of node `camera` is missing" in process.log
