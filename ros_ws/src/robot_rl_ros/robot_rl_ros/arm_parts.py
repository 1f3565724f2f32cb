"""What graphs of one arm have in common: their arguments, and the processes of arm, operator, supervisor and recorder.

What belongs to a robot (limits, names, streams) is in the parameter files of `config/`, which an argument can replace;
arguments change what changes per run.
"""

from __future__ import annotations

from pathlib import Path

from robot_rl.errors import ConfigError
from robot_rl_ros.graphs import NONE, Argument, Process, Value, Values

SIM, SCRIPTED = "sim", "scripted"
TELEOP = ("keyboard", "gamepad", "spacemouse", "leader", SCRIPTED)

COMMON = (
    Argument(name="namespace", default="arm", help="namespace of all nodes: one per robot"),
    Argument(
        name="robot", default=SIM, choices=(SIM, "external"),
        help="sim: the simulated arm; external: a driver elsewhere takes `command`, or the safety node's output",
    ),
    Argument(name="cameras", default="front,wrist", help="names of the cameras, with commas; or none"),
    Argument(name="seed", default=0, low=0, help="seed of the first simulated reset; counts up with each"),
    Argument(name="safety_config", default="safety.yaml", help="parameter file of the safety node: all limits"),
    Argument(name="robot_config", default="sim_robot.yaml", help="parameter file of the simulated arm"),
    Argument(name="image_width", default=96, low=8, high=4096, help="columns of a simulated picture [px]"),
    Argument(name="image_height", default=96, low=8, high=4096, help="rows of a simulated picture [px]"),
    Argument(
        name="camera_config", default="",
        help="parameter file of real or recorded cameras (`/**/camera_front` in it is one of them); empty: simulated",
    ),
)  # fmt: skip
EPISODES = (
    Argument(name="task", default="lift the cube", help="what is attempted, in words"),
    Argument(name="max_episode_s", default=60.0, low=0.1, high=86400.0, help="an episode ends with timeout after [s]"),
    Argument(name="auto_reset", default=True, help="the simulated scene resets itself between episodes"),
    Argument(name="supervisor_config", default="supervisor.yaml", help="parameter file of the supervisor"),
    Argument(name="recorder_config", default="recorder_lift.yaml", help="parameter file of the recorder: its streams"),
    Argument(name="teleop_config", default="", help="parameter file of the teleoperation node; empty: by device"),
    Argument(name="script", default="sim.expert.LiftExpert", help="who drives when teleop is scripted: a Python path"),
    Argument(name="script_seed", default=0, low=0, help="its seed"),
    Argument(name="episodes", default=0, low=-1, help="how many episodes a script starts; 0: none, -1: endless"),
)


def node(kind: str, values: Values, *, name: str = "", config: Value = "", **more: object) -> Process:
    """Return a node of this package under the graph's namespace."""
    namespace = f"/{str(values['namespace']).strip('/')}"
    module = f"robot_rl_ros.{kind}_node"
    return Process(name=name if name else kind, module=module, namespace=namespace, config=str(config), **more)  # type: ignore[arg-type]


def _cameras(values: Values) -> list[str]:
    names = [name.strip() for name in str(values["cameras"]).split(",") if name.strip()]
    if bad := [name for name in names if not name.isidentifier()]:
        raise ConfigError(f"argument `cameras` must be names with commas between them, got {bad}")
    return names


def arm(values: Values) -> list[Process]:
    """Return the arm, its cameras and its guard. A camera that dies comes back; without a guard nothing goes on."""
    names = _cameras(values)
    guarded: dict[str, object] = {"watch_cameras": [f"{name}/color/camera_info" for name in names]}
    if "speed" in values and values["robot"] != SIM:
        guarded["speed_share"] = values["speed"]
    nodes = [node("safety", values, config=values["safety_config"], parameters=guarded, required=True)]
    if values["robot"] == SIM:
        seed = {"seed": values["seed"]}
        nodes.append(node("sim_robot", values, config=values["robot_config"], parameters=seed, required=True))
    nodes.extend(_camera(values, name) for name in names)
    return nodes


def _camera(values: Values, name: str) -> Process:
    config = values["camera_config"]
    if not config and values["robot"] != SIM:
        raise ConfigError(
            "argument `camera_config` is missing: a real arm has real cameras; give a parameter file such as "
            "camera_realsense.yaml, or cameras:=none"
        )
    parameters: dict[str, Value] = {"camera": name}
    if config:
        return node("camera", values, name=f"camera_{name}", config=config, parameters=parameters, respawn=True)
    parameters |= {"width": values["image_width"], "height": values["image_height"]}
    return node(
        "sim_camera", values, name=f"camera_{name}", config="camera_sim.yaml", parameters=parameters, respawn=True
    )


def supervisor(values: Values) -> Process:
    """Return who decides who drives, and resets the simulated scene."""
    parameters: dict[str, Value] = {"task": values["task"], "max_episode_s": values["max_episode_s"]}
    if values["robot"] == SIM and values["auto_reset"]:
        parameters |= {"reset_service": "sim_robot/reset", "auto_reset": True}
    if values["store"]:
        parameters["needs_recorder"] = True
    return node("supervisor", values, config=values["supervisor_config"], parameters=parameters, respawn=True)


def teleop(values: Values) -> list[Process]:
    """Return the operator's device, if there is one."""
    if values["teleop"] == NONE:
        return []
    parameters: dict[str, Value] = {"source": values["teleop"]}
    scripted = values["teleop"] == SCRIPTED
    if scripted:
        parameters |= {"target": values["script"], "episodes": values["episodes"], "seed": values["script_seed"]}
    config, terminal = values["teleop_config"], values["teleop"] == "keyboard"
    if not config:
        config = "teleop_scripted.yaml" if scripted else "teleop.yaml"
    return [node("teleop", values, config=config, parameters=parameters, respawn=True, terminal=terminal)]


def recorder(values: Values, *, source: str) -> list[Process]:
    """Return the recorder, if there is a store."""
    if not values["store"]:
        return []
    parameters = {"store": str(Path(str(values["store"])).absolute()), "task": values["task"], "source": source}
    return [node("recorder", values, config=values["recorder_config"], parameters=parameters, respawn=True)]
