"""Where the policy node's graphs are computed, as parameters: those of `robot_rl.deploy.providers.Providers`."""

from __future__ import annotations

from rclpy.node import Node

from robot_rl.deploy.providers import SHORT, Providers
from robot_rl_ros.params import declare


def declare_providers(node: Node) -> Providers:
    """Declare `providers.*` and return what they say.

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
