"""A live capture session: judges each picture, says what to do next, and keeps the views that a calibration needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from calibration.board_pose import board_pose
from calibration.boards import BoardSpec, BoardView
from calibration.capture_folder import CaptureFolder
from calibration.capture_rules import PURPOSES, CaptureRules, Purpose, Verdict
from calibration.coverage import HAND_EYE_BINS, INTRINSICS_BINS, Coverage, board_bins, distance_bin, turn_bins
from calibration.detection import seen_instead
from calibration.sharpness import edge_width
from calibration.stillness import CornerHistory, StampedRows, corner_distances, poses_apart
from robot_rl.calibration_types import CameraIntrinsics, Pose
from robot_rl.errors import CalibrationError, ConfigError

POSE_WITHIN_NS = 50_000_000
FRESH_NS = 1_000_000_000
_EXPLAIN_EVERY = 25


@dataclass(frozen=True)
class _Seen:
    """The board in a picture, where that roughly is, and the tool's pose [7]."""

    view: BoardView
    T_camera_board: Pose
    tool: np.ndarray | None


@dataclass(frozen=True)
class _Look:
    """The newest picture."""

    picture: np.ndarray
    seen: _Seen | None
    verdict: Verdict


class CaptureSession:
    """Pictures and arm states in; verdicts, suggestions and a folder of captures out. Not thread-safe.

    Args:
        board: What is looked for.
        folder: Where views go, see `CaptureFolder`.
        purpose: `intrinsics`, or `hand-eye`, which needs the tool's pose at every picture.
        rules: When a view is worth taking.
        intrinsics: The camera where it is known; a rough guess tells tilts apart otherwise.
        is_automatic: Take a view as soon as it is good.

    Raises:
        ConfigError: Unknown purpose.
        CalibrationError: The folder holds pictures.
    """

    def __init__(
        self,
        board: BoardSpec,
        folder: str | Path,
        *,
        purpose: Purpose = "intrinsics",
        rules: CaptureRules | None = None,
        intrinsics: CameraIntrinsics | None = None,
        is_automatic: bool = False,
    ) -> None:
        if purpose not in PURPOSES:
            raise ConfigError(f"`purpose` of a capture session must be one of {PURPOSES}, got {purpose!r}")
        self.board, self.purpose, self.is_automatic = board, purpose, is_automatic
        self.rules = CaptureRules() if rules is None else rules
        self.folder = CaptureFolder(folder)
        self._camera = intrinsics
        self._coverage = Coverage(INTRINSICS_BINS if purpose == "intrinsics" else HAND_EYE_BINS)
        self._corners, self._poses, self._joints = CornerHistory(), StampedRows(), StampedRows()
        self._taken: list[tuple[_Seen, set[str]]] = []  # with the bins that each filled
        self._last: _Look | None = None
        self._is_new = False
        self._missed = 0

    def add_pose(self, stamp_ns: int, position: np.ndarray, quaternion_xyzw: np.ndarray) -> None:
        """Take the tool's pose in the base's frame: position [3] [m], unit quaternion [4]."""
        self._poses.add(stamp_ns, np.concatenate([position, quaternion_xyzw]))

    def add_joints(self, stamp_ns: int, angles: np.ndarray) -> None:
        """Take the joints' angles [J] [rad]."""
        self._joints.add(stamp_ns, angles)

    @property
    def n_views(self) -> int:
        """How many views were taken."""
        return len(self._taken)

    @property
    def is_complete(self) -> bool:
        """Whether there are enough views and none of the suggestions is left."""
        return self.n_views >= self.rules.n_views and not self._coverage.missing

    def look(self, picture: np.ndarray, stamp_ns: int) -> Verdict:
        """Judge a picture; an automatic session takes it if it is good and still of use.

        Args:
            picture: uint8 [H, W, 3], RGB, or [H, W]. It is kept until the next one and must not be written to.
            stamp_ns: When it was taken, on the clock of poses and joints.

        Raises:
            ConfigError: The picture is of another type.
            CalibrationError: It is of another size than those taken before.
        """
        gray = picture if picture.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
        view = self.board.detect(gray, self.folder.next_name())
        camera = self._camera_of((gray.shape[1], gray.shape[0]))
        self._corners.add(stamp_ns, view)
        tool = self._poses.nearest(stamp_ns, POSE_WITHIN_NS)
        seen = None if view is None else _Seen(view, board_pose(view, camera)[0], tool)
        verdict = self._nothing(gray, stamp_ns) if seen is None else self._judge(gray, seen, stamp_ns)
        self._last, self._is_new = _Look(picture, seen, verdict), True
        if self.is_automatic and seen is not None and verdict.is_good and self._is_of_use(seen):
            self.take(stamp_ns)
        return verdict

    def take(self, now_ns: int) -> str:
        """Keep the newest picture and return its name.

        Raises:
            CalibrationError: There is no fresh picture, or its verdict is not good; says why.
        """
        last = self._last
        if last is None or not self._is_new or now_ns - last.verdict.stamp_ns > FRESH_NS:
            raise CalibrationError("there is no new picture since the last view; does the camera send any?")
        if last.seen is None or not last.verdict.is_good:
            raise CalibrationError(f"the newest picture is not taken: {'; '.join(last.verdict.advice)}")
        bins = self._bins(last.seen)
        stamp_ns = last.verdict.stamp_ns
        joints = self._joints.nearest(stamp_ns, POSE_WITHIN_NS)
        self._is_new = False
        entry = self.folder.add(last.picture, stamp_ns, pose=last.seen.tool, joints=joints)
        self._taken.append((last.seen, bins))
        self._coverage.add(bins)
        return entry.name

    def discard_last(self) -> str:
        """Delete the newest view and return its name.

        Raises:
            CalibrationError: None was taken.
        """
        entry = self.folder.remove_last()
        self._coverage.remove(self._taken.pop()[1])
        return entry.name

    def suggestions(self) -> list[str]:
        """Return what to do for the views that are still needed, most needed first."""
        if self.purpose == "hand-eye" and not self._taken:
            return ["take a first view with the board in the middle of the picture; later turns are counted from it"]
        found = self._coverage.suggestions()
        left = self.rules.n_views - self.n_views
        return found if found or left <= 0 else [f"take {left} more views, each from another place"]

    def status(self) -> dict[str, Any]:
        """Return progress, verdict and suggestions for JSON."""
        return {
            "purpose": self.purpose,
            "views": self.n_views,
            "wanted": self.rules.n_views,
            "complete": self.is_complete,
            "bins": self._coverage.counts,
            "suggestions": self.suggestions(),
            "verdict": None if self._last is None else self._last.verdict.to_dict(),
            "folder": str(self.folder.path),
        }

    def _camera_of(self, size: tuple[int, int]) -> CameraIntrinsics:
        """Return the camera, a guess for pictures of this size where it is not known."""
        camera = _guess(size) if self._camera is None else self._camera
        if (camera.width, camera.height) != size:
            raise CalibrationError(
                f"pictures are {size[0]} x {size[1]}, the intrinsics or the pictures before are {camera.width} x "
                f"{camera.height}; a calibration holds for one size: set the camera's, and begin in a new folder"
            )
        self._camera = camera
        return camera

    def _nothing(self, gray: np.ndarray, stamp_ns: int) -> Verdict:
        """Return the verdict on a picture without the board; now and then with what is in it instead."""
        self._missed += 1
        hint = seen_instead(self.board, gray) if self._missed % _EXPLAIN_EVERY == 0 else ""
        advice = "show the board" + (f" ({hint})" if hint else "")
        return Verdict(stamp_ns=stamp_ns, found=False, advice=(advice,))

    def _judge(self, gray: np.ndarray, seen: _Seen, stamp_ns: int) -> Verdict:
        rules, view, self._missed = self.rules, seen.view, 0
        share = len(view.ids) / len(self.board.object_points)
        edge = edge_width(gray, view, self.board.square_m)
        moved = self._corners.moved_px(round(1e9 * rules.still_s))
        advice = []
        if share < rules.min_share:
            advice.append(
                f"show more of the board: {len(view.ids)} of {len(self.board.object_points)} corners are seen"
            )
        if moved is None:
            advice.append(f"hold still for {rules.still_s:g} s")
        elif moved > rules.still_px:
            advice.append(f"hold still: corners moved by {moved:.1f} px, at most {rules.still_px:g}")
        if edge > rules.max_edge_px:
            advice.append(
                f"not sharp: edges are {edge:.1f} px wide, at most {rules.max_edge_px:g}; hold still, focus, more light"
            )
        advice += self._judge_arm(stamp_ns, seen.tool)
        if not advice and (same := self._like(seen)):
            advice.append(f"much like {same}: " + next(iter(self.suggestions()), "go on to another place"))
        return Verdict(
            stamp_ns=stamp_ns, found=True, share=share, edge_px=edge, moved_px=moved, advice=tuple(advice)
        )  # fmt: skip

    def _judge_arm(self, stamp_ns: int, pose: np.ndarray | None) -> list[str]:
        if self.purpose != "hand-eye":
            return []
        if pose is None:
            return ["there is no tool pose at the time of the picture; is it published, by the same clock?"]
        rows = self._poses.between(stamp_ns - round(1e9 * self.rules.still_s), stamp_ns + POSE_WITHIN_NS)
        distances, turns = poses_apart(pose, rows)
        far, turned = float(distances.max(initial=0.0)), float(np.degrees(turns.max(initial=0.0)))
        if far <= self.rules.arm_still_m and turned <= self.rules.arm_still_deg:
            return []
        return [f"let the arm stand still: it moved by {1e3 * far:.1f} mm, {turned:.2f} deg"]

    def _like(self, seen: _Seen) -> str:
        """Return the name of a view taken before that shows the same, or nothing."""
        for i, (taken, _) in enumerate(self._taken):
            turn = (taken.T_camera_board.inverse() @ seen.T_camera_board).angle
            if self.purpose == "hand-eye" and seen.tool is not None and taken.tool is not None:
                distances, turns = poses_apart(seen.tool, taken.tool[None])
                is_same, turn = distances[0] < self.rules.min_move_m, float(turns[0])
            else:
                apart = corner_distances(seen.view, taken.view)
                near = self.rules.min_new * float(np.hypot(*seen.view.size))
                is_same = bool(np.isfinite(apart).any()) and float(np.nanmean(apart)) < near
            if is_same and np.degrees(turn) < self.rules.min_turn_deg:
                return f"view {i}"
        return ""

    def _bins(self, seen: _Seen) -> set[str]:
        if self.purpose == "intrinsics":
            return board_bins(seen.view, self.board, seen.T_camera_board)
        first = self._taken[0][0].tool if self._taken else seen.tool
        turned = turn_bins(_pose(first), _pose(seen.tool)) if first is not None and seen.tool is not None else set()
        return {*turned, distance_bin(seen.view, self.board)}

    def _is_of_use(self, seen: _Seen) -> bool:
        """Whether an automatic session should take it: views are still wanted, or it fills an empty bin."""
        return self.n_views < self.rules.n_views or bool(self._bins(seen) & set(self._coverage.missing))


def _guess(size: tuple[int, int]) -> CameraIntrinsics:
    """Return a camera with a usual field of view, good enough to tell tilts apart."""
    width, height = size
    focal = float(max(size))
    cx, cy = 0.5 * (width - 1), 0.5 * (height - 1)
    return CameraIntrinsics(model="pinhole", width=width, height=height, fx=focal, fy=focal, cx=cx, cy=cy)


def _pose(row: np.ndarray) -> Pose:
    return Pose.from_quaternion(row[3:], row[:3])
