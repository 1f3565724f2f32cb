"""A folder of pictures as board views: what was found, what was not and why."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from calibration.boards import BoardSpec, BoardView
from calibration.detection import seen_instead
from robot_rl.errors import CalibrationError

__all__ = ["BoardSpec", "BoardView", "Captures", "image_files", "load_captures", "pair_captures"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class Captures:
    """The views of one camera.

    Args:
        board: What was looked for.
        views: Found boards, in the order of the file names.
        missed: Pictures without the board: name to reason.
        files: Every picture by name.
        size: Width and height that all pictures have [px].
        digest: SHA-256 over the pictures' bytes in order.
    """

    board: BoardSpec
    views: Sequence[BoardView]
    missed: Mapping[str, str]
    files: Mapping[str, Path]
    size: tuple[int, int]
    digest: str = field(default="", repr=False)


def image_files(folder: str | Path, pattern: str = "*") -> list[Path]:
    """Return the pictures of a folder whose names match, sorted.

    Raises:
        CalibrationError: There is no folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CalibrationError(f"{folder} is not a folder; give the folder with the pictures of the board")
    files = sorted(path for path in folder.glob(pattern) if path.suffix.lower() in SUFFIXES)
    if not files:
        raise CalibrationError(f"{folder} holds no picture `{pattern}` of kind {', '.join(SUFFIXES)}")
    return files


def load_captures(
    files: Sequence[str | Path],
    board: BoardSpec,
    *,
    window: int | None = None,
    on_image: Callable[[str, bool], None] | None = None,
) -> Captures:
    """Look for the board in every picture.

    Args:
        files: Pictures of one camera at one setting, see `image_files`.
        board: What to look for.
        window: See `BoardSpec.detect`.
        on_image: Told each picture's name and whether the board was in it, for a progress bar.

    Raises:
        CalibrationError: A picture cannot be read, sizes differ, or the board is in none of them; the message says what
            is to be seen instead.
    """
    views, missed, sizes, pictures = [], {}, {}, {}
    digest = hashlib.sha256()
    for path in map(Path, files):
        data = path.read_bytes()
        digest.update(data)
        gray = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        if gray is None:
            raise CalibrationError(f"{path} is not a picture that can be read; take it out of the folder")
        sizes[path.name], pictures[path.name] = (gray.shape[1], gray.shape[0]), path
        view = board.detect(gray, path.name, window=window)
        if view is None:
            missed[path.name] = seen_instead(board, gray)
        else:
            views.append(view)
        if on_image is not None:
            on_image(path.name, view is not None)
    _check_one_size(sizes)
    if not views:
        raise CalibrationError(_none_found(board, missed))
    return Captures(
        board=board, views=views, missed=missed, files=pictures, size=next(iter(sizes.values())),
        digest=digest.hexdigest(),
    )  # fmt: skip


def _none_found(board: BoardSpec, missed: Mapping[str, str]) -> str:
    hint = Counter(missed.values()).most_common(1)[0][0] if missed else ""
    return f"the board ({board.describe()}) is in none of {len(missed)} pictures" + (f"; {hint}" if hint else "")


def _check_one_size(sizes: Mapping[str, tuple[int, int]]) -> None:
    counts = Counter(sizes.values())
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        others = [f"{name} ({w} x {h})" for name, (w, h) in sizes.items() if (w, h) != usual]
        raise CalibrationError(
            f"pictures of mixed sizes: most are {usual[0]} x {usual[1]}, not so {', '.join(others[:5])}; "
            "a calibration holds for one size: take the others out"
        )


def pair_captures(left: Captures, right: Captures) -> tuple[list[BoardView], list[BoardView]]:
    """Return the views of pictures that two cameras took together: those whose names end in the same number.

    Raises:
        CalibrationError: A number stands twice on one side, or no two pictures with the board belong together.
    """
    by_number = [_by_number(captures.views) for captures in (left, right)]
    common = sorted(by_number[0].keys() & by_number[1].keys())
    if not common:
        raise CalibrationError(
            f"no picture of {sorted(left.files)[:2]} belongs to one of {sorted(right.files)[:2]}; pairs need the same "
            "number at the end of their names (left01.png, right01.png) and the board in both"
        )
    return [by_number[0][number] for number in common], [by_number[1][number] for number in common]


def _by_number(views: Sequence[BoardView]) -> dict[int, BoardView]:
    found: dict[int, BoardView] = {}
    for view in views:
        digits = re.findall(r"\d+", Path(view.image_id).stem)
        if not digits:
            continue
        if int(digits[-1]) in found:
            raise CalibrationError(
                f"{view.image_id} and {found[int(digits[-1])].image_id} have the same number; which one is the pair?"
            )
        found[int(digits[-1])] = view
    return found
