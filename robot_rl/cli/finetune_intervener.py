"""Builds who may take over in a fine-tuning run, as `intervener=` says: nobody, a simulated operator, or a person."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from robot_rl.cli.config import build
from robot_rl.cli.finetune_card import FinetuneCard
from robot_rl.errors import ConfigError
from robot_rl.imitation.checkpoint import CheckpointFolder, load_checkpoint, read_state
from robot_rl.rl.critic import QEnsemble
from robot_rl.rl.interveners import SimulatedOperator, TeleopIntervener
from robot_rl.rl.learner import CHECKPOINTS
from robot_rl.rl.value import action_value
from robot_rl.specs import RobotSpec
from robot_rl.teleop import CartesianMapper, JointMapper, MapperLimits
from robot_rl.teleop.scripted import ScriptedSource
from robot_rl.values import Obs


def make_intervener(config: DictConfig, spec: RobotSpec) -> TeleopIntervener | None:
    """Return who may take over, with an open device, or `None` for nobody.

    Raises:
        ConfigError: The task has no script, or its action is not joint targets.
        TeleopError: There is no such device.
    """
    chosen = config.intervener
    if chosen.name == "none":
        return None
    if spec.action.kind != "joint_position":
        raise ConfigError(
            f"intervener={chosen.name} drives arms by joint positions; `{config.task.name}` is commanded by "
            f"`{spec.action.kind}`, use intervener=none"
        )
    low, high = _ends(spec)
    grips = spec.action.gripper != "none"
    n_joints = len(low) - int(grips)
    limits = MapperLimits(gripper_width_m=float(high[-1]) if grips else 0.0)
    rest = list(config.task.rest)
    if "source" in chosen:
        source = build(chosen.source)
        source.open()
        mapper = CartesianMapper(build(config.robot).kinematics(), limits)
        return TeleopIntervener(
            source, mapper, rest=rest, has_gripper=grips, clock=lambda tick: time.monotonic_ns(),
            handover_s=float(chosen.handover_s), release_s=float(chosen.release_s),
        )  # fmt: skip
    if config.task.expert is None:
        raise ConfigError(f"intervener={chosen.name} needs a scripted expert; task `{config.task.name}` has none")
    script = ScriptedSource(build(chosen.script), n_joints=n_joints, control_hz=spec.control_hz)
    operator = SimulatedOperator(script, build(chosen.rule), n_steps=int(chosen.n_steps), seed=int(config.seed))
    joints = JointMapper(low[:n_joints], high[:n_joints], limits, relative=False)
    return TeleopIntervener(
        script, joints, rest=rest, has_gripper=grips, operator=operator, handover_s=0.0, release_s=0.0
    )


def run_value(folder: str) -> Callable[[Obs, np.ndarray], float]:
    """Return the value of an action, by the mean of a finished run's critics: for the rule that compares values.

    Raises:
        ConfigError: There is no such run, or it has saved nothing yet.
    """
    card = FinetuneCard.load(folder)
    algorithm = card.build_algorithm(0)
    path = CheckpointFolder(Path(folder) / CHECKPOINTS).find("last")
    if path is None:
        raise ConfigError(f"{folder} holds no checkpoint of a critic; finish `robot-rl finetune` there first")
    load_checkpoint(path, model=algorithm.agent, ema=algorithm.policy, expected_config=read_state(path)["config"])
    critic = getattr(algorithm.agent, "critic", None)
    if not isinstance(critic, QEnsemble):
        raise ConfigError(f"{folder} was learned by `{card.algo['name']}`, which has no critic of single actions")
    return action_value(critic, card.scaler(), card.names)


def _ends(spec: RobotSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest action [A]."""
    if spec.action.low is None or spec.action.high is None:
        raise ConfigError(f"robot `{spec.name}` has no limits on its action; an operator's commands need them")
    shape = spec.action.shape
    return np.broadcast_to(spec.action.low, shape), np.broadcast_to(spec.action.high, shape)
