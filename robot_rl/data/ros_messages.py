"""ROS 2 messages to arrays, by attribute, so that it does not matter which library decoded them. Needs no ROS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from robot_rl.data import frame_codec
from robot_rl.errors import ConfigError, SpecError, StoreError
from robot_rl.specs import ArraySpec

Sample = tuple[int | None, np.ndarray | bytes]
"""Stamp of capture [ns], `None` where the message carries none, and an array or a picture's bytes as they came."""
Read = Callable[[Any], Sample]

SECOND_NS = 1_000_000_000
TEXT = "std_msgs/msg/String"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
IMAGE = "sensor_msgs/msg/Image"
JOINTS = "sensor_msgs/msg/JointState"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
POSE = "geometry_msgs/msg/PoseStamped"

NUMBERS = {
    "bool": "Bool", "float32": "Float32", "float64": "Float64",
    **{f"{u}int{b}": f"{u.upper()}Int{b}" for u in ("", "u") for b in (8, 16, 32, 64)},
}  # fmt: skip
"""dtype to the std_msgs type of one number; with `MultiArray` behind it (not for bool), of many."""
ENCODINGS = {
    "rgb8": ("uint8", 3), "bgr8": ("uint8", 3), "mono8": ("uint8", 1), "16UC1": ("uint16", 1),
    "mono16": ("uint16", 1), "32FC1": ("float32", 1),
}  # fmt: skip
_JOINT_FIELDS = ("position", "velocity", "effort")


def make_reader(
    type_name: str,
    spec: ArraySpec,
    *,
    codec: str = "raw",
    field: str = "",
    names: Sequence[str] = (),
    true_when: str = "",
) -> Read:
    """Return what turns messages of a type into samples of a stream.

    Args:
        type_name: Such as `sensor_msgs/msg/JointState`.
        spec: The stream. Floats are cast to its dtype, nothing else is.
        codec: How the store keeps it: a compressed image in the same codec is passed on as bytes.
        field: `position` (default), `velocity` or `effort` of a JointState.
        names: Joints of a JointState or JointTrajectory, in this order; all as they come when empty.
        true_when: The words of a String that make the sample true.

    Raises:
        ConfigError: An unknown type or field, or a String without `true_when`.
    """
    if type_name not in READABLE:
        raise ConfigError(f"stream `{spec.name}`: no reader for message type {type_name!r}; there are {READABLE}")
    if type_name == JOINTS and field not in ("", *_JOINT_FIELDS):
        raise ConfigError(f"stream `{spec.name}`: field of a JointState must be one of {_JOINT_FIELDS}, got {field!r}")
    if type_name == TEXT and not true_when:
        raise ConfigError(f"stream `{spec.name}`: text cannot be stored; say with `true_when` which text is true")
    if type_name == COMPRESSED:
        return lambda msg: (header_stamp(msg), _picture(msg, spec, codec))
    if type_name == TEXT:
        return lambda msg: (None, np.array(msg.data == true_when))
    if type_name.startswith("std_msgs/"):
        return lambda msg: (None, _fitted(_numbers(msg), spec))
    value = _stamped_value(type_name, spec, field if field else "position", tuple(names))
    return lambda msg: (header_stamp(msg), _fitted(value(msg), spec))


def header_stamp(msg: Any) -> int:
    """Return a message's stamp in nanoseconds."""
    return int(msg.header.stamp.sec) * SECOND_NS + int(msg.header.stamp.nanosec)


def _stamped_value(type_name: str, spec: ArraySpec, field: str, names: tuple[str, ...]) -> Callable[[Any], np.ndarray]:
    if type_name == JOINTS:
        return lambda msg: _ordered(msg.name, np.asarray(getattr(msg, field)), names, spec)
    if type_name == TRAJECTORY:
        return lambda msg: _ordered(msg.joint_names, np.asarray(_only_point(msg, spec).positions), names, spec)
    if type_name == POSE:
        return lambda msg: _pose(msg.pose, spec)
    return _STAMPED[type_name]


def _only_point(msg: Any, spec: ArraySpec) -> Any:
    if len(msg.points) != 1:
        raise SpecError(f"stream `{spec.name}`: a command is a trajectory of 1 point, got {len(msg.points)}")
    return msg.points[0]


def _ordered(there: Sequence[str], values: np.ndarray, names: tuple[str, ...], spec: ArraySpec) -> np.ndarray:
    if not names:
        return values
    there = list(there)
    if len(values) != len(there) or (missing := [name for name in names if name not in there]):
        lack = f"lacks {missing}" if len(values) == len(there) else f"has {len(values)} values"
        raise SpecError(f"stream `{spec.name}`: the message {lack}; its joints are {there}")
    return values[[there.index(name) for name in names]]


