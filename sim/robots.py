"""What the simulation must know about a robot's MJCF: names, home, speed limits, gripper. Our own arm, or any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import mujoco

from robot_rl.errors import ConfigError
from robot_rl.hardware.kinematics import Kinematics

ROBOT_PREFIX = "robot/"
"""What the names of a robot's file carry in a scene, so that they cannot meet the names of objects."""

ARM7_MJCF = Path(__file__).parent / "assets" / "arm7.xml"


@dataclass(frozen=True, kw_only=True)
class Gripper:
    """A parallel gripper driven by one position actuator; width is linear in one joint and in the control value.

    Args:
        actuator: Name of the actuator.
        joint: Joint that shows the opening.
        finger_bodies: Bodies that must both touch a thing to hold it.
        joint_range: Joint value when closed and when open.
        ctrl_range: Control value when closed and when open (for a Robotiq 2F-85: 255, 0).
        max_width_m: Opening when open.
        max_speed_m_s: Fastest change of the opening.
    """

    actuator: str
    joint: str
    finger_bodies: tuple[str, str]
    joint_range: tuple[float, float]
    ctrl_range: tuple[float, float]
    max_width_m: float
    max_speed_m_s: float = 0.1


@dataclass(frozen=True, kw_only=True)
class RobotModel:
    """An MJCF file and what the names in it mean.

    Args:
        name: The robot's name, as recordings carry it.
        mjcf: The model file; the arm's base is at the world's origin, z up.
        joints: Arm joints, base to tool.
        actuators: Position actuator of each joint (control value = target angle).
        home: Start pose [rad].
        velocity_limit: Fastest speed of each joint [rad/s]; targets are clamped to it.
        acceleration_limit: Fastest change of speed [rad/s^2]; for planners and safety filters, not clamped here.
        tcp: Tool frame, z pointing out of the gripper and y along the fingers' motion: a site of the model, or the
            name to give to a new one at `tcp_pos` and `tcp_quat` in `tcp_body`.
        tcp_body: Body that gets the new site; empty when `tcp` is already there.
        tcp_pos: Its position [m].
        tcp_quat: Its orientation (w, x, y, z).
        gripper: The gripper, or `None`.
        gravity_compensation: The controller cancels the arm's own weight, as real ones do.
    """

    name: str
    mjcf: Path
    joints: tuple[str, ...]
    actuators: tuple[str, ...]
    home: tuple[float, ...]
    velocity_limit: tuple[float, ...]
    acceleration_limit: tuple[float, ...] = ()
    tcp: str = "tcp"
    tcp_body: str = ""
    tcp_pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tcp_quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    gripper: Gripper | None = None
    gravity_compensation: bool = True

    def __post_init__(self) -> None:
        n = len(self.joints)
        for name in ("actuators", "home", "velocity_limit"):
            if len(getattr(self, name)) != n:
                raise ConfigError(
                    f"robot `{self.name}`: {name} must have one entry per joint ({n}), got {len(getattr(self, name))}"
                )

    def spec(self) -> mujoco.MjSpec:
        """Return the editable model, with the tool frame in it and without keyframes.

        Raises:
            ConfigError: The file is missing, is no model, or lacks a name given here.
        """
        if not self.mjcf.is_file():
            raise ConfigError(f"robot `{self.name}`: no model at {self.mjcf}; `robot.model` must be an MJCF file")
        spec = _read(self.mjcf)
        for key in list(spec.keys):  # their length no longer fits once objects join the robot
            spec.delete(key)
        if self.tcp_body:
            self._need(self.tcp_body, [body.name for body in spec.bodies], "body")
            site = {"name": self.tcp, "pos": self.tcp_pos, "quat": self.tcp_quat}
            spec.body(self.tcp_body).add_site(**site, rgba=(0.0, 0.0, 0.0, 0.0))
        self._check_names(spec)
        if self.gravity_compensation:
            for body in spec.bodies[1:]:
                body.gravcomp = 1.0
        return spec

    def kinematics(self) -> Kinematics:
        """Return forward and inverse kinematics of this arm."""
        return Kinematics(self.spec().compile(), joints=self.joints, site=self.tcp)

    def _check_names(self, spec: mujoco.MjSpec) -> None:
        gripper = self.gripper
        joints, actuators = list(self.joints), list(self.actuators)
        if gripper is not None:
            joints.append(gripper.joint)
            actuators.append(gripper.actuator)
            for body in gripper.finger_bodies:
                self._need(body, [b.name for b in spec.bodies], "body")
        for name in joints:
            self._need(name, [j.name for j in spec.joints], "joint")
        for name in actuators:
            self._need(name, [a.name for a in spec.actuators], "actuator")
        self._need(self.tcp, [s.name for s in spec.sites], "site")

    def _need(self, name: str, there: list[str], what: str) -> None:
        if name not in there:
            raise ConfigError(f"robot `{self.name}`: {self.mjcf.name} has no {what} `{name}`; it has {there}")


