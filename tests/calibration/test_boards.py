"""Boards: where corners are, how they are found in pictures, and how they come out of the printer."""

import re
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.captures import BoardSpec, image_files, load_captures, pair_captures
from calibration.printing import draw_board, write_board
from robot_rl.errors import CalibrationError, ConfigError
from tests.calibration.rig_data import CHARUCO, CHESSBOARD, GRID

BOARDS = {"charuco": CHARUCO, "chessboard": CHESSBOARD, "grid": GRID}


def _flat(board: BoardSpec, pixels_per_square: int = 60) -> np.ndarray:
    """Return the board as a camera right above it would see it, a little blurred."""
    return cv2.GaussianBlur(draw_board(board, pixels_per_square=pixels_per_square).pixels, (0, 0), 1.0)


@pytest.mark.parametrize("kind", BOARDS)
def test_a_drawn_board_is_found_whole_and_where_it_was_drawn(kind: str):
    board = BOARDS[kind]
    drawn = draw_board(board, pixels_per_square=60)
    view = board.detect(_flat(board), "flat")
    assert view is not None
    assert sorted(view.ids) == list(range(len(board.object_points)))
    scale = 60 / board.square_m
    expected = (view.board_points[:, :2] + np.array(drawn.origin_m)) * scale - 0.5  # pixel centres are whole numbers
    assert np.abs(view.corners - expected).max() < {"charuco": 0.4, "chessboard": 0.01, "grid": 0.3}[kind]
    assert view.size == drawn.pixels.shape[::-1]


@pytest.mark.parametrize("kind", BOARDS)
def test_a_board_upside_down_gets_the_same_ids(kind: str):
    board = BOARDS[kind]
    picture = _flat(board)
    turned = np.ascontiguousarray(picture[::-1, ::-1])
    upright, flipped = board.detect(picture), board.detect(turned)
    assert upright is not None
    assert flipped is not None
    places = dict(zip(flipped.ids, flipped.corners, strict=True))
    back = np.array([[turned.shape[1] - 1, turned.shape[0] - 1] - places[i] for i in upright.ids])
    np.testing.assert_allclose(back, upright.corners, atol=0.6)


def test_colour_pictures_are_taken_and_others_refused():
    gray = _flat(CHARUCO)
    colour = CHARUCO.detect(np.repeat(gray[:, :, None], 3, axis=2))
    assert colour is not None
    np.testing.assert_allclose(colour.corners, CHARUCO.detect(gray).corners)
    with pytest.raises(ConfigError, match="uint8"):
        CHARUCO.detect(gray.astype(np.float32))


def test_an_empty_picture_and_a_row_of_corners_hold_no_board():
    assert CHARUCO.detect(np.full((200, 300), 200, np.uint8)) is None
    drawn = draw_board(CHARUCO, pixels_per_square=60)
    top = drawn.pixels[: round(drawn.pixels.shape[0] * 0.40)]  # the first row of corners only
    assert CHARUCO.detect(top) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "circles"}, "`kind` must be one of"),
        ({"columns": 2}, "needs 3 x 3 or more"),
        ({"square_m": 30.0}, "30 mm is 0.03"),
        ({"marker_m": 0.05}, "below square_m"),
        ({"dictionary": "DICT_9X9"}, "DICT_4X4_50"),
        ({"columns": 20, "rows": 20}, "DICT_4X4_50 has 50"),
    ],
)
def test_a_board_that_cannot_be_is_refused(change: dict, message: str):
    values = {"kind": "charuco", "columns": 8, "rows": 5, "square_m": 0.04, "marker_m": 0.03} | change
    with pytest.raises(ConfigError, match=message):
        BoardSpec(**values)


def test_a_mapping_with_a_wrong_key_is_refused():
    with pytest.raises(ConfigError, match="unknown \\['cols'\\]"):
        BoardSpec.from_mapping({"kind": "chessboard", "cols": 8, "rows": 5, "square_m": 0.04})
    assert BoardSpec.from_mapping({"kind": "chessboard", "columns": 8, "rows": 5, "square_m": 0.04}) == CHESSBOARD


def _folder(tmp_path: Path, pictures: dict[str, np.ndarray]) -> Path:
    for name, picture in pictures.items():
        cv2.imwrite(str(tmp_path / name), picture)
    return tmp_path


@pytest.mark.parametrize(
    ("drawn", "described", "hint"),
    [
        (BoardSpec(kind="charuco", columns=5, rows=8, square_m=0.04, marker_m=0.03), CHARUCO, "columns=5, rows=8"),
        (BoardSpec(kind="charuco", columns=9, rows=7, square_m=0.04, marker_m=0.03), CHARUCO, "board of another size"),
        (GRID, CHARUCO, "no marker of DICT_4X4_50"),
        (BoardSpec(kind="chessboard", columns=9, rows=6, square_m=0.04), CHESSBOARD, "9 x 6 squares"),
        (BoardSpec(kind="charuco", columns=8, rows=6, square_m=0.04, marker_m=0.03, legacy=True),
         BoardSpec(kind="charuco", columns=8, rows=6, square_m=0.04, marker_m=0.03), "legacy=True"),
    ],
)  # fmt: skip
def test_another_board_than_described_is_named(tmp_path: Path, drawn: BoardSpec, described: BoardSpec, hint: str):
    folder = _folder(tmp_path, {"a.png": _flat(drawn)})
    with pytest.raises(CalibrationError, match="is in none of 1 pictures; .*" + re.escape(hint)):
        load_captures(image_files(folder), described)


