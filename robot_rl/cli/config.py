"""Composes a command's configuration with Hydra and turns Hydra's complaints into ours."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robot_rl.errors import ConfigError

CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"


def _known_keys(node: Any, prefix: str = "") -> list[str]:
    """Return every dotted key of nested mappings."""
    if not isinstance(node, dict):
        return []
    return [key for name, child in node.items() for key in (f"{prefix}{name}", *_known_keys(child, f"{prefix}{name}."))]


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Return a message that names the wrong key and the nearest right ones."""
    text = str(error)
    match = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text)
    if match is None:
        return text.strip()
    key = next(group for group in match.groups() if group)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        known = _known_keys(OmegaConf.to_container(compose("config"), resolve=False))
    near = difflib.get_close_matches(key, known, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"top-level keys: {sorted(k for k in known if '.' not in k)}"
    return f"unknown config key `{key}` in {list(overrides)}; {hint}"


def load_config(overrides: Sequence[str]) -> DictConfig:
    """Return configs/config.yaml with the overrides applied and every reference resolved.

    Raises:
        ConfigError: An unknown key or choice, or a value that does not parse; names the key and what exists.
    """
    if not CONFIG_DIR.is_dir():
        raise ConfigError(
            f"no configs folder at {CONFIG_DIR}; install the project with `pip install -e .` from its root"
        )
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            config = compose("config", overrides=list(overrides))
        OmegaConf.resolve(config)
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise ConfigError(f"{', '.join(f'`{key}`' for key in missing)} must be given; there is no default")
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, overrides)) from error
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
