"""Waiting with a bound, for tests of whole graphs."""

import time
from collections.abc import Callable
from typing import Any


def wait_for(condition: Callable[[], Any], what: str, *, timeout_s: float = 15.0) -> Any:
    """Return the condition's value once it is true."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: did not happen within {timeout_s} s"
        time.sleep(0.01)
    return value