def _pose(pose: Any, spec: ArraySpec) -> np.ndarray:
    p, o = pose.position, pose.orientation
    if spec.size != 9:
        return np.array([p.x, p.y, p.z, o.x, o.y, o.z, o.w][: 3 if spec.size == 3 else 7])
    quaternion = np.array([o.x, o.y, o.z, o.w])
    if not abs(float(np.linalg.norm(quaternion)) - 1.0) < 1e-2:
        raise SpecError(f"stream `{spec.name}`: a pose's quaternion must have length 1, got {quaternion.tolist()}")
    matrix = Rotation.from_quat(quaternion).as_matrix()
    return np.concatenate([(p.x, p.y, p.z), matrix[:, 0], matrix[:, 1]])


def _six(linear: Any, angular: Any) -> np.ndarray:
    return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])


def image_to_array(msg: Any) -> np.ndarray:
    """Return an Image's picture, [H, W, 3] RGB or [H, W], a view of the message where its bytes allow.

    Raises:
        SpecError: An unknown encoding, or fewer bytes than the size promises.
    """
    if msg.encoding not in ENCODINGS:
        raise SpecError(f"image encoding must be one of {sorted(ENCODINGS)}, got {msg.encoding!r}")
    dtype, channels = ENCODINGS[msg.encoding]
    row = msg.width * channels * np.dtype(dtype).itemsize
    data = np.frombuffer(msg.data, np.uint8)
    if msg.step < row or len(data) < msg.step * msg.height:
        raise SpecError(
            f"an image of {msg.height} x {msg.width} {msg.encoding} needs {msg.height} rows of {row} bytes, "
            f"got {len(data)} bytes in rows of {msg.step}"
        )
    rows = np.ascontiguousarray(data[: msg.step * msg.height].reshape(msg.height, msg.step)[:, :row])
    pixels = rows.view(np.dtype(dtype).newbyteorder(">" if msg.is_bigendian else "<"))
    if channels == 1:
        return pixels.astype(dtype, copy=False)
    picture = pixels.reshape(msg.height, msg.width, channels)
    return picture[..., ::-1] if msg.encoding == "bgr8" else picture


def _picture(msg: Any, spec: ArraySpec, codec: str) -> np.ndarray | bytes:
    """Return a compressed image as it came where the store keeps it so, else decoded."""
    data = bytes(msg.data)
    kinds = [kind for kind in ("jpeg", "png") if frame_codec.is_whole(data, kind)]
    if not kinds:
        raise SpecError(f"stream `{spec.name}`: a compressed image must be JPEG or PNG, got format {msg.format!r}")
    if kinds[0] == codec:
        return data
    if spec.is_image:
        try:
            return frame_codec.decode(data, kinds[0], spec.shape)
        except StoreError as error:  # damaged between its first and last bytes, or of another size
            raise SpecError(f"stream `{spec.name}`: {error}") from error
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise SpecError(f"stream `{spec.name}`: a {kinds[0]} picture cannot be decoded")
    return _fitted(np.asarray(found), spec)


def _numbers(msg: Any) -> np.ndarray:
    """Return a std_msgs number, or numbers in the shape of their layout."""
    values = np.asarray(msg.data)
    layout = getattr(msg, "layout", None)
    sizes = [int(dimension.size) for dimension in layout.dim] if layout is not None else []
    return values.reshape(sizes) if sizes else values


def _fitted(value: np.ndarray, spec: ArraySpec) -> np.ndarray:
    """Return a value in the spec's dtype and shape where that loses nothing but float digits.

    Raises:
        SpecError: It is something else.
    """
    if value.size == spec.size and value.ndim != len(spec.shape):
        value = value.reshape(spec.shape)  # [H, W] of depth for (H, W, 1), a number for (1,)
    if value.dtype.kind == "f" and np.dtype(spec.dtype).kind == "f":
        value = value.astype(spec.dtype, copy=False)
    elif value.dtype != spec.dtype and value.dtype.kind in "iub" and np.dtype(spec.dtype).kind in "iub":
        cast = value.astype(spec.dtype)
        value = cast if np.array_equal(cast, value) else value
    return spec.validate(value, finite=False)


_STAMPED: dict[str, Callable[[Any], np.ndarray]] = {
    "geometry_msgs/msg/PointStamped": lambda msg: np.array([msg.point.x, msg.point.y, msg.point.z]),
    "geometry_msgs/msg/TwistStamped": lambda msg: _six(msg.twist.linear, msg.twist.angular),
    "geometry_msgs/msg/WrenchStamped": lambda msg: _six(msg.wrench.force, msg.wrench.torque),
    "sensor_msgs/msg/Joy": lambda msg: np.asarray(msg.axes, dtype=np.float32),
    IMAGE: image_to_array,
}
READABLE = sorted([
    *_STAMPED, COMPRESSED, JOINTS, POSE, TEXT, TRAJECTORY,
    *(f"std_msgs/msg/{name}" for name in NUMBERS.values()),
    *(f"std_msgs/msg/{name}MultiArray" for dtype, name in NUMBERS.items() if dtype != "bool"),
])  # fmt: skip
"""Every type that `make_reader` knows."""
