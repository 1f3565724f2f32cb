"""`robot-rl calibrate kinematics`: an arm's joint zeros from pictures of a board that stands still."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from calibration.files import save_calibration, today
from calibration.hand_eye import HandEyeOptions
from calibration.kinematics import JointZeros, KinematicOffsets, calibrate_kinematics
from calibration.pose_files import match, read_numbers
from robot_rl.cli.calibrate_evidence import load_evidence
from robot_rl.cli.config import build
from robot_rl.errors import ConfigError


def run(config: DictConfig, console: Console) -> KinematicOffsets:
    """Find the zeros of `robot` from `calibrate.kinematics`; writes kinematics.yaml."""
    settings, out = config.calibrate.kinematics, Path(config.calibrate.out)
    if settings.joints is None:
        raise ConfigError(
            "`calibrate.kinematics.joints` is missing; give a CSV file with columns image, q1, q2, ... [rad]"
        )
    names, evidence, digest = load_evidence(settings, config, console)
    q, _, pictures = read_numbers(settings.joints)
    pairs = match(pictures, names)
    arm = build(config.robot).kinematics()
    model = JointZeros(arm.forward, arm.n_joints, sigma_rad=np.radians(settings.sigma_deg))
    result = calibrate_kinematics(
        model, q[[row for row, _ in pairs]], evidence.select(np.array([view for _, view in pairs])),
        HandEyeOptions(mount=settings.mount),
    )  # fmt: skip
    table = Table("joint zero", "deg", "one sigma", "seen by the views", title="To add to the joint angles")
    for name, value in result.correction.items():
        seen = "yes" if name in result.observed else "no: held at zero"
        table.add_row(name, f"{np.degrees(value):.4f}", f"{np.degrees(result.sigma[name]):.4f}", seen)
    console.print(table)
    console.print(f"board, held out, before: {result.before.held_out.describe()}")
    console.print(f"board, held out, after:  {result.after.held_out.describe()}")
    file = result.to_file(date=today(), device_serial=str(config.calibrate.serial), digest=digest)
    console.print(f"calibration: {save_calibration(file, out / 'kinematics.yaml')}")
    return result
