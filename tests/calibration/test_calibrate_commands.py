"""The sub-commands for an arm, from files as people have them to calibration files."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from calibration.files import load_calibration, save_calibration, today
from calibration.latency import chirp
from calibration.pose_files import match, read_poses
from robot_rl.calibration_types import CalibrationFile, Pose
from robot_rl.cli.calibrate_command import run
from robot_rl.errors import CalibrationError, ConfigError
from robot_rl.latency_calibration import LatencyCalibration
from tests.calibration.hand_eye_rig import T_MOUNT_CAMERA, arm_of, corners_of, errors, rig

MS = 1_000_000


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def pose_row(pose: Pose) -> list[float]:
    return [*pose.translation.tolist(), *pose.quaternion.tolist()]


@pytest.fixture
def captures(tmp_path: Path) -> Path:
    """Arm poses in millimetres and board poses, one file each."""
    shots = rig().shots(12, seed=0)
    for i, (arm, board) in enumerate(zip(arm_of(shots), corners_of(shots).T_camera_board, strict=True)):
        T = arm.matrix
        T[:3, 3] *= 1000
        np.savetxt(tmp_path / f"pose_{i:03d}.txt", T)
        seen = Pose.from_matrix(board)
        np.savez(tmp_path / f"board_{i:03d}.npz", rvec=seen.rotation_vector[:, None], tvec=seen.translation[:, None])
    return tmp_path


def test_hand_eye_from_pose_files_writes_a_calibration_and_a_report(captures: Path) -> None:
    at, out = f"calibrate.hand_eye.arm_poses={captures}", captures / "out"
    line = ["hand-eye", at, f"calibrate.hand_eye.board_poses={captures}", f"calibrate.out={out}"]
    run([*line, "calibrate.hand_eye.unit=mm"], Console(quiet=True))
    file = load_calibration(out / "hand_eye.yaml", kind="hand_eye")
    millimetres, degrees = errors(file.values["T_tool_camera"], T_MOUNT_CAMERA)
    assert millimetres < 2.0
    assert degrees < 0.4
    assert "Agreement of methods" in (out / "report.html").read_text()
    with pytest.raises(CalibrationError, match=r"pose_000.txt: `translation` must be metres.*divide them by 1000"):
        run(line, Console(quiet=True))


def test_hand_eye_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"`calibrate.hand_eye.arm_poses` is missing"):
        run(["hand-eye"], Console(quiet=True))
    with pytest.raises(ConfigError, match=r"give `images` .* and `intrinsics`"):
        run(["hand-eye", "calibrate.hand_eye.arm_poses=x"], Console(quiet=True))


def test_workspace_from_touched_points(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = write_csv(tmp_path / "t.csv", ["x", "y", "z"], [[*rng.uniform(0.2, 0.6, 2), -0.01] for _ in range(6)])
    corners = write_csv(tmp_path / "c.csv", ["x", "y", "z"], [[0.2, -0.3, 0.0], [0.7, 0.3, 0.5]])
    line = ["workspace", f"calibrate.out={tmp_path}", f"calibrate.workspace.table={table}"]
    run([*line, f"calibrate.workspace.corners={corners}"], Console(quiet=True))
    file = load_calibration(tmp_path / "workspace.yaml", kind="workspace")
    np.testing.assert_allclose(file.values["low_m"], [0.2, -0.3, -0.005], atol=1e-9)


def test_latency_from_recorded_signals(tmp_path: Path) -> None:
    time_s = np.arange(0, 20, 0.01)
    move = np.interp(time_s, np.arange(2000) / 100, chirp(20, rate_hz=100))
    files = {}
    for name, late_ms in (("command", 0), ("joints", 90), ("gripper", 120)):
        rows = [[round(1e9 * t) + late_ms * MS, value] for t, value in zip(time_s, move, strict=True)]
        files[name] = write_csv(tmp_path / f"{name}.csv", ["stamp_ns", "q1"], rows)
    run(
        [
            "latency", f"calibrate.out={tmp_path}", "calibrate.latency.reference_ms=5",
            f"calibrate.latency.reference={{name: joints, file: {files['joints']}}}",
            f"calibrate.latency.streams=[{{name: gripper, file: {files['gripper']}, kind: value}}]",
            f"calibrate.latency.command={{name: action, file: {files['command']}, kind: value}}",
        ],
        Console(quiet=True),
    )  # fmt: skip
    found = LatencyCalibration.from_file(load_calibration(tmp_path / "latency.yaml", kind="latency"))
    assert found.observation["joints"].median_ns == 5 * MS
    assert found.observation["gripper"].median_ns / MS == pytest.approx(35.0, abs=1.0)
    assert found.lead_ns / MS == pytest.approx(80.0, abs=1.0)  # 90 - 5, less half a command's 10 ms


def test_poses_from_a_csv_name_the_order_of_the_quaternion(tmp_path: Path) -> None:
    pose = arm_of(rig().shots(1, seed=0))[0]
    header = ["image", "stamp_ns", "x", "y", "z", "qx", "qy", "qz", "qw"]
    table = read_poses(write_csv(tmp_path / "a.csv", header, [["a.png", 5, *pose_row(pose)]]))
    np.testing.assert_allclose(table.poses[0].matrix, pose.matrix, atol=1e-12)
    assert (table.names, table.stamp_ns.tolist()) == (["a.png"], [5])
    with pytest.raises(CalibrationError, match=r"lacks columns \['qx', 'qy', 'qz', 'qw'\]"):
        read_poses(write_csv(tmp_path / "b.csv", ["x", "y", "z", "a", "b", "c", "d"], [pose_row(pose)]))
    with pytest.raises(
        CalibrationError, match=r"b.csv, row 1: `quaternion` must be four numbers x, y, z, w of length 1"
    ):
        read_poses(write_csv(tmp_path / "b.csv", header[2:], [[0, 0, 0, 2, 0, 0, 0]]))
    (tmp_path / "p_1.txt").write_text("1 0 0\n0 1 0\n")
    with pytest.raises(CalibrationError, match=r"p_1.txt: a pose is 4 x 4 numbers, got 6"):
        read_poses(tmp_path)


def test_poses_and_pictures_are_matched_by_name_or_number() -> None:
    assert match(["b", "a"], ["a.png", "b.png"]) == [(1, 0), (0, 1)]
    assert match(["pose_2.txt", "pose_10.txt", "pose_3.txt"], ["img_10.png", "img_2.png"]) == [(0, 1), (1, 0)]
    with pytest.raises(CalibrationError, match="no pose belongs to a picture"):
        match(["pose_2"], ["img_3"])
    with pytest.raises(CalibrationError, match="have the same number"):
        match(["a_1", "b_1"], ["img_1"])


def test_a_stale_camera_is_refused(tmp_path: Path) -> None:
    other = CalibrationFile(
        kind="workspace", values={}, frames={}, date=today(), device_serial="", method="", residuals={}, image_digest=""
    )
    path = save_calibration(other, tmp_path / "camera.yaml")
    line = [
        f"calibrate.hand_eye.{key}={value}"
        for key, value in (("arm_poses", "x"), ("images", "y"), ("intrinsics", path))
    ]
    with pytest.raises(ConfigError, match="is a workspace calibration, a intrinsics calibration is needed"):
        run(["hand-eye", *line], Console(quiet=True))
