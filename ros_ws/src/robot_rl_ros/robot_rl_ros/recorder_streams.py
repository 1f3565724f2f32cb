"""From the recorder's parameters to subscriptions: one per topic, with a reader for each stream it feeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile

from robot_rl.data.plan import StreamPlan
from robot_rl.errors import ConfigError
from robot_rl_ros.qos import COMMAND, JOINTS, LATCHED, SENSOR
from robot_rl_ros.readers import Read, make_reader, type_class

Take = Callable[[str, Read, Any, int], None]
"""`take(stream, read, message, sequence)`; a sequence of -1 means that the publisher's number is unknown."""

_DEPTH = {"sensor": 10, "joints": 250, "command": 100, "latched": 10}
"""Deeper than the graph's: a recorder that was busy for 0.1 s still gets every message."""
_QOS = {"sensor": SENSOR, "joints": JOINTS, "command": COMMAND, "latched": LATCHED}
_NO_SEQUENCE = 2**64 - 1


def stream_parameters(node: Node, prefix: str = "streams") -> dict[str, dict[str, Any]]:
    """Declare every parameter given below `prefix`, read-only, and return them as one map per stream.

    Which streams there are is known only from what was given, so this reads the overrides themselves.
    """
    nested: dict[str, dict[str, Any]] = {}
    for full, parameter in node._parameter_overrides.items():
        if not full.startswith(f"{prefix}."):
            continue
        stream, _, key = full[len(prefix) + 1 :].partition(".")
        if not key:
            raise ConfigError(f"parameter `{full}`: a stream is a map of settings, got {parameter.value!r}")
        value = node.declare_parameter(full, parameter.value, ParameterDescriptor(read_only=True)).value
        nested.setdefault(stream, {})[key] = list(value) if not isinstance(value, str | bool | int | float) else value
    if not nested:
        raise ConfigError(f"parameter `{prefix}` of node `{node.get_name()}` is missing: it says what to record")
    return nested


def subscribe_all(node: Node, plans: Mapping[str, StreamPlan], codecs: Mapping[str, str], take: Take) -> None:
    """Subscribe to every topic of the plan once.

    Raises:
        ConfigError: A message type nobody can read.
    """
    topics: dict[tuple[str, str, str], list[tuple[str, Read]]] = {}
    for name, plan in plans.items():
        topics.setdefault((plan.topic, plan.type, plan.qos), []).append((name, _reader(plan, codecs[name])))
    for (topic, type_name, qos), readers in topics.items():
        _subscribe(node, topic, type_class(type_name), qos=qos, callback=_callback(readers, take))


def _subscribe(node: Node, topic: str, kind: type, *, qos: str, callback: Callable[..., None]) -> None:
    base = _QOS[qos]
    profile = QoSProfile(depth=_DEPTH[qos], reliability=base.reliability, durability=base.durability)
    subscription = node.create_subscription(kind, topic, callback, profile)
    # The publisher's running number comes with the message info. EventsExecutor hands message and info over as one
    # tuple, which rclpy's own test of the signature does not foresee: it would fail on the first message.
    subscription._callback_type = subscription.CallbackType.WithMessageInfo


def _callback(readers: Sequence[tuple[str, Read]], take: Take) -> Callable[..., None]:
    def callback(*args: Any) -> None:
        msg, info = args if len(args) == 2 else args[0]
        number = info["publication_sequence_number"]
        sequence = -1 if number is None or number == _NO_SEQUENCE else int(number)
        for name, read in readers:
            take(name, read, msg, sequence)

    return callback


def _reader(plan: StreamPlan, codec: str) -> Read:
    return make_reader(plan.type, plan.spec, codec=codec, field=plan.field, names=plan.names, true_when=plan.true_when)
