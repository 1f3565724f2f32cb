"""One status of a node on /diagnostics: every second, and at once when its level or message changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class Health:
    """Level, a sentence, and figures."""

    level: bytes
    message: str
    values: Mapping[str, Any] = field(default_factory=dict)


class Diagnostics:
    """Publishes what `judge` says.

    Args:
        node: Owner; its executor calls `judge` every second.
        judge: Gives the present health.
    """

    def __init__(self, node: Node, judge: Callable[[], Health]) -> None:
        self._node, self._judge = node, judge
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(1.0, self.publish)

    def publish(self) -> None:
        """Publish now; for changes that should not wait for the second."""
        health = self._judge()
        values = [KeyValue(key=key, value=str(value)) for key, value in health.values.items()]
        name = self._node.get_fully_qualified_name()
        status = DiagnosticStatus(level=health.level, name=name, message=health.message, values=values)
        msg = DiagnosticArray(status=[status])
        msg.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(msg)
