"""`robot-rl calibrate <what> [key=value ...]`: finds what is to be calibrated and runs it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

from rich.console import Console

from robot_rl.cli.config import load_config, to_yaml
from robot_rl.errors import ConfigError

SUBCOMMANDS: Mapping[str, tuple[str, str]] = {
    "board": ("robot_rl.cli.calibrate_board", "print a board at true scale (calibrate.board.file=board.pdf)"),
    "intrinsics": ("robot_rl.cli.calibrate_intrinsics", "a camera, or two as a stereo pair, from pictures of a board"),
    "hand-eye": ("robot_rl.cli.calibrate_hand_eye", "a camera on the arm or in the room, from pictures and arm poses"),
    "kinematics": ("robot_rl.cli.calibrate_kinematics", "joint zeros, from pictures of a board that stands still"),
    "latency": ("robot_rl.cli.calibrate_latency", "cameras, joints and commands, from a motion that all of them show"),
    "workspace": ("robot_rl.cli.calibrate_workspace", "table plane and box, from touched points"),
    "check": ("robot_rl.cli.calibrate_check", "is a camera calibration still true? from one fresh picture"),
}
"""Name to (module with `run(config, console)`, what it does)."""


def run(arguments: Sequence[str], console: Console) -> None:
    """Run `robot-rl calibrate` with what follows it.

    Raises:
        ConfigError: No or an unknown sub-command, or an unknown key.
        RobotRLError: Whatever the sub-command refuses.
    """
    listed = "; ".join(f"{name} ({text})" for name, (_, text) in SUBCOMMANDS.items())
    if not arguments or arguments[0] not in SUBCOMMANDS:
        got = f"got `{arguments[0]}`" if arguments else "got nothing"
        raise ConfigError(f"robot-rl calibrate needs one of: {listed}; {got}")
    overrides = list(arguments[1:])
    config = load_config([item for item in overrides if item != "--cfg"])
    if "--cfg" in overrides:
        console.print(to_yaml(config), markup=False, highlight=False)
        return
    module = importlib.import_module(SUBCOMMANDS[arguments[0]][0])
    module.run(config, console)
