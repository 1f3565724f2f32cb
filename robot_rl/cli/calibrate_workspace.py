"""`robot-rl calibrate workspace`: the table's plane and the box the tool may work in, from touched points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from calibration.files import save_calibration, today
from calibration.pose_files import UNITS, read_numbers
from calibration.workspace import TouchedWorkspace, calibrate_workspace
from robot_rl.errors import ConfigError


def run(config: DictConfig, console: Console) -> TouchedWorkspace:
    """Fit `calibrate.workspace.table` and `corners` (CSV: x, y, z in the base's frame); writes workspace.yaml."""
    settings, out = config.calibrate.workspace, Path(config.calibrate.out)
    for name in ("table", "corners"):
        if settings[name] is None:
            raise ConfigError(f"`calibrate.workspace.{name}` is missing; give a CSV file with columns x, y, z")
    if settings.unit not in UNITS:
        raise ConfigError(f"`calibrate.workspace.unit` must be one of {sorted(UNITS)}, got {settings.unit!r}")
    points = [UNITS[settings.unit] * read_numbers(settings[name], ["x", "y", "z"])[0] for name in ("table", "corners")]
    result = calibrate_workspace(*points, clearance_m=settings.clearance_m, margin_m=settings.margin_m)
    table = result.table
    console.print(
        f"table: {int(table.kept.sum())} of {len(table.kept)} points, rms {1e3 * table.rms_m:.2f} mm, held out "
        f"{1e3 * table.held_out_rms_m:.2f} mm, tilt {np.degrees(table.tilt_rad):.2f} deg"
    )
    for i in np.flatnonzero(~table.kept):
        console.print(
            f"point {i + 1} left out: {1e3 * table.height(points[0][i]):+.1f} mm from the plane of the others"
        )
    console.print(
        f"box: low {np.round(result.low, 4).tolist()}, high {np.round(result.high, 4).tolist()} m, base frame"
    )
    file = result.to_file(date=today(), device_serial=str(config.calibrate.serial))
    console.print(f"calibration: {save_calibration(file, out / 'workspace.yaml')}")
    return result
