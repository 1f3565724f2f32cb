"""Rerun, loaded when something is shown: it is an optional dependency and takes about a second to import."""

from __future__ import annotations

from types import ModuleType

from robot_rl.errors import MissingExtraError


def rerun() -> ModuleType:
    """Return the `rerun` module with its `blueprint`.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import rerun as module
        import rerun.blueprint
    except ImportError as error:
        raise MissingExtraError("rerun-sdk", "view") from error
    return module
