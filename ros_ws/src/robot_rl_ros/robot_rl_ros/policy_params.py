"""Parameters of the policy node that stand for objects: where chunks are computed, and how late the cell is."""

from __future__ import annotations

from rclpy.node import Node

from calibration.files import load_calibration
from robot_rl.deploy.providers import SHORT, Providers
from robot_rl.latency_calibration import LatencyCalibration
from robot_rl_ros.params import declare


def declare_providers(node: Node) -> Providers:
    """Declare `providers.*`, those of `Providers`, and return what they say; a correction is computed as by default.

    Raises:
        ConfigError: An unknown name, or a setting of a provider that is not among the names.
    """
    names = declare(
        node, "providers.names", (list[str],), "in order of preference, empty for the fastest there is",
        choices=sorted(SHORT),
    )  # fmt: skip
    cache = declare(node, "providers.engine_cache", "", "folder of TensorRT's engines; empty builds them at each start")
    return Providers(
        names=names or None,
        engine_cache=cache or None,
        cuda_graph=declare(node, "providers.cuda_graph", False, "record the kernels of a call and replay them"),
        fp16=declare(node, "providers.fp16", False, "half precision in TensorRT"),
        spinning=declare(node, "providers.spinning", False, "ONNX Runtime's threads spin while they wait"),
    )


def declare_latency(node: Node) -> LatencyCalibration:
    """Declare `latency_file` and return what it says; nothing is late without one.

    Raises:
        CalibrationError: It cannot be read or is none of latencies.
    """
    path = declare(node, "latency_file", "", "latency calibration of the cell the policy was trained with")
    return LatencyCalibration.from_file(load_calibration(path, kind="latency")) if path else LatencyCalibration()
