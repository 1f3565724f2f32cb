"""What to record, from a configuration: the robot's spec, and for each stream its topic and what to expect of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robot_rl.data.quality import Expected
from robot_rl.data.schema import STEP_STREAMS, StoreSchema
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, SpecError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec

QOS = ("sensor", "joints", "command", "latched")
_KEYS = {
    "topic": str, "type": str, "qos": str, "role": str, "shape": list, "dtype": str, "unit": str, "low": float,
    "high": float, "rate_hz": float, "required": bool, "stale_s": float, "max_gap_s": float, "codec": str,
    "field": str, "names": list, "true_when": str, "kind": str, "frame": str, "gripper": str,
}  # fmt: skip
_NUMBERS = {f"std_msgs/msg/{kind}" for kind in ("Bool", "Float32", "Float64", "Int32", "Int64", "String")}
"""Types of a single number, whose shape is left out (parameter files have no empty lists)."""
_ROBOT_KEYS = {"name", "control_hz"}


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """One stream: where it comes from and what it must look like.

    Args:
        name: Name in the store.
        topic: ROS topic; relative names get the recorder's namespace.
        type: Message type, such as `sensor_msgs/msg/JointState`.
        qos: `sensor`, `joints`, `command` or `latched`.
        spec: One sample.
        expected: Rate and silence.
        field: Which part of the message, for types that have several (`position`, `velocity`, `effort`).
        names: Joints to take, in this order; all when empty.
        true_when: For text: the words that make the sample true.
    """

    name: str
    topic: str
    type: str
    qos: str
    spec: ArraySpec
    expected: Expected
    field: str = ""
    names: tuple[str, ...] = ()
    true_when: str = ""


@dataclass(frozen=True, kw_only=True)
class RecordingPlan:
    """Everything a recorder, or an importer of bags, needs to know of a robot's topics."""

    schema: StoreSchema
    streams: Mapping[str, StreamPlan] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, robot: Mapping[str, Any], streams: Mapping[str, Mapping[str, Any]]) -> RecordingPlan:
        """Build from plain values.

        Args:
            robot: `name` and `control_hz`.
            streams: By name; `action` is required. Names other than `action`, `action_executed`, `reward` and
                `by_human` are observations, or with `role: extra` optional streams.

        Raises:
            ConfigError: A key is missing, unknown or has the wrong type; names stream and key.
            SpecError: A value that no spec can have.
        """
        if unknown := sorted(set(robot) - _ROBOT_KEYS):
            raise ConfigError(f"robot: unknown keys {unknown}; there are {sorted(_ROBOT_KEYS)}")
        for key in sorted(_ROBOT_KEYS):
            if key not in robot:
                raise ConfigError(f"robot: `{key}` is missing")
        if "action" not in streams:
            raise ConfigError(f"streams: `action` is missing; got {sorted(streams)}")
        values = {name: _checked(name, raw) for name, raw in streams.items()}
        action = _action_spec(values["action"])
        specs = {name: _spec(name, value, action) for name, value in values.items()}
        extra = {n: specs[n] for n, v in values.items() if v.get("role") == "extra"}
        obs = {n: s for n, s in specs.items() if n not in extra and n not in STEP_STREAMS}
        spec = RobotSpec(name=str(robot["name"]), obs=obs, action=action, control_hz=float(robot["control_hz"]))
        codecs = {name: value["codec"] for name, value in values.items() if "codec" in value}
        plans = {name: _plan(name, value, specs[name]) for name, value in values.items()}
        return cls(schema=StoreSchema(spec=spec, extra=extra, codecs=codecs), streams=plans)

    @classmethod
    def from_yaml(cls, path: str | Path) -> RecordingPlan:
        """Read a recorder's ROS parameter file, without ROS.

        Raises:
            ConfigError: The file has no recorder's parameters, or they do not hold.
        """
        document = yaml.safe_load(Path(path).read_text())
        for node in document.values() if isinstance(document, dict) else ():
            parameters = node.get("ros__parameters", {}) if isinstance(node, dict) else {}
            if "streams" in parameters:
                return cls.from_dict(parameters.get("robot", {}), parameters["streams"])
        raise ConfigError(f"{path}: no node in it has `ros__parameters` with `streams`")

    def open_store(self, url: str | Path) -> EpisodeStore:
        """Open the store at `url`, or make it.

        Raises:
            ConfigError: There is a store that holds other streams than this plan.
        """
        if not EpisodeStore.exists(url):
            return EpisodeStore.create(url, self.schema.spec, extra=self.schema.extra, codecs=self.schema.codecs)
        store = EpisodeStore.open(url)
        mine, theirs = self.schema.to_dict(), store.schema.to_dict()
        if mine != theirs:
            names = sorted(_differences(mine, theirs))
            raise ConfigError(
                f"the store at {url} was made for other data: {names} differ; record into another store or mend the "
                "recorder's parameters"
            )
        return store


