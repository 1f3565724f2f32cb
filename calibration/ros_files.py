"""Calibrations in the forms that ROS reads: `camera_info` YAML and static transforms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml

from robot_rl.calibration_types import N_DISTORTION, CameraIntrinsics, CameraModel, Pose
from robot_rl.errors import ConfigError
from robot_rl.hardware.camera_info import load_camera_info
from robot_rl.hardware.cameras import CameraInfo

_ROS_MODELS: Mapping[str, str] = {"pinhole": "plumb_bob", "rational": "rational_polynomial", "fisheye": "equidistant"}


def write_camera_info(camera: CameraIntrinsics, path: str | Path, *, name: str = "camera") -> Path:
    """Write the YAML of `camera_calibration` and `camera_info_manager`, for one camera that is not rectified.

    Args:
        camera: The intrinsics.
        path: The file.
        name: `camera_name`.
    """
    projection = np.hstack([camera.matrix, np.zeros((3, 1))])
    document = {
        "image_width": camera.width,
        "image_height": camera.height,
        "camera_name": name,
        "camera_matrix": _matrix(camera.matrix),
        "distortion_model": _ROS_MODELS[camera.model],
        "distortion_coefficients": _matrix(np.asarray([camera.distortion])),
        "rectification_matrix": _matrix(np.eye(3)),
        "projection_matrix": _matrix(projection),
    }
    return _write(document, path)


def read_camera_info(path: str | Path) -> CameraIntrinsics:
    """Return the camera of a `camera_info` YAML file.

    Raises:
        ConfigError: Not readable, not such a file, skewed, or with more coefficients than its model uses here.
    """
    document = _read(path)
    try:
        width, height = int(document["image_width"]), int(document["image_height"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"camera calibration {path} needs image_width and image_height; {error!r}") from error
    info = load_camera_info(path, CameraInfo(width=width, height=height, fps=1.0, frame_id="camera"))
    if len(info.K) != 9 or abs(info.K[1]) > 1e-9 * info.K[0]:
        raise ConfigError(f"camera calibration {path}: a skewed camera matrix is not supported, got {info.K}")
    model = cast(CameraModel, {ros: ours for ours, ros in _ROS_MODELS.items()}[info.distortion_model])
    count = N_DISTORTION[model]
    distortion = (*info.D, *(0.0,) * count)
    if any(distortion[count : len(info.D)]):
        raise ConfigError(
            f"camera calibration {path}: {info.distortion_model} is read with {count} coefficients, "
            f"got {len(info.D)} that are not zero; calibrate without the thin prism and tilt terms"
        )
    return CameraIntrinsics(
        model=model, width=width, height=height, fx=info.K[0], fy=info.K[4], cx=info.K[2], cy=info.K[5],
        distortion=distortion[:count],
    )  # fmt: skip


def write_static_transforms(transforms: Mapping[tuple[str, str], Pose], path: str | Path) -> Path:
    """Write transforms as `geometry_msgs/TransformStamped` fields, one list entry each.

    Args:
        transforms: (parent frame, child frame) to `T_parent_child`, which is what tf2 calls the transform.
        path: The file.
    """
    entries = []
    for (parent, child), pose in transforms.items():
        translation = dict(zip("xyz", pose.translation.tolist(), strict=True))
        rotation = dict(zip("xyzw", pose.quaternion.tolist(), strict=True))
        entries.append(
            {"header": {"frame_id": parent}, "child_frame_id": child,
             "transform": {"translation": translation, "rotation": rotation}}
        )  # fmt: skip
    return _write({"static_transforms": entries}, path)


def read_static_transforms(path: str | Path) -> dict[tuple[str, str], Pose]:
    """Return what `write_static_transforms` wrote.

    Raises:
        ConfigError: Not readable or not such a file.
        SpecError: A pose is not valid.
    """
    document = _read(path)
    try:
        entries = [
            (
                (str(entry["header"]["frame_id"]), str(entry["child_frame_id"])),
                [float(entry["transform"]["rotation"][axis]) for axis in "xyzw"],
                [float(entry["transform"]["translation"][axis]) for axis in "xyz"],
            )
            for entry in document["static_transforms"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} needs `static_transforms`, a list of header.frame_id, child_frame_id and transform; {error!r}"
        ) from error
    return {frames: Pose.from_quaternion(rotation, translation) for frames, rotation, translation in entries}


def publisher_arguments(parent: str, child: str, pose: Pose) -> list[str]:
    """Return the arguments of `ros2 run tf2_ros static_transform_publisher` for one transform."""
    numbers = zip(("x", "y", "z", "qx", "qy", "qz", "qw"), [*pose.translation, *pose.quaternion], strict=True)
    words = [word for name, value in numbers for word in (f"--{name}", f"{value:.9g}")]
    return [*words, "--frame-id", parent, "--child-frame-id", child]


def _matrix(array: np.ndarray) -> dict[str, Any]:
    return {"rows": array.shape[0], "cols": array.shape[1], "data": array.ravel().tolist()}


def _write(document: Mapping[str, Any], path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(document), sort_keys=False, default_flow_style=None, width=120))
    return path


def _read(path: str | Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must hold a YAML mapping, got {type(document).__name__}")
    return document
