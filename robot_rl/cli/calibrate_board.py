"""`robot-rl calibrate board`: a board on paper at true scale."""

from __future__ import annotations

from omegaconf import DictConfig
from rich.console import Console

from calibration.boards import BoardSpec
from calibration.printing import write_board
from robot_rl.cli.config import plain


def run(config: DictConfig, console: Console) -> None:
    """Write `calibrate.board.file` (.pdf or .png) for `calibrate.board.paper`."""
    board = BoardSpec.from_mapping(plain(config.board))
    settings = config.calibrate.board
    path = write_board(board, settings.file, paper=settings.paper)
    console.print(f"{board.describe()}: {path}")
    console.print("print at 100 % (no fitting to the page), measure the 100 mm line, glue it onto something flat")
