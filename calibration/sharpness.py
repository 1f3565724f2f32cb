"""How wide the edges of a board look in a picture: what lens blur, wrong focus and motion do to it."""

from __future__ import annotations

import cv2
import numpy as np

from calibration.boards import BoardView

_HALF_PX = (3, 12)
_SQUARE_SHARE = 0.3


def edge_width(gray: np.ndarray, view: BoardView, square_m: float) -> float:
    """Return the width [px] over which the board's edges go from black to white, the more blurred direction of the two.

    At each corner two edges meet, along the board's x and y. The width is the local contrast over the steepest slope
    across the edge, by central differences: 2 px for a perfect step, about 2.5 times the standard deviation of a wide
    Gaussian blur, and the length of a motion. The median over corners is returned.

    Args:
        gray: uint8 [H, W].
        view: Its corners.
        square_m: Side of a square [m]; the patch around a corner reaches 0.3 of it, 3 to 12 px.
    """
    image = gray.astype(np.float32)
    slope_x = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
    slope_y = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
    ahead = [_moved(view, shift) for shift in ((square_m, 0.0), (0.0, square_m))]
    widths = []
    for k, corner in enumerate(view.corners):
        along = [after[k] - corner for after in ahead]
        side = min(float(np.linalg.norm(step)) for step in along)
        half = int(np.clip(_SQUARE_SHARE * side, *_HALF_PX))
        x, y = np.rint(corner).astype(int)
        rows, columns = slice(max(y - half, 0), y + half + 1), slice(max(x - half, 0), x + half + 1)
        patch = image[rows, columns]
        if patch.size < (2 * half + 1) ** 2:
            continue
        low, high = np.percentile(patch, (5, 95))
        widths.append(
            max((high - low) / _steepest(slope_x[rows, columns], slope_y[rows, columns], step) for step in along)
        )
    return float(np.median(widths)) if widths else np.inf


def _moved(view: BoardView, shift: tuple[float, float]) -> np.ndarray:
    """Return where points of the board beside each corner, `shift` [m] away, lie in the picture, [K, 2] px."""
    to_picture, _ = cv2.findHomography(view.board_points[:, :2], view.corners)
    points = (view.board_points[:, :2] + shift).reshape(-1, 1, 2)
    return np.asarray(cv2.perspectiveTransform(points, to_picture)).reshape(-1, 2)


def _steepest(slope_x: np.ndarray, slope_y: np.ndarray, along: np.ndarray) -> float:
    """Return the steepest slope across an edge that runs `along` [grey levels per px], at least one."""
    across = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-9)
    return max(float(np.abs(slope_x * across[0] + slope_y * across[1]).max()), 1.0)
