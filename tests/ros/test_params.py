"""A parameter that is missing, of another type or out of range refuses with its name, its range and its value."""

import pytest
from robot_rl_ros.params import declare

from robot_rl.errors import ConfigError


@pytest.fixture
def make_node(ros_context):
    from rclpy.node import Node

    nodes = []

    def make(**overrides) -> Node:
        from rclpy.parameter import Parameter

        values = [Parameter(name, value=value) for name, value in overrides.items()]
        nodes.append(Node(f"params_{len(nodes)}", parameter_overrides=values))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def test_values_given_and_defaults(make_node):
    node = make_node(rate=50.0, names=["a", "b"], whole=3, limits=[0, 1])
    assert declare(node, "rate", 100.0, "rate") == 50.0
    assert declare(node, "names", list[str], "names") == ["a", "b"]
    assert declare(node, "missing", 7, "count") == 7
    assert declare(node, "empty", (list[str],), "list") == []
    number = declare(node, "whole", 1.0, "a number")
    assert (number, type(number)) == (3.0, float)
    assert declare(node, "limits", list[float], "limits") == [0.0, 1.0]


@pytest.mark.parametrize(
    ("given", "default", "bounds", "text"),
    [
        ({}, float, {}, "is missing; give it in the parameter file or with -p p:=...; it is [m]"),
        ({"p": "x"}, float, {}, "must be float, got 'x'"),
        ({"p": True}, 1, {}, "must be int, got True"),
        ({"p": 1.5}, 1, {}, "must be int, got 1.5"),
        ({"p": 1.5}, "x", {}, "must be str, got 1.5"),
        ({"p": [1.0, -2.0]}, list[float], {"low": 0.0}, "must be from 0.0 to inf, got -2.0"),
        ({"p": float("nan")}, 1.0, {"low": 0.0, "high": 1.0}, "out of range Min: 0.0, Max: 1.0, value: nan"),
        ({"p": 9}, 1.0, {"high": 5.0}, "must be from -inf to 5.0, got 9.0"),
        ({"p": "c"}, "a", {"choices": ["a", "b"]}, "must be one of ['a', 'b'], got 'c'"),
    ],
)
def test_refusals(make_node, given, default, bounds, text):
    with pytest.raises(ConfigError) as refused:
        declare(make_node(**given), "p", default, "[m]", **bounds)
    assert "parameter `p` of node `params_0`" in str(refused.value)
    assert text in str(refused.value)


def test_descriptors_show_the_range_and_what_may_change(make_node):
    from rclpy.parameter import Parameter

    node = make_node()
    declare(node, "fixed", 1.0, "what it is", low=0.0, high=2.0)
    declare(node, "free", 1.0, "what it is", low=0.0, high=2.0, read_only=False)
    descriptor = node.describe_parameter("fixed")
    assert descriptor.description == "what it is"
    assert (descriptor.floating_point_range[0].from_value, descriptor.floating_point_range[0].to_value) == (0.0, 2.0)
    changed = node.set_parameters([Parameter(n, value=v) for n, v in (("fixed", 0.5), ("free", 3.0), ("free", 0.5))])
    assert [result.successful for result in changed] == [False, False, True]
    assert node.get_parameter("free").value == 0.5
