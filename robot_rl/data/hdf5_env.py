"""What a file of demonstrations says about the environment it was recorded in: its name, its rate, its actions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from robot_rl.data.hdf5_demos import Column, DemoFile
from robot_rl.errors import ConfigError
from robot_rl.specs import ACTION_KINDS, ActionKind, ActionSpec

GRIPPER_NOTE = (
    "the simulator's convention (-1 opens, +1 closes) has no name here, so the numbers are kept and `gripper` says none"
)
KIND_ADVICE = (
    "it is called joint_position, which only a robot that executes the actions cares about; "
    "import.action_kind=<kind> says it"
)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The environment that a file was recorded in.

    Args:
        name: `Lift`, `SawyerStack` ...; empty where the file does not say.
        settings: What it was made with, as the file says.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def control_hz(self) -> float | None:
        """Rate of the actions in hertz, `None` where the settings do not say."""
        for holder in (self.settings.get("env_kwargs"), self.settings):
            rate = holder.get("control_freq") if isinstance(holder, Mapping) else None
            if isinstance(rate, int | float) and rate > 0:
                return float(rate)
        return None

    def action_kind(self) -> ActionKind | None:
        """Return what the actions command, `None` where the settings do not say or it has no name here."""
        text = json.dumps(self.settings)
        absolute = '"control_delta": false' in text or '"input_type": "absolute"' in text
        if '"OSC_POSE"' in text or '"OSC_POSITION"' in text:
            return None if absolute else "delta_pose"
        return "joint_position" if '"JOINT_POSITION"' in text and absolute else None


def read_environment(demos: DemoFile) -> Environment:
    """Return what the attributes of `data` say; what cannot be understood becomes a defect."""
    attrs = demos.attrs
    for key in ("env_args", "env_info"):
        if key not in attrs:
            continue
        try:
            settings = json.loads(attrs[key])
            if isinstance(settings, dict):
                return Environment(name=str(settings.get("env_name") or attrs.get("env") or ""), settings=settings)
            problem = f"is a {type(settings).__name__}"
        except (TypeError, ValueError) as error:
            problem = str(error)
        demos.add("warning", f"data attribute {key}", f"must be a JSON object, {problem}", "it was not used")
    return Environment(name=str(attrs.get("env", "")))


def instruction(attrs: Mapping[str, Any], demo_attrs: Mapping[str, Any]) -> str:
    """Return what a demonstration's task is in words, where LIBERO's or RoboCasa's attributes say so, else nothing."""
    for holder, key, words in ((demo_attrs, "ep_meta", "lang"), (attrs, "problem_info", "language_instruction")):
        try:
            found = json.loads(holder[key])[words]
        except (KeyError, TypeError, ValueError):
            continue
        return " ".join(map(str, found)) if isinstance(found, list) else str(found)
    return ""


def action_spec(demos: DemoFile, column: Column, environment: Environment, kind: str | None = None) -> ActionSpec:
    """Return the spec of the actions; warns where nobody says what they command.

    Args:
        demos: The file.
        column: Shape and dtype of the actions.
        environment: What the file says of it.
        kind: What they command, where the caller knows.

    Raises:
        ConfigError: No action is of that kind.
    """
    found = environment.action_kind() if kind is None else known_kind(kind)
    if found is None:
        demos.add("warning", "actions", "the file does not say what they command", KIND_ADVICE)
    named: ActionKind = "joint_position" if found is None else found
    unit = "normalised" if kind is None and found == "delta_pose" else ""
    return ActionSpec(name="action", shape=column.shape, dtype=column.dtype.name, unit=unit, kind=named)


def known_kind(kind: str) -> ActionKind:
    """Return `kind` if actions can be of it.

    Raises:
        ConfigError: They cannot; lists what they can be.
    """
    if kind not in ACTION_KINDS:
        raise ConfigError(f"`import.action_kind` must be one of {ACTION_KINDS}, got {kind!r}")
    return cast(ActionKind, kind)
