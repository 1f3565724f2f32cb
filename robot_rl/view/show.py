"""Where what is shown goes: into a file, a viewer on this desktop, or a page in the browser."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

from robot_rl.errors import ConfigError
from robot_rl.view.sdk import rerun

APPLICATION = "robot_rl"


def new_log(name: str) -> Any:
    """Return a fresh Rerun recording stream; a viewer lists it as `name`."""
    log = rerun().RecordingStream(APPLICATION)
    log.send_recording_name(name)
    return log


def free_port() -> int:
    """Return a TCP port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def save(log: Any, path: str | Path) -> Path:
    """Send what is logged from now on into an .rrd file; returns its path.

    Raises:
        ConfigError: The file does not end in .rrd, which is how a viewer knows it.
    """
    path = Path(path)
    if path.suffix != ".rrd":
        raise ConfigError(f"`view.save` must be a file that ends in .rrd, got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    log.save(path)
    return path


def check_display() -> None:
    """Raise unless a window can be opened here.

    Raises:
        ConfigError: There is no display; says what works without one.
    """
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ConfigError(
            "no display here to open a viewer on: use --web for the browser, or view.save=<file.rrd> to open elsewhere"
        )


def serve_data(log: Any, *, memory: str = "50%") -> str:
    """Serve what is logged from now on to viewers on this machine; returns the address that they connect to.

    Args:
        log: The recording stream; it serves until it is disconnected.
        memory: How much is kept for viewers that connect later, such as `4GB` or `50%`.
    """
    return str(log.serve_grpc(grpc_port=free_port(), server_memory_limit=memory))


def serve_page(source: str, *, port: int | None = None, open_browser: bool = True) -> str:
    """Serve a viewer for browsers until this process ends, and return the page's address.

    Args:
        source: What `serve_data` returned.
        port: Port of the page; `None` takes a free one.
        open_browser: Open the user's browser on it.

    Raises:
        ConfigError: The port is taken, or may not be used.
    """
    port = free_port() if port is None else port
    try:
        rerun().serve_web_viewer(web_port=port, open_browser=open_browser, connect_to=source)
    except Exception as error:  # Rerun raises what its runtime does, under no common name
        raise ConfigError(f"cannot serve on port {port}: {error}; choose another with view.port=") from error
    return f"http://localhost:{port}/?url={quote(source, safe='')}"


def wait_for_interrupt() -> None:
    """Return on Ctrl-C or SIGTERM, also in a background job, which a shell starts with Ctrl-C ignored."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
