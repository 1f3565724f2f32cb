"""Live calibration: a camera that shows a board, the node that takes views by itself, and the calibration they give."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from geometry_msgs.msg import PoseStamped
from robot_rl_ros.arm_graphs import GRAPHS
from robot_rl_ros.conversions import ImagePublisher
from robot_rl_ros.qos import LATCHED, SENSOR
from robot_rl_ros.stamps import now_ns, to_msg
from robot_rl_ros.up import Running
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from calibration.files import load_calibration
from calibration.pose_files import read_poses
from robot_rl.calibration_types import CameraIntrinsics, Pose
from tests.calibration.board_views import BOARD, CAMERA, held, pictures_of
from tests.ros.conftest import CONFIG

FPS, EACH = 10.0, 6
PARAMETERS = """
/**:
  ros__parameters:
    board: {{kind: charuco, columns: {columns}, rows: {rows}, square_m: {square}, marker_m: {marker}}}
    rules: {{still_s: 0.25}}
    rate_hz: 20.0
"""
VIEWS = (
    held(z=0.3), held(x=-0.06, y=-0.03, right=35), held(x=0.06, y=0.03, right=-35), held(x=0.05, y=-0.04, lower=35),
    held(x=-0.05, y=0.04, lower=-35), held(z=0.45, right=25, lower=25, roll=30), held(right=-25, lower=25, roll=-40),
    held(x=0.05, z=0.35, right=30, lower=-30), held(y=0.03, z=0.35, right=-20, lower=-30, roll=70),
)  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A recording of a board that is held still in one place after the other."""
    camera, path = pictures_of(), tmp_path_factory.mktemp("clip") / "board.npy"
    shown = [camera.render(pose, noise=1.0, seed=i) for i, pose in enumerate(VIEWS)]
    camera.close()
    np.save(path, np.repeat(np.stack(shown), EACH, axis=0))
    return path


@pytest.fixture
def board_file(tmp_path) -> Path:
    path = tmp_path / "board.yaml"
    values = {"columns": BOARD.columns, "rows": BOARD.rows, "square": BOARD.square_m, "marker": BOARD.marker_m}
    path.write_text(PARAMETERS.format(**values))
    return path


def wait_for_state(inbox, state: str, *, timeout_s: float) -> dict:
    ended = (state, "failed")
    msg = inbox.wait(match=lambda msg: json.loads(msg.data)["state"] in ended, timeout_s=timeout_s)
    status = json.loads(msg.data)
    assert status["state"] == state, status["trouble"]
    return status


@pytest.mark.slow
def test_the_graph_takes_views_by_itself_and_calibrates_the_camera(ros_graph, clip, board_file, tmp_path):
    camera_file = tmp_path / "camera.yaml"
    camera_file.write_text(f"/**:\n  ros__parameters: {{driver: recorded, loop: true, fps: {FPS}, silent_s: 5.0}}\n")
    given = {
        "folder": tmp_path / "captures", "calibration_config": board_file, "camera_config": camera_file,
        "camera_source": clip, "auto": "true", "views": len(VIEWS), "serial": "42",
    }  # fmt: skip
    statuses = ros_graph.collect(String, "calibration/status", LATCHED)
    processes = GRAPHS["calibrate"].processes({name: str(value) for name, value in given.items()})
    with Running(list(processes)) as running:
        taken = statuses.wait(match=lambda msg: json.loads(msg.data)["views"] >= len(VIEWS) - 1, timeout_s=60)
        looking = json.loads(taken.data)
        assert looking["state"] == "looking"
        assert looking["bins"]["tilt: left"] >= 1
        assert looking["suggestions"]
        assert ros_graph.call(Trigger, "calibration/finish").success
        refused = ros_graph.call(Trigger, "calibration/take")
        assert not refused.success
        done = wait_for_state(statuses, "done", timeout_s=60)
        assert running.poll() is None
    camera = load_calibration(done["result"]["file"], kind="intrinsics", serial="42", size=(320, 240)).values["camera"]
    assert isinstance(camera, CameraIntrinsics)
    assert camera.fx == pytest.approx(CAMERA.fx, rel=0.01)
    assert camera.fy == pytest.approx(CAMERA.fy, rel=0.01)
    assert camera.cx == pytest.approx(CAMERA.cx, abs=3.0)
    assert camera.cy == pytest.approx(CAMERA.cy, abs=3.0)
    assert done["result"]["residuals"]["rms_px"] < 0.2
    assert Path(done["result"]["report"]).is_file()
    assert Path(done["result"]["file"]).name == "wrist_color_optical_frame.yaml"


class Scene:
    """Publishes one picture after the other, and the tool's pose beside it, at 20 Hz."""

    def __init__(self, graph, picture: np.ndarray) -> None:
        self.picture, self.tool = picture, Pose.identity()
        self._node = graph.node
        image = graph.publisher(Image, "wrist/color/image_raw", SENSOR)
        self._image = ImagePublisher(image, picture.shape, encoding="rgb8", frame_id="eye")
        self._pose = graph.publisher(PoseStamped, "current_pose", SENSOR)
        self._timer = graph.node.create_timer(0.05, self._publish)

    def _publish(self) -> None:
        stamp_ns = now_ns(self._node)
        msg = PoseStamped()
        msg.header.stamp, msg.header.frame_id = to_msg(stamp_ns), "base_link"
        p, o = msg.pose.position, msg.pose.orientation
        p.x, p.y, p.z = self.tool.translation.tolist()
        o.x, o.y, o.z, o.w = self.tool.quaternion.tolist()
        self._pose.publish(msg)
        self._image.publish(self.picture, stamp_ns)

    def close(self) -> None:
        self._node.destroy_timer(self._timer)


def test_a_person_takes_and_discards_views_of_a_hand_eye_calibration(ros_graph, clip, board_file, tmp_path):
    from calibration.files import save_calibration, today
    from robot_rl.calibration_types import CalibrationFile

    known = CalibrationFile(kind="intrinsics", values={"camera": CAMERA}, frames={}, date=today(), device_serial="",
                            method="given", residuals={}, image_digest="")  # fmt: skip
    statuses = ros_graph.collect(String, "calibration/status", LATCHED)
    folder = tmp_path / "captures"
    process = ros_graph.start(
        "calibration_node", config=board_file,
        params={"camera": "wrist", "folder": folder, "purpose": "hand-eye",
                "intrinsics": save_calibration(known, tmp_path / "camera.yaml")},
    )  # fmt: skip
    statuses.wait(timeout_s=20)
    none = ros_graph.call(Trigger, "calibration/finish")
    assert (none.success, none.message[:21]) == (False, "no view was taken yet")
    scene = Scene(ros_graph, np.load(clip, mmap_mode="r")[0].copy())
    truth = Pose.from_rotation_vector([0.0, 0.0, np.pi / 2], [0.4, 0.1, 0.5])
    for name, pose in (
        ("view_000.png", truth),
        ("view_001.png", truth @ Pose.from_rotation_vector([0.4, 0, 0], [0, 0, 0.1])),
    ):
        scene.tool = pose
        statuses.clear()
        statuses.wait(match=lambda msg: (json.loads(msg.data)["verdict"] or {}).get("good"), timeout_s=20)
        answer = ros_graph.call(Trigger, "calibration/take")
        assert (answer.success, answer.message) == (True, name)
    table = read_poses(folder / "poses.csv")
    assert table.names == ["view_000.png", "view_001.png"]
    np.testing.assert_allclose(table.poses[0].matrix, truth.matrix, atol=1e-9)
    assert json.loads(statuses.messages[-1].data)["bins"]["turn: +x"] == 1
    assert ros_graph.call(Trigger, "calibration/discard_last").message == "discarded view_001.png"
    assert [file.name for file in (folder / "pictures").iterdir()] == ["view_000.png"]
    assert ros_graph.call(Trigger, "calibration/finish").success
    failed = statuses.wait(match=lambda msg: json.loads(msg.data)["state"] == "failed", timeout_s=60)
    assert "CalibrationError" in json.loads(failed.data)["trouble"]
    scene.close()
    assert process.interrupt() == 0


def test_the_parameter_file_names_what_the_node_has(ros_context, tmp_path):
    from rclpy.parameter import Parameter
    from robot_rl_ros.calibration_node import CalibrationNode

    given = yaml.safe_load((CONFIG / "calibration.yaml").read_text())["/**"]["ros__parameters"]
    flat = {f"{group}.{name}": value for group in ("board", "rules") for name, value in given.pop(group).items()}
    values = {**flat, **given, "camera": "wrist", "folder": str(tmp_path / "captures")}
    node = CalibrationNode(parameter_overrides=[Parameter(name, value=value) for name, value in values.items()])
    assert [name for name in values if not node.has_parameter(name)] == []
    node.close()
    node.destroy_node()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"board.columns": 2}, "a charuco board needs 3 x 3 or more"),
        ({"purpose": "hand-eye"}, "a hand-eye calibration needs the camera's"),
        ({"rules.still_s": 0.0}, "`still_s` of the capture rules must be positive"),
        ({"mount": "wall"}, "parameter `mount` of node `calibration` must be one of"),
    ],
)
def test_bad_parameters_are_refused(ros_context, tmp_path, params, message):
    from rclpy.parameter import Parameter
    from robot_rl_ros.calibration_node import CalibrationNode

    from robot_rl.errors import ConfigError

    board = {"board.columns": 6, "board.rows": 5, "board.square_m": 0.04, "board.marker_m": 0.03}
    given = {"camera": "wrist", "folder": str(tmp_path / "captures"), **board, **params}
    with pytest.raises(ConfigError, match=message):
        CalibrationNode(parameter_overrides=[Parameter(name, value=value) for name, value in given.items()])