def _checked(name: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stream's values with the right types."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"stream `{name}` must be a map of settings, got {raw!r}")
    if unknown := sorted(set(raw) - set(_KEYS)):
        raise ConfigError(f"stream `{name}`: unknown keys {unknown}; there are {sorted(_KEYS)}")
    for key in ("topic", "type"):
        if not raw.get(key):
            raise ConfigError(f"stream `{name}`: `{key}` is missing")
    return {key: _typed(name, key, value) for key, value in raw.items()}


def _typed(name: str, key: str, value: Any) -> Any:
    kind = _KEYS[key]
    if key in ("low", "high") and isinstance(value, list | tuple):
        return tuple(float(x) for x in value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is list and isinstance(value, list | tuple):
        return tuple(value)
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise ConfigError(f"stream `{name}`: `{key}` must be a {kind.__name__}, got {value!r}")


def _action_spec(value: Mapping[str, Any]) -> ActionSpec:
    own = {key: value[key] for key in ("kind", "frame", "gripper") if key in value}
    return ActionSpec(name="action", **_array("action", value), **own)


def _array(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    if "shape" not in value and value["type"] not in _NUMBERS:
        raise ConfigError(f"stream `{name}`: `shape` is missing: that of one sample, such as [7] or [480, 640, 3]")
    return {"shape": (), **{key: value[key] for key in ("shape", "dtype", "unit", "low", "high") if key in value}}


def _spec(name: str, value: Mapping[str, Any], action: ActionSpec) -> ArraySpec:
    if name == "action":
        return action
    fixed = {
        "action_executed": ArraySpec(name=name, shape=action.shape, dtype=action.dtype, unit=action.unit),
        "reward": ArraySpec(name=name, shape=()),
        "by_human": ArraySpec(name=name, shape=(), dtype="bool"),
    }
    if name not in fixed:
        return ArraySpec(name=name, **_array(name, value))
    given = {key: value[key] for key in ("shape", "dtype") if key in value}
    if any(given[key] != getattr(fixed[name], key) for key in given):
        raise SpecError(f"stream `{name}` is always {fixed[name].describe()}; leave its shape and dtype out")
    return fixed[name]


def _plan(name: str, value: Mapping[str, Any], spec: ArraySpec) -> StreamPlan:
    role, qos = value.get("role", "obs"), value.get("qos", "sensor")
    if role not in ("obs", "extra"):
        raise ConfigError(f"stream `{name}`: `role` must be obs or extra, got {role!r}")
    if qos not in QOS:
        raise ConfigError(f"stream `{name}`: `qos` must be one of {QOS}, got {qos!r}")
    if "true_when" in value and spec.dtype != "bool":
        raise ConfigError(f"stream `{name}`: `true_when` makes a bool, but the stream is {spec.describe()}")
    try:
        expected = Expected(
            rate_hz=value.get("rate_hz"), required=value.get("required", role == "obs" and name not in STEP_STREAMS),
            stale_s=value.get("stale_s"), max_gap_s=value.get("max_gap_s"),
        )  # fmt: skip
    except ConfigError as error:
        raise ConfigError(f"stream `{name}`: {error}") from error
    same = {key: value[key] for key in ("field", "names", "true_when") if key in value}
    return StreamPlan(
        name=name, topic=value["topic"], type=value["type"], qos=qos, spec=spec, expected=expected, **same
    )


def _differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> set[str]:
    """Return the names of what differs, one level into spec, observations and extras."""
    found = {key for key in ("codecs",) if mine[key] != theirs[key]}
    for part, a, b in (
        ("", mine["spec"], theirs["spec"]),
        ("obs.", mine["spec"]["obs"], theirs["spec"]["obs"]),
        ("extra.", mine["extra"], theirs["extra"]),
    ):
        found |= {f"{part}{key}" for key in {*a, *b} - {"obs"} if a.get(key) != b.get(key)}
    return found
