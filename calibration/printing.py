"""A board on paper: a picture for any screen or simulator, and a PNG or PDF at true scale for the printer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from calibration.boards import BoardSpec
from robot_rl.errors import ConfigError

_INCH_M = 0.0254
PAPERS_M = {"a4": (0.210, 0.297), "a3": (0.297, 0.420), "a2": (0.420, 0.594), "letter": (0.2159, 0.2794)}


@dataclass(frozen=True, kw_only=True)
class BoardPrint:
    """A board as pixels.

    Args:
        pixels: uint8 [H, W], 0 black and 255 white.
        size_m: Width and height with the margin.
        origin_m: Where the board's origin is, from the top left: the margin.
    """

    pixels: np.ndarray
    size_m: tuple[float, float]
    origin_m: tuple[float, float]


def draw_board(board: BoardSpec, *, pixels_per_square: int = 100, margin_m: float | None = None) -> BoardPrint:
    """Return the board with a white margin, every square a whole number of pixels.

    Args:
        board: What to draw.
        pixels_per_square: Of one square (of a grid: of the distance between markers).
        margin_m: White around it; `None` is half a square. Detection needs some.

    Raises:
        ConfigError: Too few pixels for the markers to be told apart.
    """
    scale = pixels_per_square / board.square_m  # pixels per metre
    if board.kind != "chessboard" and board.marker_m * scale < 24:
        raise ConfigError(f"`pixels_per_square` = {pixels_per_square} leaves markers of less than 24 px; take more")
    margin = round((0.5 * board.square_m if margin_m is None else margin_m) * scale)
    width, height = (round(side * scale) for side in board.size_m)
    inner = _chessboard(board, pixels_per_square) if board.kind == "chessboard" else _markers(board, (width, height))
    pixels = cv2.copyMakeBorder(inner, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=255)
    size = (pixels.shape[1] / scale, pixels.shape[0] / scale)
    return BoardPrint(pixels=pixels, size_m=size, origin_m=(margin / scale, margin / scale))


def _chessboard(board: BoardSpec, square: int) -> np.ndarray:
    dark = (np.add.outer(np.arange(board.rows), np.arange(board.columns)) % 2) == 0
    return np.kron(np.where(dark, 0, 255).astype(np.uint8), np.ones((square, square), np.uint8))


def _markers(board: BoardSpec, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(board.cv_board.generateImage(size, marginSize=0, borderBits=1))


def write_board(
    board: BoardSpec, path: str | Path, *, paper: str = "a4", landscape: bool | None = None, dpi: int = 600
) -> Path:
    """Write the board for printing at 100 %, centred on a page, with a scale bar of 100 mm to check the print with.

    A PDF holds the board as pixels without smoothing; a PNG says its dots per inch.

    Args:
        board: What to print.
        path: `.pdf` or `.png`.
        paper: One of `PAPERS_M`.
        landscape: Which way round; `None` takes the one that fits.
        dpi: Pixels per inch.

    Raises:
        ConfigError: Another suffix or paper, or the board does not fit on it.
    """
    path = Path(path)
    if path.suffix.lower() not in (".pdf", ".png"):
        raise ConfigError(f"a board is written as .pdf or .png, got {path.suffix!r}")
    page = _page(board, paper, landscape)
    drawn = draw_board(board, pixels_per_square=max(100, round(dpi * board.square_m / _INCH_M)), margin_m=0.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"image.composite_image": False}):
        _layout(board, drawn, page).savefig(path, dpi=dpi)
    return path


def _page(board: BoardSpec, paper: str, landscape: bool | None) -> tuple[float, float]:
    """Return width and height of the page [m] on which the board fits with 5 mm around it and the scale bar below."""
    if paper.lower() not in PAPERS_M:
        raise ConfigError(f"`paper` must be one of {sorted(PAPERS_M)}, got {paper!r}")
    upright = PAPERS_M[paper.lower()]
    ways = [upright, upright[::-1]] if landscape is None else [upright[::-1] if landscape else upright]
    width, height = board.size_m
    for way in ways:
        if width + 0.010 <= way[0] and height + 0.030 <= way[1]:
            return way
    raise ConfigError(
        f"{board.describe()} is {1000 * width:.0f} x {1000 * height:.0f} mm: too large for {paper} with margins; "
        "take larger paper, smaller squares or fewer of them"
    )


def _layout(board: BoardSpec, drawn: BoardPrint, page: tuple[float, float]) -> Figure:
    figure = Figure(figsize=(page[0] / _INCH_M, page[1] / _INCH_M))
    width, height = drawn.size_m
    left, bottom = 0.5 * (page[0] - width), 0.5 * (page[1] - height) + 0.008
    axes = figure.add_axes((left / page[0], bottom / page[1], width / page[0], height / page[1]))
    axes.imshow(drawn.pixels, cmap="gray", vmin=0, vmax=255, interpolation="none", aspect="auto")
    axes.set_axis_off()
    ruler = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ruler.set(xlim=(0, page[0]), ylim=(0, page[1]))
    ruler.set_axis_off()
    ruler.patch.set_alpha(0.0)
    start, y = 0.5 * page[0] - 0.05, max(bottom - 0.012, 0.006)
    ruler.plot([start, start, start, start + 0.1, start + 0.1, start + 0.1],
               [y - 0.0015, y + 0.0015, y, y, y + 0.0015, y - 0.0015], color="black", linewidth=0.6)  # fmt: skip
    note = f"{board.describe()}. Print at 100 %; this line is 100 mm."
    ruler.text(0.5 * page[0], y + 0.002, note, ha="center", va="bottom", fontsize=6)
    return figure
