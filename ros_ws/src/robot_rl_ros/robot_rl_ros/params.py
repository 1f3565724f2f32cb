"""Parameters that are checked when they are declared, so that a node with a wrong one refuses to start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException, ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from robot_rl.errors import ConfigError

_LARGEST_INT = 2**63 - 1
_TYPES = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
    list[bool]: Parameter.Type.BOOL_ARRAY,
    list[int]: Parameter.Type.INTEGER_ARRAY,
    list[float]: Parameter.Type.DOUBLE_ARRAY,
    list[str]: Parameter.Type.STRING_ARRAY,
}


def declare(
    node: Node,
    name: str,
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[Any] | None = None,
    read_only: bool = True,
) -> Any:
    """Declare a parameter with a descriptor and return its value.

    Args:
        node: Owner.
        name: Name.
        default: Value when none is given. A type (`float`, `list[str]` ...) means that one must be given. An empty
            list is written as its type in a tuple: `(list[str],)`.
        description: What it is, with its unit.
        low: Smallest allowed number (each element of a list).
        high: Largest allowed number.
        choices: Allowed values.
        read_only: Cannot be changed while the node runs.

    Raises:
        ConfigError: It is missing, of another type, out of range, or no allowed value.
    """
    kind, required, start = _read_default(default)
    descriptor = ParameterDescriptor(description=description, read_only=read_only)
    _describe_range(descriptor, kind, low=low, high=high)
    if choices is not None:
        descriptor.additional_constraints = f"one of {list(choices)}"
    descriptor.dynamic_typing = read_only  # lets `0` stand for `0.0`; nobody can change a read-only one's type later
    given: Any = None
    try:
        given = _declare(node, name, kind, start=None if required or start == [] else start, descriptor=descriptor)
    except (InvalidParameterTypeException, InvalidParameterValueException, ParameterException) as error:
        raise ConfigError(f"parameter `{name}` of node `{node.get_name()}`: {error}; it is {description}") from error
    value = start if given is None and not required else given
    return _checked(node, name, value, kind, description=description, low=low, high=high, choices=choices)


def _declare(node: Node, name: str, kind: Any, *, start: Any, descriptor: ParameterDescriptor) -> Any:
    if start is None and not descriptor.dynamic_typing:
        node.declare_parameter(name, _TYPES[kind], descriptor)
    else:
        node.declare_parameter(name, start, descriptor)
    value = node.get_parameter_or(name).value
    return list(value) if value is not None and get_origin(kind) is list and not isinstance(value, str) else value


def _read_default(default: Any) -> tuple[Any, bool, Any]:
    """Return the type, whether a value must be given, and the value otherwise."""
    if isinstance(default, list):
        return list[type(default[0])], False, default
    if isinstance(default, tuple):
        return default[0], False, []
    if default in _TYPES:
        return default, True, None
    return type(default), False, default


def _describe_range(descriptor: ParameterDescriptor, kind: Any, *, low: float | None, high: float | None) -> None:
    if low is None and high is None:
        return
    if kind is int:
        first, last = -_LARGEST_INT if low is None else int(low), _LARGEST_INT if high is None else int(high)
        descriptor.integer_range = [IntegerRange(from_value=first, to_value=last)]
    elif kind is float:
        least, most = -math.inf if low is None else float(low), math.inf if high is None else float(high)
        descriptor.floating_point_range = [FloatingPointRange(from_value=least, to_value=most)]
    else:
        descriptor.additional_constraints = f"each element from {low} to {high}"


def _checked(
    node: Node,
    name: str,
    value: Any,
    kind: Any,
    *,
    description: str,
    low: float | None,
    high: float | None,
    choices: Sequence[Any] | None,
) -> Any:
    who = f"parameter `{name}` of node `{node.get_name()}`"
    if value is None:
        raise ConfigError(
            f"{who} is missing; give it in the parameter file or with -p {name}:=...; it is {description}"
        )
    is_list = get_origin(kind) is list
    element = get_args(kind)[0] if is_list else kind
    values = value if is_list else [value]
    if is_list != isinstance(value, list) or not all(_is_a(x, element) for x in values):
        wanted = f"a list of {element.__name__}" if is_list else element.__name__
        raise ConfigError(f"{who} must be {wanted}, got {value!r}; it is {description}")
    values = [element(x) for x in values]
    for x in values:
        if choices is not None and x not in choices:
            raise ConfigError(f"{who} must be one of {list(choices)}, got {x!r}; it is {description}")
        below = low is not None and not x >= low  # written so that NaN is out of range too
        if below or (high is not None and not x <= high):
            raise ConfigError(
                f"{who} must be from {'-inf' if low is None else low} to {'inf' if high is None else high}, "
                f"got {x!r}; it is {description}"
            )
    return values if is_list else values[0]


def _is_a(value: Any, element: type) -> bool:
    if element is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, element) and (element is bool or not isinstance(value, bool))
