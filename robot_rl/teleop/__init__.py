"""Ways for a person (or a script in his place) to drive the arm, behind one protocol; see docs/teleop.md."""

from robot_rl.teleop.mapper import ArmKinematics, CartesianMapper, JointMapper, MapperLimits
from robot_rl.teleop.source import Event, Speeds, TeleopSource, TeleopState

__all__ = [
    "ArmKinematics",
    "CartesianMapper",
    "Event",
    "JointMapper",
    "MapperLimits",
    "Speeds",
    "TeleopSource",
    "TeleopState",
]
