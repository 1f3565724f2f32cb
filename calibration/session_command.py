"""From a folder of captures to the command line that calibrates from it, and what came out in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calibration.boards import BoardSpec
from calibration.capture_folder import PICTURES, POSES
from calibration.capture_rules import Purpose
from calibration.files import load_calibration
from robot_rl.calibration_types import CameraIntrinsics, Pose

REPORT = "report.html"
_BOARD_FILES = {"charuco": "charuco", "chessboard": "chessboard", "grid": "apriltag"}
_BOARD_KEYS = {
    "charuco": ("columns", "rows", "square_m", "marker_m", "dictionary", "first_id", "legacy"),
    "chessboard": ("columns", "rows", "square_m"),
    "grid": ("columns", "rows", "square_m", "marker_m", "dictionary", "first_id"),
}


@dataclass(frozen=True, kw_only=True)
class CalibrationJob:
    """What to calibrate from a folder of captures.

    Args:
        purpose: `intrinsics` or `hand-eye`.
        board: The board in the pictures.
        captures: The folder.
        out: Where the results go.
        frame: Optical frame of the camera.
        serial: Serial number of the camera; may be empty.
        intrinsics: For hand-eye, the camera's calibration file.
        mount: For hand-eye, `eye_in_hand` or `eye_to_hand`.
        tool_frame: For hand-eye, the tool's frame.
        base_frame: For hand-eye, the frame of the tool's poses.
    """

    purpose: Purpose
    board: BoardSpec
    captures: Path
    out: Path
    frame: str
    serial: str = ""
    intrinsics: str = ""
    mount: str = "eye_in_hand"
    tool_frame: str = "tool"
    base_frame: str = "base"

    @property
    def result(self) -> Path:
        """The calibration file that comes out."""
        return self.out / ("hand_eye.yaml" if self.purpose == "hand-eye" else f"{self.frame}.yaml")

    def arguments(self) -> list[str]:
        """Return the words behind `robot-rl`."""
        board = asdict(self.board)
        shape = [f"board.{key}={_word(board[key])}" for key in _BOARD_KEYS[self.board.kind]]
        pictures = self.captures / PICTURES
        if self.purpose == "intrinsics":
            own: Mapping[str, Any] = {"intrinsics.images": pictures, "intrinsics.frame": self.frame}
        else:
            own = {
                "hand_eye.images": pictures, "hand_eye.arm_poses": self.captures / POSES,
                "hand_eye.intrinsics": Path(self.intrinsics).absolute(), "hand_eye.mount": self.mount,
                "hand_eye.camera_frame": self.frame, "hand_eye.tool_frame": self.tool_frame,
                "hand_eye.base_frame": self.base_frame,
            }  # fmt: skip
        settings = {**own, "serial": self.serial, "out": self.out}
        named = [f"calibrate.{key}={_word(value)}" for key, value in settings.items()]
        return ["calibrate", self.purpose, f"board={_BOARD_FILES[self.board.kind]}", *shape, *named]

    def summary(self) -> dict[str, Any]:
        """Return the result's numbers, and where calibration and report lie.

        Raises:
            ConfigError: The calibration did not come out.
        """
        file = load_calibration(self.result)
        values = {name: _plain(value) for name, value in file.values.items()}
        return {
            "file": str(self.result), "report": str(self.out / REPORT), "values": values,
            "residuals": {name: round(value, 6) for name, value in file.residuals.items()},
        }  # fmt: skip


def describe(summary: Mapping[str, Any]) -> str:
    """Return a summary as a sentence for the log."""
    values = [f"{name} {value}" for name, value in summary["values"].items()]
    left = [f"{name} {value:.4g}" for name, value in summary["residuals"].items()]
    return f"{'; '.join(values)}; {', '.join(left)}; calibration: {summary['file']}; report: {summary['report']}"


def _plain(value: Any) -> Any:
    if isinstance(value, CameraIntrinsics):
        return {name: round(float(getattr(value, name)), 3) for name in ("fx", "fy", "cx", "cy")}
    if isinstance(value, Pose):
        return {
            "translation_m": value.translation.round(6).tolist(),
            "quaternion_xyzw": value.quaternion.round(6).tolist(),
        }
    return value


def _word(value: Any) -> str:
    """Return a value as the command line takes it: text in quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
