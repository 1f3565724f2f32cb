"""What a graph is: the one description that launch files and `robot_rl_ros.up` both start. Needs no ROS."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robot_rl.errors import ConfigError

Value = str | int | float | bool
Values = Mapping[str, Value]
Parameters = Mapping[str, Any]
NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument of a graph, given as `name:=value`.

    Args:
        name: Name.
        default: Value when it is not given; a type (`str`, `int` ...) means that it must be given.
        help: What it is, with its unit.
        choices: Allowed values.
        low: Smallest allowed number.
        high: Largest allowed number.
    """

    name: str
    default: Value | type
    help: str
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    @property
    def type(self) -> type:
        """Type of its values."""
        return self.default if isinstance(self.default, type) else type(self.default)

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return isinstance(self.default, type)

    @property
    def default_text(self) -> str:
        """The default as it would be given, empty for none."""
        if self.is_required:
            return ""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    def describe(self) -> str:
        """Return what may be given, for people."""
        bounded = math.isfinite(self.low) or math.isfinite(self.high)
        allowed = f"one of {', '.join(self.choices)}" if self.choices else self.type.__name__
        return allowed + (f" from {self.low:g} to {self.high:g}" if bounded else "")

    def parse(self, text: str) -> Value:
        """Return the value that a text stands for; `none` is empty text, which `ros2 launch` does not accept as such.

        Raises:
            ConfigError: Another type, no allowed value, or out of range.
        """
        if self.type is str and not self.choices and not self.is_required and text == NONE:
            return ""
        try:
            value: Value = _TRUTH[text.lower()] if self.type is bool else self.type(text)
        except (KeyError, ValueError):
            raise self._refused(text) from None
        if self.choices and value not in self.choices:
            raise self._refused(text)
        if isinstance(value, int | float) and not self.low <= value <= self.high:  # NaN is out of range too
            raise self._refused(text)
        return value

    def _refused(self, text: str) -> ConfigError:
        return ConfigError(f"argument `{self.name}` must be {self.describe()}, got {text!r}; it is {self.help}")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One node in a process of its own, or a program that is no node.

    Args:
        name: Name of the node.
        module: Its module; `python -m` runs it.
        config: Name of a parameter file in the package's `config/`, or a path; empty for none.
        parameters: Parameters that go before those of the file.
        namespace: Of the node, with its leading slash.
        remappings: Topic to topic.
        respawn: Start it again when it dies.
        required: Nothing may go on without it.
        terminal: It reads the keyboard.
        arguments: Of a program that is no node: its whole command line after the module; it gets no ROS arguments.
        nice: By how much less than others it may have of the processor, 0 to 19.
    """

    name: str
    module: str
    config: str = ""
    parameters: Parameters = field(default_factory=dict)
    namespace: str = "/arm"
    remappings: Mapping[str, str] = field(default_factory=dict)
    respawn: bool = False
    required: bool = False
    terminal: bool = False
    arguments: tuple[str, ...] = ()
    nice: int = 0

    @property
    def is_program(self) -> bool:
        """Whether it is no node."""
        return bool(self.arguments)

    @property
    def config_path(self) -> str:
        """Path of the parameter file, empty for none.

        Raises:
            ConfigError: It does not exist.
        """
        return str(config_file(self.config)) if self.config else ""

    @property
    def ros_parameters(self) -> dict[str, Any]:
        """The parameters that rclpy can read: it has no empty lists, and leaves those to the node's default."""
        return {key: value for key, value in self.parameters.items() if value not in ([], (), None)}

    def command(self, parameter_file: str) -> list[str]:
        """Return the command line, given a file that holds `ros_parameters`; a program does not read it."""
        modest = ["nice", "-n", str(self.nice)] if self.nice else []
        if self.is_program:
            return [*modest, sys.executable, "-m", self.module, *self.arguments]
        remaps = {"__ns": self.namespace, "__node": self.name, **self.remappings}
        pairs = [word for key, value in remaps.items() for word in ("-r", f"{key}:={value}")]
        files = [word for file in (self.config_path, parameter_file) if file for word in ("--params-file", file)]
        return [*modest, sys.executable, "-m", self.module, "--ros-args", *pairs, *files]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Arguments, and the processes they make.

    Args:
        name: Name.
        help: What it is for.
        arguments: What may be given.
        build: From the values of all arguments to the processes.
    """

    name: str
    help: str
    arguments: tuple[Argument, ...]
    build: Callable[[Values], tuple[Process, ...]]

    def processes(self, given: Mapping[str, str]) -> tuple[Process, ...]:
        """Check what is given and return the processes.

        Raises:
            ConfigError: An argument that is unknown, missing, or refused.
        """
        known = {argument.name: argument for argument in self.arguments}
        if unknown := sorted(set(given) - set(known)):
            raise ConfigError(f"graph `{self.name}` has no argument {unknown}; it has {sorted(known)}")
        if missing := [a for a in self.arguments if a.is_required and a.name not in given]:
            wanted = "; ".join(f"{a.name}:=... ({a.help})" for a in missing)
            raise ConfigError(f"graph `{self.name}` needs {wanted}")
        values = {
            name: argument.parse(given[name]) if name in given else argument.default for name, argument in known.items()
        }
        made = self.build(values)  # type: ignore[arg-type]
        names = [process.name for process in made]
        if len(set(names)) != len(names):
            raise ConfigError(f"graph `{self.name}`: two nodes have one name: {sorted(names)}")
        return made

    def usage(self) -> str:
        """Return the arguments as text, one a line."""
        lines = [f"{self.name}: {self.help}"]
        for a in self.arguments:
            start = "needed" if a.is_required else f"default {a.default_text!r}"
            lines.append(f"  {a.name}:=   {a.help} ({a.describe()}; {start})")
        return "\n".join(lines)


def parse_pairs(words: Iterable[str]) -> dict[str, str]:
    """Return `key:=value` words as a mapping.

    Raises:
        ConfigError: A word of another form, or a key given twice.
    """
    given: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition(":=")
        if not sign or not key.isidentifier():
            raise ConfigError(f"arguments are given as name:=value, got {word!r}")
        if key in given:
            raise ConfigError(f"argument `{key}` is given twice: {given[key]!r} and {value!r}")
        given[key] = value
    return given


def config_file(name: str) -> Path:
    """Return the path of a parameter file: one that exists, or a name in the package's `config/`.

    Raises:
        ConfigError: There is no such file; lists those of the package.
    """
    if Path(name).is_file():
        return Path(name).resolve()
    package = Path(__file__).resolve().parent.name
    beside = Path(__file__).resolve().parents[1] / "config"  # a checkout, or an editable installation
    installed = [Path(prefix) / "share" / package / "config" for prefix in _prefixes()]
    for folder in (beside, *installed):
        if (folder / name).is_file():
            return folder / name
    there = sorted({file.name for folder in (beside, *installed) for file in folder.glob("*.yaml")})
    raise ConfigError(f"there is no parameter file {name!r}, neither as a path nor in the package, which has {there}")


def _prefixes() -> list[str]:
    return [*filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)), sys.prefix]


_TRUTH = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
