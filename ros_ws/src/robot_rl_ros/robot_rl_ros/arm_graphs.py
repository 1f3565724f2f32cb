"""The graphs of one arm: `sim` (the arm and its guard), `collect` (an operator, recorded), `deploy` (a policy drives),
and `calibrate` (one camera before a board), which runs beside another graph where an arm has to move.

Launch files and `python -m robot_rl_ros.up` start these same descriptions. What belongs to a robot (limits, names,
streams) is in the parameter files of `config/`, which an argument can replace; arguments change what changes per run.
"""

from __future__ import annotations

from pathlib import Path

from robot_rl.errors import ConfigError
from robot_rl_ros.calibrate_graph import CALIBRATE
from robot_rl_ros.graphs import Argument, Graph, Process, Value, Values, config_file

_SIM, _NONE, _SCRIPTED = "sim", "none", "scripted"
_TELEOP = ("keyboard", "gamepad", "spacemouse", "leader", _SCRIPTED)

_COMMON = (
    Argument(name="namespace", default="arm", help="namespace of all nodes: one per robot"),
    Argument(
        name="robot", default=_SIM, choices=(_SIM, "external"),
        help="sim: the simulated arm; external: a driver elsewhere takes `command`, or the safety node's output",
    ),
    Argument(name="cameras", default="front,wrist", help="names of the cameras, with commas; empty for none"),
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
_EPISODES = (
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
_COLLECT = (
    Argument(name="store", default=str, help="folder or URL of the episode store"),
    Argument(name="teleop", default="keyboard", choices=_TELEOP, help="the operator's device"),
)
_DEPLOY = (
    Argument(name="bundle", default=str, help="policy bundle, or a folder of bundles of which the newest drives"),
    Argument(name="override_bundle", default="", help="id of the one bundle that may move hardware unvalidated"),
    Argument(name="observations", default="graph_observations.yaml", help="file: topic of each observation"),
    Argument(name="latency_file", default="", help="latency calibration of the cell the policy was trained with"),
    Argument(name="policy_seed", default=-1, low=-1, help="seed of the policy's noise; -1 takes one from the machine"),
    Argument(name="store", default="", help="where to record what the policy does; empty for nowhere"),
    Argument(name="teleop", default=_NONE, choices=(*_TELEOP, _NONE), help="device that may take over"),
)


def _process(kind: str, values: Values, *, name: str = "", config: Value = "", **more: object) -> Process:
    """Return a node of this package under the graph's namespace."""
    namespace = f"/{str(values['namespace']).strip('/')}"
    module = f"robot_rl_ros.{kind}_node"
    return Process(name=name if name else kind, module=module, namespace=namespace, config=str(config), **more)  # type: ignore[arg-type]


def _cameras(values: Values) -> list[str]:
    names = [name.strip() for name in str(values["cameras"]).split(",") if name.strip()]
    if bad := [name for name in names if not name.isidentifier()]:
        raise ConfigError(f"argument `cameras` must be names with commas between them, got {bad}")
    return names


def _arm(values: Values) -> list[Process]:
    """Return the arm, its cameras and its guard. A camera that dies comes back; without a guard nothing goes on."""
    names = _cameras(values)
    watched = [f"{name}/color/camera_info" for name in names]
    nodes = [
        _process("safety", values, config=values["safety_config"], parameters={"watch_cameras": watched}, required=True)
    ]
    if values["robot"] == _SIM:
        seed = {"seed": values["seed"]}
        nodes.append(_process("sim_robot", values, config=values["robot_config"], parameters=seed, required=True))
    nodes.extend(_camera(values, name) for name in names)
    return nodes


def _camera(values: Values, name: str) -> Process:
    config = values["camera_config"]
    if not config and values["robot"] != _SIM:
        raise ConfigError(
            "argument `camera_config` is missing: a real arm has real cameras; give a parameter file such as "
            "camera_realsense.yaml, or cameras:= for none"
        )
    parameters: dict[str, Value] = {"camera": name}
    if config:
        return _process("camera", values, name=f"camera_{name}", config=config, parameters=parameters, respawn=True)
    parameters |= {"width": values["image_width"], "height": values["image_height"]}
    return _process(
        "sim_camera", values, name=f"camera_{name}", config="camera_sim.yaml", parameters=parameters, respawn=True
    )


def _supervisor(values: Values) -> Process:
    parameters: dict[str, Value] = {"task": values["task"], "max_episode_s": values["max_episode_s"]}
    if values["robot"] == _SIM and values["auto_reset"]:
        parameters |= {"reset_service": "sim_robot/reset", "auto_reset": True}
    if values["store"]:
        parameters["needs_recorder"] = True
    return _process("supervisor", values, config=values["supervisor_config"], parameters=parameters, respawn=True)


def _teleop(values: Values) -> list[Process]:
    if values["teleop"] == _NONE:
        return []
    parameters: dict[str, Value] = {"source": values["teleop"]}
    scripted = values["teleop"] == _SCRIPTED
    if scripted:
        parameters |= {"target": values["script"], "episodes": values["episodes"], "seed": values["script_seed"]}
    config, terminal = values["teleop_config"], values["teleop"] == "keyboard"
    if not config:
        config = "teleop_scripted.yaml" if scripted else "teleop.yaml"
    return [_process("teleop", values, config=config, parameters=parameters, respawn=True, terminal=terminal)]


def _recorder(values: Values, *, source: str) -> list[Process]:
    if not values["store"]:
        return []
    parameters = {"store": str(Path(str(values["store"])).absolute()), "task": values["task"], "source": source}
    return [_process("recorder", values, config=values["recorder_config"], parameters=parameters, respawn=True)]


def _policy(values: Values) -> Process:
    parameters: dict[str, Value] = {
        "bundle": str(Path(str(values["bundle"])).absolute()),
        "observations": str(config_file(str(values["observations"]))),
        "hardware": values["robot"] != _SIM,
        "override_bundle": values["override_bundle"],
        "latency_file": str(Path(str(values["latency_file"])).absolute()) if values["latency_file"] else "",
        "seed": values["policy_seed"],
    }
    return _process("policy", values, config="policy.yaml", parameters=parameters, respawn=True)


def _sim(values: Values) -> tuple[Process, ...]:
    return tuple(_arm(values))


def _collect(values: Values) -> tuple[Process, ...]:
    source = _SCRIPTED if values["teleop"] == _SCRIPTED else "human"
    return (*_arm(values), _supervisor(values), *_teleop(values), *_recorder(values, source=source))


def _deploy(values: Values) -> tuple[Process, ...]:
    recorder = _recorder(values, source="policy")
    return (*_arm(values), _supervisor(values), _policy(values), *_teleop(values), *recorder)


GRAPHS = {
    "calibrate": CALIBRATE,
    "sim": Graph(name="sim", help="the simulated arm, its cameras and the safety node", arguments=_COMMON, build=_sim),
    "collect": Graph(
        name="collect",
        help="an operator drives, every episode is recorded",
        arguments=(*_COLLECT, *_COMMON, *_EPISODES),
        build=_collect,
    ),
    "deploy": Graph(
        name="deploy",
        help="a policy bundle drives, an operator may take over, episodes are recorded where a store is given",
        arguments=(*_DEPLOY, *_COMMON, *_EPISODES),
        build=_deploy,
    ),
}
