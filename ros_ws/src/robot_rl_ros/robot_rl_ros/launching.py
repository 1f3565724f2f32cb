"""A graph as a launch description. Only the launch files import this: it needs `launch` and `launch_ros`."""

from __future__ import annotations

import sys
from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
    TimerAction,
)
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from robot_rl_ros.arm_graphs import GRAPHS
from robot_rl_ros.environment import environment
from robot_rl_ros.graphs import Argument, Process

_RESPAWN_S = 1.0
_REFUSED = 2  # exit code of a request that was refused: again it would end the same way


def launch_description(name: str) -> LaunchDescription:
    """Return what starts the named graph; its arguments are checked when it starts."""
    graph = GRAPHS[name]

    def nodes(context: LaunchContext) -> list[ExecuteProcess]:
        given = {a.name: str(LaunchConfiguration(a.name).perform(context)) for a in graph.arguments}
        return [_program(p) if p.is_program else _node(p) for p in graph.processes(given)]

    variables = [SetEnvironmentVariable(key, value) for key, value in environment().items()]
    return LaunchDescription([*variables, *map(_declared, graph.arguments), OpaqueFunction(function=nodes)])


def _declared(argument: Argument) -> DeclareLaunchArgument:
    start = {} if argument.is_required else {"default_value": argument.default_text}
    choices = {"choices": list(argument.choices)} if argument.choices else {}
    description = f"{argument.help} ({argument.describe()})"
    return DeclareLaunchArgument(argument.name, description=description, **start, **choices)


def _program(process: Process) -> ExecuteProcess:
    """Return the action of a program that is no node; killed, it is started again, ended or refused, it is not."""

    def again(event: ProcessExited, context: LaunchContext) -> list[TimerAction]:
        if context.is_shutdown or not process.respawn or event.returncode in (0, _REFUSED):
            return []
        return [TimerAction(period=_RESPAWN_S, actions=[_program(process)])]

    return ExecuteProcess(cmd=process.command(""), name=process.name, output="screen", on_exit=again)


def _node(process: Process) -> Node:
    """Return the action; the interpreter is the executable, so that no install layout has to be found."""
    parameters: list[Any] = [process.config_path] if process.config else []
    if process.ros_parameters:
        parameters.append(process.ros_parameters)
    return Node(
        executable=sys.executable,
        exec_name=process.name,
        arguments=["-m", process.module],
        name=process.name,
        namespace=process.namespace,
        parameters=parameters,
        remappings=list(process.remappings.items()),
        respawn=process.respawn,
        respawn_delay=_RESPAWN_S,
        output="screen",
        on_exit=[Shutdown(reason=f"{process.name} ended")] if process.required and not process.respawn else None,
    )
