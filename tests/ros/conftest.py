"""A real graph: nodes as processes on a ROS domain of their own, and a node of the test beside them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

try:
    import rclpy
    from robot_rl_ros.environment import environment
    from robot_rl_ros.shared_memory import remove_orphans
except ImportError as error:
    MISSING = f"{error}; run: pip install 'robot-rl[ros]' && pip install --no-deps -e ros_ws/src/robot_rl_ros"
else:
    MISSING = ""

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "ros_ws" / "src" / "robot_rl_ros" / "config"
NAMESPACE = "/arm"
START_S = 20.0  # generous: CI may start eight interpreters on two cores


class Skipped(pytest.Module):
    """A test file that cannot even be imported."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(MISSING, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip every file of this folder, with a reason, where ROS is not installed."""
    return Skipped.from_parent(parent, path=module_path) if MISSING else None


class Inbox:
    """What a topic brought: `messages`, and the monotonic time each came at in `received_ns`."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.received_ns: list[int] = []

    def take(self, msg: Any) -> None:
        self.received_ns.append(time.monotonic_ns())
        self.messages.append(msg)

    def __len__(self) -> int:
        return len(self.messages)

    def wait(self, n: int = 1, *, timeout_s: float = 5.0, match: Callable[[Any], bool] | None = None) -> Any:
        """Return the newest message once there are `n` (further ones that `match`), or fail."""
        deadline, seen, found = time.monotonic() + timeout_s, 0, 0
        while time.monotonic() < deadline:
            while seen < len(self.messages):
                msg = self.messages[seen]
                seen += 1
                found += match is None or bool(match(msg))
                if found >= n:
                    return msg
            time.sleep(0.005)
        pytest.fail(f"waited {timeout_s} s for {n} messages, got {found} of {len(self.messages)}: {self.messages[-1:]}")

    def clear(self) -> None:
        self.messages, self.received_ns = [], []


class Process:
    """One node."""

    def __init__(self, popen: subprocess.Popen[bytes], name: str, log: Path) -> None:
        self.popen, self.name, self._log = popen, name, log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """Kill -9."""
        self.popen.kill()
        self.popen.wait()

    def interrupt(self) -> int:
        """Send SIGINT and return the exit code."""
        self.popen.send_signal(signal.SIGINT)
        return self.popen.wait(timeout=10)

    def wait(self, timeout_s: float = START_S) -> int:
        """Return the exit code once it ended."""
        return self.popen.wait(timeout=timeout_s)


class RosGraph:
    """Processes and one node (`graph.node`) under /arm."""

    def __init__(self, node: Any, folder: Path, env: dict[str, str]) -> None:
        self.node, self._folder, self._env = node, folder, env
        self.processes: list[Process] = []

    def start(
        self,
        module: str,
        *,
        config: Path | str | None = None,
        params: Mapping[str, Any] | None = None,
        args: Sequence[str] = (),
    ) -> Process:
        """Start `python -m robot_rl_ros.<module>` with a parameter file (name in config/, or path) and parameters."""
        command = [sys.executable, "-m", f"robot_rl_ros.{module}", "--ros-args", "-r", f"__ns:={NAMESPACE}"]
        if config is not None:
            command += ["--params-file", str(CONFIG / config if isinstance(config, str) else config)]
        for name, value in (params or {}).items():
            command += ["-p", f"{name}:={_yaml(value)}"]
        log = self._folder / f"{len(self.processes)}-{module}.log"
        with log.open("w") as out:
            popen = subprocess.Popen(
                [*command, *args], env=self._env, stdout=out, stderr=subprocess.STDOUT, cwd=self._folder
            )
        process = Process(popen, module, log)
        self.processes.append(process)
        return process

    def collect(self, kind: Any, topic: str, qos: Any) -> Inbox:
        """Subscribe; relative topics lie under /arm."""
        inbox = Inbox()
        self.node.create_subscription(kind, topic, inbox.take, qos)
        return inbox

    def publisher(self, kind: Any, topic: str, qos: Any) -> Any:
        """Return a publisher of the test's node."""
        return self.node.create_publisher(kind, topic, qos)

    def wait_matched(self, publisher: Any, n: int = 1, *, timeout_s: float = START_S) -> None:
        """Wait until `n` subscribers take what the publisher sends."""
        deadline = time.monotonic() + timeout_s
        while publisher.get_subscription_count() < n:
            if time.monotonic() > deadline or any(p.popen.poll() for p in self.processes):
                pytest.fail(f"nobody subscribed to {publisher.topic_name}; logs:\n{self.logs()}")
            time.sleep(0.01)

    def call(self, kind: Any, name: str, request: Any = None, *, timeout_s: float = START_S) -> Any:
        """Call a service and return its response."""
        client = self.node.create_client(kind, name)
        try:
            if not client.wait_for_service(timeout_sec=timeout_s):
                pytest.fail(f"no service {name}; logs:\n{self.logs()}")
            future = client.call_async(kind.Request() if request is None else request)
            deadline = time.monotonic() + timeout_s
            while not future.done():
                if time.monotonic() > deadline:
                    pytest.fail(f"service {name} did not answer; logs:\n{self.logs()}")
                time.sleep(0.002)
            return future.result()
        finally:
            self.node.destroy_client(client)

    def logs(self) -> str:
        """Return what every process has said."""
        return "\n".join(f"--- {p.name} rc={p.popen.poll()}\n{p.log}" for p in self.processes)

    def close(self) -> None:
        """Kill every process that is left."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.kill()


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(x) for x in value) + "]"
    return str(value)


@pytest.fixture(scope="module")
def ros_domain() -> Iterator[int]:
    """A domain id that no other test process on this machine uses at the same time."""
    for number in range(20, 100):
        file = open(Path(tempfile.gettempdir()) / f"robot_rl_ros_domain_{number}.lock", "w")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        yield number
        file.close()
        remove_orphans()  # of processes that were killed
        return
    pytest.fail("every ROS domain id from 20 to 99 is in use")


@pytest.fixture(scope="module")
def ros_env(ros_domain: int) -> Iterator[dict[str, str]]:
    """The environment of this module's processes, in force for the test process as well."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment(), "ROS_DOMAIN_ID": str(ros_domain)}.items():
            patch.setenv(name, value)
        yield dict(os.environ)


@pytest.fixture(scope="module")
def ros_context(ros_env: dict[str, str]) -> Iterator[None]:
    """`rclpy` initialised for this module."""
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    yield
    rclpy.try_shutdown()


def _graph(folder: Path, env: dict[str, str]) -> Iterator[RosGraph]:
    from rclpy.node import Node
    from robot_rl_ros.runner import spin_in_thread

    node = Node("test", namespace=NAMESPACE)
    graph = RosGraph(node, folder, env)
    try:
        with spin_in_thread(node):
            yield graph
    finally:
        graph.close()
        node.destroy_node()


@pytest.fixture
def ros_graph(ros_context: None, ros_env: dict[str, str], tmp_path: Path) -> Iterator[RosGraph]:
    """A graph for one test; every process is killed at its end."""
    yield from _graph(tmp_path, ros_env)


@pytest.fixture(scope="module")
def shared_graph(
    ros_context: None, ros_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RosGraph]:
    """A graph for all tests of a module, where starting the processes for each would take too long."""
    yield from _graph(tmp_path_factory.mktemp("graph"), ros_env)
