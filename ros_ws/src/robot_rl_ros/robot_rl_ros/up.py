"""`python -m robot_rl_ros.up <graph> key:=value ...`: a graph in plain processes, without a ROS installation.

Every node is its own session; all of them end with this process, however it ends (a signal, kill -9, a required node
that died), so that no node is ever left driving alone.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from robot_rl.errors import ConfigError
from robot_rl_ros.arm_graphs import GRAPHS
from robot_rl_ros.environment import environment
from robot_rl_ros.graphs import Process, parse_pairs
from robot_rl_ros.shared_memory import remove_orphans

log = logging.getLogger("robot_rl.up")

EXIT_REFUSED = 2
_POLL_S = 0.05
_RESPAWN_S = 1.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class Running:
    """The processes of a graph, from their start to their end.

    Args:
        processes: What to start.
        patience_s: How long to wait after SIGINT before a process is killed.
        environ: Further environment of every node.
    """

    def __init__(
        self, processes: Sequence[Process], *, patience_s: float = 8.0, environ: Mapping[str, str] | None = None
    ) -> None:
        self._processes = {process.name: process for process in processes}
        self._patience_s = patience_s
        self._environ = {**os.environ, **environment(), **({} if environ is None else environ)}
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._due: dict[str, float] = {}
        self._readers: list[threading.Thread] = []
        self._folder = tempfile.TemporaryDirectory(prefix="robot_rl_graph_")
        self._width = max((len(name) for name in self._processes), default=0)

    def __enter__(self) -> Running:
        remove_orphans()
        for name in self._processes:
            self._start(name)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def pid(self, name: str) -> int:
        """Return the process id of a node."""
        return self._running[name].pid

    @property
    def names(self) -> list[str]:
        """Nodes that are running."""
        return [name for name, process in self._running.items() if process.poll() is None]

    def poll(self) -> int | None:
        """Look after the processes; return the exit code once the graph must end, else `None`."""
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is None or name in self._due:
                continue
            described = self._processes[name]
            if described.respawn and code not in (0, EXIT_REFUSED):
                log.warning("%s ended with %s; it is started again", name, _in_words(code))
                self._due[name] = time.monotonic() + _RESPAWN_S
            elif described.required:
                log.error("%s ended with %s; the graph needs it and ends too", name, _in_words(code))
                return EXIT_REFUSED if code == EXIT_REFUSED else 1
            else:
                log.warning("%s ended with %s; the graph goes on without it", name, _in_words(code))
                del self._running[name]
        for name in [name for name, due in self._due.items() if due <= time.monotonic()]:
            del self._due[name]
            self._start(name)
        return None

    def stop(self) -> None:
        """End all processes: SIGINT first, SIGKILL for those that do not obey."""
        for process in self._running.values():
            _signal_group(process, signal.SIGINT)
        deadline = time.monotonic() + self._patience_s
        for name, process in self._running.items():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s did not end within %g s and is killed", name, self._patience_s)
            _signal_group(process, signal.SIGKILL)  # what it may have started, too
            process.wait()
        for reader in self._readers:
            reader.join(timeout=1.0)
        self._running.clear()
        self._folder.cleanup()
        remove_orphans()  # of those that were killed; what is younger than its bound goes with the next start

    def _start(self, name: str) -> None:
        described = self._processes[name]
        parameters = Path(self._folder.name) / f"{name}.yaml"
        parameters.write_text(yaml.safe_dump({"/**": {"ros__parameters": described.ros_parameters}}))
        self._running[name] = process = subprocess.Popen(
            described.command(str(parameters)),
            stdin=None if described.terminal else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=self._environ,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        reader = threading.Thread(target=self._forward, args=(name, process), name=f"log-{name}", daemon=True)
        reader.start()
        self._readers.append(reader)

    def _forward(self, name: str, process: subprocess.Popen[str]) -> None:
        if process.stdout is None:
            return
        for line in process.stdout:
            sys.stdout.write(f"[{name:<{self._width}}] {line}")
            sys.stdout.flush()
        process.stdout.close()


def _die_with_parent() -> None:
    """In the child, before it becomes the node: ask for SIGTERM when the thread that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal a process and what it started; nothing when they are gone."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _in_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def up(processes: Sequence[Process]) -> int:
    """Run until SIGINT, SIGTERM, or the end of a required node; return the exit code."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Running(processes) as running:
        while not stop.wait(_POLL_S):
            code = running.poll()
            if code is not None:
                return code
    return 0


def usage() -> str:
    """Return what can be started."""
    lines = ["usage: python -m robot_rl_ros.up <graph> [name:=value ...]"]
    return "\n\n".join([*lines, *(graph.usage() for graph in GRAPHS.values())])


def main(argv: Sequence[str] | None = None) -> int:
    """Start the named graph; returns 2 for a request that was refused."""
    logging.basicConfig(level=logging.INFO, format="[up] %(message)s", stream=sys.stdout)
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or {"-h", "--help"} & set(words):
        sys.stdout.write(usage() + "\n")
        return 0
    try:
        if words[0] not in GRAPHS:
            raise ConfigError(f"there is no graph {words[0]!r}; there are {sorted(GRAPHS)}")
        processes = GRAPHS[words[0]].processes(parse_pairs(words[1:]))
    except ConfigError as error:
        log.error("%s", error)
        return EXIT_REFUSED
    return up(processes)


if __name__ == "__main__":
    sys.exit(main())