def test_mixed_sizes_are_refused_by_name(tmp_path: Path):
    whole = _flat(CHARUCO)
    folder = _folder(tmp_path, {"a.png": whole, "b.png": whole, "c.png": cv2.resize(whole, None, fx=0.8, fy=0.8)})
    with pytest.raises(CalibrationError, match=r"mixed sizes: .* not so c.png"):
        load_captures(image_files(folder), CHARUCO)


def test_pictures_without_the_board_are_listed_and_the_digest_is_of_the_bytes(tmp_path: Path):
    whole = _flat(CHARUCO)
    folder = _folder(tmp_path, {"a.png": whole, "b.png": np.full_like(whole, 128)})
    seen: dict[str, bool] = {}
    captures = load_captures(image_files(folder), CHARUCO, on_image=seen.__setitem__)
    assert [view.image_id for view in captures.views] == ["a.png"]
    assert list(captures.missed) == ["b.png"]
    assert seen == {"a.png": True, "b.png": False}
    cv2.imwrite(str(folder / "b.png"), np.full_like(whole, 127))
    assert load_captures(image_files(folder), CHARUCO).digest != captures.digest


def test_folders_without_pictures_and_broken_pictures_are_refused(tmp_path: Path):
    with pytest.raises(CalibrationError, match="is not a folder"):
        image_files(tmp_path / "none")
    with pytest.raises(CalibrationError, match="holds no picture"):
        image_files(tmp_path)
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(CalibrationError, match="is not a picture that can be read"):
        load_captures(image_files(tmp_path), CHARUCO)


def test_pairs_are_found_by_number_and_half_pairs_left_out(tmp_path: Path):
    whole = _flat(CHARUCO)
    _folder(tmp_path, {name: whole for name in ("left01.png", "left03.png", "right02.png", "right03.png")})
    left = load_captures(image_files(tmp_path, "left*"), CHARUCO)
    right = load_captures(image_files(tmp_path, "right*"), CHARUCO)
    a, b = pair_captures(left, right)
    assert [view.image_id for view in (*a, *b)] == ["left03.png", "right03.png"]
    _folder(tmp_path, {"3.png": whole})
    with pytest.raises(CalibrationError, match="have the same number"):
        pair_captures(load_captures(image_files(tmp_path), CHARUCO), right)


def test_a_printed_png_has_squares_of_true_size(tmp_path: Path):
    board = BoardSpec(kind="charuco", columns=7, rows=5, square_m=0.03, marker_m=0.022)
    path = write_board(board, tmp_path / "board.png", dpi=150)
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_allclose(picture.shape, np.array([0.210, 0.297]) / 0.0254 * 150, atol=1)  # A4 landscape
    view = board.detect(picture)
    assert view is not None
    assert len(view.ids) == 24
    shift = view.corners - view.board_points[:, :2] / 0.0254 * 150
    assert np.ptp(shift, axis=0).max() < 1.0  # every corner at its distance from every other, to a pixel


def test_a_printed_pdf_has_page_and_board_of_true_size(tmp_path: Path):
    board = BoardSpec(kind="grid", columns=4, rows=3, square_m=0.05, marker_m=0.04)
    data = write_board(board, tmp_path / "board.pdf", paper="a3").read_bytes()
    box = [float(x) for x in re.search(rb"/MediaBox \[ ?([^\]]+?) ?\]", data).group(1).split()]
    points_per_m = 72 / 0.0254
    np.testing.assert_allclose(box, [0, 0, 0.297 * points_per_m, 0.420 * points_per_m], atol=0.1)
    pages = [zlib.decompress(part) for part in re.findall(rb"stream\n(.*?)\nendstream", data, re.S) if part[:1] == b"x"]
    scale = re.search(rb"([\d.]+)\s+0\s+0\s+-?([\d.]+)\s+0\s+[\d.]+\s+cm\s+/I\d+\s+Do", b"\n".join(pages))
    size = [float(x) / points_per_m for x in scale.groups()]
    np.testing.assert_allclose(size, board.size_m, rtol=2e-3)


def test_a_board_larger_than_the_paper_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="too large for a4"):
        write_board(CHARUCO, tmp_path / "board.pdf")
    with pytest.raises(ConfigError, match=r"written as \.pdf or \.png"):
        write_board(CHARUCO, tmp_path / "board.svg", paper="a3")
