"""What the pictures show of the board, for the calibrations that need an arm too."""

from __future__ import annotations

from omegaconf import DictConfig
from rich.console import Console

from calibration.captures import BoardSpec, image_files, load_captures
from calibration.evidence import CornerEvidence, Evidence, PoseEvidence
from calibration.files import load_calibration
from calibration.pose_files import read_poses
from robot_rl.cli.config import plain
from robot_rl.cli.progress import bar
from robot_rl.errors import ConfigError


def load_evidence(settings: DictConfig, config: DictConfig, console: Console) -> tuple[list[str], Evidence, str]:
    """Return the views' names, what they show, and the digest of the pictures.

    Args:
        settings: Has `images`, `pattern` and `intrinsics`, or `board_poses` and `board_pattern`.
        config: The whole configuration, for the board.
        console: For the progress bar.

    Raises:
        ConfigError: Neither pictures with intrinsics nor board poses are given.
    """
    if settings.board_poses is not None:
        table = read_poses(settings.board_poses, pattern=settings.board_pattern)
        return list(table.names), PoseEvidence.from_poses(table.poses), ""
    if settings.images is None or settings.intrinsics is None:
        raise ConfigError(
            "give `images` (folder) and `intrinsics` (calibration file of the camera), or `board_poses` where the "
            "poses of "
            "the board were found already"
        )
    intrinsics = load_calibration(
        settings.intrinsics, kind="intrinsics", serial=str(config.calibrate.serial), allow_stale=settings.allow_stale
    ).values["camera"]
    files = image_files(settings.images, settings.pattern)
    with bar(console) as progress:
        task = progress.add_task("looking for the board", total=len(files))
        captures = load_captures(
            files, BoardSpec.from_mapping(plain(config.board)), on_image=lambda *_: progress.advance(task)
        )
    for name, reason in captures.missed.items():
        console.print(f"{name}: no board; {reason}" if reason else f"{name}: no board", markup=False)
    return [view.image_id for view in captures.views], CornerEvidence(captures.views, intrinsics), captures.digest
