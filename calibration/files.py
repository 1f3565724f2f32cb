"""Calibrations on disk: YAML a person can read, refused when it is too old or belongs to another device."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from robot_rl.calibration_types import FORMAT_VERSION, CalibrationFile, CameraIntrinsics, Pose
from robot_rl.errors import CalibrationError, ConfigError, SpecError

log = logging.getLogger(__name__)

MAX_AGE_DAYS = 180.0
_POSE_KEYS = {"translation_m", "quaternion_xyzw"}
_CAMERA_KEYS = {item.name for item in fields(CameraIntrinsics)}


def today() -> str:
    """Return this moment as `CalibrationFile.date` holds it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def save_calibration(calibration: CalibrationFile, path: str | Path) -> Path:
    """Write the file, whole or not at all, and return its path.

    Raises:
        ConfigError: A value is of a type that the file cannot hold.
    """
    path = Path(path)
    document = {
        "format_version": calibration.format_version,
        "kind": calibration.kind,
        "date": calibration.date,
        "device_serial": calibration.device_serial,
        "method": calibration.method,
        "frames": dict(calibration.frames),
        "values": {name: _entry(calibration, name) for name in calibration.values},
        "residuals": {name: float(value) for name, value in calibration.residuals.items()},
        "image_digest": calibration.image_digest,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120), encoding="utf-8")
    os.replace(part, path)
    return path


def load_calibration(
    path: str | Path,
    *,
    kind: str = "",
    max_age_days: float | None = MAX_AGE_DAYS,
    serial: str = "",
    size: tuple[int, int] | None = None,
    allow_stale: bool = False,
    now: datetime | None = None,
) -> CalibrationFile:
    """Return a calibration that is fit for use.

    Args:
        path: The file.
        kind: What it must be; empty takes any.
        max_age_days: Oldest that is taken; `None` for any age.
        serial: Serial number of the device in use; empty does not check.
        size: Width and height of the pictures in use [px], for files that hold a camera.
        allow_stale: Warn where it would be refused.
        now: The time to count the age from; the present if not given.

    Raises:
        ConfigError: Not readable, not a calibration, of a newer format, or of another kind.
        CalibrationError: Stale, and `allow_stale` is not set.
    """
    calibration = _parse(path)
    if kind and calibration.kind != kind:
        raise ConfigError(f"{path} is a {calibration.kind} calibration, a {kind} calibration is needed")
    reasons = stale_reasons(calibration, max_age_days=max_age_days, serial=serial, size=size, now=now)
    if reasons and not allow_stale:
        raise CalibrationError(
            f"{path} is stale: {'; '.join(reasons)}. Calibrate again, or allow it expressly (allow_stale)"
        )
    for reason in reasons:
        log.warning("%s is used although it is stale: %s", path, reason)
    return calibration


def stale_reasons(
    calibration: CalibrationFile,
    *,
    max_age_days: float | None = MAX_AGE_DAYS,
    serial: str = "",
    size: tuple[int, int] | None = None,
    now: datetime | None = None,
) -> list[str]:
    """Return why the calibration should not be used, one sentence each; see `load_calibration`."""
    reasons = []
    age = ((datetime.now(UTC) if now is None else now) - _date(calibration)).total_seconds() / 86400
    if max_age_days is not None and age > max_age_days:
        reasons.append(f"it was made {age:.0f} days ago, {max_age_days:g} are allowed")
    if age < -1:
        reasons.append(f"it was made {-age:.0f} days in the future; check this machine's clock")
    if serial and calibration.device_serial != serial:
        made = calibration.device_serial if calibration.device_serial else "a device whose serial number is not known"
        reasons.append(f"it was made for {made}, the device in use is {serial}")
    for name, value in calibration.values.items():
        if size is not None and isinstance(value, CameraIntrinsics) and (value.width, value.height) != size:
            reasons.append(f"`{name}` holds at {value.width} x {value.height}, pictures are {size[0]} x {size[1]}")
    return reasons


def _date(calibration: CalibrationFile) -> datetime:
    try:
        date = datetime.fromisoformat(calibration.date)
    except ValueError as error:
        raise ConfigError(f"`date` of a calibration must be ISO 8601, got {calibration.date!r}") from error
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _entry(calibration: CalibrationFile, name: str) -> dict[str, Any]:
    entry = {"value": encode(calibration.values[name], name)}
    return {**entry, "unit": calibration.unit_of(name)} if calibration.unit_of(name) else entry


def encode(value: Any, name: str) -> Any:
    """Return a value in plain YAML types.

    Raises:
        ConfigError: It is of another type; the message names it by `name`.
    """
    if isinstance(value, Pose):
        return {"translation_m": value.translation.tolist(), "quaternion_xyzw": value.quaternion.tolist()}
    if isinstance(value, CameraIntrinsics):
        plain = {item.name: getattr(value, item.name) for item in fields(value)}
        return {**plain, "distortion": list(value.distortion)}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): encode(inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Sequence):
        return [encode(inner, name) for inner in value]
    raise ConfigError(f"value `{name}` cannot be written to a calibration file: {type(value).__name__}")


def decode(value: Any) -> Any:
    """Return the `Pose`, `CameraIntrinsics` or plain value that `encode` wrote.

    Raises:
        SpecError: A pose or a camera is not valid.
    """
    if isinstance(value, list):
        return [decode(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if set(value) == _POSE_KEYS:
        return Pose.from_quaternion(value["quaternion_xyzw"], value["translation_m"])
    if set(value) == _CAMERA_KEYS:
        return CameraIntrinsics(**{**value, "distortion": tuple(value["distortion"])})
    return {key: decode(inner) for key, inner in value.items()}


def _parse(path: str | Path) -> CalibrationFile:
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"calibration {path} cannot be read: {error}") from error
    needed = {item.name for item in fields(CalibrationFile)} - {"units"}
    if not isinstance(document, dict) or not needed <= set(document):
        missing = sorted(needed - set(document)) if isinstance(document, dict) else sorted(needed)
        raise ConfigError(f"{path} is not a calibration file: it lacks {missing}")
    if document["format_version"] != FORMAT_VERSION:
        raise ConfigError(
            f"calibration {path} has format_version {document['format_version']}, this version reads {FORMAT_VERSION}"
        )
    try:
        values = {name: decode(entry["value"]) for name, entry in document["values"].items()}
        units = {name: entry["unit"] for name, entry in document["values"].items() if "unit" in entry}
        return CalibrationFile(**{name: document[name] for name in needed - {"values"}}, values=values, units=units)
    except (SpecError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"calibration {path} is damaged: {error}; write it again") from error
