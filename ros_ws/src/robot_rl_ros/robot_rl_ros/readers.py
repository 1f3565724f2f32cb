"""What the recorder can subscribe to: a reader per message type, made for one stream's `ArraySpec`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simplejpeg
from geometry_msgs.msg import PointStamped, PoseStamped, TwistStamped, WrenchStamped
from sensor_msgs.msg import CompressedImage, Image, JointState, Joy
from std_msgs.msg import Bool, Float32, Float32MultiArray, Float64, Float64MultiArray, Int32, Int64
from trajectory_msgs.msg import JointTrajectory

from robot_rl.errors import ConfigError, SpecError
from robot_rl.specs import ArraySpec
from robot_rl_ros.conversions import image_to_array, msg_to_command, name_index, pose_to_pose9
from robot_rl_ros.stamps import to_ns

Read = Callable[[Any], tuple[int | None, np.ndarray]]
"""From a message to its stamp [ns] (`None` where the type has none: use the time of receipt) and the sample."""
Factory = Callable[[ArraySpec, str, Sequence[str]], Read]


def make_reader(type_name: str, spec: ArraySpec, *, field: str = "", names: Sequence[str] = ()) -> Read:
    """Return what turns a message of this type into a sample of this stream.

    Args:
        type_name: Such as `sensor_msgs/msg/JointState`.
        spec: The stream; a sample of another shape raises `SpecError` when it is read.
        field: `position` (default), `velocity` or `effort` of a JointState.
        names: Joints to take from a JointState or JointTrajectory, in this order; all as they come when empty.

    Raises:
        ConfigError: An unknown type or field.
    """
    if type_name not in READERS:
        raise ConfigError(
            f"stream `{spec.name}`: no reader for message type {type_name!r}; there are {sorted(READERS)}"
        )
    read = READERS[type_name](spec, field, tuple(names))

    def checked(msg: Any) -> tuple[int | None, np.ndarray]:
        stamp_ns, value = read(msg)
        value = np.asarray(value)
        if value.size == spec.size and value.ndim != len(spec.shape):
            value = value.reshape(spec.shape)  # [H, W] depth for (H, W, 1), a number for (1,)
        if value.dtype.kind == "f" and np.dtype(spec.dtype).kind == "f":
            value = value.astype(spec.dtype, copy=False)
        return stamp_ns, spec.validate(value, finite=False)

    return checked


def type_class(type_name: str) -> type:
    """Return the message class of a type that can be read.

    Raises:
        ConfigError: An unknown type.
    """
    if type_name not in CLASSES:
        raise ConfigError(f"no reader for message type {type_name!r}; there are {sorted(CLASSES)}")
    return CLASSES[type_name]


def _joint_state(spec: ArraySpec, field: str, names: Sequence[str]) -> Read:
    field = field if field else "position"
    if field not in ("position", "velocity", "effort"):
        raise ConfigError(f"stream `{spec.name}`: field of a JointState is position, velocity or effort, got {field!r}")
    order: dict[tuple[str, ...], list[int]] = {}

    def read(msg: JointState) -> tuple[int, np.ndarray]:
        values = np.array(getattr(msg, field))
        if names:
            there = tuple(msg.name)
            if there not in order:
                order[there] = name_index(there, names, what=f"stream `{spec.name}`: the JointState")
            if len(values) != len(there):
                raise SpecError(f"stream `{spec.name}`: {len(there)} joints but {len(values)} values of {field}")
            values = values[order[there]]
        return to_ns(msg.header.stamp), values

    return read


def _trajectory(spec: ArraySpec, field: str, names: Sequence[str]) -> Read:
    def read(msg: JointTrajectory) -> tuple[int, np.ndarray]:
        return msg_to_command(msg, names if names else msg.joint_names)

    return read


def _compressed(msg: CompressedImage) -> np.ndarray:
    if "jpeg" not in msg.format and "jpg" not in msg.format:
        raise SpecError(f"a compressed image must be JPEG, got format {msg.format!r}")
    return np.asarray(simplejpeg.decode_jpeg(bytes(msg.data), colorspace="RGB"))


def _pose(spec: ArraySpec, field: str, names: Sequence[str]) -> Read:
    def read(msg: PoseStamped) -> tuple[int, np.ndarray]:
        pose = msg.pose
        if spec.size == 9:
            return to_ns(msg.header.stamp), pose_to_pose9(pose)
        p, o = pose.position, pose.orientation
        return to_ns(msg.header.stamp), np.array([p.x, p.y, p.z, o.x, o.y, o.z, o.w][: 3 if spec.size == 3 else 7])

    return read


def _stamped(value: Callable[[Any], np.ndarray]) -> Factory:
    def factory(spec: ArraySpec, field: str, names: Sequence[str]) -> Read:
        return lambda msg: (to_ns(msg.header.stamp), value(msg))

    return factory


def _bare(value: Callable[[Any], np.ndarray]) -> Factory:
    def factory(spec: ArraySpec, field: str, names: Sequence[str]) -> Read:
        return lambda msg: (None, value(msg))

    return factory


def _six(linear: Any, angular: Any) -> np.ndarray:
    return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])


def _multi_array(msg: Float64MultiArray | Float32MultiArray) -> np.ndarray:
    values = np.array(msg.data)
    sizes = [dimension.size for dimension in msg.layout.dim]
    return values.reshape(sizes) if sizes else values


_KNOWN: dict[str, tuple[type, Factory]] = {
    "geometry_msgs/msg/PointStamped": (
        PointStamped, _stamped(lambda msg: np.array([msg.point.x, msg.point.y, msg.point.z]))),
    "geometry_msgs/msg/PoseStamped": (PoseStamped, _pose),
    "geometry_msgs/msg/TwistStamped": (TwistStamped, _stamped(lambda msg: _six(msg.twist.linear, msg.twist.angular))),
    "geometry_msgs/msg/WrenchStamped": (WrenchStamped, _stamped(lambda msg: _six(msg.wrench.force, msg.wrench.torque))),
    "sensor_msgs/msg/CompressedImage": (CompressedImage, _stamped(_compressed)),
    "sensor_msgs/msg/Image": (Image, _stamped(image_to_array)),
    "sensor_msgs/msg/JointState": (JointState, _joint_state),
    "sensor_msgs/msg/Joy": (Joy, _stamped(lambda msg: np.array(msg.axes, np.float32))),
    "std_msgs/msg/Bool": (Bool, _bare(lambda msg: np.array(msg.data))),
    "std_msgs/msg/Float32": (Float32, _bare(lambda msg: np.array(msg.data, np.float32))),
    "std_msgs/msg/Float32MultiArray": (Float32MultiArray, _bare(_multi_array)),
    "std_msgs/msg/Float64": (Float64, _bare(lambda msg: np.array(msg.data))),
    "std_msgs/msg/Float64MultiArray": (Float64MultiArray, _bare(_multi_array)),
    "std_msgs/msg/Int32": (Int32, _bare(lambda msg: np.array(msg.data, np.int32))),
    "std_msgs/msg/Int64": (Int64, _bare(lambda msg: np.array(msg.data, np.int64))),
    "trajectory_msgs/msg/JointTrajectory": (JointTrajectory, _trajectory),
}  # fmt: skip
READERS: dict[str, Factory] = {name: factory for name, (_, factory) in _KNOWN.items()}
CLASSES: dict[str, type] = {name: kind for name, (kind, _) in _KNOWN.items()}
