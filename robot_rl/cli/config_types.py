"""A setting takes the kind of value that its default has: a number for a number, true or false for a switch.

Nothing is declared twice. A default of the composed configuration says what is expected; where it says too little, the
signature of the `_target_` beside it does: a constructor that takes `float | None` gets 0.5 or null where the file has
20. Defaults of null, text, lists and mappings take anything. So do settings of a `_target_` other than the default's,
and those that are added with `+`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robot_rl.errors import ConfigError

MEASURES = frozenset(
    {"calibrate.check.max_age_days", "finetune.patience_s", "loop.seconds", "mend.trim.head", "mend.trim.tail"}
)
"""Settings beside no `_target_` that take fractions although their defaults are whole."""
NULLABLE = frozenset({"algo.chain.n_tuned", "algo.online.chain.n_tuned", "finetune.max_ahead"})
"""Settings beside no `_target_` for which null means something although their defaults are numbers."""
LEAST = {"distill.calls": 1, "distill.observations": 1}
"""Least values of settings that are read hours after the command began."""

WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text", "NoneType": "null"}
"""Kind to what it is called."""
_NOTHING = object()


def check_types(config: DictConfig, defaults: DictConfig, keys: Iterable[str]) -> None:
    """Raise unless the settings at `keys` have the kinds of their defaults; whole floats (1e4) become integers.

    Args:
        config: The configuration with every override; not resolved yet, so that what refers to a setting follows it.
        defaults: The same choice of files without other overrides.
        keys: Dotted keys that were given; all that is below them is checked too.

    Raises:
        ConfigError: Names each setting, what it must be, and what came.
    """
    faults = []
    for key in (leaf for given_key in keys for leaf in _leaves(config, defaults, given_key)):
        default, given = _at(defaults, key), _at(config, key)
        if given is _NOTHING or not isinstance(default, bool | int | float) or _other_target(config, defaults, key):
            continue
        if type(default) is int and isinstance(given, float) and given.is_integer():
            given = int(given)
            OmegaConf.update(config, key, given)
        kinds = {type(default).__name__} | _more_kinds(key)
        if not _fits(given, kinds) and not _fits(given, kinds := kinds | _constructor_kinds(config, key)):
            faults.append(f"`{key}` must be {_named(kinds)} (its default is {_shown(default)}), got {_shown(given)}")
        elif key in LEAST and given < LEAST[key]:
            faults.append(f"`{key}` must be at least {LEAST[key]}, got {_shown(given)}")
    if faults:
        raise ConfigError("; ".join(faults))


def _leaves(config: DictConfig, defaults: DictConfig, key: str) -> Iterator[str]:
    """Yield the keys below one that both configurations have, or itself if it is no mapping in both."""
    default, given = _at(defaults, key), _at(config, key)
    if not isinstance(default, DictConfig) or not isinstance(given, DictConfig):
        yield key
        return
    for name in map(str, default):
        if name in given and "." not in name:
            yield from _leaves(config, defaults, f"{key}.{name}")


def _at(config: DictConfig, key: str) -> Any:
    """Return what is at a key, its reference followed; `_NOTHING` if that cannot be told."""
    try:
        return OmegaConf.select(config, key, default=_NOTHING)
    except OmegaConfBaseException:
        return _NOTHING  # resolving the configuration says why


def _other_target(config: DictConfig, defaults: DictConfig, key: str) -> bool:
    """Return whether a key lies in a node of which something else is built than by default."""
    parts = key.split(".")
    targets = [".".join([*parts[:n], "_target_"]) for n in range(1, len(parts))]
    return any(_at(config, target) != _at(defaults, target) for target in targets)


def _more_kinds(key: str) -> set[str]:
    return ({"float"} if key in MEASURES else set()) | ({"NoneType"} if key in NULLABLE else set())


def _constructor_kinds(config: DictConfig, key: str) -> set[str]:
    """Return the kinds that the constructor beside a setting takes; `any` where its signature does not say.

    Asked only about values that do not fit the default, for importing a constructor can take seconds.
    """
    node, _, name = key.rpartition(".")
    target = _at(config, f"{node}._target_")
    if not isinstance(target, str):
        return set()
    try:
        annotation = str(inspect.signature(get_object(target)).parameters[name].annotation)
    except (ImportError, ValueError, TypeError, KeyError):
        return {"any"}  # building it says what is wrong
    words = {"NoneType" if word == "None" else word for word in re.findall(r"\w+", annotation)} - {"class"}
    return words if words <= WORDS.keys() else {"any"}


def _fits(given: Any, kinds: set[str]) -> bool:
    return "any" in kinds or type(given).__name__ in (kinds | {"int"} if "float" in kinds else kinds)


def _named(kinds: set[str]) -> str:
    kinds = kinds - {"int"} if "float" in kinds else kinds
    return " or ".join(text for kind, text in WORDS.items() if kind in kinds)


def _shown(value: Any) -> str:
    """Return a value as it is written on the command line, text in quotes."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)
