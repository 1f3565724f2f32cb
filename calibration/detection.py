"""From a grey picture to a board's corners, and what else is to be seen when the board is not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from calibration.boards import BoardSpec

_SUBPIXEL = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 60, 1e-3)
_WINDOW_SHARE = 0.4
_NOTHING = (np.empty(0, np.int64), np.empty((0, 2), np.float64))


def find_corners(board: BoardSpec, gray: np.ndarray, window: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return ids int64 [K] and places float64 [K, 2] [px] of the corners in a grey picture, or none.

    Args:
        board: What to look for.
        gray: uint8 [H, W].
        window: Half side [px] of the square in which a chessboard's corner is refined; `None` fits it to the picture.
    """
    if board.kind == "chessboard":
        return _chessboard(board, gray, window)
    return _charuco(board, gray) if board.kind == "charuco" else _grid(board, gray)


def _charuco(board: BoardSpec, gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    detector = cv2.aruco.CharucoDetector(board.cv_board, cv2.aruco.CharucoParameters(), _marker_parameters())
    corners, ids, _, _ = detector.detectBoard(gray)
    if ids is None or len(ids) == 0:
        return _NOTHING
    return ids.reshape(-1).astype(np.int64), corners.reshape(-1, 2).astype(np.float64)


def _grid(board: BoardSpec, gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Four corners a marker, each refined within a tenth of the marker's side, which holds no other edge.

    OpenCV's own refinements leave two to four times as much error here; its AprilTag one is half a pixel off as well.
    """
    parameters = _marker_parameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_CONTOUR
    markers, ids, _ = cv2.aruco.ArucoDetector(board.cv_board.getDictionary(), parameters).detectMarkers(gray)
    numbers = [] if ids is None else [int(number) - board.first_id for number in ids.reshape(-1)]
    known = [i for i, number in enumerate(numbers) if 0 <= number < board.n_markers]
    if not known:
        return _NOTHING
    rows = np.concatenate([4 * numbers[i] + np.arange(4) for i in known])
    squares = np.stack([markers[i].reshape(4, 2) for i in known])
    side = float(np.linalg.norm(squares - np.roll(squares, 1, axis=1), axis=-1).min())
    half = int(np.clip(0.12 * side, 2, 11))
    corners = np.ascontiguousarray(squares.reshape(-1, 1, 2), np.float32)
    places = cv2.cornerSubPix(gray, corners, (half, half), (-1, -1), _SUBPIXEL)
    return rows.astype(np.int64), places.reshape(-1, 2).astype(np.float64)


def _marker_parameters() -> cv2.aruco.DetectorParameters:
    return cv2.aruco.DetectorParameters()


def _chessboard(board: BoardSpec, gray: np.ndarray, window: int | None) -> tuple[np.ndarray, np.ndarray]:
    shape = (board.columns - 1, board.rows - 1)
    flags = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_FAST_CHECK
    found, corners = cv2.findChessboardCorners(gray, shape, flags=flags)
    if not found:
        found, corners = cv2.findChessboardCornersSB(gray, shape, flags=cv2.CALIB_CB_NORMALIZE_IMAGE)
    if not found:
        return _NOTHING
    half = _half_window(corners.reshape(shape[1], shape[0], 2)) if window is None else window
    places = cv2.cornerSubPix(gray, corners, (half, half), (-1, -1), _SUBPIXEL).reshape(-1, 2).astype(np.float64)
    if (board.columns + board.rows) % 2 and not _first_square_dark(gray, places.reshape(shape[1], shape[0], 2)):
        places = places[::-1].copy()  # the print was upside down in the picture
    return np.arange(len(places)), places


def _half_window(places: np.ndarray) -> int:
    """Return the half side [px] of a window that holds one corner only, 2 to 11, for places [rows, columns, 2].

    It is 0.4 of how thin the thinnest square looks. OpenCV's samples always take 11; on a board seen at a slant that
    reaches the next corners and shifts the result by pixels.
    """
    across, down = np.diff(places, axis=1)[:-1], np.diff(places, axis=0)[:, :-1]
    area = np.abs(across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0])
    longer = np.maximum(np.linalg.norm(across, axis=-1), np.linalg.norm(down, axis=-1))
    return int(np.clip(_WINDOW_SHARE * (area / longer).min(), 2, 11))


def _first_square_dark(gray: np.ndarray, places: np.ndarray) -> bool:
    """Whether the square within the first four inner corners is darker than its neighbour to the right.

    On a board with an odd number of squares one way and an even number the other, this tells top from bottom: the
    square at the top left of the print is black, and so is the one diagonally below it.
    """
    first = places[0:2, 0:2].mean(axis=(0, 1))
    second = places[0:2, 1:3].mean(axis=(0, 1))
    values = [float(cv2.getRectSubPix(gray, (3, 3), (float(x), float(y))).mean()) for x, y in (first, second)]
    return values[0] < values[1]


def seen_instead(board: BoardSpec, gray: np.ndarray) -> str:
    """Return what a picture without the board does show, as a hint at a wrong description; may be empty."""
    if board.kind == "chessboard":
        return _other_chessboard(board, gray)
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, board.dictionary))
    _, ids, _ = cv2.aruco.ArucoDetector(dictionary, _marker_parameters()).detectMarkers(gray)
    if ids is None:
        return f"no marker of {board.dictionary} is in it"
    seen = sorted(int(i) for i in ids.reshape(-1))
    beyond = [i for i in seen if not board.first_id <= i < board.first_id + board.n_markers]
    if beyond:
        return f"it shows markers that the board does not have (ids {beyond}); is it a board of another size?"
    what = f"it shows markers {seen[0]} to {seen[-1]} ({len(seen)}), but not where this board has them; "
    return what + (_other_charuco(board, gray) or "check columns, rows and `legacy`; or more of it must be visible")


def _other_charuco(board: BoardSpec, gray: np.ndarray) -> str:
    """Return which simple mistake in the description explains the picture, if any does."""
    turned: dict[str, Any] = {"columns": board.rows, "rows": board.columns}
    for change in (turned, {"legacy": not board.legacy}, {**turned, "legacy": not board.legacy}):
        if board.kind == "charuco" and len(find_corners(replace(board, **change), gray)[0]) >= 6:
            return f"it fits with {', '.join(f'{name}={value}' for name, value in change.items())}"
    return ""


def _other_chessboard(board: BoardSpec, gray: np.ndarray) -> str:
    for columns in range(board.columns + 2, 3, -1):
        for rows in range(board.rows + 2, 3, -1):
            flags = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_FAST_CHECK
            if cv2.findChessboardCorners(gray, (columns - 1, rows - 1), flags=flags)[0]:
                return (
                    f"a part of {columns} x {rows} squares ({columns - 1} x {rows - 1} inner corners) is in it; "
                    "is it a board of another size?"
                )
    return ""
