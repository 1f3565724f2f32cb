"""The graph `finetune`: a policy drives the arm and is made better while it does.

In the policy node's place stands the actor (`robot-rl finetune finetune.role=actor` on `ros_env.RosEnv`): base, newest
accepted correction, exploration. It appends what it lived through to the run's store, from which the learner, a program
of its own with less of the processor, learns. Neither can harm the arm: supervisor and safety node are between. If the
learner dies, the actor plays on with the last weights; if the actor dies, nobody commands and the arm holds.
"""

from __future__ import annotations

from pathlib import Path

from robot_rl_ros.arm_parts import COMMON, EPISODES, SIM, TELEOP, arm, recorder, supervisor, teleop
from robot_rl_ros.graphs import NONE, Argument, Graph, Process, Value, Values, config_file

_RESET_BY_HAND_S, _RESET_S = 3600.0, 60.0
_LEARNER_NICE = 10

ARGUMENTS = (
    Argument(name="out", default=str, help="the run's folder, as of `robot-rl finetune`; given again, it continues"),
    Argument(name="demonstrations", default=str, help="store of demonstrations, recorded with this recorder_config"),
    Argument(name="base", default="", help="the frozen policy, a bundle or a training run; empty: learn from scratch"),
    Argument(name="algo", default="residual", help="what learns: a file of configs/algo"),
    Argument(name="task_config", default="lift", help="the task's observations and actions: a file of configs/task"),
    Argument(name="steps", default=30000, low=1, help="control steps of the run"),
    Argument(name="settings", default="", help="further settings of `robot-rl finetune`, with spaces between"),
    Argument(name="store", default="", help="where to record all streams at their own rates, too; empty for nowhere"),
    Argument(name="teleop", default=NONE, choices=(*TELEOP, NONE), help="device that may take over"),
    Argument(name="success_object", default="cube_pose", help="simulated: what must rise; none: an operator says"),
    Argument(name="success_rise_m", default=0.11, low=0.001, high=10.0, help="simulated: how far it must rise [m]"),
    Argument(name="max_age_s", default=0.2, low=0.01, high=10.0, help="oldest observation that the actor takes [s]"),
    Argument(name="speed", default=0.5, low=0.01, high=1.0, help="share of the speed limits that a real arm may use"),
    Argument(name="override_base", default="", help="id of the one base that may move hardware unvalidated"),
)  # fmt: skip


def _quoted(value: Value) -> str:
    """Return a value as Hydra reads it back: text in quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _nested(values: dict[str, Value | dict[str, Value]]) -> str:
    """Return a mapping as Hydra reads it back."""
    words = (f"{key}:{_nested(value) if isinstance(value, dict) else _quoted(value)}" for key, value in values.items())  # type: ignore[arg-type]
    return "{" + ",".join(words) + "}"


def _environment(values: Values) -> str:
    """Return the arm behind topics as the environment of a task."""
    simulated = values["robot"] == SIM
    env: dict[str, Value | dict[str, Value]] = {
        "_target_": "robot_rl_ros.ros_env.RosEnv",
        "plan": str(config_file(str(values["recorder_config"]))),
        "namespace": str(values["namespace"]).strip("/"),
        "seed_node": "sim_robot" if simulated and values["auto_reset"] else "",
        "max_age_s": values["max_age_s"],
        "timeout_s": _RESET_S if simulated and values["auto_reset"] else _RESET_BY_HAND_S,
    }
    if simulated and values["success_object"]:
        env["succeeded"] = {
            "_target_": "robot_rl.teleop.scripted.RaisedBy",
            "obs_name": values["success_object"],
            "height_m": values["success_rise_m"],
        }
    return _nested(env)


def _program(values: Values, role: str, *, nice: int = 0) -> Process:
    """Return one role of `robot-rl finetune`."""
    words = [
        "finetune", f"task={values['task_config']}", f"algo={values['algo']}",
        "~task.env", f"+task.env={_environment(values)}", f"task.description={_quoted(values['task'])}",
        f"store={_quoted(_absolute(values['demonstrations']))}", f"finetune.out={_quoted(_absolute(values['out']))}",
        f"finetune.role={role}", f"finetune.steps={values['steps']}", "finetune.max_ahead=null",
        f"finetune.first_seed={values['seed']}",
        f"finetune.hardware={_quoted(values['robot'] != SIM)}", f"finetune.override={_quoted(values['override_base'])}",
    ]  # fmt: skip
    if values["base"]:
        words.append(f"base={_quoted(_absolute(values['base']))}")
    words += str(values["settings"]).split()
    return Process(name=role, module="robot_rl.cli.main", arguments=tuple(words), respawn=True, nice=nice)


def _absolute(path: Value) -> str:
    return str(Path(str(path)).absolute())


def _build(values: Values) -> tuple[Process, ...]:
    programs = (_program(values, "actor"), _program(values, "learner", nice=_LEARNER_NICE))
    return (*arm(values), supervisor(values), *teleop(values), *recorder(values, source="policy"), *programs)


FINETUNE = Graph(
    name="finetune",
    help="a policy drives and learns; an operator takes over, says success and failure, and resets a real scene",
    arguments=(*ARGUMENTS, *COMMON, *EPISODES),
    build=_build,
)
