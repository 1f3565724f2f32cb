"""Runs a node in its process, and beside a test."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from robot_rl.errors import RobotRLError

EXIT_REFUSED = 2
_SPIN_S = 0.1


def make_executor() -> Executor:
    """Return rclpy's EventsExecutor, less than half the CPU of the others, or the one that older releases have.

    It must be driven by `spin_once` with a time-out: its `spin` never runs a timer and ignores signals.
    """
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    return EventsExecutor()


def run(node_factory: Callable[[], Node], args: Sequence[str] | None = None) -> int:
    """Run a node until SIGINT or SIGTERM and return the exit code.

    A node may have `close()`: it is called while ROS still works, to stop threads and publish a last state.

    Args:
        node_factory: Makes the node; it may refuse with any error of robot_rl.
        args: Command line, with `--ros-args`; the process's own when `None`.

    Returns:
        0 after a signal, 2 when the node refused to start (the message is logged).
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    try:
        try:
            node = node_factory()
        except RobotRLError as error:
            get_logger("robot_rl").fatal(f"refused to start: {error}")
            return EXIT_REFUSED
        with forwarded_logs(node):
            _spin(node, stop)
        return 0
    finally:
        rclpy.try_shutdown()


def _spin(node: Node, stop: threading.Event) -> None:
    executor = make_executor()
    executor.add_node(node)
    try:
        while not stop.is_set():
            executor.spin_once(timeout_sec=_SPIN_S)
    finally:
        close = getattr(node, "close", None)
        if close is not None:
            close()
        executor.remove_node(node)
        node.destroy_node()


@contextmanager
def spin_in_thread(node: Node) -> Iterator[Node]:
    """Serve a node's callbacks on a thread while the block runs; for tests and scripts."""
    stop = threading.Event()
    executor = make_executor()
    executor.add_node(node)

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=_SPIN_S)

    thread = threading.Thread(target=spin, name=f"spin-{node.get_name()}", daemon=True)
    thread.start()
    try:
        yield node
    finally:
        stop.set()
        thread.join()
        executor.remove_node(node)


class _RosHandler(logging.Handler):
    """Sends records of Python's logging to a node's logger."""

    def __init__(self, node: Node) -> None:
        super().__init__(logging.INFO)
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        # rclpy ties a severity to the line that logs it, so each level needs a call of its own.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)


@contextmanager
def forwarded_logs(node: Node) -> Iterator[None]:
    """Let what robot_rl logs appear in the node's log, and so on /rosout, while the block runs."""
    handler = _RosHandler(node)
    logger = logging.getLogger("robot_rl")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
