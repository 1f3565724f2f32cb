"""`robot-rl doctor`: what this machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from robot_rl.errors import ConfigError, RobotRLError

PACKAGES = {
    "torch": "train", "onnx": "train", "tensorboard": "train", "onnxruntime": "", "zarr": "", "mujoco": "sim",
    "mink": "sim", "gym-pusht": "", "ros-kilted-rclpy": "ros", "pyrealsense2": "realsense",
}  # fmt: skip
MIN_FREE_GIB = 5.0


@dataclass(frozen=True)
class Check:
    """One finding: `ok` None means optional and absent."""

    name: str
    ok: bool | None
    found: str
    remedy: str = ""


def _package(name: str, extra: str) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        remedy = f"pip install 'robot-rl[{extra}]'" if extra else f"pip install --no-deps {name}"
        return Check(name, None, "not installed", remedy)


def _rendering() -> Check:
    try:
        from sim.rendering import make_context

        backend, context = make_context(64, 64)
        context.free()
        return Check("off-screen rendering", True, backend)
    except (RobotRLError, ImportError) as error:
        return Check("off-screen rendering", False, str(error), "make install")


def _opencv() -> Check:
    import cv2

    whole = hasattr(cv2, "calibrateHandEye")
    remedy = "" if whole else "pip uninstall opencv-python; pip install --force-reinstall opencv-python-headless"
    return Check("opencv has hand-eye calibration", whole, cv2.__version__, remedy)


def _disk(folder: str) -> Check:
    path = Path(folder).resolve()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free / 2**30
    return Check("free disk", free > MIN_FREE_GIB, f"{free:.0f} GiB", "" if free > MIN_FREE_GIB else "free some space")


def _shared_memory() -> Check:
    path = Path("/dev/shm")
    if not path.exists():
        return Check("/dev/shm", None, "none")
    size = shutil.disk_usage(path).total / 2**20
    return Check("/dev/shm", size >= 64, f"{size:.0f} MiB", "" if size >= 64 else "docker run --shm-size=1g")


def checks(config: DictConfig) -> list[Check]:
    """Return every finding."""
    tests: list[Callable[[], Check]] = [_opencv, _rendering, lambda: _disk(config.out), _shared_memory]
    python = Check("Python", True, platform.python_version())
    cores = Check("processor cores", True, str(os.cpu_count()))
    return [python, cores, *(_package(name, extra) for name, extra in PACKAGES.items()), *(test() for test in tests)]


def run(config: DictConfig, console: Console) -> None:
    """Print a table of findings.

    Raises:
        ConfigError: Something needed is missing; names it and the remedy.
    """
    table = Table("what", "", "found", "to do")
    marks = {True: "[green]ok[/green]", False: "[red]missing[/red]", None: "[yellow]optional[/yellow]"}
    found = checks(config)
    for check in found:
        table.add_row(check.name, marks[check.ok], check.found, check.remedy)
    console.print(table)
    missing = [check for check in found if check.ok is False]
    if missing:
        raise ConfigError("; ".join(f"{check.name}: {check.found}; {check.remedy}" for check in missing))
