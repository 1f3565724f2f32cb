"""`robot-rl calibrate check`: is a camera calibration still true? One fresh picture of the board tells."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from calibration.captures import BoardSpec, load_captures
from calibration.drift import Drift, check_view
from calibration.files import load_calibration
from robot_rl.cli.config import plain
from robot_rl.errors import CalibrationError, ConfigError


def run(config: DictConfig, console: Console) -> Drift:
    """Check `calibrate.check.file` against `calibrate.check.image`; refuses when they no longer agree.

    Raises:
        ConfigError: A file is missing or not an intrinsics calibration.
        CalibrationError: Stale, of another size, no board in the picture, or the camera has changed.
    """
    settings = config.calibrate.check
    for name in ("file", "image"):
        if settings[name] is None:
            raise ConfigError(f"`calibrate.check.{name}` is missing; give the calibration and one fresh picture")
    calibration = load_calibration(
        settings.file, kind="intrinsics", max_age_days=settings.max_age_days, serial=str(config.calibrate.serial),
        allow_stale=settings.allow_stale,
    )  # fmt: skip
    if not Path(settings.image).is_file():
        raise ConfigError(f"`calibrate.check.image`: no such file {settings.image}")
    captures = load_captures([settings.image], BoardSpec.from_mapping(plain(config.board)))
    expected = calibration.residuals["heldout_rms_px"]
    drift = check_view(calibration.values["camera"], captures.views[0], expected_px=expected)
    if not drift.ok:
        raise CalibrationError(f"{settings.file} no longer holds: {drift.reason}; calibrate again")
    console.print(
        f"{settings.file} holds: residual {drift.rms_px:.2f} px, {expected:.2f} px on held-out views when it was made"
    )
    return drift
