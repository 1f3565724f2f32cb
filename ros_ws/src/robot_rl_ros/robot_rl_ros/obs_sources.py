"""From a mapping file to subscriptions that feed an `Observer`: which topic each observation of a policy comes from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rclpy.node import Node
from rclpy.subscription import Subscription

from robot_rl.deploy.observer import Observer
from robot_rl.errors import ConfigError, SpecError
from robot_rl.latency_calibration import LatencyCalibration
from robot_rl.specs import ArraySpec
from robot_rl_ros.qos import JOINTS, SENSOR
from robot_rl_ros.readers import Read, make_reader, type_class

_DEPTH_50 = "sensor_msgs/msg/JointState"


@dataclass(frozen=True, kw_only=True)
class ObsSource:
    """Where one observation comes from.

    Args:
        topic: Topic name, relative to the node's namespace.
        type: Message type.
        max_age_s: How old the newest sample may be at a tick.
        latency_s: How much later than capture its stamps are.
        field: Of a JointState: `position`, `velocity` or `effort`.
        names: Joints to take, in this order; all as they come when empty.
    """

    topic: str
    type: str
    max_age_s: float
    latency_s: float = 0.0
    field: str = ""
    names: tuple[str, ...] = ()


def read_sources(path: str | Path) -> dict[str, ObsSource]:
    """Read a YAML file `{observation: {topic, type, max_age_s, ...}}`.

    Raises:
        ConfigError: No such file, no mapping, or a key that is unknown or missing; names the observation.
    """
    try:
        data = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"observation sources cannot be read: {error}") from error
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}: expected {{observation: {{topic, type, max_age_s}}}}, got {type(data).__name__}")
    return {str(name): _source(str(name), given) for name, given in data.items()}


def _source(name: str, given: Any) -> ObsSource:
    known = [f.name for f in fields(ObsSource)]
    if not isinstance(given, Mapping) or set(given) - set(known) or not {"topic", "type", "max_age_s"} <= set(given):
        raise ConfigError(f"observation `{name}`: needs topic, type, max_age_s and may have {known[3:]}; got {given}")
    return ObsSource(**{**given, "names": tuple(given.get("names", ()))})


def with_latency(sources: Mapping[str, ObsSource], latency: LatencyCalibration) -> dict[str, ObsSource]:
    """Return the sources with the latencies that were measured; streams that are no observation are left out.

    Raises:
        ConfigError: An observation has a latency in both files.
    """
    measured = {name: samples.median_ns / 1e9 for name, samples in latency.observation.items() if name in sources}
    if twice := sorted(name for name in measured if sources[name].latency_s != 0.0):
        raise ConfigError(
            f"observations {twice} have `latency_s` in the observations file and a latency in the latency file; "
            "take it out of the observations file"
        )
    return {**sources, **{name: replace(sources[name], latency_s=late) for name, late in measured.items()}}


def make_observer(
    specs: Mapping[str, ArraySpec], sources: Mapping[str, ObsSource], *, n_obs: int, step_ns: int
) -> Observer:
    """Return an observer of these observations with the sources' bounds.

    Raises:
        ConfigError: An observation has no source.
    """
    if missing := sorted(set(specs) - set(sources)):
        raise ConfigError(f"no source for observations {missing}; the mapping file has {sorted(sources)}")
    return Observer(
        specs,
        n_obs=n_obs,
        step_ns=step_ns,
        max_age_ns={name: round(sources[name].max_age_s * 1e9) for name in specs},
        latency_ns={name: round(sources[name].latency_s * 1e9) for name in specs},
    )


def subscribe(
    node: Node, specs: Mapping[str, ArraySpec], sources: Mapping[str, ObsSource], observer: Callable[[], Observer]
) -> list[Subscription]:
    """Subscribe once to every topic that an observation needs; `observer` gives the one to feed at that moment.

    Raises:
        ConfigError: An unknown type or field, or two types for one topic.
    """
    readers: dict[str, dict[str, Read]] = {}
    types: dict[str, str] = {}
    for name, spec in specs.items():
        source = sources[name]
        if types.setdefault(source.topic, source.type) != source.type:
            raise ConfigError(f"topic `{source.topic}` is given as {types[source.topic]} and as {source.type}")
        read = make_reader(source.type, spec, field=source.field, names=source.names)
        readers.setdefault(source.topic, {})[name] = read
    return [_subscribe(node, topic, types[topic], readers[topic], observer) for topic in readers]


def _subscribe(
    node: Node, topic: str, type_name: str, readers: Mapping[str, Read], observer: Callable[[], Observer]
) -> Subscription:
    def take(msg: Any) -> None:
        received_ns = time.monotonic_ns()
        for name, read in readers.items():
            try:
                stamp_ns, value = read(msg)
                if stamp_ns is None:
                    stamp_ns = node.get_clock().now().nanoseconds
                observer().push(name, stamp_ns, np.asarray(value), received_ns=received_ns)
            except SpecError as error:
                observer().refuse(name, str(error))

    qos = JOINTS if type_name == _DEPTH_50 else SENSOR
    return node.create_subscription(type_class(type_name), topic, take, qos)


def unsubscribe(node: Node, subscriptions: Sequence[Subscription]) -> None:
    """End subscriptions."""
    for subscription in subscriptions:
        node.destroy_subscription(subscription)
