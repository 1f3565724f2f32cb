"""What the arrays of a foreign replay buffer mean to a robot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from robot_rl.specs import ActionSpec, RobotSpec


@dataclass(frozen=True, kw_only=True)
class ObsSource:
    """Where an observation lies in the source.

    Args:
        key: Array under `data/`.
        columns: First and one past the last column of its last axis; `None` takes all.
        unit: SI unit, or `px`.
        image: Keep it as 8-bit pictures.
    """

    key: str
    columns: tuple[int, int] | None = None
    unit: str = ""
    image: bool = False


@dataclass(frozen=True, kw_only=True)
class ReplayLayout:
    """What the arrays of a replay buffer mean.

    Args:
        robot: Name of the robot.
        control_hz: Rate of the rows in hertz.
        obs: Source of each observation by name.
        action: What the action array commands; shape and dtype are those of the source.
        action_key: The action's array under `data/`.
        skip: Arrays to leave behind; an export will lack them.
        step_streams: Arrays that are the store's own streams of that name: `action_executed`, `reward`, `by_human`.
        task: The task in words.
        source: Who acted.
    """

    robot: str
    control_hz: float
    obs: Mapping[str, ObsSource]
    action: ActionSpec
    action_key: str = "action"
    skip: Sequence[str] = field(default=())
    step_streams: Sequence[str] = field(default=())
    task: str = ""
    source: str = "human"


def pusht_layout(*, images: bool = True) -> ReplayLayout:
    """Return the layout of diffusion_policy's PushT demonstrations.

    Args:
        images: Import the pictures as observation `image`; otherwise they are left behind.
    """
    obs = {
        "agent_pos": ObsSource(key="state", columns=(0, 2), unit="px"),
        "block_pose": ObsSource(key="state", columns=(2, 5), unit="px, px, rad"),
        "keypoint": ObsSource(key="keypoint", unit="px"),
    }
    if images:
        obs["image"] = ObsSource(key="img", image=True)
    action = ActionSpec(name="action", shape=(2,), unit="px", low=0.0, high=512.0, kind="position", frame="table")
    return ReplayLayout(
        robot="pusht", control_hz=10.0, obs=obs, action=action, skip=() if images else ("img",), task="pusht"
    )


def layout_of(spec: RobotSpec) -> ReplayLayout:
    """Return the layout of a buffer that was exported from a store of `spec`: arrays are called after the streams."""
    obs = {name: ObsSource(key=name, unit=stream.unit, image=stream.is_image) for name, stream in spec.obs.items()}
    return ReplayLayout(
        robot=spec.name, control_hz=spec.control_hz, obs=obs, action=spec.action,
        step_streams=("action_executed", "reward", "by_human"),
    )  # fmt: skip
