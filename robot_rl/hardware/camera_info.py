"""Camera calibration files in the YAML form that ROS tools write and read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from robot_rl.errors import ConfigError
from robot_rl.hardware.cameras import CameraInfo

_MODELS = ("plumb_bob", "rational_polynomial", "equidistant")


def load_camera_info(path: str | Path, info: CameraInfo) -> CameraInfo:
    """Return `info` with the intrinsics of a calibration file.

    The form is that of `camera_calibration` and `camera_info_manager`: image_width, image_height, camera_matrix,
    distortion_model, distortion_coefficients; other keys are for others.

    Args:
        path: The file.
        info: What the camera gives; the file must be of the same size.

    Raises:
        ConfigError: Not readable, a key is missing, or it was calibrated at another size.
    """
    try:
        with open(path, encoding="utf-8") as file:
            document = yaml.safe_load(file)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"camera calibration {path} cannot be read: {error}") from error
    try:
        size = (int(document["image_width"]), int(document["image_height"]))
        matrix = _numbers(document["camera_matrix"], path, "camera_matrix")
        distortion = _numbers(document["distortion_coefficients"], path, "distortion_coefficients")
        model = str(document["distortion_model"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"camera calibration {path} needs image_width, image_height, camera_matrix, distortion_model and "
            f"distortion_coefficients; {error!r}"
        ) from error
    if model not in _MODELS:
        raise ConfigError(f"camera calibration {path}: distortion_model must be one of {_MODELS}, got {model!r}")
    if size != (info.width, info.height):
        raise ConfigError(
            f"camera calibration {path} was made at {size[0]} x {size[1]}, the camera gives {info.width} x "
            f"{info.height}; calibrate at the size you use"
        )
    return replace(info, K=matrix, D=distortion, distortion_model=model)


def _numbers(matrix: dict[str, Any], path: str | Path, name: str) -> tuple[float, ...]:
    data = tuple(float(x) for x in matrix["data"])
    if len(data) != int(matrix["rows"]) * int(matrix["cols"]):
        raise ConfigError(
            f"camera calibration {path}: {name} promises {matrix['rows']} x {matrix['cols']} numbers, got {len(data)}"
        )
    return data
