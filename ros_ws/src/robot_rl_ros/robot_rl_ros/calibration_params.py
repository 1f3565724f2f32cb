"""The calibration node's parameters: the board, the rules, the job."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from rclpy.node import Node

from calibration.boards import KINDS, BoardSpec
from calibration.capture_rules import PURPOSES, CaptureRules
from calibration.files import load_calibration
from calibration.hand_eye_result import CARRIERS
from calibration.session_command import CalibrationJob
from robot_rl.calibration_types import CameraIntrinsics
from robot_rl.errors import ConfigError
from robot_rl_ros.params import declare

_RULES = {
    "n_views": "how many views to take",
    "min_share": "share of the board's corners that must be seen",
    "max_edge_px": "widest edges of a sharp picture [px]",
    "still_s": "how long board and arm must have been still [s]",
    "still_px": "how far corners may move in that time [px]",
    "arm_still_m": "how far the tool may move in that time [m]",
    "arm_still_deg": "how far it may turn [deg]",
    "min_new": "how far corners must be from those of every view taken, share of the diagonal",
    "min_move_m": "hand-eye: how far the tool must have moved against every view taken [m]",
    "min_turn_deg": "or what counts as another rotation of board or tool [deg]",
}


def declare_board(node: Node) -> BoardSpec:
    """Declare `board.*` and return the board."""
    values: dict[str, Any] = {
        "kind": declare(node, "board.kind", "charuco", "what is printed", choices=KINDS),
        "columns": declare(node, "board.columns", int, "squares from left to right; of a grid: markers", low=1),
        "rows": declare(node, "board.rows", int, "squares from top to bottom; of a grid: markers", low=1),
        "square_m": declare(node, "board.square_m", float, "measured side of a square [m]", low=0.0, high=1.0),
        "marker_m": declare(node, "board.marker_m", 0.0, "side of a marker's black part [m]", low=0.0, high=1.0),
        "dictionary": declare(node, "board.dictionary", "DICT_4X4_50", "OpenCV's name of the markers' dictionary"),
        "first_id": declare(node, "board.first_id", 0, "id of the first marker", low=0),
        "legacy": declare(node, "board.legacy", False, "whether it was made before OpenCV 4.6"),
    }
    return BoardSpec.from_mapping(values)


def declare_rules(node: Node) -> CaptureRules:
    """Declare `rules.*` and return the rules."""
    given = {f.name: declare(node, f"rules.{f.name}", f.default, _RULES[f.name], low=0.0) for f in fields(CaptureRules)}
    return CaptureRules(**given)


def declare_job(node: Node, board: BoardSpec, *, camera: str) -> CalibrationJob:
    """Declare what is calibrated and return it; the frames of messages replace those given here.

    Raises:
        ConfigError: A hand-eye calibration without intrinsics.
    """
    folder = Path(declare(node, "folder", str, "new folder for pictures, poses and results")).absolute()
    purpose = declare(node, "purpose", PURPOSES[0], "what is calibrated", choices=PURPOSES)
    intrinsics = declare(node, "intrinsics", "", "hand-eye: calibration file of the camera")
    if purpose == "hand-eye" and not intrinsics:
        raise ConfigError(
            "parameter `intrinsics` is missing: a hand-eye calibration needs the camera's; calibrate it first, with "
            "purpose:=intrinsics"
        )
    return CalibrationJob(
        purpose=purpose, board=board, captures=folder, out=folder / "result", frame=f"{camera}_color_optical_frame",
        intrinsics=intrinsics,
        serial=declare(node, "serial", "", "serial number of the camera"),
        mount=declare(node, "mount", "eye_in_hand", "hand-eye: where the camera is", choices=tuple(CARRIERS)),
        tool_frame=declare(node, "tool_frame", "tool", "hand-eye: frame of the tool"),
    )  # fmt: skip


def read_intrinsics(job: CalibrationJob) -> CameraIntrinsics | None:
    """Return the camera of the job's file, `None` where there is no file.

    Raises:
        ConfigError: Not a calibration of intrinsics.
        CalibrationError: It is stale.
    """
    if not job.intrinsics:
        return None
    camera: CameraIntrinsics = load_calibration(job.intrinsics, kind="intrinsics", serial=job.serial).values["camera"]
    return camera
