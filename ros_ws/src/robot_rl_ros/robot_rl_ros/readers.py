"""From a ROS message to a stream's sample: `robot_rl.data.ros_messages` reads it; here are the classes to subscribe to.

Live and imported messages pass through one reader. What a running graph adds is that a command must hold its stream's
joints and no others, as every node of the graph demands.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from robot_rl.data import ros_messages
from robot_rl.data.ros_messages import READABLE, TRAJECTORY, Read, Sample
from robot_rl.errors import ConfigError, SpecError
from robot_rl.specs import ArraySpec

__all__ = ["Read", "Sample", "make_reader", "type_class"]


def make_reader(
    type_name: str,
    spec: ArraySpec,
    *,
    codec: str = "raw",
    field: str = "",
    names: Sequence[str] = (),
    true_when: str = "",
) -> Read:
    """Return what turns a message of this type into a sample of this stream.

    Args:
        type_name: Such as `sensor_msgs/msg/JointState`.
        spec: The stream; a sample of another shape raises `SpecError` when it is read.
        codec: How the store keeps it: a compressed image in the same codec is passed on as bytes.
        field: `position` (default), `velocity` or `effort` of a JointState.
        names: Joints of a JointState or JointTrajectory, in this order; all as they come when empty.
        true_when: The words of a String that make the sample true.

    Raises:
        ConfigError: An unknown type or field, or a String without `true_when`.
    """
    read = ros_messages.make_reader(type_name, spec, codec=codec, field=field, names=names, true_when=true_when)
    if type_name != TRAJECTORY or not names:
        return read

    def command(msg: Any) -> Sample:
        if len(msg.joint_names) != len(names):
            raise SpecError(
                f"stream `{spec.name}`: a command must hold {len(names)} values {list(names)}, "
                f"got names {list(msg.joint_names)}"
            )
        return read(msg)

    return command


def type_class(type_name: str) -> type:
    """Return the message class of a type that can be read.

    Raises:
        ConfigError: An unknown type.
    """
    if type_name not in READABLE:
        raise ConfigError(f"no reader for message type {type_name!r}; there are {READABLE}")
    package, _, name = type_name.partition("/msg/")
    kind: type = getattr(import_module(f"{package}.msg"), name)
    return kind
