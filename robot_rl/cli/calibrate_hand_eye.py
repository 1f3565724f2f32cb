"""`robot-rl calibrate hand-eye`: where a camera sits on the arm or in the room, from pictures and arm poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from calibration.bundle_adjust import BundleOptions
from calibration.clock_offset import ArmTrajectory, ClockOffset, calibrate_moving
from calibration.files import save_calibration, today
from calibration.hand_eye import HandEyeOptions, calibrate_hand_eye
from calibration.hand_eye_report import hand_eye_sections
from calibration.hand_eye_result import CARRIERS, HandEye
from calibration.pose_files import match, read_numbers, read_poses
from calibration.ros_files import write_static_transforms
from robot_rl.cli.calibrate_evidence import load_evidence
from robot_rl.errors import ConfigError
from robot_rl.evaluation.report import write_report


def run(config: DictConfig, console: Console) -> HandEye:
    """Calibrate `calibrate.hand_eye`; writes hand_eye.yaml, a static transform and report.html."""
    settings, out = config.calibrate.hand_eye, Path(config.calibrate.out)
    if settings.arm_poses is None:
        raise ConfigError("`calibrate.hand_eye.arm_poses` is missing; give the folder or CSV file with T_base_tool")
    names, evidence, digest = load_evidence(settings, config, console)
    options = HandEyeOptions(
        mount=settings.mount, arm_noise=settings.arm_noise, seed=settings.seed,
        bundle=BundleOptions(free_intrinsics=settings.free_intrinsics),
    )  # fmt: skip
    table = read_poses(settings.arm_poses, unit=settings.unit, pattern=settings.arm_pattern)
    clock: ClockOffset | None = None
    if settings.picture_stamps is None:
        pairs = match(table.names, names)
        views = np.array([view for _, view in pairs])
        result = calibrate_hand_eye([table.poses[i] for i, _ in pairs], evidence.select(views), options)
    else:
        if table.stamp_ns is None:
            raise ConfigError(f"{settings.arm_poses} needs a column `stamp_ns` where pictures have stamps")
        stamps, views = _picture_stamps(settings.picture_stamps, names)
        trajectory = ArmTrajectory(table.stamp_ns, table.poses)
        seen = evidence.select(views)
        result, clock = calibrate_moving(trajectory, stamps, seen, options, max_offset_s=settings.max_offset_s)
    shown = [names[i] for i in views]
    _print(result, shown, clock, console)
    _write(result, config, out, digest, clock, console)
    report = write_report(
        out / "report.html", title="Hand-eye calibration", subtitle=f"held out: {result.held_out.describe()}",
        sections=hand_eye_sections(result, shown, clock),
    )  # fmt: skip
    console.print(f"report: {report}")
    return result


def _picture_stamps(path: str, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the stamps of the pictures that have one, and which those are."""
    _, stamps, pictures = read_numbers(path, columns=["stamp_ns"])
    if stamps is None:
        raise ConfigError(f"{path} needs columns `image` and `stamp_ns`")
    pairs = match(pictures, names)
    return stamps[[row for row, _ in pairs]], np.array([view for _, view in pairs])


def _print(result: HandEye, names: list[str], clock: ClockOffset | None, console: Console) -> None:
    table = Table(title=f"{result.names[0]} ({result.mount})", show_header=False)
    x, y, z = 1e3 * result.camera.translation
    table.add_row("position", f"{x:.2f}, {y:.2f}, {z:.2f} mm, one sigma {1e3 * result.sigma_position_m:.2f} mm")
    table.add_row("quaternion xyzw", ", ".join(f"{value:.6f}" for value in result.camera.quaternion))
    table.add_row("board, fitted", result.scatter.describe())
    table.add_row("board, held out", result.held_out.describe())
    if result.rms_px is not None:
        table.add_row("residual", f"{result.rms_px:.3f} px, held out {result.held_out_rms_px:.3f} px")
    apart, angle = result.agreement.typical
    table.add_row("methods apart", f"{1e3 * apart:.2f} mm, {np.degrees(angle):.3f} deg (median)")
    if clock is not None:
        table.add_row("clock offset", f"{1e3 * clock.offset_s:.2f} ms, one sigma {1e3 * clock.sigma_s:.2f} ms")
    for view, reason in result.rejected.items():
        table.add_row("rejected", f"{names[view]}: {reason}")
    console.print(table)


def _write(
    result: HandEye, config: DictConfig, out: Path, digest: str, clock: ClockOffset | None, console: Console
) -> None:
    settings = config.calibrate.hand_eye
    file = result.to_file(date=today(), device_serial=str(config.calibrate.serial), digest=digest)
    if clock is not None:
        residuals = {**file.residuals, "clock_offset_ms": 1e3 * clock.offset_s, "clock_sigma_ms": 1e3 * clock.sigma_s}
        file = file.__class__(**{**vars(file), "residuals": residuals})
    console.print(f"calibration: {save_calibration(file, out / 'hand_eye.yaml')}")
    carrier = {"tool": settings.tool_frame, "base": settings.base_frame}[CARRIERS[result.mount][0]]
    write_static_transforms({(carrier, settings.camera_frame): result.camera}, out / "hand_eye_tf.yaml")
