"""Calibration boards: what is printed on them, where their corners are, and how they are found in a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np

from calibration.detection import find_corners
from robot_rl.errors import ConfigError

BoardKind = Literal["charuco", "chessboard", "grid"]
KINDS: tuple[BoardKind, ...] = ("charuco", "chessboard", "grid")
MIN_CORNERS = 6
"""A pose from fewer coplanar points is too loose to be of use."""


@dataclass(frozen=True, kw_only=True)
class BoardView:
    """The corners of a board that one picture shows.

    Args:
        image_id: Name of the picture.
        corners: Where they are, float64 [K, 2] [px].
        ids: Which corners they are, int [K].
        board_points: The same corners in the board's frame, float64 [K, 3] [m].
        size: Width and height of the picture [px].
    """

    image_id: str
    corners: np.ndarray
    ids: np.ndarray
    board_points: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class BoardSpec:
    """A printed board. Its frame: origin at the top left of the print, x right, y down, z into the board.

    Args:
        kind: `charuco`, `chessboard`, or `grid` (ArUco or AprilTag markers in rows).
        columns: Squares from left to right (of a grid: markers). 9 x 6 inner corners are 10 x 7 squares.
        rows: Squares from top to bottom (of a grid: markers).
        square_m: Side of a square; of a grid, from one marker's left side to the next one's.
        marker_m: Side of a marker's black part; none on a chessboard.
        dictionary: OpenCV's name of the markers' dictionary, such as `DICT_4X4_50` or `DICT_APRILTAG_36h11`.
        first_id: Id of the first marker.
        legacy: ChArUco boards made before OpenCV 4.6: with an even number of rows the first square is white.

    Raises:
        ConfigError: Unknown kind or dictionary, too few squares, lengths that contradict, or a length in millimetres.
    """

    kind: BoardKind
    columns: int
    rows: int
    square_m: float
    marker_m: float = 0.0
    dictionary: str = "DICT_4X4_50"
    first_id: int = 0
    legacy: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"board `kind` must be one of {KINDS}, got {self.kind!r}")
        least = 1 if self.kind == "grid" else 3
        if self.columns < least or self.rows < least:
            raise ConfigError(f"a {self.kind} board needs {least} x {least} or more, got {self.columns} x {self.rows}")
        if not 0 < self.square_m <= 1.0:
            raise ConfigError(f"`square_m` must be metres, above 0 and at most 1, got {self.square_m}; 30 mm is 0.03")
        if self.kind == "chessboard":
            return
        if not 0 < self.marker_m < self.square_m:
            raise ConfigError(f"`marker_m` must be above 0 and below square_m = {self.square_m}, got {self.marker_m}")
        if not hasattr(cv2.aruco, self.dictionary) or not self.dictionary.startswith("DICT_"):
            known = sorted(name for name in dir(cv2.aruco) if name.startswith("DICT_"))
            raise ConfigError(f"board `dictionary` must be one of {known}, got {self.dictionary!r}")
        available = len(self._dictionary.bytesList)
        if self.first_id < 0 or self.first_id + self.n_markers > available:
            raise ConfigError(
                f"the board needs markers {self.first_id} to {self.first_id + self.n_markers - 1}, "
                f"{self.dictionary} has {available}; take a larger dictionary or a smaller board"
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> BoardSpec:
        """Return the board of a mapping as it stands in YAML.

        Raises:
            ConfigError: An unknown or missing key, or see the class.
        """
        known = {item.name for item in fields(cls)}
        missing = {"kind", "columns", "rows", "square_m"} - set(values)
        if missing or set(values) - known:
            raise ConfigError(
                f"a board is described by {sorted(known)}; missing {sorted(missing)}, "
                f"unknown {sorted(set(values) - known)}"
            )
        return cls(**values)

    def describe(self) -> str:
        """Return the board in a few words."""
        words = f"{self.kind} {self.columns} x {self.rows}, square {1000 * self.square_m:g} mm"
        return words if self.kind == "chessboard" else f"{words}, marker {1000 * self.marker_m:g} mm, {self.dictionary}"

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height of the pattern without margins [m]."""
        gap = self.square_m - self.marker_m if self.kind == "grid" else 0.0  # no gap behind the last marker
        return self.columns * self.square_m - gap, self.rows * self.square_m - gap

    @property
    def n_markers(self) -> int:
        """How many markers are on it."""
        return {"chessboard": 0, "grid": self.columns * self.rows}.get(self.kind, self.columns * self.rows // 2)

    @cached_property
    def object_points(self) -> np.ndarray:
        """Every corner in the board's frame, float64 [N, 3] [m]; `BoardView.ids` are rows of it."""
        if self.kind == "grid":
            points = np.concatenate(self.cv_board.getObjPoints())
        elif self.kind == "charuco":
            points = np.asarray(self.cv_board.getChessboardCorners())
        else:
            x, y = np.meshgrid(np.arange(1, self.columns), np.arange(1, self.rows))
            points = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3) * self.square_m
        return points.astype(np.float64)

    @cached_property
    def cv_board(self) -> Any:
        """OpenCV's board of a ChArUco board or a grid."""
        ids = np.arange(self.first_id, self.first_id + self.n_markers)
        shape = (self.columns, self.rows)
        if self.kind == "grid":
            return cv2.aruco.GridBoard(shape, self.marker_m, self.square_m - self.marker_m, self._dictionary, ids)
        board = cv2.aruco.CharucoBoard(shape, self.square_m, self.marker_m, self._dictionary, ids)
        board.setLegacyPattern(self.legacy)
        return board

    @cached_property
    def _dictionary(self) -> Any:
        return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))

    def detect(self, image: np.ndarray, image_id: str = "", *, window: int | None = None) -> BoardView | None:
        """Return the corners found to a fraction of a pixel, or `None` where fewer than six were.

        Args:
            image: uint8 [H, W] or [H, W, 3]; the order of the colours does not matter.
            image_id: Name of the picture.
            window: Half side [px] of the square in which a chessboard's corner is refined; `None` fits it to the
                picture, 11 is what OpenCV's samples take.

        Raises:
            ConfigError: The picture is of another type or shape.
        """
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise ConfigError(f"a picture must be uint8 [H, W] or [H, W, 3], got {image.dtype}{image.shape}")
        gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        ids, corners = find_corners(self, gray, window)
        if (
            len(ids) < MIN_CORNERS
            or np.linalg.matrix_rank(self.object_points[ids, :2] - self.object_points[ids[0], :2]) < 2
        ):
            return None
        return BoardView(
            image_id=image_id, corners=corners, ids=ids, board_points=self.object_points[ids],
            size=(gray.shape[1], gray.shape[0]),
        )  # fmt: skip


def _in_one_line(points: np.ndarray) -> bool:
    """Whether points [K, 3] lie on a line, from which no pose follows."""
    return bool(np.linalg.matrix_rank(points - points[0], tol=1e-6) < 2)
