"""`robot-rl <command> [key=value ...]`: finds the command's composition root and runs it."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from robot_rl import __version__
from robot_rl.cli.calibrate_command import run as run_calibrate
from robot_rl.cli.command_help import is_asked, show_help
from robot_rl.cli.config import load_config
from robot_rl.cli.file_trouble import explain
from robot_rl.cli.up_command import exec_graph
from robot_rl.errors import ConfigError, RobotRLError

COMMANDS = {
    "demo": "the whole line: collect or import, train, package, evaluate, loop, one report",
    "collect": "scripted demonstrations into an episode store",
    "import": "a LeRobot, robomimic, robosuite, RLDS or diffusion_policy data set into an episode store (source=...)",
    "export": "an episode store as a LeRobot, robomimic or diffusion_policy data set (target=... export.format=...)",
    "import-bag": "a rosbag2 or MCAP recording into an episode store (bag=... plan=<recorder.yaml>)",
    "export-bag": "an episode to MCAP, which Foxglove opens (bag=... episode=<id>)",
    "view": "an episode in Rerun: episode=<id or number> [--web] [view.compare=<episode>] [view.policy=<bundle>]",
    "report": "a store as one HTML page: what it holds, how it is spread, first and last pictures",
    "check": "a verdict on every episode of a store: rates, gaps, lag, stuck joints, duplicates, pictures, labels",
    "mend": "delete|trim|split|join|relabel|rename ...: edit a store; shows first, applies when told, undoes",
    "train": "imitation: a chunk policy from the episode store",
    "finetune": "reinforcement learning on top of a policy: algo=residual|rlpd|qc|dqc|hil ... base=<run or bundle>",
    "distill": "a one-step head of a trained policy: run=<teacher run> head=same_noise|lcm|shortcut|mean_flow",
    "reward": "a success classifier from a store's episodes, for finetune.classifier",
    "package": "the trained policy as a bundle: ONNX graphs, specs, hashes, parity",
    "evaluate": "seeded rollouts with exact intervals, videos and a report",
    "validate": "the promotion ladder: replay, randomised simulation, incumbent, supervised trials; attests the bundle",
    "ab": "which of two bundles is better: blind, interleaved, on the robot or in simulation; exact intervals",
    "compose": "one policy from several: parents=[runA,runB] operator=convex|and|or, searched, reported, packaged",
    "loop": "drive the simulated arm from a bundle in real time and measure latency",
    "calibrate": "board|intrinsics|check ...: cameras and arms, with residuals and a report",
    "up": "a ROS 2 graph in plain processes: robot-rl up sim|collect|deploy|finetune key:=value ...",
    "doctor": "check this machine: libraries, rendering, disk, threads",
}

CONTINUE = frozenset(
    {"demo", "collect", "import", "train", "finetune", "distill", "evaluate", "validate", "ab", "compose"}
)
"""Commands that, given again, go on where they were interrupted."""


def usage(console: Console) -> None:
    """Print the table of commands."""
    table = Table(title=f"robot-rl {__version__}", show_header=False, box=None, title_justify="left")
    for name, text in COMMANDS.items():
        table.add_row(f"[bold]{name}[/bold]", text)
    console.print(
        "usage: robot-rl <command> [key=value ...]     e.g. robot-rl train task=pusht train.steps=1000", markup=False
    )
    console.print(table)
    console.print("robot-rl <command> --help explains a command's settings.", markup=False)
    console.print("robot-rl <command> --cfg prints the configuration a command would run with.", markup=False)


def run(command: str, overrides: Sequence[str], console: Console) -> int:
    """Run one command and return its exit status: that of a command that judges, 0 of any other.

    Raises:
        ConfigError: Unknown command or configuration.
        RobotRLError: Whatever the command refuses.
    """
    if command not in COMMANDS:
        raise ConfigError(f"unknown command `{command}`; there is {', '.join(COMMANDS)}")
    if is_asked(overrides) and not (command == "up" and find_spec("rclpy")):  # the graphs explain themselves
        show_help(command, COMMANDS[command], console)
        return 0
    if command == "up":
        exec_graph(overrides)
    if command == "calibrate":
        run_calibrate(overrides, console)
        return 0
    if command == "mend":
        from robot_rl.cli.mend_command import run as run_mend

        run_mend(overrides, console)
        return 0
    if command == "view":
        overrides = ["view.web=true" if item == "--web" else item for item in overrides]
    show = "--cfg" in overrides
    config = load_config([item for item in overrides if item != "--cfg"])
    if show:
        from robot_rl.cli.config import to_yaml

        console.print(to_yaml(config), markup=False, highlight=False)
        return 0
    module = importlib.import_module(f"robot_rl.cli.{command.replace('-', '_')}_command")
    result = module.run(config, console)
    return result if isinstance(result, int) else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Console entry point; returns the command's exit status (2 for a request that was refused, 130 for Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console()
    handler = RichHandler(console=console, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    for ours in ("robot_rl", "policies", "sim", "calibration"):
        logging.getLogger(ours).setLevel(logging.INFO)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        usage(console)
        return 0
    try:
        return run(arguments[0], arguments[1:], console)
    except RobotRLError as error:
        return _refuse(type(error).__name__, str(error), console)
    except OSError as error:
        if (told := explain(error, arguments[0], arguments[1:])) is None:
            raise
        return _refuse(type(error).__name__, told, console)
    except KeyboardInterrupt:
        more = "; the same command continues where this one stopped" if arguments[0] in CONTINUE else ""
        console.print(f"interrupted{more}")
        return 130


def _refuse(kind: str, text: str, console: Console) -> int:
    """Say why a request was refused and return its exit status."""
    console.print(f"[bold red]{kind}[/bold red]: ", end="")
    console.print(text, markup=False)
    return 2


if __name__ == "__main__":
    sys.exit(main())