_PANDA_JOINTS = tuple(f"joint{i}" for i in range(1, 8))
# Tool pointing down, 0.27 m above the table.
_PANDA_HOME = (0.0, -0.30975, 0.0, -2.56455, 0.0, 2.2548, 0.7853981633974483)
_PANDA_LIMITS: dict[str, Any] = {
    "velocity_limit": (2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    "acceleration_limit": (15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0),
}

ARM7 = RobotModel(
    name="arm7",
    mjcf=ARM7_MJCF,
    joints=_PANDA_JOINTS,
    actuators=_PANDA_JOINTS,
    home=_PANDA_HOME,
    gripper=Gripper(
        actuator="gripper",
        joint="finger_left",
        finger_bodies=("finger_left", "finger_right"),
        joint_range=(0.0, 0.04),
        ctrl_range=(0.0, 0.08),
        max_width_m=0.08,
    ),
    **_PANDA_LIMITS,
)
"""Our own arm with the Franka Panda's kinematics, limits and inertias."""

PANDA = RobotModel(
    name="panda",
    mjcf=Path("panda.xml"),
    joints=_PANDA_JOINTS,
    actuators=tuple(f"actuator{i}" for i in range(1, 8)),
    home=_PANDA_HOME,
    tcp_body="hand",
    tcp_pos=(0.0, 0.0, 0.1034),
    gripper=Gripper(
        actuator="actuator8",
        joint="finger_joint1",
        finger_bodies=("left_finger", "right_finger"),
        joint_range=(0.0, 0.04),
        ctrl_range=(0.0, 255.0),
        max_width_m=0.08,
    ),
    **_PANDA_LIMITS,
)
"""Names in mujoco_menagerie's `franka_emika_panda/panda.xml`; use it as `load_robot("<path>/panda.xml")`."""

_KNOWN = {"arm7": ARM7, "panda": PANDA}


def load_robot(model: str = "arm7", **settings: Any) -> RobotModel:
    """Return a robot by name or by the path of an MJCF file.

    A file whose `<mujoco model="...">` name is known (`panda`, as in mujoco_menagerie) needs no more; any other needs
    the fields of `RobotModel` as settings. Settings given always win.

    Args:
        model: `arm7`, or the path of an MJCF file.
        **settings: Fields of `RobotModel`; `gripper` may be a mapping of `Gripper`'s fields.

    Raises:
        ConfigError: No such robot or file, or a setting is missing or unknown.
    """
    settings = _tuples(settings)
    unknown = sorted(set(settings) - {field.name for field in fields(RobotModel)})
    if unknown:
        raise ConfigError(f"a robot has no setting {unknown}; it has {[f.name for f in fields(RobotModel)]}")
    if isinstance(settings.get("gripper"), Mapping):
        settings["gripper"] = _gripper(settings["gripper"])
    if model == "arm7":
        return replace(ARM7, **settings)
    path = Path(model).expanduser()
    if not path.is_file():
        raise ConfigError(f"`robot.model` must be 'arm7' or the path of an MJCF file, got {model!r}")
    file_spec = _read(path)
    if file_spec.modelname in _KNOWN:
        return replace(_KNOWN[file_spec.modelname], **{"mjcf": path, **settings})
    try:
        return RobotModel(**{"name": file_spec.modelname, "mjcf": path, **settings})
    except TypeError as error:
        raise ConfigError(
            f"robot.model={path} is not a robot known by name, so its settings must be given: {error}; "
            f"its joints are {[j.name for j in file_spec.joints]}, its actuators "
            f"{[a.name for a in file_spec.actuators]}, its bodies {[b.name for b in file_spec.bodies]}"
        ) from error


def _read(path: Path) -> mujoco.MjSpec:
    """Parse a model file.

    Raises:
        ConfigError: MuJoCo cannot read it.
    """
    try:
        return mujoco.MjSpec.from_file(str(path))
    except (ValueError, mujoco.FatalError) as error:
        raise ConfigError(f"{path} is not a model MuJoCo can read: {error}") from error


def _gripper(settings: Mapping[str, Any]) -> Gripper:
    try:
        return Gripper(**_tuples(settings))
    except TypeError as error:
        raise ConfigError(f"`gripper`: {error}; it has {[field.name for field in fields(Gripper)]}") from error


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn sequences, as YAML gives them, into tuples."""
    is_list = {key: isinstance(value, Sequence) and not isinstance(value, str) for key, value in settings.items()}
    return {key: tuple(value) if is_list[key] else value for key, value in settings.items()}
