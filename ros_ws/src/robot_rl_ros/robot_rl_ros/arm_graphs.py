"""The graphs of one arm: `sim` (the arm and its guard), `collect` (an operator, recorded), `deploy` (a policy drives),
`finetune` (a policy drives and learns), and `calibrate` (one camera before a board), which runs beside another graph
where an arm has to move. Launch files and `python -m robot_rl_ros.up` start these same descriptions.
"""

from __future__ import annotations

from pathlib import Path

from robot_rl_ros.arm_parts import (
    COMMON,
    EPISODES,
    SCRIPTED,
    SIM,
    TELEOP,
    arm,
    node,
    recorder,
    supervisor,
    teleop,
)
from robot_rl_ros.calibrate_graph import CALIBRATE
from robot_rl_ros.finetune_graph import FINETUNE
from robot_rl_ros.graphs import NONE, Argument, Graph, Process, Value, Values, config_file

_COLLECT = (
    Argument(name="store", default=str, help="folder or URL of the episode store"),
    Argument(name="teleop", default="keyboard", choices=TELEOP, help="the operator's device"),
)
_DEPLOY = (
    Argument(name="bundle", default=str, help="policy bundle, or a folder of bundles of which the newest drives"),
    Argument(name="override_bundle", default="", help="id of the one bundle that may move hardware unvalidated"),
    Argument(name="observations", default="graph_observations.yaml", help="file: topic of each observation"),
    Argument(name="latency_file", default="", help="latency calibration of the cell the policy was trained with"),
    Argument(name="policy_seed", default=-1, low=-1, help="seed of the policy's noise; -1 takes one from the machine"),
    Argument(name="store", default="", help="where to record what the policy does; empty for nowhere"),
    Argument(name="teleop", default=NONE, choices=(*TELEOP, NONE), help="device that may take over"),
)


def _policy(values: Values) -> Process:
    parameters: dict[str, Value] = {
        "bundle": str(Path(str(values["bundle"])).absolute()),
        "observations": str(config_file(str(values["observations"]))),
        "hardware": values["robot"] != SIM,
        "override_bundle": values["override_bundle"],
        "latency_file": str(Path(str(values["latency_file"])).absolute()) if values["latency_file"] else "",
        "seed": values["policy_seed"],
    }
    return node("policy", values, config="policy.yaml", parameters=parameters, respawn=True)


def _sim(values: Values) -> tuple[Process, ...]:
    return tuple(arm(values))


def _collect(values: Values) -> tuple[Process, ...]:
    source = SCRIPTED if values["teleop"] == SCRIPTED else "human"
    return (*arm(values), supervisor(values), *teleop(values), *recorder(values, source=source))


def _deploy(values: Values) -> tuple[Process, ...]:
    return (*arm(values), supervisor(values), _policy(values), *teleop(values), *recorder(values, source="policy"))


GRAPHS = {
    "calibrate": CALIBRATE,
    "finetune": FINETUNE,
    "sim": Graph(name="sim", help="the simulated arm, its cameras and the safety node", arguments=COMMON, build=_sim),
    "collect": Graph(
        name="collect",
        help="an operator drives, every episode is recorded",
        arguments=(*_COLLECT, *COMMON, *EPISODES),
        build=_collect,
    ),
    "deploy": Graph(
        name="deploy",
        help="a policy bundle drives, an operator may take over, episodes are recorded where a store is given",
        arguments=(*_DEPLOY, *COMMON, *EPISODES),
        build=_deploy,
    ),
}
