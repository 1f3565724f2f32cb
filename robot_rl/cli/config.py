"""Composes a command's configuration with Hydra and turns Hydra's complaints into ours."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robot_rl.cli.config_types import check_types
from robot_rl.errors import ConfigError

CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"


def _known_keys(node: Any, prefix: str = "") -> list[str]:
    """Return every dotted key of nested mappings."""
    if not isinstance(node, dict):
        return []
    return [key for name, child in node.items() for key in (f"{prefix}{name}", *_known_keys(child, f"{prefix}{name}."))]


def _parsed(overrides: Sequence[str]) -> list[Override]:
    """Return overrides as Hydra reads them.

    Raises:
        ConfigError: One is not written as `key=value`.
    """
    parser, parsed = OverridesParser.create(), []
    for item in overrides:
        if "=" not in item and not item.startswith("~"):
            raise ConfigError(
                f"expected key=value, got `{item}`; `robot-rl <command> --help` lists the keys, and "
                "`robot-rl <command> --cfg` what they are set to"
            )
        try:
            override = parser.parse_override(item)
        except HydraException as error:
            raise ConfigError(
                f"`{item}` does not parse: {str(error).splitlines()[0]}; text with special characters takes quotes "
                "that the shell leaves: 'key=\"text\"'"
            ) from error
        if override.is_sweep_override():
            raise ConfigError(f"`{item}` gives several values; a list takes brackets: key=[1,2]")
        if _chooses(override) and override.value() is None and not override.is_delete():
            raise ConfigError(f"`{item}` must name a file: one of {choices(override.key_or_group)}")
        parsed.append(override)
    return parsed


def choices(group: str) -> list[str]:
    """Return the names that a group of configuration files takes, such as those of `task=`."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def _chooses(override: Override) -> bool:
    """Return whether an override chooses a file of a group, and does not set a value."""
    return (CONFIG_DIR / override.key_or_group).is_dir() and not isinstance(override.value(), dict)


def _compose(overrides: Sequence[str]) -> DictConfig:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@cache
def _defaults(chosen: tuple[str, ...]) -> DictConfig:
    """Return the configuration of the chosen files without other overrides; to be read only."""
    return _compose(chosen)


def at_least(least: float, given: Mapping[str, Any]) -> None:
    """Raise unless each of the given settings is a number that is at least so much.

    Raises:
        ConfigError: Names the setting.
    """
    for name, value in given.items():
        if not isinstance(value, int | float) or not value >= least:
            raise ConfigError(f"`{name}` must be at least {least}, got {value!r}")


def _explain(error: Exception, parsed: Sequence[Override]) -> str:
    """Return a message that names the wrong key and the nearest right ones of the files that were chosen."""
    text = str(error).partition("Config search path:")[0].strip()
    patterns = (r"full_key: (\S+)", r"(?:Could not override|Could not delete from config\.) '([^'@]+)'")
    whole = f"{error} {error.__cause__}"  # of a mapping that was given, only the cause knows which key it is
    key = next((match[1] for pattern in patterns if (match := re.search(pattern, whole))), None)
    if key is None:
        return text
    known = _known_keys(OmegaConf.to_container(_defaults(_chosen(parsed)), resolve=False))
    near = difflib.get_close_matches(key, known, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"top-level keys: {sorted(k for k in known if '.' not in k)}"
    given = [item for item in parsed if f"{key}.".startswith(f"{item.key_or_group}.")]
    return f"unknown config key `{key}` in `{given[-1].input_line if given else key}`; {hint}"


def _chosen(parsed: Sequence[Override]) -> tuple[str, ...]:
    return tuple(str(item.input_line) for item in parsed if _chooses(item))


def load_config(overrides: Sequence[str]) -> DictConfig:
    """Return configs/config.yaml with the overrides applied and every reference resolved.

    A value must be of the kind of the default that it replaces (`config_types`); `train.steps=1e4` is 10000.

    Raises:
        ConfigError: An unknown key or choice, or a value that does not parse or is of another kind; names the key and
            what exists.
    """
    if not CONFIG_DIR.is_dir():
        raise ConfigError(
            f"no configs folder at {CONFIG_DIR}; install the project with `pip install -e .` from its root"
        )
    parsed = _parsed(overrides)
    try:
        config = _compose(overrides)
        if given := [item.key_or_group for item in parsed if not _chooses(item) and not item.is_delete()]:
            check_types(config, _defaults(_chosen(parsed)), given)
        OmegaConf.resolve(config)
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise ConfigError(f"{', '.join(f'`{key}`' for key in missing)} must be given; there is no default")
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, parsed)) from error
    return config


def plain(node: Any) -> Any:
    """Return a config node as plain Python values."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def simulation(config: DictConfig) -> Any:
    """Return the config node of the task's environment.

    Raises:
        ConfigError: The task has none.
    """
    if config.task.env is None:
        raise ConfigError(
            f"task `{config.task.name}` has no simulation (`task.env` is null) to do this in; choose a task that has "
            "one, or give `task.env` a class with the Env contract"
        )
    return config.task.env


def build(node: Any, *args: Any, **kwargs: Any) -> Any:
    """Instantiate a config node's `_target_` with plain Python arguments.

    Raises:
        ConfigError: The target does not exist or refuses an argument.
    """
    try:
        return instantiate(node, *args, _convert_="all", **kwargs)
    except HydraException as error:
        cause = error.__cause__ if error.__cause__ is not None else error
        raise ConfigError(f"cannot build `{node.get('_target_')}`: {type(cause).__name__}: {cause}") from error


def to_yaml(config: DictConfig) -> str:
    """Return the resolved configuration as YAML text."""
    return OmegaConf.to_yaml(config, resolve=True)
